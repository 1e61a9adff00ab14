"""A causal language model in two parts: the trunk reads whole rows once, the head speaks at any of their places.

Logits of a whole batch are the largest object of scoring; hidden states are not. So rows are read once and the head is
asked a block of places at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mightnt.errors import InputError
from mightnt.lm.adapters import AdapterNetwork, together
from mightnt.lm.scoring import Network, check_length, context_tokens, logits_of
from mightnt.lm.trunk import SharedTrunk


class TwoParts:
    """A network as trunk and head, or whole where it does more to its logits than one linear layer (soft caps, scales).

    Which of the two is found out by trying. An adapted network (peft) speaks with the adapter that is active.

    Args:
        network: any causal language model.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.inner = network.get_base_model() if hasattr(network, "get_base_model") else network
        whole = try_whole(self.inner)
        self.divides = divides(self.inner, whole)
        self.rows = whole.shape[-1]
        """Rows of the output layer: at least as many as there are tokens."""

    def read(self, tokens: Tensor) -> Tensor:
        """What the head needs at every place, shape (rows, length, width): hidden states, or all logits of a whole network.

        Rows are padded on the right, so that no mask is needed. Errors: InputError for rows longer than the context.
        """
        check_length(self.inner, tokens.shape[1])
        return hidden_of(self.inner, tokens) if self.divides else logits_of(self.inner, tokens)

    def logits(self, read: Tensor) -> Tensor:
        """Logits of the token after some places, float32, shape (places, vocabulary)."""
        if not self.divides:
            return read
        logits: Tensor = self.inner.get_output_embeddings()(read)
        return logits.float()

    @property
    def width(self) -> int:
        """Numbers that ``read`` gives at each place."""
        return int(self.inner.get_output_embeddings().weight.shape[1]) if self.divides else self.rows


class SharedReading:
    """Networks that are adapters on one trunk, read in one pass: the layers below the first adapter once for all.

    Args:
        members: which networks of all they are.
        networks: those, in two parts each; all adapters on one network that divides.
    """

    def __init__(self, members: Sequence[int], networks: Sequence[TwoParts]) -> None:
        self.members, self.networks = tuple(members), [part.network for part in networks]
        self.trunk = SharedTrunk(self.networks[0].network, together([network.adapter for network in self.networks]))

    def read(self, tokens: Tensor) -> Tensor:
        """Hidden states, shape (members, rows, length, width). Cost: :attr:`~mightnt.lm.trunk.SharedTrunk.passes`."""
        self.trunk.parts = together([network.adapter for network in self.networks])  # as they are now
        return self.trunk.hidden(tokens.to(self.trunk.network.device))


def shared_readings(parts: Sequence[TwoParts]) -> tuple[SharedReading, ...]:
    """What can be read together: two or more adapters on one network."""
    groups: dict[int, list[int]] = {}
    for i, part in enumerate(parts):
        if isinstance(part.network, AdapterNetwork) and part.divides:
            groups.setdefault(id(part.network.network), []).append(i)
    return tuple(SharedReading(group, [parts[i] for i in group]) for group in groups.values() if len(group) > 1)


def read_all(parts: Sequence[TwoParts], shared: Sequence[SharedReading], tokens: Tensor) -> list[Tensor]:
    """What each head needs at every place, as :meth:`TwoParts.read` of each; what is shared is read together."""
    read = {i: hidden for reading in shared for i, hidden in zip(reading.members, reading.read(tokens), strict=True)}
    return [read[i] if i in read else part.read(tokens) for i, part in enumerate(parts)]


def hidden_of(network: Network, tokens: Tensor) -> Tensor:
    """Last hidden states after the final norm, shape (rows, length, width)."""
    hidden: Tensor = network.base_model(input_ids=tokens.to(network.device), use_cache=False).last_hidden_state
    return hidden


@torch.no_grad()
def try_whole(network: Network) -> Tensor:
    """What the network says after a few tokens, shape (1, tokens, vocabulary), or a refusal."""
    try:
        return logits_of(network, few_tokens(network))
    except AttributeError as error:
        raise InputError(f"{type(network).__name__} gives no logits; a causal language model is needed") from error


@torch.no_grad()
def divides(network: Network, whole: Tensor) -> bool:
    """Whether output layer of hidden states is exactly what the network says (``whole``)."""
    try:
        ours = network.get_output_embeddings()(hidden_of(network, few_tokens(network))).float()
    except (AttributeError, TypeError):
        return False
    return bool(ours.shape == whole.shape and torch.allclose(ours, whole, rtol=1e-5, atol=1e-5))


def few_tokens(network: Network) -> Tensor:
    """Some tokens to try a network on, shape (1, n)."""
    return torch.arange(min(16, int(network.config.vocab_size), context_tokens(network)))[None]
