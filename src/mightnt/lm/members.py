"""What every member of a set of imitators says about the next token, for many episodes at once.

Networks see tokens, counts see suffixes; all advance together, one token a row and step. Networks are conditioned on the
next token being an *action*: role marks and padding are given by the chat, nobody chooses them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mightnt.lm.networks import NetworkMember, NetworkState
from mightnt.lm.scoring import read_whole
from mightnt.models.counts import BEFORE_START, SuffixCounts, Support, suffixes_of
from mightnt.models.situations import SituationCounts

RECALLED_AT_ONCE = 64
"""Places of a dialogue that are looked at together: bounds the memory."""


@dataclass(frozen=True)
class MemberStep:
    """Log-probabilities of the next action by every member, float64, and what else bases look at."""

    networks: Tensor
    """Shape (networks, rows, tokens); each row sums to one over actions."""
    counts: Tensor | None
    """The count member, shape (rows, tokens); ``None`` when no base asked for it."""
    supported: Tensor | None
    """Which tokens the demonstrations support, bool, shape (rows, tokens)."""
    demonstrator: Tensor | None
    """The demonstrator itself where it is known, shape (rows, tokens)."""
    hidden: Tensor
    """Last hidden state of the first network, shape (rows, width): what the actor sees."""
    situations: Tensor | None = None
    """The counts of situations, shape (rows, tokens); ``None`` when no base asked for it."""


def over_actions(log_probabilities: Tensor, is_action: Tensor) -> Tensor:
    """log P(x | x is an action) in float64: conditioned, since only actions can be chosen.

    Shape (..., rows of the embedding) to (..., tokens): a network may have rows to spare, which stand for no token.
    """
    spoken = log_probabilities[..., : len(is_action)].double()
    return torch.log_softmax(spoken.masked_fill(~is_action, -torch.inf), dim=-1)


class Members:
    """Networks and counts read the same tokens, step by step. Single use: ``start`` again for new episodes."""

    def __init__(
        self,
        networks: Sequence[NetworkMember],
        is_action: NDArray[np.bool_],
        counts: SuffixCounts | None = None,
        support: Support | None = None,
        situations: SituationCounts | None = None,
    ) -> None:
        self.networks = list(networks)
        self.is_action = torch.from_numpy(is_action)
        self.counts = counts
        self.support = support
        self.situations = situations

    def start(self, rows: int) -> None:
        """Forget everything; ``rows`` episodes begin."""
        self.states: list[NetworkState] = [network.start(rows) for network in self.networks]
        longest = self.counts.longest if self.counts else 0
        self.suffixes = np.full((rows, longest), BEFORE_START, dtype=np.int64)

    def advance(self, tokens: Tensor) -> None:
        """Everybody reads one more token a row, shape (rows,), or several, shape (rows, n)."""
        self.states = [
            network.advance(state, tokens) for network, state in zip(self.networks, self.states, strict=True)
        ]
        longest = self.suffixes.shape[1]
        if longest:
            heard = np.concatenate([self.suffixes, tokens.numpy().reshape(len(tokens), -1)], axis=1)
            self.suffixes = heard[:, -longest:]

    def predict(self, rows: Tensor, demonstrator: Tensor | None = None) -> MemberStep:
        """What every member says at these rows (indices), after at least one ``advance``."""
        networks = torch.stack([over_actions(state.log_probs[rows], self.is_action) for state in self.states])
        return self.said(networks, self.suffixes[rows.numpy()], self.states[0].hidden[rows], demonstrator)

    def said(
        self, networks: Tensor, suffixes: NDArray[np.int64], hidden: Tensor, demonstrator: Tensor | None = None
    ) -> MemberStep:
        """What the networks said, with what the counts say at these suffixes and hidden states, one row each."""
        return with_counts(networks, suffixes, hidden, self.counts, self.support, self.situations, demonstrator)

    def recall(self, tokens: Tensor, places: Sequence[int]) -> Iterator[MemberStep]:
        """What every member said before these places (1 or later) of one dialogue, one row each; nothing here moves.

        Kind: exact (float32). Cost: one pass of each network over the dialogue, all logits held at once.
        """
        if not len(places):
            return
        said = [read_whole(member.network, tokens) for member in self.networks]
        longest = self.counts.longest if self.counts else 0
        suffixes = suffixes_of(tokens.numpy(), np.array([0, len(tokens)]), longest)
        for first in range(0, len(places), RECALLED_AT_ONCE):
            block = np.array(places[first : first + RECALLED_AT_ONCE])
            networks = torch.stack([over_actions(rows[block - 1], self.is_action) for rows, _ in said])
            step = self.said(networks, suffixes[block], said[0][1][block - 1])
            for i in range(len(block)):
                yield one_row(step, i)


def with_counts(
    networks: Tensor,
    suffixes: NDArray[np.int64],
    hidden: Tensor,
    counts: SuffixCounts | None,
    support: Support | None,
    situations: SituationCounts | None,
    demonstrator: Tensor | None = None,
) -> MemberStep:
    """What the networks said, with what the counts at hand say at these suffixes and hidden states, one row each.

    A token has support where every rule at hand supports it; ``None`` where there is no rule.
    """
    located = situations.located(hidden.float().cpu().numpy()) if situations else None
    sources = []
    if counts is not None and support is not None:
        sources.append(counts.supported(suffixes, support))
    if situations is not None and located is not None:
        sources.append(situations.allowed(located).written_out())

    def tensor(values: NDArray[Any] | None) -> Tensor | None:
        return None if values is None else torch.from_numpy(values).to(networks.device)

    return MemberStep(
        networks=networks,
        counts=tensor(counts.predict(suffixes) if counts else None),
        supported=tensor(np.logical_and.reduce(sources) if sources else None),
        demonstrator=demonstrator,
        hidden=hidden,
        situations=tensor(situations.spread(located).written_out() if situations and located is not None else None),
    )


def one_row(step: MemberStep, i: int) -> MemberStep:
    """Row ``i`` of a step, as a step of one row."""
    rows = {name: value[i : i + 1] for name, value in vars(step).items() if value is not None and name != "networks"}
    return replace(step, networks=step.networks[:, i : i + 1], **rows)
