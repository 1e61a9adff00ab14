"""``mightnt learning``: thousands of turns with the demonstrator answering, with and without learning from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mightnt.cli.options import Json, Out, Resume, Seed, print_json, progress
from mightnt.errors import InputError


def learning(
    profile: Annotated[str, typer.Option("--profile", help="quick (a minute) or default (ten).")] = "default",
    out: Out = Path("runs/learning"),
    seed: Seed = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes at a time, one thread each.")] = 2,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Ask a known demonstrator, learn from the answers, measure asks and KL; write learning.json and learning.html."""
    from mightnt.audits.summary import short
    from mightnt.experiments.learning import POLICIES, PROFILES, SOURCES, write_page
    from mightnt.experiments.learning import learning as run

    if profile not in PROFILES:
        raise InputError(f"profile {profile!r}; allowed are {', '.join(PROFILES)}")
    with progress() as watcher:
        record = run(out, PROFILES[profile], seed, watcher, resume, workers)
    page = out / "learning.html"
    write_page(record, page)
    if json:
        print_json(record)
        return
    for row in record["summary"]:
        asks = [row[f"asks_per_100_turns_{when}"]["mean"] for when in ("first", "last")]
        nats = [row[f"kl_demonstrator_nats_{when}"]["mean"] for when in ("first", "last")]
        typer.echo(
            f"{POLICIES[row['policy']]}, {SOURCES[row['source']]}: asks per 100 turns {short(asks[0])} -> {short(asks[1])}, "
            f"KL to the demonstrator {short(nats[0])} -> {short(nats[1])} nats an episode (first and last fifth of the turns)"
        )
    typer.echo(f"Page: {page}")
