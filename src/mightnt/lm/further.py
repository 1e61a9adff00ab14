"""Further networks as members, fitted to the demonstrations alone: from scratch, with a short memory, or for one turn.

A network that has learnt from others takes the agent's own odd actions for a hint of who is speaking. These cannot: they
know nobody else, or do not see what the agent did before. Left out: choosing their size and how long to fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mightnt.dialogues import Dialogue
from mightnt.errors import InputError
from mightnt.lm.fitting import FitConfig, fit
from mightnt.lm.imitators import Imitators
from mightnt.lm.members import Members, MemberStep, over_actions
from mightnt.lm.networks import NetworkMember, NetworkShape, build_network
from mightnt.lm.scoring import Network, context_tokens, logits_of
from mightnt.lm.tokens import Marks, encode
from mightnt.models.counts import SuffixCounts

IntArray = NDArray[np.int64]
Further = Literal["demonstrations-only", "limited-context", "turn-local"]
"""Sees the whole dialogue; its last few tokens; the last turn of the user and the turn in progress."""


@dataclass(frozen=True, slots=True)
class FurtherConfig:
    """How these networks are made."""

    width: int = 64
    """Numbers in a hidden state."""
    layers: int = 2
    """Transformer blocks."""
    steps_per_thousand: int = 300
    """Updates for 1000 demonstrations; as the square root of their number, a third of that at least."""
    limited_tokens: int = 8
    """How many tokens ``limited-context`` sees."""
    seed: int = 0
    """Of first weights and order of the demonstrations."""

    def steps(self, n: int) -> int:
        """Updates for ``n`` demonstrations."""
        return int(self.steps_per_thousand * max(1 / 3, (n / 1000) ** 0.5))


FITTED: dict[str, Network] = {}
"""Networks fitted in this process, by what they were fitted to and how."""


def further_network(imitators: Imitators, kind: Further, config: FurtherConfig | None = None) -> Network:
    """A network fitted from scratch to the demonstrations of these imitators; once in a process, then found again.

    Deterministic given demonstrations and config. Errors: :class:`~mightnt.errors.InputError` for an unknown kind.
    Kind: estimate (maximum likelihood by gradient). Cost: about 20 s for 1000 dialogues of 100 tokens on one core.
    """
    if kind not in get_args(Further):
        raise InputError(f"unknown kind of network {kind!r}; allowed are {', '.join(get_args(Further))}")
    config = config or FurtherConfig()
    corpus = encode(imitators.tokenizer, one_turn_each(imitators.fitted) if kind == "turn-local" else imitators.fitted)
    vocabulary, context = len(imitators.tokenizer), context_tokens(imitators.networks[0])
    key = f"{kind} {config} vocabulary={vocabulary} context={context} {corpus.checksum}"
    if key not in FITTED:
        seen = config.limited_tokens if kind == "limited-context" else context
        network = build_network(NetworkShape(config.width, config.layers, context=seen), vocabulary, config.seed)
        fit(network, corpus, FitConfig(config.steps(len(imitators.fitted))), config.seed)
        FITTED[key] = network
    return FITTED[key]


def one_turn_each(dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    """Every assistant turn as a dialogue of its own, after the user's turn just before it, if there is one."""
    return [
        dialogue[i - 1 : i + 1] if i and dialogue[i - 1].role == "user" else dialogue[i : i + 1]
        for dialogue in dialogues
        for i, message in enumerate(dialogue)
        if message.role == "assistant"
    ]


@dataclass(frozen=True)
class Glance:
    """A network that sees only the end of what was said."""

    network: Network
    kind: Further

    def begins(self, heard: IntArray, marks: Marks) -> IntArray:
        """Where in ``heard`` (rows, tokens) what it sees begins, shape (rows,)."""
        rows, length = heard.shape
        if self.kind == "limited-context":
            return np.full(rows, max(0, length - context_tokens(self.network)))
        own, user = last_place(heard == marks.assistant), last_place(heard == marks.user)
        before = last_place((heard == marks.assistant) & (np.arange(length) < own[:, None]))
        return np.where((user > before) & (user < own), user, np.maximum(own, 0))

    @torch.no_grad()
    def log_probs(self, heard: IntArray, marks: Marks) -> Tensor:
        """log p(next token | the end of ``heard``), float32, shape (rows, vocabulary). Rows do not touch each other."""
        rows, length = heard.shape
        sizes = length - self.begins(heard, marks)
        place = (length - sizes)[:, None] + np.arange(int(sizes.max()))
        tokens = np.where(place < length, np.take_along_axis(heard, np.minimum(place, length - 1), axis=1), marks.pad)
        logits = logits_of(self.network, torch.from_numpy(tokens))
        return logits[torch.arange(rows), torch.from_numpy(sizes - 1)].log_softmax(dim=-1)


def last_place(mask: NDArray[np.bool_]) -> IntArray:
    """Column of the last true entry of each row, -1 where there is none."""
    last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
    return np.where(mask.any(axis=1), last, -1).astype(np.int64)


class GlancingMembers(Members):
    """Members of whom some see only the end of what was said; they stand after the others in ``MemberStep.networks``.

    Such a network reads its end anew at every prediction, at the rows that are asked for alone.
    """

    def __init__(
        self,
        networks: Sequence[NetworkMember],
        glances: Sequence[Glance],
        marks: Marks,
        is_action: NDArray[np.bool_],
        counts: SuffixCounts | None = None,
    ) -> None:
        super().__init__(networks, is_action, counts)
        self.glances, self.marks = list(glances), marks

    def start(self, rows: int) -> None:
        """As :meth:`Members.start`."""
        super().start(rows)
        self.heard = np.empty((rows, 0), dtype=np.int64)

    def advance(self, tokens: Tensor) -> None:
        """As :meth:`Members.advance`."""
        super().advance(tokens)
        self.heard = np.concatenate([self.heard, tokens.numpy().reshape(len(tokens), -1)], axis=1)

    def predict(self, rows: Tensor, demonstrator: Tensor | None = None) -> MemberStep:
        """As :meth:`Members.predict`."""
        step = super().predict(rows, demonstrator)
        heard = self.heard[rows.numpy()]
        further = [over_actions(glance.log_probs(heard, self.marks), self.is_action) for glance in self.glances]
        fields = {**vars(step), "networks": torch.stack([*step.networks, *further])}
        return MemberStep(**fields)


def with_further(imitators: Imitators, kinds: Sequence[Further], counts: bool = True) -> Members:
    """The first network of these imitators, further ones of these kinds, and the counts."""
    fitted = {kind: further_network(imitators, kind) for kind in kinds}
    readers = [NetworkMember(imitators.networks[0])]
    readers += [NetworkMember(network) for kind, network in fitted.items() if kind == "demonstrations-only"]
    glances = [Glance(network, kind) for kind, network in fitted.items() if kind != "demonstrations-only"]
    known = imitators.counts if counts else None
    return GlancingMembers(readers, glances, imitators.marks, imitators.counts.is_action, known)
