"""A base as a module that scores finished sequences: for any training loop, and a valid reference for TRL's trainers.

Three ways in, from plain to convenient:

- ``lm.sequences.score_sequences`` and :func:`response_log_probs`: functions, for a loop written by hand;
- :meth:`Reference.score`: exact log nu and log(1 - theta), ``-inf`` included;
- :meth:`Reference.forward`: per-token log-probabilities in the convention of TRL 1.15 and later, finite.

Tokens the base forbids have log nu = -inf, and that is what ``score`` says. A trainer turns an infinite reward into NaN or
into no gradient at all, so ``forward`` raises them to ``-forbidden_nats`` and counts them in ``forbidden_tokens``. That
floor is no probability: a sequence with a forbidden token is over every budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mightnt.errors import InputError
from mightnt.lm.bases.contract import Base, log_kept, pick
from mightnt.lm.heads import TwoParts, shared_readings
from mightnt.lm.imitators import Imitators
from mightnt.lm.members import MemberStep, over_actions, with_counts
from mightnt.lm.networks import NetworkMember
from mightnt.lm.panel import Panel, suffixes_at
from mightnt.lm.scoring import Network
from mightnt.lm.sequences import Asked, Rows, Scored, compact, score_sequences, vouch
from mightnt.lm.tokens import FastTokenizer
from mightnt.models.counts import BEFORE_START, SuffixCounts, Support
from mightnt.models.situations import SituationCounts

IGNORED = -100
"""Label of a token that is not to be scored, as everywhere around PyTorch."""


@dataclass(frozen=True)
class ReferenceOutput:
    """What :meth:`Reference.forward` returns."""

    log_probs: Tensor
    """float32, shape (rows, length - 1): entry ``[:, t]`` is of the token at ``t + 1``; 0 where its label is ignored."""
    scored: Scored
    """The exact numbers, aligned with the tokens."""


class Reference(torch.nn.Module):
    """log nu of finished sequences by a base over causal language models and, if given, counts. Never trained.

    Args:
        networks: one or several causal language models, put into evaluation mode; scoring has no gradients.
        base: any base of ``lm.bases``; what is scored is what it says. ``Minimum`` without counts is the minimum over all
            networks, scored by a kernel that never holds their logits.
        tokenizer: of the networks. Needed where a trainer's vocabulary is to be compared.
        is_action: which tokens can be chosen, bool, shape (tokens,): networks are conditioned on these and all others are
            forbidden. By default every token of the tokenizer.
        counts, support: the count member and its rule, for bases that look at them.
        situations: counts over hidden states of the first network, likewise.
        temperature: logits of networks are divided by it, as TRL does with its own reference; counts are not tempered.
        forbidden_nats: what ``forward`` says of a forbidden token: log nu = -forbidden_nats.

    Errors: :class:`~mightnt.errors.InputError` for vocabularies that differ, numbers out of range, a base that needs what
    is not here.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        base: Base,
        *,
        tokenizer: FastTokenizer | None = None,
        is_action: NDArray[np.bool_] | None = None,
        counts: SuffixCounts | None = None,
        support: Support | None = None,
        situations: SituationCounts | None = None,
        temperature: float = 1.0,
        forbidden_nats: float = 100.0,
    ) -> None:
        super().__init__()
        if not 0 < temperature < float("inf"):
            raise InputError(f"a temperature of {temperature}; a finite number above 0 is needed")
        if not 0 < forbidden_nats < float("inf"):
            raise InputError(f"forbidden_nats is {forbidden_nats}; a finite number above 0 is needed")
        self.networks = torch.nn.ModuleList(networks).eval()
        self.base, self.tokenizer, self.counts, self.support = base, tokenizer, counts, support
        self.situations = situations
        self.temperature, self.forbidden_nats = float(temperature), float(forbidden_nats)
        mask = checked_actions(tokenizer, is_action, counts)
        self.register_buffer("is_action", torch.from_numpy(np.array(mask)), persistent=False)
        self.parts = checked_networks(networks, len(mask))
        self.shared = shared_readings(self.parts)
        check_situations(situations, self.parts[0])
        self.forbidden_tokens = 0
        """Forbidden tokens that ``forward`` has met."""
        try_base(self)

    @classmethod
    def of_imitators(cls, imitators: Imitators, base: str = "situations", **settings: Any) -> Reference:
        """The base of this name over the members it looks at; see :meth:`~mightnt.lm.imitators.Imitators.base`."""
        members = imitators.members(base)
        return cls(
            [member.network for member in members.networks],
            imitators.base(base),
            tokenizer=imitators.tokenizer,
            is_action=imitators.counts.is_action,
            counts=members.counts,
            support=members.support,
            situations=members.situations,
            **settings,
        )

    def train(self, mode: bool = True) -> Reference:
        """Stays as it is: a reference has no dropout."""
        return super().train(False)

    @property
    def panel(self) -> Panel:
        """Who is asked, where they are now."""
        is_action = self.get_buffer("is_action")
        return Panel(self.parts, is_action, self.counts, self.support, self.situations, self.temperature, self.shared)

    def score(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        own: Tensor | None = None,
        answered: Tensor | None = None,
        asked: Asked | None = None,
    ) -> Scored:
        """log nu and log(1 - theta) of every token the agent chose; see :func:`~mightnt.lm.sequences.score_sequences`.

        Autocast is off: members speak in the type of their own weights. Kind: exact (float32).
        """
        with torch.autocast(self.panel.is_action.device.type, enabled=False):
            return score_sequences(self.panel, self.base, input_ids, attention_mask, own, answered, asked)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        fused_lm_head: bool = True,
        asked: Asked | None = None,
        **more: Any,
    ) -> ReferenceOutput:
        """Log-probabilities of the labels' tokens as TRL 1.15 and later read them: finite, shifted by one, no logits.

        Entry ``[:, t]`` is log nu of the token at ``t + 1`` where its label is not -100, and 0 elsewhere; at least
        ``-forbidden_nats``. Errors: :class:`~mightnt.errors.InputError` without labels, or for inputs such as images.
        """
        if labels is None or not fused_lm_head:
            raise InputError(
                "a base has log-probabilities of labels, no logits; call it with labels and fused_lm_head=True"
            )
        if strange := sorted(name for name, value in more.items() if value is not None):
            raise InputError(f"got {', '.join(strange)}; a base reads text alone: input_ids, attention_mask, labels")
        own = labels != IGNORED
        own[:, 0] = False
        scored = self.score(input_ids, attention_mask, own, asked=asked)
        self.forbidden_tokens += int(scored.log_nu.isneginf().sum())
        return ReferenceOutput(raised(scored.log_nu, self.forbidden_nats)[:, 1:].float(), scored)


def raised(log_nu: Tensor, forbidden_nats: float) -> Tensor:
    """log nu raised to -forbidden_nats where it is lower."""
    return log_nu.clamp(min=-forbidden_nats)


def response_log_probs(
    reference: Reference, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor
) -> Tensor:
    """log nu of the last tokens, shape (rows, response): what verl and most loops call ``ref_log_prob``.

    ``response_mask`` (rows, response) is 1 where the agent chose; elsewhere the result is 0. Forbidden tokens have
    ``-forbidden_nats``. float32. Kind: exact (float32).
    """
    rows, length = input_ids.shape
    if response_mask.ndim != 2 or response_mask.shape[0] != rows or response_mask.shape[1] >= length:
        raise InputError(
            f"response_mask has shape {tuple(response_mask.shape)}; ({rows}, fewer than {length}) fits these input_ids"
        )
    labels = torch.full_like(input_ids, IGNORED)
    chosen = response_mask.bool()
    n = response_mask.shape[1]
    labels[:, length - n :] = torch.where(chosen, input_ids[:, length - n :], IGNORED)
    output: ReferenceOutput = reference(input_ids, attention_mask, labels)
    return output.log_probs[:, length - 1 - n :]


def checked_actions(
    tokenizer: FastTokenizer | None, is_action: NDArray[np.bool_] | None, counts: SuffixCounts | None
) -> NDArray[np.bool_]:
    """Which tokens can be chosen, the same for everybody, or a refusal."""
    if is_action is None:
        if tokenizer is None:
            raise InputError("neither a tokenizer nor is_action is given; one is needed to know the vocabulary")
        is_action = np.ones(len(tokenizer), dtype=np.bool_)
    if is_action.dtype != np.bool_ or is_action.ndim != 1 or not is_action.any():
        raise InputError(
            f"is_action is {is_action.dtype} of shape {is_action.shape}; bool, one a token, some of them true"
        )
    if tokenizer is not None and len(tokenizer) != len(is_action):
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens and is_action {len(is_action)}; were tokens added? they must agree"
        )
    if counts is not None and counts.n_symbols != len(is_action):
        raise InputError(
            f"counts know {counts.n_symbols} tokens, the networks {len(is_action)}; they must share a tokenizer"
        )
    return is_action


def checked_networks(networks: Sequence[Network], n_tokens: int) -> tuple[TwoParts, ...]:
    """The networks in two parts each, or a refusal. Rows to spare in an output layer are allowed and never speak."""
    if not networks:
        raise InputError("no network is given; a base needs at least one")
    if len({id(network) for network in networks}) < len(networks):
        raise InputError("the same network is given twice; members must be networks of their own")
    parts = tuple(TwoParts(network) for network in networks)
    for number, part in enumerate(parts):
        if part.rows < n_tokens:
            raise InputError(
                f"network {number} speaks {part.rows} tokens of {n_tokens}; members must share one tokenizer, and tokens "
                "that were added to it need a row in each (mightnt.lm.networks.resize_for)"
            )
    return parts


def check_situations(situations: SituationCounts | None, first: TwoParts) -> None:
    """Refuse counts of situations that are not of the first network's hidden states."""
    if situations is None:
        return
    width = situations.centers[-1].shape[1]
    if not first.divides or first.width != width:
        raise InputError(
            f"situations are told apart by {width} numbers, which the first network's hidden states are not; "
            "give the network they were counted with, first"
        )


@torch.no_grad()
def try_base(reference: Reference) -> None:
    """Ask the base once, of made-up members: does it find what it looks at?"""
    panel = reference.panel
    device = panel.is_action.device
    flat = over_actions(torch.zeros(1, panel.n_tokens, device=device), panel.is_action)
    suffixes = np.full((1, panel.counts.longest if panel.counts else 0), BEFORE_START, dtype=np.int64)
    hidden = torch.zeros(1, panel.networks[0].width, device=device)
    networks = flat.repeat(len(panel.networks), 1, 1)
    step = with_counts(networks, suffixes, hidden, panel.counts, panel.support, panel.situations)
    try:
        vouch(reference.base, reference.base.start(1).to(device), step)
    except AssertionError as error:
        raise InputError(f"base {reference.base.name!r}: {error}; give the Reference what it looks at") from error


@torch.no_grad()
def score_by_hand(
    reference: Reference,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    own: Tensor | None = None,
    answered: Tensor | None = None,
) -> Scored:
    """What :meth:`Reference.score` says, the slow and obvious way: row by row, token by token, as episodes are played.

    Its oracle, and what a trainer's start-up check compares with. Kind: exact (float32). Cost: a network step a token.
    """
    panel = reference.panel
    rows = compact(panel, input_ids, attention_mask, own, answered)
    log_nu = torch.zeros(rows.tokens.shape, dtype=torch.float64, device=rows.tokens.device)
    kept = log_nu.clone()
    for row in range(len(rows.tokens)):
        one = rows.part(slice(row, row + 1))
        last = one.acting[0].nonzero()
        if len(last):
            log_nu[row], kept[row] = score_row(reference, one, int(last[-1]))
    return Scored(rows.back(log_nu), rows.back(kept))


def score_row(reference: Reference, row: Rows, last: int) -> tuple[Tensor, Tensor]:
    """log nu and log kept of one sequence, read up to the token at ``last``."""
    panel, base = reference.panel, reference.base
    members = [NetworkMember(part.network, hugging_face=True) for part in panel.networks]
    states = [member.start(1) for member in members]
    state = base.start(1).to(row.tokens.device)
    log_nu, kept = (
        torch.zeros_like(row.tokens[0], dtype=torch.float64),
        torch.zeros_like(row.tokens[0], dtype=torch.float64),
    )
    for t in range(last + 1):
        token, own = row.tokens[:, t], row.own[:, t]
        if bool(row.acting[0, t]):
            spoken = [over_actions(s.log_probs.to(token.device) / panel.temperature, panel.is_action) for s in states]
            step = step_at(panel, torch.stack(spoken), row.tokens, t, states[0].hidden.to(token.device))
            vouched = vouch(base, state, step)
            if bool(own):
                log_nu[t], kept[t] = pick(vouched, token)[0], log_kept(vouched)[0]
            moved = base.advance(state, step, token, own) if state.shape[1] else state
            state = state if bool(moved.isnan().any()) else moved
        states = [member.advance(s, token) for member, s in zip(members, states, strict=True)]
    return log_nu, kept


def step_at(panel: Panel, networks: Tensor, tokens: Tensor, t: int, hidden: Tensor) -> MemberStep:
    """What everybody says before the token at ``t`` of one sequence."""
    longest = panel.counts.longest if panel.counts else 0
    suffixes = suffixes_at(tokens, torch.tensor([0]), torch.tensor([t]), longest)
    return with_counts(networks, suffixes, hidden, panel.counts, panel.support, panel.situations)
