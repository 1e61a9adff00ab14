"""Fitting a network to dialogues: one loop, deterministic, that continues where it was killed.

Both speakers' tokens are learnt alike, since the network also plays the user. Left out: dropout, mixed precision, gradient
accumulation, early stopping (the record holds held-out losses; choosing by them is the caller's).
"""

from __future__ import annotations

import json
import math
import time
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from mightnt.errors import InputError
from mightnt.files import replacing
from mightnt.lm.scoring import Network, context_tokens, logits_of, mean_loss
from mightnt.lm.tokens import EncodedDialogues, IntArray
from mightnt.lm.windows import Windows, padded, windows


@dataclass(frozen=True, slots=True)
class FitConfig:
    """How a network is fitted: AdamW, linear warm-up, then linear decay to zero; gradients clipped to norm 1."""

    steps: int = 500
    """Updates."""
    batch_dialogues: int = 16
    """Dialogues (windows, where dialogues exceed the context) in each update; similar lengths go together."""
    learning_rate: float = 5e-3
    """At its highest. From scratch at width 64, 5e-3 to 1e-2 is best; a large pre-trained network wants 1e-4 or less."""
    warmup_steps: int = 50
    """Updates over which the rate rises from zero."""
    weight_decay: float = 0.01
    """Of matrices, decoupled; scale vectors are left alone."""
    evaluate_every_steps: int = 0
    """How often held-out dialogues are scored; 0: at the end only."""
    checkpoint_every_steps: int = 100
    """How often a checkpoint is written, if ``fit`` is given a place for one."""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_dialogues, self.checkpoint_every_steps) < 1:
            raise InputError(f"{self}: steps, batch_dialogues and checkpoint_every_steps must be at least 1")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.weight_decay < math.inf:
            raise InputError(f"{self}: learning_rate must be positive and weight_decay not negative, both finite")
        if min(self.warmup_steps, self.evaluate_every_steps) < 0:
            raise InputError(f"{self}: warmup_steps and evaluate_every_steps must not be negative")

    def rate(self, step: int) -> float:
        """The learning rate of update ``step`` = 0, 1, ..."""
        rise = (step + 1) / (self.warmup_steps + 1)
        fall = (self.steps - step) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * min(1.0, rise, fall)


@dataclass(frozen=True, slots=True)
class FitRecord:
    """What a fit did."""

    losses_nats_per_token: tuple[float, ...]
    """Mean loss of each update's batch over *all* predicted tokens, both speakers' and marks included."""
    held_out_nats_per_token: tuple[tuple[int, float], ...]
    """Pairs (updates done, held-out loss over all predicted tokens)."""
    n_dialogues: int
    """Dialogues fitted to."""
    n_longer_than_context: int
    """Of these, how many were cut into overlapping windows because they exceed the network's context."""
    n_tokens: int
    """Tokens the network was trained on, repetitions counted."""
    padding_share: float
    """Share of the computed positions that was padding."""
    seconds: float
    """Wall time, evaluation included."""


class OnStep(Protocol):
    """Called after each update with how many are done and the loss of its batch."""

    def __call__(self, step: int, loss_nats_per_token: float, /) -> object: ...


def fit(
    network: Network,
    encoded: EncodedDialogues,
    config: FitConfig,
    seed: int,
    on_step: OnStep | None = None,
    held_out: EncodedDialogues | None = None,
    checkpoint: Path | None = None,
) -> FitRecord:
    """Fit the network, in place, to every token of these dialogues but the first of each, both speakers' alike.

    What somebody else said in the demonstrator's place (``encoded.is_begun``) is read and not learnt.

    Each pass over the data takes every dialogue once, in batches of similar length, in an order that depends on ``seed``
    and the pass alone. With ``checkpoint`` (a file) a killed fit continues from there and ends with the same weights as
    one that was not; a finished one returns at once.

    Errors: :class:`~mightnt.errors.InputError` for no dialogues, tokens the network has no embedding for, a loss that is
    not finite, a checkpoint of another fit. Deterministic given seed, thread count and machine. Cost: three forward
    passes an update.
    """
    check_data(network, encoded)
    chosen = learnable(encoded, windows(encoded, context_tokens(network)))
    batches = Batches(chosen.lengths, config.batch_dialogues, seed)
    optimizer = make_optimizer(network, config)
    progress = Progress(fingerprint(network, encoded, config, seed))
    if checkpoint is not None and checkpoint.exists():
        progress = load_checkpoint(checkpoint, network, optimizer, progress.fingerprint)
    network.eval()
    for step in range(len(progress.losses), config.steps):
        began = time.perf_counter()
        tokens, counted = padded(encoded, chosen, batches[step])
        if encoded.is_begun is not None:
            place = np.minimum(chosen.begin[batches[step], None] + np.arange(tokens.shape[1]), encoded.tokens.size - 1)
            counted &= ~encoded.is_begun[place]
        loss = update(network, optimizer, tokens, counted, config.rate(step))
        if not math.isfinite(loss):
            raise InputError(
                f"loss or gradient is {loss} at step {step + 1}; lower learning_rate ({config.learning_rate})"
            )
        done = step + 1
        progress.losses.append(loss)
        progress.n_tokens += int(counted.sum())
        progress.n_positions += tokens.size
        progress.n_padding += tokens.size - int(chosen.lengths[batches[step]].sum())
        if held_out is not None and (done == config.steps or every(config.evaluate_every_steps, done)):
            progress.held_out.append((done, mean_loss(network, held_out)))
        progress.seconds += time.perf_counter() - began
        if checkpoint is not None and (done == config.steps or every(config.checkpoint_every_steps, done)):
            save_checkpoint(checkpoint, network, optimizer, progress)
        if on_step is not None:
            on_step(done, loss)
    return progress.record(encoded, context_tokens(network))


def learnable(encoded: EncodedDialogues, chosen: Windows) -> Windows:
    """The windows in which there is something to learn: all, but for those that are nothing but what others began."""
    if encoded.is_begun is None:
        return chosen
    first = np.maximum(chosen.scored_from, chosen.begin + 1)
    keep = [not encoded.is_begun[b:e].all() for b, e in zip(first, chosen.end, strict=True)]
    return Windows(chosen.begin[keep], chosen.end[keep], chosen.scored_from[keep])


def every(n: int, step: int) -> bool:
    """Whether ``step`` is a multiple of ``n``; never for ``n`` = 0."""
    return n > 0 and step % n == 0


def check_data(network: Network, encoded: EncodedDialogues) -> None:
    """Refuse to fit to nothing, or to tokens that the network has no embedding for."""
    if not encoded.n_dialogues:
        raise InputError("got no dialogues; a fit needs at least one")
    rows = network.get_input_embeddings().num_embeddings
    if encoded.tokens.max() >= rows:
        raise InputError(
            f"token {encoded.tokens.max()} exceeds the network's {rows}; use resize_for(network, tokenizer)"
        )


class Batches:
    """Batch ``step`` = 0, 1, ... as indices of windows: a pure function of lengths, size, seed and step.

    Each pass sorts windows by length, blurred by a tenth so that company changes, cuts, and shuffles the batches.
    """

    def __init__(self, lengths: IntArray, size: int, seed: int) -> None:
        self.lengths, self.seed = lengths, seed
        self.per_pass = math.ceil(lengths.size / size)
        self.now: tuple[int, list[IntArray]] = (-1, [])

    def __getitem__(self, step: int) -> IntArray:
        which, index = divmod(step, self.per_pass)
        if self.now[0] != which:
            rng = np.random.default_rng([self.seed, which])
            order = np.argsort(self.lengths * rng.uniform(0.9, 1.1, self.lengths.size), kind="stable")
            batches = np.array_split(order, self.per_pass)
            self.now = (which, [batches[i] for i in rng.permutation(self.per_pass)])
        return self.now[1][index]


def make_optimizer(network: Network, config: FitConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), fused=True)


def batch_loss(network: Network, tokens: IntArray, counted: NDArray[np.bool_]) -> Tensor:
    """Mean nats per counted token of one padded batch."""
    targets = torch.from_numpy(np.where(counted, tokens, -100)[:, 1:]).to(network.device)
    logits = logits_of(network, torch.from_numpy(tokens))[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


def update(
    network: Network, optimizer: torch.optim.Optimizer, tokens: IntArray, counted: NDArray[np.bool_], rate: float
) -> float:
    """One update; its loss, or a number that is not finite, and weights as they were, where loss or gradient is none."""
    loss = batch_loss(network, tokens, counted)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    if not norm.isfinite():
        return norm.item()
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return loss.item()


@dataclass(slots=True)
class Progress:
    """What a fit has done so far; all of it goes into a checkpoint. Grows in place."""

    fingerprint: str
    losses: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)
    n_tokens: int = 0
    n_positions: int = 0
    n_padding: int = 0
    seconds: float = 0.0

    def record(self, encoded: EncodedDialogues, context: int) -> FitRecord:
        """The record of the finished fit."""
        return FitRecord(
            losses_nats_per_token=tuple(self.losses),
            held_out_nats_per_token=tuple((int(step), loss) for step, loss in self.held_out),
            n_dialogues=encoded.n_dialogues,
            n_longer_than_context=int((encoded.lengths > context).sum()),
            n_tokens=self.n_tokens,
            padding_share=self.n_padding / max(1, self.n_positions),
            seconds=self.seconds,
        )


def fingerprint(network: Network, encoded: EncodedDialogues, config: object, seed: int) -> str:
    """Which fit this is: configuration, seed, and checksums of the data and of the weights it begins with."""
    weights = 0
    for parameter in network.parameters():
        plain = parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # numpy knows no bfloat16
        weights = zlib.crc32(plain.numpy().data, weights)
    return f"{config} seed={seed} data={encoded.checksum} weights={weights:08x}"


def learning(network: Network) -> list[tuple[str, Tensor]]:
    """The parameters that a fit changes, by name: a checkpoint holds no others."""
    return [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]


def save_checkpoint(path: Path, network: Network, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write weights, optimizer state and progress as one safetensors file, whole or not at all."""
    tensors = {f"weight.{name}": p.detach().contiguous() for name, p in learning(network)}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={"progress": json.dumps(asdict(progress))})
    except SafetensorError as error:
        raise InputError(f"{path}: the checkpoint cannot be written ({error}); nothing was changed") from error


def load_checkpoint(path: Path, network: Network, optimizer: torch.optim.Optimizer, expected: str) -> Progress:
    """Put weights and optimizer state back, in place; the progress to continue from."""
    try:
        with safe_open(path, "pt") as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is no checkpoint of a fit; delete it to begin anew") from error
    if progress.fingerprint != expected:
        raise InputError(f"{path}: belongs to a fit of other data, settings, seed or network; delete it to begin anew")
    with torch.no_grad():
        for name, parameter in learning(network):
            parameter.copy_(tensors[f"weight.{name}"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return progress
