"""``mightnt finetune DIR``: protected reinforcement learning on a set of imitators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mightnt.cli.options import Device, Json, Out, Resume, Seed, print_json, progress


def finetune(
    imitators: Annotated[Path, typer.Argument(metavar="DIR", help="What `mightnt imitate` saved.")],
    out: Out,
    base: Annotated[
        str, typer.Option("--base", help="situations, pessimistic, pessimistic-minimum, mixture, single or none.")
    ] = "situations",
    kl_budget: Annotated[
        float, typer.Option("--kl-budget", metavar="NATS", help="KL to the base an episode may spend.")
    ] = 10.0,
    reward: Annotated[
        str, typer.Option("--reward", help="sentiment, hf:NAME_OR_PATH or module:function; of the user's reply.")
    ] = "sentiment",
    asking: Annotated[
        str, typer.Option("--asking", help="charged (asking is an action) or floor (only when it must).")
    ] = "charged",
    turns: Annotated[int, typer.Option("--turns", min=1, help="Turns of the agent in an episode.")] = 3,
    turn_tokens: Annotated[int, typer.Option("--turn-tokens", min=1, help="Most tokens of a turn.")] = 40,
    iterations: Annotated[int, typer.Option("--iterations", min=1, help="Rounds of learning.")] = 40,
    episodes: Annotated[int, typer.Option("--episodes", min=1, help="Episodes a round.")] = 64,
    evaluation_episodes: Annotated[
        int, typer.Option("--evaluation-episodes", min=2, help="Fresh episodes to measure.")
    ] = 250,
    device: Device = "cpu",
    seed: Seed = 0,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Train a policy for a reward within a hard KL budget; the imitators' own model plays the user; write run.json."""
    from mightnt.lm.finetune import FinetuneConfig, finetune_folder

    config = FinetuneConfig(
        base, kl_budget, reward, asking, turns, turn_tokens, iterations, episodes, evaluation_episodes
    )
    with progress() as watcher:
        record = finetune_folder(imitators, out, config, seed, watcher, resume, device)
    if json:
        print_json(record)
        return
    spent, rewarded = record["kl_base_nats"], record["proxy_reward"]
    typer.echo(
        f"reward {rewarded['mean']:.3f} +- {rewarded['standard_error']:.3f} over {record['episodes']} fresh episodes"
    )
    typer.echo(
        f"KL to the base: mean {spent['mean']:.2f}, most {spent['max']:.2f} of {record['budget_nats']} nats an episode"
    )
    typer.echo(f"asks: {record['asked_turns']} of {record['turns']} turns, answered by {record['answered_by']}")
    for warning in record.get("warnings", ()):
        typer.echo(f"Warning: {warning}")
    typer.echo(f"Saved in {out}; next: mightnt audit {out}")
