"""What the verbs share: the options --json, --seed, --out, --resume, JSON on stdout, progress on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mightnt.files import plain

if TYPE_CHECKING:
    from mightnt.watching import Watcher

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else there.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Fixes every random choice.")]
Out = Annotated[Path, typer.Option("--out", help="The folder to write to; it is made if need be.", file_okay=False)]
Device = Annotated[str, typer.Option("--device", help="Where the networks are: cpu, or a GPU as torch calls it, cuda.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an earlier run into the same folder stopped.")]


def print_json(value: Any) -> None:
    """Print ``value`` as JSON on stdout; infinities are the strings inf and -inf."""
    typer.echo(json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False))


@contextlib.contextmanager
def progress() -> Iterator[Watcher]:
    """A watcher (began, moved, ended) that shows on stderr: bars on a terminal, else a line for each finished piece."""
    from rich import progress as rich
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines()
        return
    columns = rich.TextColumn("{task.description}"), rich.BarColumn(), rich.MofNCompleteColumn()
    with rich.Progress(*columns, rich.TimeElapsedColumn(), rich.TimeRemainingColumn(), console=console) as shown:
        yield Bars(shown)


class Bars:
    """One bar for each piece, in the order in which they are first heard of."""

    def __init__(self, shown: Any) -> None:
        self.shown = shown
        self.tasks: dict[str, Any] = {}

    def began(self, name: str) -> None:
        """Show a bar of unknown length."""
        if name not in self.tasks:
            self.tasks[name] = self.shown.add_task(name, total=None)

    def moved(self, name: str, done: int, of: int) -> None:
        """Move the bar."""
        self.began(name)
        self.shown.update(self.tasks[name], completed=done, total=of)

    def ended(self, name: str, reused: bool) -> None:
        """Fill the bar."""
        self.began(name)
        total = next(task.total for task in self.shown.tasks if task.id == self.tasks[name]) or 1
        words = f"{name} (was there)" if reused else name
        self.shown.update(self.tasks[name], completed=total, total=total, description=words)


class Lines:
    """``NAME: 51 s`` for each finished piece: for logs."""

    def __init__(self) -> None:
        self.started: dict[str, float] = {}

    def began(self, name: str) -> None:
        """Start the clock."""
        self.started.setdefault(name, time.monotonic())

    def moved(self, name: str, done: int, of: int) -> None:
        """Say nothing."""
        self.began(name)

    def ended(self, name: str, reused: bool) -> None:
        """Print the line; a piece of the same name that comes later has a clock of its own."""
        self.began(name)
        seconds = time.monotonic() - self.started.pop(name)
        words = "was there" if reused else f"{seconds:.0f} s"
        print(f"{name}: {words}", file=sys.stderr, flush=True)
