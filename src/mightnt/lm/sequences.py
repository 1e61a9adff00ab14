"""What a base says of finished sequences: log nu of every token the agent chose, and how much of the mass is kept there.

A base moves along an episode, yet only by the tokens that were chosen: ``Base.advance`` looks at one column of the
vocabulary. So a sequence is read once by every network, the base is led along it on that one column (a vocabulary of one,
all rows at once), and then asked over the whole vocabulary for a block of places together. Nothing of the size members x
places x vocabulary ever exists. The slow way, place by place as episodes are played, is ``lm.reference.score_by_hand``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mightnt.errors import InputError
from mightnt.lm.bases.contract import Base, State, log_kept, pick
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.full_kl import kl_step_nats
from mightnt.lm.heads import TwoParts
from mightnt.lm.members import MemberStep, over_actions, with_counts
from mightnt.lm.scoring import MAX_TOKENS
from mightnt.lm.vocabulary import vouched_by_heads
from mightnt.models.counts import BEFORE_START, SuffixCounts, Support
from mightnt.models.situations import SituationCounts

MAX_NUMBERS = 2**22
"""Numbers of float64 that a block of places holds of each kind: 32 MiB."""


@dataclass(frozen=True)
class Panel:
    """Who is asked."""

    networks: tuple[TwoParts, ...]
    """At least one; the first one's hidden states are what bases see."""
    is_action: Tensor
    """Which tokens can be chosen, bool, shape (tokens,); networks are conditioned on these."""
    counts: SuffixCounts | None = None
    support: Support | None = None
    situations: SituationCounts | None = None
    """Counts over hidden states of the first network, as it says them without a temperature."""
    temperature: float = 1.0
    """Logits of networks are divided by it. Counts are shares of what was demonstrated: no temperature applies."""

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return len(self.is_action)


@dataclass(frozen=True)
class Scored:
    """What a base says of sequences, aligned with their tokens; 0 wherever the agent did not choose. float64."""

    log_nu: Tensor
    """log nu of the chosen token, shape (rows, length); ``-inf`` where the base forbids it."""
    log_kept: Tensor
    """log sum_x nu(x) = log(1 - theta) there, shape (rows, length); ``-inf`` where nothing is vouched for."""
    kl_nats: Tensor | None = None
    """KL of the policy's choice to nu over the whole vocabulary, same shape; only where a policy was given."""


@dataclass(frozen=True)
class Asked:
    """Whose distance to the base is wanted over the whole vocabulary."""

    policy: TwoParts
    lowest_nats: float = -torch.inf
    """log nu is raised to this for the KL, which is inf otherwise wherever the base forbids anything."""


@dataclass(frozen=True)
class Rows:
    """Sequences without their padding, each from the left; the rest of a row is 0 and nobody's."""

    tokens: Tensor
    own: Tensor
    """Which tokens the agent chose."""
    acting: Tensor
    """Which tokens the agent or, in its place, the demonstrator chose: they move the base."""
    order: Tensor
    """Where each token stood, shape (rows, original length)."""

    def part(self, rows: slice) -> Rows:
        """Some rows."""
        return Rows(self.tokens[rows], self.own[rows], self.acting[rows], self.order[rows])

    def back(self, values: Tensor) -> Tensor:
        """Values of these tokens where the tokens stood, 0 in the padding."""
        padded = values.new_zeros(self.order.shape)
        return padded.scatter(1, self.order[:, : values.shape[1]], values)


@torch.no_grad()
def score_sequences(
    panel: Panel,
    base: Base,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    own: Tensor | None = None,
    answered: Tensor | None = None,
    asked: Asked | None = None,
) -> Scored:
    """What the base says of every token the agent chose in finished sequences, without gradients.

    log nu(x_t | x_<t) and log(1 - theta) at every place t where the agent chose; what others said is read and not charged.

    Args:
        input_ids: integers, shape (rows, length).
        attention_mask: 0 for padding (left, right or between: padding is taken out), same shape; all tokens by default.
        own: which tokens the agent chose, same shape; by default all but the first of each row, which must be given.
        answered: which tokens the demonstrator chose in the agent's place, same shape: they are not charged, and move a
            base that learns from them; none by default.
        asked: a policy whose KL over the whole vocabulary is wanted as well.

    Errors: :class:`~mightnt.errors.InputError` for shapes that do not fit, tokens outside the members' vocabulary, rows
    longer than a context, a first token that the agent chose, a network that says NaN.
    Kind: exact (float32 networks). Paper: nu_alpha and theta along a history. Cost: one pass of each network's trunk and
    head; memory: hidden states, and ``MAX_NUMBERS`` of float64 a block.
    """
    rows = compact(panel, input_ids, attention_mask, own, answered)
    size = max(1, MAX_TOKENS // max(1, rows.tokens.shape[1]))
    starts = range(0, len(rows.tokens), size)
    parts = [score_rows(panel, base, rows.part(slice(i, i + size)), asked) for i in starts]
    if not parts:
        nothing = torch.zeros(rows.order.shape, dtype=torch.float64)
        return Scored(nothing, nothing, nothing if asked else None)
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    log_nu, kept, kl = (rows.back(column) for column in columns)
    return Scored(log_nu, kept, kl if asked else None)


def compact(
    panel: Panel, input_ids: Tensor, attention_mask: Tensor | None, own: Tensor | None, answered: Tensor | None
) -> Rows:
    """The sequences without padding, checked."""
    device = panel.is_action.device
    if input_ids.ndim != 2 or input_ids.is_floating_point():
        raise InputError(
            f"input_ids are {input_ids.dtype} of shape {tuple(input_ids.shape)}; (rows, length) of integers"
        )
    there = masked("attention_mask", attention_mask, input_ids, True).to(device)
    order = (~there).int().argsort(dim=1, stable=True)
    length = int(there.sum(1).max()) if there.numel() else 0

    def moved(mask: Tensor) -> Tensor:
        return (mask.to(device) & there).gather(1, order)[:, :length]

    first = torch.zeros_like(there).scatter(1, order[:, :1], True) if length else there
    chosen = moved(~first if own is None else masked("own", own, input_ids, True))
    theirs = moved(masked("answered", answered, input_ids, False)) & ~chosen
    tokens = input_ids.to(device).masked_fill(~there, 0).gather(1, order)[:, :length]
    if length and bool(chosen[:, 0].any()):
        raise InputError("the first token of a row is the agent's; a prompt of at least one token is needed before it")
    if length and (int(tokens.min()) < 0 or int(tokens.max()) >= panel.n_tokens):
        got = f"tokens from {int(tokens.min())} to {int(tokens.max())}"
        raise InputError(
            f"{got}; the members know 0 to {panel.n_tokens - 1}: members and policy must share one vocabulary"
        )
    return Rows(tokens, chosen, chosen | theirs, order)


def masked(name: str, mask: Tensor | None, like: Tensor, default: bool) -> Tensor:
    """A mask as bool, or a refusal of its shape."""
    if mask is None:
        return torch.full(like.shape, default, dtype=torch.bool, device=like.device)
    if mask.shape != like.shape:
        raise InputError(f"{name} has shape {tuple(mask.shape)}; that of input_ids, {tuple(like.shape)}, is needed")
    return mask.bool()


def score_rows(panel: Panel, base: Base, rows: Rows, asked: Asked | None) -> tuple[Tensor, Tensor, Tensor]:
    """log nu, log kept and KL of some rows, each (rows, length without padding)."""
    zeros = torch.zeros(rows.tokens.shape, dtype=torch.float64, device=rows.tokens.device)
    log_nu, kept, kl = zeros, zeros.clone(), zeros.clone()
    if not bool(rows.own.any()):
        return log_nu, kept, kl
    read = [network.read(rows.tokens) for network in panel.networks]
    if asked is None and is_plain_minimum(panel, base) and all(network.divides for network in panel.networks):
        where = rows.own.nonzero(as_tuple=True)
        log_nu[where], kept[where] = plain_minimum(panel, rows, read, where)
        return log_nu, kept, kl
    policy_read = asked.policy.read(rows.tokens) if asked else None
    state = base.start(len(rows.tokens)).to(rows.tokens.device)
    for row, place in places(panel, rows):
        step, tokens = said(panel, rows, read, row, place), rows.tokens[row, place]
        states, state = led(base, state, step, row, place, tokens, rows.own[row, place])
        vouched = vouch(base, states, step)
        own = rows.own[row, place]
        where = (row[own], place[own])
        log_nu[where] = pick(vouched, tokens)[own]
        kept[where] = log_kept(vouched)[own]
        if asked is not None and policy_read is not None:
            logits = asked.policy.logits(policy_read[row[own], place[own] - 1]) / panel.temperature
            kl[where] = kl_raised(logits, vouched[own], asked.lowest_nats)
    return log_nu, kept, kl


def is_plain_minimum(panel: Panel, base: Base) -> bool:
    """Whether the base is the minimum over the networks and nothing else."""
    return isinstance(base, Minimum) and panel.counts is None


def plain_minimum(panel: Panel, rows: Rows, read: list[Tensor], where: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """log nu and log kept of the minimum over networks at these places, by the kernel that never holds them all."""
    row, place = where
    heads = [network.inner.get_output_embeddings() for network in panel.networks]
    vouched = vouched_by_heads(
        [hidden[row, place - 1] for hidden in read],
        [head.weight[: panel.n_tokens] for head in heads],
        rows.tokens[row, place],
        biases=[None if head.bias is None else head.bias[: panel.n_tokens] for head in heads],
        temperature=panel.temperature,
        is_action=panel.is_action,
    )
    return vouched.log_nu.double(), vouched.log_kept.double()


def places(panel: Panel, rows: Rows) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and places of the tokens that move the base, in order of place, in blocks that fit the memory."""
    n, length = rows.tokens.shape
    size = max(1, MAX_NUMBERS // (n * panel.n_tokens * len(panel.networks)))
    for first in range(1, length, size):
        place, row = rows.acting[:, first : first + size].T.nonzero(as_tuple=True)
        if len(row):
            yield row, place + first


def said(panel: Panel, rows: Rows, read: list[Tensor], row: Tensor, place: Tensor) -> MemberStep:
    """What everybody says at these places, one row of the step each."""
    spoken = []
    for number, (network, hidden) in enumerate(zip(panel.networks, read, strict=True)):
        logits = network.logits(hidden[row, place - 1]).to(panel.is_action.device)
        spoken.append(over_actions(logits / panel.temperature, panel.is_action))
        if bool(spoken[-1].isnan().any()):
            raise InputError(f"network {number} says NaN; a network with finite logits is needed")
    longest = panel.counts.longest if panel.counts else 0
    suffixes, hidden = suffixes_at(rows.tokens, row, place, longest), read[0][row, place - 1]
    return with_counts(torch.stack(spoken), suffixes, hidden, panel.counts, panel.support, panel.situations)


def suffixes_at(tokens: Tensor, row: Tensor, place: Tensor, longest: int) -> NDArray[np.int64]:
    """The ``longest`` tokens before each place, newest last, ``BEFORE_START`` where none was; shape (places, longest)."""
    table, r, t = (x.cpu().numpy() for x in (tokens, row, place))
    before = np.full((len(table), longest), BEFORE_START, dtype=np.int64)
    heard = np.concatenate([before, table], axis=1)
    found: NDArray[np.int64] = heard[r[:, None], t[:, None] + np.arange(longest)]
    return found


def led(
    base: Base, state: State, step: MemberStep, row: Tensor, place: Tensor, tokens: Tensor, own: Tensor
) -> tuple[State, State]:
    """The base's state at each of these places (ascending), and every row's state after them.

    A token that is impossible under everything has no state after it (NaN): the state before it stays.
    """
    if not state.shape[1]:
        return state[row], state
    states, state = state[row].clone(), state.clone()
    begins = np.unique(place.cpu().numpy(), return_index=True)[1].tolist()
    for begin, end in pairwise([*begins, len(place)]):
        here, part = row[begin:end], slice(begin, end)
        states[part] = state[here]
        moved = base.advance(state[here], column(step, part, tokens), torch.zeros_like(here), own[part])
        state[here] = torch.where(moved.isnan().any(1, keepdim=True), state[here], moved)
    return states, state


def column(step: MemberStep, part: slice, tokens: Tensor) -> MemberStep:
    """What everybody says of one token a place: a vocabulary of one. Every field but the hidden state is over tokens."""

    def one(name: str, value: Tensor | None) -> Any:
        if value is None or name == "hidden":
            return None if value is None else value[part]
        return pick(value[..., part, :], tokens[part])[..., None]

    return replace(step, **{name: one(name, value) for name, value in vars(step).items()})


def vouch(base: Base, state: State, step: MemberStep) -> Tensor:
    """log nu by the base, shape (places, tokens); :class:`Minimum` without counts is the minimum over the networks."""
    if isinstance(base, Minimum) and step.counts is None:
        return step.networks.amin(0)
    return base.predict(state, step)


def kl_raised(logits: Tensor, log_nu: Tensor, lowest_nats: float) -> Tensor:
    """KL of softmax(logits) to nu raised to a lowest log-probability, in nats, shape (places,). Rows to spare are forbidden."""
    log_policy = logits.double().to(log_nu.device).log_softmax(-1)
    spare = log_policy.shape[1] - log_nu.shape[1]
    raised = torch.nn.functional.pad(log_nu, (0, spare), value=-torch.inf).clamp(min=lowest_nats)
    return kl_step_nats(log_policy, raised)
