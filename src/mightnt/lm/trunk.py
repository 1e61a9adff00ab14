"""Members that share one network: the layers below the first that differs are run once, those above once a member.

K members that share the first k of D layers cost k/D + K (1 - k/D) passes through the layers, in one forward pass of the
network itself: at layer k the rows become K times as many, member by member, and from there on each block of rows gets what
its member adds. Nothing in the network is rewritten, so any causal language model whose layers are a list will do; whether
it does is tried out on a few tokens first, and where it does not the members are run one after the other.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from mightnt.errors import ContractError, InputError
from mightnt.lm.scoring import Network, check_length
from mightnt.lm.tokens import first_line

PASS = threading.RLock()
"""Held while a network runs with members' parts on it: another thread would otherwise meet them there."""


class Parts(Protocol):
    """What makes several members of one network: something added to what some of its modules put out."""

    @property
    def n_members(self) -> int:
        """How many members."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """The modules, as in ``network.named_modules()``."""
        ...

    def add(self, name: str, inputs: Tensor, output: Tensor) -> Tensor:
        """The module's output with the parts added; the rows are those of the first member, then of the second, ..."""
        ...

    def one(self, member: int) -> Parts:
        """The parts of one member alone."""
        ...


@contextlib.contextmanager
def worn(network: Network, parts: Parts) -> Iterator[None]:
    """Within this block the network runs with the parts on; nobody else runs it so meanwhile."""

    def after(name: str, _module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return parts.add(name, inputs[0], output)

    with PASS, ExitStack() as hooks:
        for name in parts.names:
            hooks.callback(network.get_submodule(name).register_forward_hook(partial(after, name)).remove)
        yield


@contextlib.contextmanager
def multiplied(layers: Sequence[nn.Module], rows: int, times: int) -> Iterator[None]:
    """Within this block a pass of ``rows`` rows becomes one of ``times * rows`` at the first of these layers."""

    def before(_module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return more(args, rows, times), more(kwargs, rows, times)

    with ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
        yield


def more(value: Any, rows: int, times: int) -> Any:
    """``value`` with every tensor in it that has a row an entry (masks, positions) repeated as often; the rest as it is."""
    if isinstance(value, Tensor):
        return value.repeat(times, *[1] * (value.ndim - 1)) if value.ndim > 1 and len(value) == rows else value
    if isinstance(value, tuple):
        return tuple(more(item, rows, times) for item in value)
    if isinstance(value, dict):
        return {key: more(item, rows, times) for key, item in value.items()}
    return value


def layers_of(network: Network) -> tuple[str, nn.ModuleList]:
    """``(name, list)`` of the network's layers: the outermost list that is as long as the configuration says.

    Errors: :class:`~mightnt.errors.InputError` where there is none, or more than one.
    """
    depth = getattr(network.config.get_text_config(), "num_hidden_layers", None)
    found = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    outermost = [(n, m) for n, m in found if not any(n.startswith(f"{other}.") for other, _ in found)]
    if len(outermost) != 1:
        raise InputError(f"{type(network).__name__} has {len(outermost)} lists of {depth} layers; one is needed")
    return outermost[0]


def first_layer(network: Network, names: Sequence[str]) -> int:
    """The lowest layer that one of these modules lies in.

    Errors: :class:`~mightnt.errors.InputError` where the layers cannot be told, or a module lies outside them.
    """
    prefix = f"{layers_of(network)[0]}."
    outside = [name for name in names if not name.startswith(prefix)]
    if outside:
        raise InputError(f"{outside[0]} lies outside the layers; only those can be shared")
    return min(int(name.removeprefix(prefix).split(".")[0]) for name in names)


@dataclass(slots=True)
class TrunkMemory:
    """What was read so far; changed in place by reading on. The shared layers remember each row once."""

    caches: list[DynamicCache]
    """One for all members, or one each where nothing is shared."""
    position: int = 0
    """Tokens read."""


class SharedTrunk:
    """Members of one network, scored together: hidden states, log-probabilities, or token by token.

    Args:
        network: any causal language model; its weights are left as they are, dropout is turned off.
        parts: what each member adds; the layers below the first that gets something are shared.

    A member that returns NaN is refused wherever it does, naming it.
    """

    def __init__(self, network: Network, parts: Parts) -> None:
        self.network, self.parts = network.eval(), parts
        self.shared_layers, self.depth = 0, 1
        """k and D."""
        self.why_not = ""
        """Why the members are run one after the other: K passes, all else the same. Empty: they are run together."""
        self.upper: Sequence[nn.Module] = ()
        try:
            layers = layers_of(network)[1]
            shared = first_layer(network, parts.names)
            self.upper = list(layers[shared:])
            self.try_out()
            self.shared_layers, self.depth = shared, len(layers)
        except Exception as error:  # what foreign networks raise is not known; K passes serve them all
            self.why_not = f"{type(network).__name__} runs its members one after the other: {first_line(error)}"

    @property
    def passes(self) -> float:
        """What all members cost in passes of one network through its layers: k/D + K (1 - k/D)."""
        share = self.shared_layers / self.depth
        return share + self.parts.n_members * (1 - share)

    def try_out(self) -> None:
        """Run a few tokens through members that differ everywhere, together and one by one; a difference is an error."""
        parts = Scaled(self.parts.names)
        for rows in (2, 3):  # 3: as many rows as positions, where one could be taken for the other
            tokens = torch.arange(3 * rows, device=self.network.device).view(rows, 3)
            tokens = tokens % self.network.get_input_embeddings().num_embeddings
            mask = torch.ones_like(tokens)
            mask[-1, -1] = 0
            call = partial(self.logits_of, tokens, mask)
            with torch.no_grad():
                together = self.together(parts, rows, call)[0][:, mask.bool()]
                alone = self.one_by_one(parts, call)[0][:, mask.bool()]
            rough = math.sqrt(torch.finfo(alone.dtype).eps) * float(alone.abs().max())
            if not float((together - alone).abs().max()) <= rough:
                raise ContractError(f"{type(self.network).__name__} gives something else for all members at once")

    def run(self, rows: int, call: Callable[[int], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What ``call(i)``, a pass of the network on ``rows`` rows, returns for every member: each (members, rows, ...).

        ``i`` counts the passes: 0 where all members go together.
        """
        if self.why_not:
            return self.one_by_one(self.parts, call)
        return self.together(self.parts, rows, call)

    def together(self, parts: Parts, rows: int, call: Callable[[int], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """One pass for all members."""
        with worn(self.network, parts), multiplied(self.upper, rows, parts.n_members):
            found = call(0)
        return tuple(item.view(parts.n_members, rows, *item.shape[1:]) for item in found)

    def one_by_one(self, parts: Parts, call: Callable[[int], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """One pass for each member: slow, obvious, and for every network."""
        found = []
        for i in range(parts.n_members):
            with worn(self.network, parts.one(i)):
                found.append(call(i))
        return tuple(torch.stack(items) for items in zip(*found, strict=True))

    def logits_of(self, input_ids: Tensor, attention_mask: Tensor | None, _: int) -> tuple[Tensor]:
        """The network's own logits, in one pass."""
        return (self.network(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits,)

    def logits(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits of every member, (members, rows, length, vocabulary), with gradients if they are on.

        Args:
            input_ids: shape (rows, length); no more than the network's context.
            attention_mask: the same shape, 0 at padding; ``None``: no padding, or on the right, where it never matters.
        """
        check_length(self.network, input_ids.shape[1])
        logits = self.run(len(input_ids), partial(self.logits_of, input_ids, attention_mask))[0]
        return numbers(logits, attention_mask)

    @torch.no_grad()
    def log_probs(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """log p(next token) by every member at every position, float32, (members, rows, length, vocabulary).

        Kind: exact (float32): what each member says when it is run by itself. Cost: :attr:`passes`, and the output layer
        once a member. For a large vocabulary take :meth:`hidden` and :meth:`head`.
        """
        return self.logits(input_ids, attention_mask).float().log_softmax(dim=-1)

    @torch.no_grad()
    def hidden(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What the output layer reads, (members, rows, length, width). Kind: exact. Cost: :attr:`passes`."""
        check_length(self.network, input_ids.shape[1])

        def call(_: int) -> tuple[Tensor, ...]:
            output = self.network.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
            return (output.last_hidden_state,)

        return numbers(self.run(len(input_ids), call)[0], attention_mask)

    def head(self) -> tuple[Tensor, Tensor | None]:
        """Weight (vocabulary, width) and bias of the output layer that all members share.

        Errors: :class:`~mightnt.errors.InputError` for a network whose logits are not this layer's (capped, scaled, ...).
        """
        layer, tokens = self.network.get_output_embeddings(), torch.zeros(1, 2, dtype=torch.int64)
        tokens[:, 1] = 1
        if layer is not None:
            with torch.no_grad():
                there, here = (
                    self.logits(tokens.to(self.network.device)),
                    layer(self.hidden(tokens.to(self.network.device))),
                )
            if there.shape == here.shape and torch.allclose(there, here, rtol=1e-4, atol=1e-5):
                return layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
        raise InputError(
            f"the logits of {type(self.network).__name__} are not one matrix times hidden states; use logits"
        )

    def start(self) -> TrunkMemory:
        """An empty memory; it takes the number of rows from the first tokens."""
        n = self.parts.n_members if self.why_not else 1
        return TrunkMemory([DynamicCache(config=self.network.config) for _ in range(n)])

    @torch.no_grad()
    def read(self, memory: TrunkMemory, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the next token (members, rows, vocabulary), hidden states (members, rows, width).

        Args:
            memory: of :meth:`start`; changed in place. It holds the shared layers once.
            tokens: shape (rows, n): those that come next.

        Kind: exact (float32). Cost: :attr:`passes` over n tokens.
        """
        check_length(self.network, memory.position + tokens.shape[1])

        def call(i: int) -> tuple[Tensor, ...]:
            output = self.network(
                input_ids=tokens,
                past_key_values=memory.caches[i],
                use_cache=True,
                output_hidden_states=True,
                logits_to_keep=1,
            )
            return output.logits[:, -1], output.hidden_states[-1][:, -1]

        logits, hidden = self.run(len(tokens), call)
        memory.position += tokens.shape[1]
        return numbers(logits).float().log_softmax(dim=-1), hidden


def numbers(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """``values``, shape (members, rows, ...), if they hold no NaN but where ``mask`` is 0.

    Errors: :class:`~mightnt.errors.InputError` naming the first member that does.
    """
    for member, row in enumerate(values):
        wrong = row.isnan().flatten(2).any(dim=2) if mask is not None else row.isnan()
        if bool((wrong if mask is None else wrong & mask.bool()).any()):
            raise InputError(
                f"member {member} of the trunk returned NaN; leave it out, or fit it again at a lower rate"
            )
    return values


class Scaled:
    """Parts to try a network out with: two members of which the second puts out a little more everywhere."""

    def __init__(self, names: Sequence[str], scales: Sequence[float] = (1.0, 1.25)) -> None:
        self.names, self.scales = names, scales

    @property
    def n_members(self) -> int:
        """Two, or one."""
        return len(self.scales)

    def add(self, name: str, inputs: Tensor, output: Tensor) -> Tensor:
        """Each block of rows times its member's scale."""
        scales = output.new_tensor(self.scales)[:, None]
        return (output.reshape(len(self.scales), -1) * scales).view(output.shape)

    def one(self, member: int) -> Scaled:
        """One of the two."""
        return Scaled(self.names, self.scales[member : member + 1])
