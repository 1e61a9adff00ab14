"""Somebody who watches long work: a terminal, a log, a test."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Told when a named piece of work begins, moves and ends."""

    def began(self, name: str) -> None:
        """A piece of work started."""

    def moved(self, name: str, done: int, of: int) -> None:
        """It is this far."""

    def ended(self, name: str, reused: bool) -> None:
        """It is whole; ``reused``: it was there already."""
