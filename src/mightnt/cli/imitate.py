"""``mightnt imitate DEMOS.jsonl``: fit a set of imitators to demonstrations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mightnt.cli.options import Device, Json, Out, Resume, Seed, print_json, progress
from mightnt.errors import InputError


def imitate(
    demonstrations: Annotated[Path, typer.Argument(metavar="DEMOS.jsonl", help="Chats; assistant turns demonstrate.")],
    out: Out,
    model: Annotated[
        str, typer.Option("--model", help="A pre-trained model's folder or name; none: from scratch.")
    ] = "",
    pretrain_on: Annotated[
        Path | None, typer.Option("--pretrain-on", help="Other people's chats to learn from first (from scratch only).")
    ] = None,
    networks: Annotated[int, typer.Option("--networks", min=1, help="Networks in the mixture.")] = 2,
    steps: Annotated[int, typer.Option("--steps", min=0, help="Updates on the chats; 0: five passes over them.")] = 0,
    vocabulary: Annotated[int, typer.Option("--vocabulary", help="Tokens of the vocabulary, from scratch.")] = 1000,
    width: Annotated[int, typer.Option("--width", help="Width of a network made from scratch.")] = 128,
    adapters: Annotated[
        int, typer.Option("--adapters", min=0, help="LoRA adapters on --model as members, instead of whole networks.")
    ] = 0,
    rank: Annotated[int, typer.Option("--rank", min=1, help="Rank of an adapter.")] = 8,
    shared_layers: Annotated[
        int, typer.Option("--shared-layers", min=0, help="Layers, from below, without adapters: run once for all.")
    ] = 0,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Keep --model as it is; learn only the marks that are new to it.")
    ] = False,
    precision: Annotated[
        str, typer.Option("--precision", help="Of --model's weights: float32, or bfloat16 (--frozen, --adapters).")
    ] = "float32",
    update: Annotated[
        bool,
        typer.Option("--update", help="DEMOS.jsonl holds answers: fit the imitators in --out on, if that is no loss."),
    ] = False,
    device: Device = "cpu",
    seed: Seed = 0,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Fit networks and counts to demonstrations, check them on held-out ones, and save them as a folder."""
    from mightnt.lm.imitate import ImitateConfig, imitate_file

    if update:
        shape = (networks, vocabulary, width, adapters, rank, shared_layers, frozen, precision, device)
        if model or pretrain_on or resume or shape != (2, 1000, 128, 0, 8, 0, False, "float32", "cpu"):
            raise InputError("--update takes --steps and --seed only; the rest is as in the imitators there")
        update_imitators(demonstrations, out, steps, seed, json)
        return
    config = ImitateConfig(model, networks, steps, vocabulary, width, adapters, rank, shared_layers, frozen, precision)
    with progress() as watcher:
        imitators = imitate_file(demonstrations, out, config, seed, watcher, pretrain_on, resume, device)
    if json:
        print_json(imitators.summary)
    else:
        show(imitators.summary, out)


def update_imitators(answers: Path, folder: Path, steps: int, seed: int, json: bool) -> None:
    """Fit imitators on to answers, and say what became of them."""
    from mightnt.lm.update import update_folder

    with progress() as watcher:
        record = update_folder(folder, answers, seed, watcher, steps)
    if json:
        print_json(record)
        return
    for row in record["members"]:
        change = f"{row['before']:.2f} -> {row['after']:.2f} nats / dialogue"
        typer.echo(f"{row['name']} on held-out {row['of']}: {change} ({row['rise']:+.1%})")
    if record["passed"]:
        typer.echo(f"{record['new_answers']} new answers; the new set has taken the place of the old one in {folder}")
    else:
        typer.echo(f"The old set in {folder} was kept: {record['why']}")


def show(summary: dict[str, Any], out: Path) -> None:
    """Print how well each member predicts the held-out demonstrations."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"Held out: {summary['held_out_dialogues']} dialogues, {summary['held_out_turns']} turns", box=None
    )
    table.title_justify = "left"
    for name in ("member", "nats / token", "nats / turn", "nats / dialogue", "+-"):
        table.add_column(name, justify="left" if name == "member" else "right")
    for row in summary["members"]:
        error = row["standard_error_per_dialogue"]
        figures = [row[f"held_out_nats_per_{unit}"] for unit in ("token", "turn", "dialogue")]
        table.add_row(row["name"], *(f"{figure:.2f}" for figure in figures), "-" if error is None else f"{error:.2f}")
    console = Console(highlight=False)
    console.print(table)
    caps = {"situations": summary["situation_log_cap_nats"], "pessimistic": summary["log_cap_nats"]}
    words = ", ".join(f"{base} log c = {cap:.2f}" for base, cap in caps.items())
    console.print(f"Caps of the pessimistic bases, nats an episode: {words}")
    console.print(
        f"Each caps at most {summary['cap_promised_rate']:.1%} of new turns, if they are like these; "
        f"check the rest with: mightnt calibrate {out}",
        soft_wrap=True,
    )
    for warning in summary["warnings"]:
        console.print(f"[yellow]Warning:[/] {warning}")
    console.print(f"Saved in {out}; next: mightnt finetune {out} --kl-budget 10 --out RUN", soft_wrap=True)
