"""Progress of many runs: one bar for the whole with the time left, and one for each run at work; lines where no terminal is."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mightnt.cli.options import Lines

if TYPE_CHECKING:
    from mightnt.experiments.sweep.sweep import SweepWatcher


def in_words(seconds: float) -> str:
    """``2 h 10 min``, ``25 min``, ``40 s``: no more exact than an estimate is."""
    if seconds < 90:
        return f"{max(0.0, seconds):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextlib.contextmanager
def overall_progress() -> Iterator[SweepWatcher]:
    """A watcher of the whole on stderr."""
    from rich import progress as rich
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield OverallLines()
        return
    columns = rich.TextColumn("{task.description}"), rich.BarColumn(), rich.TextColumn("{task.fields[words]}")
    with rich.Progress(*columns, rich.TimeElapsedColumn(), console=console) as shown:
        yield OverallBars(shown)


class OverallBars:
    """The whole on top; below it what runs now. What has ended goes."""

    def __init__(self, shown: Any) -> None:
        self.shown = shown
        self.whole = shown.add_task("all runs", total=None, words="")
        self.tasks: dict[str, Any] = {}

    def began(self, name: str) -> None:
        """Show a bar of unknown length."""
        if name not in self.tasks:
            self.tasks[name] = self.shown.add_task(name, total=None, words="")

    def moved(self, name: str, done: int, of: int) -> None:
        """Move the bar."""
        self.began(name)
        self.shown.update(self.tasks[name], completed=done, total=of, words=f"{done}/{of}")

    def ended(self, name: str, reused: bool) -> None:
        """Take the bar away."""
        if name in self.tasks:
            self.shown.remove_task(self.tasks.pop(name))

    def overall(self, done: int, of: int, seconds_left: float) -> None:
        """Move the bar of the whole."""
        words = f"{done}/{of} runs, about {in_words(seconds_left)} left"
        self.shown.update(self.whole, completed=done, total=of, words=words)


class OverallLines(Lines):
    """``NAME: 51 s`` for each finished piece, and after it how far the whole is: for logs."""

    def overall(self, done: int, of: int, seconds_left: float) -> None:
        """Print the line."""
        print(f"{done} of {of} runs, about {in_words(seconds_left)} left", file=sys.stderr, flush=True)
