"""``mightnt theory NAME...``: the theorems computed, as a page, a table and a record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mightnt.cli.options import Json, Out, Resume, Seed, print_json, progress

if TYPE_CHECKING:
    from collections.abc import Mapping


def theory(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="all, or any of P1, T1, T1-machine, P2, T2, T3, weaker, simplicity.",
            show_default="all",
        ),
    ] = None,
    profile: Annotated[str, typer.Option("--profile", help="quick (seconds) or default (minutes).")] = "default",
    out: Out = Path("runs/theory"),
    seed: Seed = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes at a time, one thread each.")] = 2,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Compute the theorems: write theory.html, theory.md and theory.json, print every number with its kind."""
    from mightnt.experiments.theory.book import write_book

    with progress() as watcher:
        record = write_book(out, names or ["all"], profile, seed, watcher, resume, workers)
    if json:
        print_json(record)
    else:
        show(record, out / "theory.html")


def show(record: Mapping[str, Any], page: Path) -> None:
    """Print a table for each chapter, and where the page is."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from mightnt.cli.audit import MARKS, WIDTH_ELSEWHERE
    from mightnt.experiments.theory.book import chapter, interval, shown
    from mightnt.experiments.theory.theorem import Computed

    marks = {None: "", True: MARKS["kept"], False: MARKS["broken"]}
    console = Console(highlight=False, width=None if Console().is_terminal else WIDTH_ELSEWHERE)
    for name, value in record["chapters"].items():
        table = Table(title=f"{name}. {chapter(name).title}", title_justify="left", box=None, pad_edge=False)
        for column in ("", "claim or quantity", "number", "kind", "interval, or how"):
            table.add_column(column, justify="right" if column == "number" else "left", no_wrap=column == "number")
        for row in Computed.from_json(value).rows:
            table.add_row(marks[row.holds], escape(row.claim), shown(row), row.kind, escape(interval(row)))
        console.print(table, end="\n\n")
    console.print(f"Page: {escape(str(page))}", soft_wrap=True)
