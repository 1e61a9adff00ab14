"""Low-rank adapters (LoRA) on one pre-trained network as members: fitted together, scored together, each a network too.

An adapter adds x A' B' to what a matrix of the network puts out for x: a few rows of A and columns of B instead of a whole
network a member. Left out: dropout in adapters, adapters on embeddings, learning rates of their own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from mightnt.errors import InputError
from mightnt.lm.fitting import (
    Batches,
    FitConfig,
    FitRecord,
    OnStep,
    Progress,
    check_data,
    every,
    fingerprint,
    fit,
    learnable,
    load_checkpoint,
    make_optimizer,
    save_checkpoint,
)
from mightnt.lm.scoring import Network, context_tokens
from mightnt.lm.tokens import EncodedDialogues, IntArray
from mightnt.lm.trunk import SharedTrunk, layers_of, worn
from mightnt.lm.windows import padded, windows


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """What the adapters of a network look like."""

    rank: int = 8
    """Rows of A, columns of B."""
    shared_layers: int = 0
    """Layers, counted from below, that get no adapter: they are run once for all members."""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.shared_layers < 0:
            raise InputError(f"{self}: the rank must be at least 1, shared_layers at least 0")


@dataclass(frozen=True, eq=False)
class Adapters:
    """What K members add to one network: y + x A' B' at every matrix named here. A value; no entry is ever changed.

    Also the :class:`~mightnt.lm.trunk.Parts` of a :class:`~mightnt.lm.trunk.SharedTrunk`.
    """

    names: tuple[str, ...]
    """The matrices, as in ``network.named_modules()``."""
    down: tuple[Tensor, ...]
    """A of each matrix, shape (members, rank, what goes in)."""
    up: tuple[Tensor, ...]
    """B of each matrix, shape (members, what comes out, rank), with any factor of the adapter in it."""
    weights: tuple[float, ...]
    """Probability of each member; they sum to one."""

    def __post_init__(self) -> None:
        k = len(self.weights)
        if not k or not len(self.names) == len(self.down) == len(self.up) or not self.names:
            raise InputError(f"got {k} members and {len(self.names)} matrices; at least one of each is needed")
        if any(len(a) != k or len(b) != k or a.shape[1] != b.shape[2] for a, b in zip(self.down, self.up, strict=True)):
            raise InputError(f"the adapters' matrices do not fit together, or are not those of {k} members")
        if not (min(self.weights) >= 0 and abs(sum(self.weights) - 1.0) <= 1e-6):
            raise InputError(f"the members' weights are {self.weights}; they must be at least 0 and sum to one")

    @property
    def n_members(self) -> int:
        """K."""
        return len(self.weights)

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each matrix stands in ``names``."""
        return {name: i for i, name in enumerate(self.names)}

    def add(self, name: str, inputs: Tensor, output: Tensor) -> Tensor:
        """The output of this matrix with the members' parts added, in place: one block of rows a member."""
        i, dtype = self.places[name], output.dtype
        blocks = inputs.reshape(self.n_members, -1, inputs.shape[-1])
        low = torch.bmm(blocks, self.down[i].mT.to(dtype))
        total = output.contiguous().view(self.n_members, -1, output.shape[-1])
        return total.baddbmm_(low, self.up[i].mT.to(dtype)).view(output.shape)

    def one(self, member: int) -> Adapters:
        """One member alone; its tensors are those here, gradients included."""
        rows = slice(member, member + 1)
        return Adapters(self.names, tuple(a[rows] for a in self.down), tuple(b[rows] for b in self.up), (1.0,))

    def detached(self) -> Adapters:
        """A copy without gradients."""
        down, up = (tuple(x.detach().clone() for x in tensors) for tensors in (self.down, self.up))
        return Adapters(self.names, down, up, self.weights)

    def networks(self, network: Network) -> tuple[AdapterNetwork, ...]:
        """Every member as a network of its own; all share ``network``, which is frozen with that."""
        return tuple(AdapterNetwork(network, self.one(i)) for i in range(self.n_members))


def together(members: list[Adapters], weights: tuple[float, ...] | None = None) -> Adapters:
    """The members of several, on all matrices that one of them changes: A and B are filled up with zeros, which add nothing.

    ``weights``: all alike by default.
    """
    names = tuple(dict.fromkeys(name for member in members for name in member.names))
    rank = max(a.shape[1] for member in members for a in member.down)
    down, up = [], []
    for name in names:
        parts = [(m.down[m.names.index(name)], m.up[m.names.index(name)]) if name in m.names else None for m in members]
        a, b = next(part for part in parts if part is not None)
        down_rows, up_rows = [], []
        for member, part in zip(members, parts, strict=True):
            k = member.n_members
            down_here, up_here = part or (a.new_zeros(k, 0, a.shape[2]), b.new_zeros(k, b.shape[1], 0))
            down_rows.append(functional.pad(down_here, (0, 0, 0, rank - down_here.shape[1])))
            up_rows.append(functional.pad(up_here, (0, rank - up_here.shape[2])))
        down.append(torch.cat(down_rows))
        up.append(torch.cat(up_rows))
    n = sum(member.n_members for member in members)
    return Adapters(names, tuple(down), tuple(up), weights or (1 / n,) * n)


class AdapterNetwork(nn.Module):
    """One member as a causal language model of its own: to be scored, read token by token, fitted on, or copied.

    The network below is shared with the other members, never copied, and frozen; the parameters here are the adapter's.
    Two threads may use members of one network: they wait for each other.
    """

    def __init__(self, network: Network, adapter: Adapters) -> None:
        super().__init__()
        self.shared = (network.eval().requires_grad_(False),)  # in a tuple: its parameters are not this module's
        self.names = adapter.names
        copy = adapter.detached()
        self.matrices = nn.ParameterList([*copy.down, *copy.up])
        self.eval()

    @property
    def network(self) -> Network:
        """What all members share."""
        return self.shared[0]

    @property
    def adapter(self) -> Adapters:
        """What this member adds; its tensors are this module's parameters."""
        n = len(self.names)
        return Adapters(self.names, tuple(self.matrices[:n]), tuple(self.matrices[n:]), (1.0,))

    @property
    def config(self) -> Any:
        """The network's configuration."""
        return self.network.config

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = self.network.device
        return device

    def get_input_embeddings(self) -> nn.Module:
        """The network's."""
        embeddings: nn.Module = self.network.get_input_embeddings()
        return embeddings

    def get_output_embeddings(self) -> nn.Module:
        """The network's."""
        head: nn.Module = self.network.get_output_embeddings()
        return head

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's forward pass, with the adapter on."""
        with worn(self.network, self.adapter):
            return self.network(*args, **kwargs)

    def base_model(self, *args: Any, **kwargs: Any) -> Any:
        """All of it but the output layer, with the adapter on: hidden states."""
        with worn(self.network, self.adapter):
            return self.network.base_model(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> AdapterNetwork:
        return AdapterNetwork(self.network, self.adapter)


def matrices_of(network: Network, shared_layers: int = 0) -> dict[str, tuple[int, int]]:
    """``{name: (what goes in, what comes out)}`` of every matrix in the layers from ``shared_layers`` on.

    Where the network's layers cannot be told: of every matrix but the output layer, and nothing can be shared.
    """
    try:
        prefix, layers = layers_of(network)
    except InputError:
        if shared_layers:
            raise
        prefix, layers = "", nn.ModuleList()
    if layers and not shared_layers < len(layers):
        raise InputError(f"{shared_layers} of {len(layers)} layers are to be shared; at least one must differ")
    found = {}
    for name, module in network.named_modules():
        inside = not layers or name.startswith(f"{prefix}.")
        high = not shared_layers or (inside and int(name.removeprefix(f"{prefix}.").split(".")[0]) >= shared_layers)
        if inside and high and module is not network.get_output_embeddings():
            size = matrix_size(module)
            if size is not None:
                found[name] = size
    if not found:
        raise InputError(f"{type(network).__name__} has no matrices to put an adapter on")
    return found


def matrix_size(module: nn.Module) -> tuple[int, int] | None:
    """``(what goes in, what comes out)`` of a module that an adapter can be put on; ``None`` for any other."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return (int(module.nx), int(module.nf)) if isinstance(module, Conv1D) else None


def fresh_adapters(network: Network, n_members: int, seed: int, shape: AdapterShape) -> Adapters:
    """Members that add nothing yet: B = 0, A uniform within 1 / sqrt(what goes in), each member's by ``seed`` and number."""
    if n_members < 1:
        raise InputError(f"got {n_members} members; at least 1 is needed")
    sizes = matrices_of(network, shape.shared_layers)
    generators = [
        torch.Generator().manual_seed(int(np.random.default_rng([seed, i, 0]).integers(2**62)))
        for i in range(n_members)
    ]
    down, up = [], []
    for into, out in sizes.values():
        drawn = [(2 * torch.rand(shape.rank, into, generator=g) - 1) / math.sqrt(into) for g in generators]
        down.append(torch.stack(drawn).to(network.device))
        up.append(torch.zeros(n_members, out, shape.rank, device=network.device))
    return Adapters(tuple(sizes), tuple(down), tuple(up), (1 / n_members,) * n_members)


def bootstrap(n_dialogues: int, n_members: int, seed: int) -> NDArray[np.float32]:
    """How often each member sees each dialogue, shape (members, dialogues): the first each once, every other a bootstrap.

    A bootstrap is as many draws with replacement as there are dialogues, by ``seed`` and the member's number.
    """
    alike = np.full(n_dialogues, 1 / n_dialogues)
    seen = np.ones((n_members, n_dialogues), dtype=np.float32)
    for i in range(1, n_members):
        seen[i] = np.random.default_rng([seed, i, 1]).multinomial(n_dialogues, alike)
    return seen


def fit_adapters(
    network: Network,
    encoded: EncodedDialogues,
    n_members: int,
    config: FitConfig,
    seed: int,
    shape: AdapterShape | None = None,
    on_step: OnStep | None = None,
    checkpoint: Path | None = None,
) -> tuple[Adapters, FitRecord]:
    """K adapters of the network fitted in one go: every batch goes through it once, shared layers once for all members.

    Members differ in where they begin (:func:`fresh_adapters`) and in how often they see a dialogue (:func:`bootstrap`);
    each is what it would be if fitted alone in the same order, its gradients clipped by themselves. The network's own
    weights do not change. Losses in the record are means over members, each dialogue as often as its member sees it.

    Otherwise as :func:`~mightnt.lm.fitting.fit`: what is learnt, the order, ``checkpoint``, errors. Deterministic given
    seed, thread count and machine. Cost: an update takes :attr:`~mightnt.lm.trunk.SharedTrunk.passes` forward passes, as
    many back through what is not shared, and the logits of all members at once.
    """
    check_data(network, encoded)
    shape = shape or AdapterShape()
    adapters = fresh_adapters(network, n_members, seed, shape)
    matrices = nn.ParameterList([*adapters.down, *adapters.up])
    adapters = replace(adapters, down=tuple(matrices[: len(adapters.names)]), up=tuple(matrices[len(adapters.names) :]))
    chosen = learnable(encoded, windows(encoded, context_tokens(network)))
    seen = bootstrap(encoded.n_dialogues, n_members, seed)
    seen = seen[:, np.searchsorted(encoded.starts, chosen.begin, side="right") - 1]
    batches, optimizer = Batches(chosen.lengths, config.batch_dialogues, seed), make_optimizer(matrices, config)
    progress = Progress(f"{fingerprint(network, encoded, config, seed)} {shape} members={n_members}")
    if checkpoint is not None and checkpoint.exists():
        progress = load_checkpoint(checkpoint, matrices, optimizer, progress.fingerprint)
    with frozen(network):
        trunk = SharedTrunk(network, adapters)
        for step in range(len(progress.losses), config.steps):
            began, rows = time.perf_counter(), batches[step]
            tokens, counted = padded(encoded, chosen, rows)
            if encoded.is_begun is not None:
                place = np.minimum(chosen.begin[rows, None] + np.arange(tokens.shape[1]), encoded.tokens.size - 1)
                counted &= ~encoded.is_begun[place]
            progress.losses.append(update_all(trunk, optimizer, tokens, counted, seen[:, rows], config.rate(step)))
            progress.n_tokens += int(counted.sum())
            progress.n_positions += tokens.size
            progress.n_padding += tokens.size - int(chosen.lengths[rows].sum())
            progress.seconds += time.perf_counter() - began
            done = step + 1
            if checkpoint is not None and (done == config.steps or every(config.checkpoint_every_steps, done)):
                save_checkpoint(checkpoint, matrices, optimizer, progress)
            if on_step is not None:
                on_step(done, progress.losses[-1])
    return adapters.detached(), progress.record(encoded, context_tokens(network))


def fit_rows(
    network: Network,
    encoded: EncodedDialogues,
    tokens: Sequence[int],
    config: FitConfig,
    seed: int,
    on_step: OnStep | None = None,
    checkpoint: Path | None = None,
) -> FitRecord:
    """Fit, in place, what the network knows of these tokens alone: their rows in the embeddings and the output layer.

    For tokens that are new to a pre-trained network: all adapters on it then share one meaning of them. No other weight
    changes by a bit. Otherwise as :func:`~mightnt.lm.fitting.fit`, without weight decay.
    """
    layers = (network.get_input_embeddings(), network.get_output_embeddings())
    tables = {id(layer.weight): layer.weight for layer in layers if layer is not None}.values()
    learn = torch.zeros(layers[0].num_embeddings, 1, device=network.device)
    learn[list(tokens)] = 1.0
    with frozen(network):
        hooks = [
            table.requires_grad_(True).register_hook(lambda gradient: gradient * learn.to(gradient.dtype))
            for table in tables
        ]
        try:
            return fit(network, encoded, replace(config, weight_decay=0.0), seed, on_step, None, checkpoint)
        finally:
            for hook in hooks:
                hook.remove()
            for table in tables:
                table.grad = None


@contextmanager
def frozen(network: Network) -> Iterator[None]:
    """Within this block the network's parameters get no gradients."""
    before = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    network.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, learns in before:
            parameter.requires_grad_(learns)


def update_all(
    trunk: SharedTrunk,
    optimizer: torch.optim.Optimizer,
    tokens: IntArray,
    counted: NDArray[np.bool_],
    seen: NDArray[np.float32],
    rate: float,
) -> float:
    """One update of every member, each as if it were alone; the mean of their losses.

    Errors: :class:`~mightnt.errors.InputError` naming a member whose loss or gradient is not finite; nothing has changed.
    """
    losses = member_losses(trunk, tokens, counted, seen)
    optimizer.zero_grad()
    losses.sum().backward()  # type: ignore[no-untyped-call]
    matrices = [matrix for group in optimizer.param_groups for matrix in group["params"]]
    norms = torch.stack([matrix.grad.flatten(1).norm(dim=1) for matrix in matrices]).norm(dim=0)
    if not bool(norms.isfinite().all()):
        member = int((~norms.isfinite()).nonzero()[0])
        raise InputError(f"loss or gradient of member {member} is not finite; lower learning_rate (now {rate:.2g})")
    for matrix in matrices:
        matrix.grad.mul_((1.0 / (norms + 1e-6)).clamp(max=1.0)[:, None, None])
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return float(losses.detach().mean())


def member_losses(
    trunk: SharedTrunk, tokens: IntArray, counted: NDArray[np.bool_], seen: NDArray[np.float32]
) -> Tensor:
    """Nats per counted token of one padded batch by each member, each row as often as the member sees it; (members,)."""
    device = trunk.network.device
    logits = trunk.logits(torch.from_numpy(tokens).to(device))[:, :, :-1].float()
    targets = torch.from_numpy(np.where(counted, tokens, -100)[:, 1:]).to(device).expand(logits.shape[:3])
    nats = functional.cross_entropy(logits.flatten(0, 2), targets.flatten(), ignore_index=-100, reduction="none")
    per_row = nats.view(targets.shape).sum(dim=2)
    return (per_row * torch.from_numpy(seen).to(device)).sum(dim=1) / int(counted.sum())
