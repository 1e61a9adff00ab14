"""``mightnt calibrate IMITATORS``: does the demonstrator keep what a base vouches for, and which thresholds fit?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mightnt.cli.audit import WIDTH_ELSEWHERE
from mightnt.cli.options import Json, print_json

if TYPE_CHECKING:
    from mightnt.audits.reliability import Reliability

MARKS = {"holds": "[green]✓[/]", "fails": "[red]✗[/]", "too little data": "–"}


def calibrate(
    imitators: Annotated[Path, typer.Argument(metavar="IMITATORS", help="The folder that imitate made.")],
    base: Annotated[str, typer.Option("--base", help="The base to check.")] = "situations",
    fresh: Annotated[
        Path | None, typer.Option("--on", metavar="DEMOS.jsonl", help="Demonstrations never used; none: the held-out.")
    ] = None,
    rate: Annotated[float, typer.Option("--rate", help="Share of turns that a threshold may touch.")] = 0.01,
    confidence: Annotated[float, typer.Option("--confidence", help="Of all intervals at once.")] = 0.95,
    out: Annotated[
        Path | None, typer.Option("--out", help="The folder for calibration.json and .html.", file_okay=False)
    ] = None,
    json: Json = False,
) -> None:
    """Check on held-out demonstrations how far the lower bounds of a base are kept; say which thresholds are certified."""
    from mightnt.lm.reliability import check_folder, write_calibration

    found, record = check_folder(imitators, base, fresh, rate, confidence)
    page = write_calibration(found, record, out) if out else None
    if json:
        print_json(record)
    else:
        show(found, record, page)


def show(found: Reliability, record: dict[str, Any], page: Path | None) -> None:
    """Print the verdict, a row for each bin, what is promised and what is not."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from mightnt.audits.reliability_figure import note
    from mightnt.audits.summary import short

    console = Console(highlight=False, width=None if Console().is_terminal else WIDTH_ELSEWHERE)
    console.print(f"[bold]{escape(record['base'])}.[/] {escape(found.sentence)}")
    table = Table(box=None)
    for name in ("", "lower bound p", "predictions", "mean p", "came true", "at least", "at most", "slack, nats"):
        table.add_column(name, justify="right", no_wrap=True)
    for part in found.bins:
        figures = (part.predicted, part.observed, part.low, part.high, part.slack_nats)
        edges = f"{part.edge_low:g} to {part.edge_high:g}"
        table.add_row(MARKS[part.outcome], edges, f"{part.n_predictions:,}", *map(short, figures))
    console.print(table)
    for line in (note(found), *record["sentences"]):
        console.print(escape(line))
    for line in record["notes"]:
        console.print(f"[yellow]Note:[/] {escape(line)}")
    if page:
        console.print(f"Page: {escape(str(page))}", soft_wrap=True)
