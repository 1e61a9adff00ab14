"""From a folder of imitators to a folder of a run: protected RL with the imitators' own model as the other speaker."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from mightnt.audits.results import PESSIMISTIC
from mightnt.errors import InputError
from mightnt.files import plain, read_json, write_json
from mightnt.lm.account import Account, Asking
from mightnt.lm.checkpoint import load_training, save_training
from mightnt.lm.imitators import Imitators, load_imitators
from mightnt.lm.protect import ProtectConfig, Training
from mightnt.lm.rewards import resolve_reward
from mightnt.lm.run import RunConfig, new_actor, run
from mightnt.lm.scenes import LanguageScene
from mightnt.provenance import provenance
from mightnt.watching import Watcher

BASES = ("none", "single", "mixture", "mixture-fixed", "pessimistic", "pessimistic-minimum", "situations")
"""Bases that need no known demonstrator."""
CHECKPOINT = "training.safetensors"


@dataclass(frozen=True)
class FinetuneConfig:
    """What a user sets for one run."""

    base: str = "situations"
    kl_budget_nats: float = 10.0
    reward: str = "sentiment"
    asking: str = "charged"
    turns: int = 3
    turn_tokens: int = 40
    iterations: int = 40
    episodes: int = 64
    evaluation_episodes: int = 250

    def __post_init__(self) -> None:
        if self.base not in BASES:
            raise InputError(f"unknown base {self.base!r}; allowed are {', '.join(BASES)}")
        if self.asking not in ("floor", "charged"):
            raise InputError(f"unknown asking {self.asking!r}; allowed are floor, charged")
        if not (self.kl_budget_nats >= 0 and math.isfinite(self.kl_budget_nats)):
            raise InputError(f"a KL budget of {self.kl_budget_nats} nats; a finite number of 0 or more is needed")


def finetune_folder(
    folder: Path,
    out: Path,
    config: FinetuneConfig,
    seed: int,
    watcher: Watcher,
    resume: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """Run and write ``out/run.json``; returns its content. Kept every iteration, so a killed run goes on with ``resume``.

    The first network plays the user. The demonstrator is nobody the program knows: KL to it is not measured, and turns in
    which the policy asks are answered, in these simulated episodes, by the first network as a stand-in. The record says so.
    ``device`` is where the networks are; all else is on the CPU.
    """
    everything = {"imitators": str(folder), "seed": seed, **asdict(config)}
    if not resume and ((out / "run.json").exists() or (out / CHECKPOINT).exists()):
        raise InputError(f"{out}: holds an earlier run; continue it with --resume or choose another --out")
    imitators = load_imitators(folder, device)
    scene = scene_for(imitators, config)
    if resume and (out / "run.json").exists():
        return finished(out, everything)
    settings = run_config(config)
    training = Training.fresh(new_actor(imitators, settings, seed), settings.training)
    if resume and (out / CHECKPOINT).exists():
        load_training(training, out / CHECKPOINT, everything)
    watcher.began("training")

    def keep(training: Training) -> None:
        save_training(training, out / CHECKPOINT, everything)
        watcher.moved("training", len(training.log), config.iterations)

    record, training = run(imitators, scene, settings, seed, training, keep)
    watcher.ended("training", reused=False)
    record |= {
        "reward": config.reward,
        "imitators": fingerprint(folder),
        "imitators_from_here": os.path.relpath(folder.resolve(), out.resolve()),
        "answered_by": "nobody (no asking)"
        if config.base in ("none", "single", "mixture")
        else "a stand-in, the first network",
        "user_played_by": "the first network",
        "device": device,
        "warnings": list(imitators.summary.get("warnings", ())) if config.base in PESSIMISTIC else [],
        "provenance": provenance(seed, everything),
    }
    write_json(out / "run.json", record)
    return record


def run_config(config: FinetuneConfig) -> RunConfig:
    """The run that this asks for."""
    account = Account(config.kl_budget_nats, cast(Asking, config.asking))
    training = ProtectConfig(iterations=config.iterations, episodes=config.episodes)
    return RunConfig(config.base, account, training, config.evaluation_episodes)


def config_of(everything: Mapping[str, Any], out: Path) -> tuple[FinetuneConfig, int]:
    """``(configuration, seed)`` of a run from what its record says of itself."""
    names = {field.name for field in fields(FinetuneConfig)}
    if set(everything) != {"imitators", "seed", *names}:
        raise InputError(f"{out / 'run.json'}: is no record of `mightnt finetune`, or of another version of it")
    return FinetuneConfig(**{name: everything[name] for name in names}), int(everything["seed"])


def fingerprint(folder: Path) -> str:
    """What tells one set of imitators from another: the beginning of the SHA-256 of its record."""
    return hashlib.sha256((folder / "imitators.json").read_bytes()).hexdigest()[:12]


def scene_for(imitators: Imitators, config: FinetuneConfig) -> LanguageScene:
    """The other speaker and the reward; openings are those of all demonstrations."""
    dialogues = (*imitators.fitted, *imitators.held_out)
    reward = resolve_reward(config.reward)
    return LanguageScene(imitators.tokenizer, dialogues, reward, config.turns, config.turn_tokens, config.turn_tokens)


def finished(out: Path, everything: dict[str, Any]) -> dict[str, Any]:
    """The record of a run that is whole already, if it is this one."""
    record = cast(dict[str, Any], read_json(out / "run.json"))
    if record.get("provenance", {}).get("config") != plain(everything):
        raise InputError(f"{out}: holds a run of another configuration; choose another --out")
    return record
