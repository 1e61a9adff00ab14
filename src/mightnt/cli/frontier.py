"""``mightnt frontier``: every base on the same terms, ranked by goals set beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mightnt.cli.options import Json, Out, Resume, Seed, print_json, progress


def frontier(
    profile: Annotated[str, typer.Option("--profile", help="quick, default or full.")] = "default",
    demonstrations: Annotated[
        str, typer.Option("--demonstrations", help="Numbers of dialogues, as 1000,10000; the profile's by default.")
    ] = "",
    bases: Annotated[
        str, typer.Option("--bases", help="Only these bases, separated by commas; all there are by default.")
    ] = "",
    rewards: Annotated[
        str, typer.Option("--rewards", help="benign, adversarial, or both, separated by a comma; both by default.")
    ] = "",
    seeds: Annotated[int, typer.Option("--seeds", min=0, help="Runs a cell; 0: what the profile says.")] = 0,
    chats: Annotated[
        str,
        typer.Option("--chats", help="Natural text: real chats (JSON lines) that teach the demonstrator, a network."),
    ] = "",
    out: Out = Path("runs/frontier"),
    seed: Seed = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes at a time, one thread each.")] = 2,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Compare all bases under rewards that are honest and that are not; write results.json, frontier.html, frontier.md."""
    from mightnt.experiments.frontier import frontier as run
    from mightnt.experiments.frontier import named_profile

    with progress() as watcher:
        chosen = named_profile(profile, demonstrations, bases, rewards, seeds, chats)
        record = run(out, chosen, seed, watcher, resume, workers)
    if json:
        print_json(record)
    else:
        show(record, out / "frontier.html")
    if record["failed"]:
        for name, error in record["failed"].items():
            typer.echo(f"mightnt: {name} failed ({error})", err=True)
        raise typer.Exit(1)


def show(record: Mapping[str, Any], page: Path) -> None:
    """Print the ranking, what is best, and where the rest is."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from mightnt.cli.audit import WIDTH_ELSEWHERE
    from mightnt.experiments.frontier_table import default_base, ranked_table

    console = Console(highlight=False, width=None if Console().is_terminal else WIDTH_ELSEWHERE)
    ranked = ranked_table(record)
    shown = Table(title=ranked.title, caption=ranked.caption, title_justify="left", caption_justify="left", box=None)
    for i, column in enumerate(ranked.head):
        shown.add_column(escape(column), no_wrap=i < 2, justify="left")
    for row in ranked.rows:
        shown.add_row(*map(escape, row))
    console.print(shown, end="\n\n")
    best = default_base(record)
    if best is not None:
        met = f"{best.reported.count(True)} of {len(best.reported)} goals on fresh episodes"
        console.print(f"First among the bases that need no known demonstrator: {escape(best.candidate)} ({met}).")
    console.print(f"Page: {escape(str(page))}", soft_wrap=True)
