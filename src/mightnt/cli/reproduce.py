"""``mightnt reproduce``: the whole experiment in the chat world, from demonstrations to the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mightnt.cli.audit import report
from mightnt.cli.options import Json, Out, Resume, Seed, print_json, progress
from mightnt.errors import InputError

if TYPE_CHECKING:
    from mightnt.experiments.sweep.plan import Row
    from mightnt.experiments.sweep.records import Records
    from mightnt.experiments.sweep.studies import Study

FULL = "full"
"""The profile that is a sweep over many configurations."""


def reproduce(
    profile: Annotated[str, typer.Option("--profile", help="quick, default or full (hours, in parts).")] = "default",
    part: Annotated[
        str, typer.Option("--part", help="Of the profile full: only these parts, separated by commas.")
    ] = "",
    plan: Annotated[
        bool, typer.Option("--plan", help="Of the profile full: print parts, runs and time, and run nothing.")
    ] = False,
    engine: Annotated[
        str, typer.Option("--engine", help="Of the profile full: local, ray or ray://HOST:PORT.")
    ] = "local",
    chats: Annotated[
        Path | None,
        typer.Option("--chats", help="Of the profile full: real chats (JSON lines) for the part text.", dir_okay=False),
    ] = None,
    demonstrations: Annotated[
        int, typer.Option("--demonstrations", min=0, help="Dialogues of the demonstrator; 0: what the profile says.")
    ] = 0,
    bases: Annotated[
        str, typer.Option("--bases", help="Only these bases, separated by commas; all of the profile's by default.")
    ] = "",
    out: Out = Path("runs/reproduce"),
    seed: Seed = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes at a time, one thread each.")] = 2,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Imitate a known demonstrator, fine-tune on every base, measure what was kept; write the results and a report."""
    if profile == FULL:
        if demonstrations or bases:
            raise InputError(
                "the profile full has its own demonstrations and bases; choose among its parts with --part"
            )
        full(part, plan, engine, chats, out, seed, workers, resume, json)
        return
    if part or plan or chats or engine != "local":
        raise InputError("--part, --plan, --engine and --chats belong to --profile full")
    from mightnt.experiments.chat import named_profile
    from mightnt.experiments.chat import reproduce as run

    with progress() as watcher:
        run(out, named_profile(profile, demonstrations, bases), seed, watcher, resume, workers)
    report([out], out, json)


def full(
    part: str, plan: bool, engine: str, chats: Path | None, out: Path, seed: int, workers: int, resume: bool, json: bool
) -> None:
    """The sweep: what is planned, or what is missing run and reported."""
    import contextlib

    from mightnt.cli.overall import overall_progress
    from mightnt.experiments.sweep.engines import named_engine
    from mightnt.experiments.sweep.plan import overview
    from mightnt.experiments.sweep.records import read_records
    from mightnt.experiments.sweep.report import PAGE
    from mightnt.experiments.sweep.studies import chosen
    from mightnt.experiments.sweep.sweep import sweep
    from mightnt.experiments.sweep.text_setting import kept_chats

    studies = chosen(part, kept_chats(out, chats))
    if plan:
        show_plan(overview(studies, read_records([out]), out, seed, workers), workers, json)
        return
    with contextlib.closing(named_engine(engine, workers)) as running, overall_progress() as watcher:
        records = sweep(out, studies, seed, running, watcher, resume)
    show_sweep(studies, records, out / PAGE, seed, json)


def show_plan(rows: Sequence[Row], workers: int, json: bool) -> None:
    """Print the parts: their cells and runs, what is there, how long the rest takes."""
    from rich.console import Console
    from rich.table import Table

    from mightnt.experiments.sweep.studies import PARTS

    if json:
        kept = [
            {"part": row.study.name, "question": row.study.question}
            | {name: getattr(row, name) for name in ("runs", "own_runs", "measured", "hours")}
            for row in rows
        ]
        print_json({"kind": "mightnt plan", "version": 1, "parts": kept})
        return
    shown = Table(box=None)
    for i, head in enumerate(("part", "question", "cells", "runs", "not above", "measured", "hours left")):
        shown.add_column(head, justify="left" if i < 2 else "right")
    for row in rows:
        numbers = (len(row.study.cells), row.runs, row.own_runs, row.measured)
        shown.add_row(row.study.name, row.study.question, *map(str, numbers), f"{row.hours:.2f}")
    whole = (sum(row.own_runs for row in rows), f"{sum(row.hours for row in rows):.2f}")
    shown.add_row("all", "", "", "", str(whole[0]), "", whole[1])
    console = Console(highlight=False)
    console.print(shown)
    left_out = [name for name in PARTS if name not in {row.study.name for row in rows}]
    if left_out:
        console.print(f"Not in this plan: {', '.join(left_out)} (text needs --chats).")
    console.print(f"Hours with {workers} processes; a run that several parts share is counted with the first.")


def show_sweep(studies: Sequence[Study], records: Records, page: Path, seed: int, json: bool) -> None:
    """Print the goals and where the report is; runs that are missing end in exit code 1."""
    from mightnt.experiments.sweep.goals import goals
    from mightnt.experiments.sweep.plan import planned
    from mightnt.experiments.sweep.records import missing

    runs = planned(studies, seed)
    absent = missing(runs, records)
    found = [
        {"goal": goal.claim, "by_seed": list(goal.values), "verdict": goal.verdict} for goal in goals(records, seed)
    ]
    if json:
        print_json(
            {
                "kind": "mightnt sweep",
                "version": 1,
                "runs": len(runs),
                "missing": len(absent),
                "goals": found,
                "report": page,
            }
        )
    else:
        for one in found:
            typer.echo(f"{one['verdict']}: {one['goal']}")
        typer.echo(f"Report: {page}")
    if absent:
        typer.echo(
            f"mightnt: {len(absent)} of {len(runs)} runs are missing; the report names them; run again with --resume",
            err=True,
        )
        raise typer.Exit(1)
