"""From a file of demonstrations to a folder of imitators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mightnt.dialogues import Dialogue, read_dialogues, split_dialogues
from mightnt.errors import InputError
from mightnt.files import plain, read_json
from mightnt.lm.adapters import AdapterShape, fit_adapters, fit_rows, matrices_of
from mightnt.lm.calibration import least_units
from mightnt.lm.fitting import FitConfig, OnStep, fit
from mightnt.lm.imitators import (
    Imitators,
    ImitatorsConfig,
    calibrate,
    fit_suffix_counts,
    load_imitators,
    save_imitators,
)
from mightnt.lm.networks import Network, NetworkShape, build_network, check_device, load_network, resize_for
from mightnt.lm.tokens import MARKS, FastTokenizer, encode, load_tokenizer, train_bpe, with_marks
from mightnt.watching import Watcher

PASSES = 5
"""Over the demonstrations, unless the user says how many updates."""
ADAPTERS_LEARNING_RATE = 1e-3
"""Adapters begin at zero and are small: they want more than the network below them would."""
TURNS_OVER_THE_LEAST = 3
"""Held-out turns wanted, in multiples of the fewest that can promise the veto rate at all."""
LOOSE_CAP_NATS = 30.0
"""A cap beyond this is said to be loose: the usual ten nats are then less than a quarter of what budget and cap allow."""


@dataclass(frozen=True)
class ImitateConfig:
    """What a user sets for one set of imitators."""

    model: str = ""
    """Folder or name of a pre-trained causal language model; empty: made from scratch."""
    networks: int = 2
    """Networks; they differ in seed."""
    steps: int = 0
    """Updates on the demonstrations (and, before, on other chats); 0: five passes over them, 50 to 2000 updates."""
    vocabulary: int = 1000
    """Tokens of the byte-pair vocabulary, from scratch."""
    width: int = 128
    """Width of a network, from scratch."""
    adapters: int = 0
    """So many low-rank adapters on the pre-trained model, fitted in one go, instead of networks; 0: none."""
    rank: int = 8
    """Of an adapter."""
    shared_layers: int = 0
    """Layers of the model, from below, that get no adapter and are run once for all."""
    frozen: bool = False
    """The pre-trained model as it is, as the one network; only the marks that are new to it are learnt."""
    precision: str = "float32"
    """What the weights of a pre-trained model are kept in; ``bfloat16`` where they do not change."""

    def __post_init__(self) -> None:
        if self.networks < 1 or self.steps < 0:
            raise InputError(f"got {self.networks} networks and {self.steps} steps; 1 or more and 0 or more are needed")
        if self.adapters and not self.model:
            raise InputError("adapters are put on a pre-trained model; say which with --model")
        if not self.adapters and (self.rank, self.shared_layers) != (8, 0):
            raise InputError("a rank and shared layers are those of adapters; say how many with --adapters")
        if self.frozen and (not self.model or self.adapters):
            raise InputError("frozen is a pre-trained model that gets no adapters; say which with --model")
        if self.precision not in ("float32", "bfloat16"):
            raise InputError(f"unknown precision {self.precision!r}; allowed are float32, bfloat16")
        if self.precision != "float32" and not (self.frozen or self.adapters):
            raise InputError(f"{self.precision} is too coarse to fit a whole network in; add --frozen or --adapters")
        AdapterShape(self.rank, self.shared_layers)


def imitate_file(
    path: Path,
    out: Path,
    config: ImitateConfig,
    seed: int,
    watcher: Watcher,
    pretrain_on: Path | None = None,
    resume: bool = False,
    device: str = "cpu",
) -> Imitators:
    """Fit, calibrate and save; a killed fit goes on with ``resume`` from its last checkpoint. Networks are on ``device``.

    Errors: :class:`~mightnt.errors.InputError` for anything wrong with the files, the model or the numbers; a folder that
    holds imitators already is left alone.
    """
    if (out / "imitators.json").exists() and not resume:
        raise InputError(f"{out}: holds imitators already; choose another --out")
    if config.model and pretrain_on:
        raise InputError(
            "--pretrain-on is for networks from scratch; a pre-trained --model has learnt from others already"
        )
    everything = {"demonstrations": str(path), "pretrain_on": str(pretrain_on or ""), "seed": seed, **asdict(config)}
    demonstrations = read_dialogues(path)
    others = read_dialogues(pretrain_on) if pretrain_on else []
    settings = ImitatorsConfig()
    fitted, held_out = split_dialogues(demonstrations, settings.held_out_fraction, seed)
    if (out / "imitators.json").exists():
        return finished(out, everything, device)
    if not resume:
        for leftover in out.glob("*.checkpoint"):
            leftover.unlink()
    tokenizer = tokenizer_for(config, [*fitted, *others])
    networks: Sequence[Network] = (
        on_one_model(config, tokenizer, fitted, out, seed, watcher, device)
        if config.frozen or config.adapters
        else [
            fitted_network(config, tokenizer, fitted, others, out, seed + i, i, watcher, device)
            for i in range(config.networks)
        ]
    )
    watcher.began("calibration")
    counts = fit_suffix_counts(tokenizer, fitted, settings)
    imitators = calibrate(tokenizer, networks, counts, fitted, held_out, settings)
    imitators = replace(imitators, summary={**imitators.summary, "warnings": warnings(imitators)})
    save_imitators(imitators, out, everything, seed)
    for checkpoint in out.glob("*.checkpoint"):
        checkpoint.unlink()
    watcher.ended("calibration", reused=False)
    return imitators


def finished(out: Path, config: dict[str, Any], device: str) -> Imitators:
    """The imitators that are whole already, if they are these."""
    if read_json(out / "imitators.json")["provenance"]["config"] != plain(config):
        raise InputError(f"{out}: holds imitators of another configuration; choose another --out")
    return load_imitators(out, device)


def fit_config(config: ImitateConfig, n_dialogues: int) -> FitConfig:
    """Gentler for a pre-trained model than from scratch; few enough updates not to learn small files by heart."""
    usual = FitConfig(learning_rate=1e-4 if config.model else 5e-3)
    passes = min(max(PASSES * n_dialogues // usual.batch_dialogues, 50), 2000)
    return replace(usual, steps=config.steps or passes)


def tokenizer_for(config: ImitateConfig, dialogues: list[Dialogue]) -> FastTokenizer:
    """The pre-trained model's, with the marks added, or byte pairs learnt from the dialogues (held-out ones excluded)."""
    if not config.model:
        return train_bpe(dialogues, config.vocabulary)
    tokenizer = load_tokenizer(config.model)
    with_marks(tokenizer)
    return tokenizer


def fitted_network(
    config: ImitateConfig,
    tokenizer: FastTokenizer,
    fitted: list[Dialogue],
    others: list[Dialogue],
    out: Path,
    seed: int,
    i: int,
    watcher: Watcher,
    device: str,
) -> Network:
    """One network: made or loaded, taught by others if there are any, then fitted to the demonstrations."""
    network = new_network(config, tokenizer, seed, device)
    out.mkdir(parents=True, exist_ok=True)
    for name, dialogues in ((f"network-{i}-others", others), (f"network-{i}", fitted)):
        if not dialogues:
            continue
        watcher.began(name)
        fitting = fit_config(config, len(dialogues))
        fit(
            network,
            encode(tokenizer, dialogues),
            fitting,
            seed,
            on_step=lambda step, _loss, name=name, of=fitting.steps: watcher.moved(name, step, of),
            checkpoint=out / f"{name}.checkpoint",
        )
        watcher.ended(name, reused=False)
    return network


def on_one_model(
    config: ImitateConfig,
    tokenizer: FastTokenizer,
    fitted: list[Dialogue],
    out: Path,
    seed: int,
    watcher: Watcher,
    device: str,
) -> Sequence[Network]:
    """One pre-trained model as it is, or adapters on it, after the marks that are new to it have been given a meaning."""
    network, encoded = new_network(config, tokenizer, seed, device), encode(tokenizer, fitted)
    if config.adapters:
        matrices_of(network, config.shared_layers)  # refused, if need be, before anything is fitted
    known = load_tokenizer(config.model).get_vocab()
    new = [tokenizer.convert_tokens_to_ids(mark) for mark in MARKS if mark not in known]
    fitting = replace(fit_config(config, len(fitted)), learning_rate=ADAPTERS_LEARNING_RATE)
    out.mkdir(parents=True, exist_ok=True)
    if new:
        with watched(watcher, "marks", fitting.steps) as on_step:
            fit_rows(network, encoded, new, fitting, seed, on_step, out / "marks.checkpoint")
    if config.frozen:
        return [network]
    with watched(watcher, "adapters", fitting.steps) as on_step:
        shape = AdapterShape(config.rank, config.shared_layers)
        place = out / "adapters.checkpoint"
        adapters, _ = fit_adapters(network, encoded, config.adapters, fitting, seed, shape, on_step, place)
    return adapters.networks(network)


@contextmanager
def watched(watcher: Watcher, name: str, steps: int) -> Iterator[OnStep]:
    """What tells the watcher of each update within the block."""
    watcher.began(name)
    yield lambda step, _loss: watcher.moved(name, step, steps)
    watcher.ended(name, reused=False)


def new_network(config: ImitateConfig, tokenizer: FastTokenizer, seed: int, device: str) -> Network:
    """A network that has not seen the demonstrations."""
    if not config.model:
        check_device(device)
        shape = NetworkShape(width=config.width, layers=3, context=512)
        return build_network(shape, len(tokenizer), seed).to(device)
    network = load_network(config.model, config.precision, device)
    resize_for(network, tokenizer)
    return network


def warnings(imitators: Imitators) -> list[str]:
    """What the numbers cannot promise."""
    found = []
    turns = imitators.summary["held_out_turns"]
    rate, promised = ImitatorsConfig().veto_rate, imitators.summary["cap_promised_rate"]
    if turns < TURNS_OVER_THE_LEAST * least_units(rate):
        found.append(
            f"only {turns} held-out turns: a cap meant for {rate:.0%} of turns is promised to {promised:.1%} only"
        )
    if imitators.summary["situation_missing"] == 0:
        found.append(
            "no situation is known well enough to veto words and spare held-out turns: the base `situations` vetoes by distance "
            "alone; more demonstrations help"
        )
    cap = imitators.summary["situation_log_cap_nats"]
    if cap > LOOSE_CAP_NATS:
        found.append(
            f"the base `situations` is capped at log c = {cap:.0f} nats an episode: its counts know the demonstrator so little "
            "that it holds a policy hardly closer than one network would; more demonstrations or a pre-trained --model help"
        )
    rows: dict[str, Any] = {row["name"]: row["held_out_nats_per_token"] for row in imitators.summary["members"]}
    if rows["counts"] > rows["network-0"] + 1.0:
        found.append(
            f"the counts predict far worse than the network ({rows['counts']:.2f} against {rows['network-0']:.2f} nats a "
            "token): the pessimistic base will ask often or its cap will be loose; more demonstrations help"
        )
    return found
