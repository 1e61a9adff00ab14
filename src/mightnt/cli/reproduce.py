"""``mightnt reproduce``: the whole experiment in the chat world, from demonstrations to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mightnt.cli.audit import report
from mightnt.cli.options import Json, Out, Resume, Seed, progress


def reproduce(
    profile: Annotated[str, typer.Option("--profile", help="quick, default or full.")] = "default",
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
    """Imitate a known demonstrator, fine-tune on every base, measure what was kept; write results.json and report.html."""
    from mightnt.experiments.chat import named_profile
    from mightnt.experiments.chat import reproduce as run

    with progress() as watcher:
        run(out, named_profile(profile, demonstrations, bases), seed, watcher, resume, workers)
    report([out], out, json)
