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

import numpy as np
import torch
from torch import Tensor

from mightnt.errors import InputError
from mightnt.lm.bases.capped import Capped
from mightnt.lm.bases.contract import Base, State, pick
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.bases.mixture import Mixture
from mightnt.lm.bases.single import Single
from mightnt.lm.bases.slack import Slack
from mightnt.lm.bases.trajectory import Trajectory
from mightnt.lm.bases.turn import Turn
from mightnt.lm.capped_sums import kept_by_lists
from mightnt.lm.full_kl import kl_step_nats
from mightnt.lm.heads import TwoParts
from mightnt.lm.logs import log_sums
from mightnt.lm.members import MemberStep
from mightnt.lm.panel import Asks, Panel
from mightnt.lm.scoring import MAX_TOKENS
from mightnt.lm.vocabulary import rows_in_block, rows_in_cache, vouched_by_heads

BY_TOKEN = (Single, Minimum, Slack, Trajectory, Capped, Mixture)
"""Bases that look at each token by itself: float32 is enough for them over the vocabulary. Their states are float64."""


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
    read = panel.read(rows.tokens)
    if asked is None and is_plain_minimum(panel, base):
        where = rows.own.nonzero(as_tuple=True)
        log_nu[where], kept[where] = plain_minimum(panel, rows, read, where)
        return log_nu, kept, kl
    policy_read = asked.policy.read(rows.tokens) if asked else None
    state, asks = base.start(len(rows.tokens)).to(rows.tokens.device), what_it_asks(base, asked)
    for row, place, number in places(panel, rows, asks.dtype):
        tokens, own = rows.tokens[row, place], rows.own[row, place]
        heard = panel.hear(read, rows.tokens, row, place, asks)
        said = heard.at(np.arange(len(row)) * panel.n_tokens + tokens.cpu().numpy())
        states, state = led(base, state, said, row, number, tokens, own)
        left = torch.arange(len(row), device=row.device)
        if isinstance(base, Capped) and asked is None and heard.allowed:
            settled, numbers = kept_by_lists(base, states, heard, said)
            log_nu[row[settled], place[settled]], kept[row[settled], place[settled]] = numbers
            left = left[~settled]
        for some in torch.split(left, rows_in_cache(panel.n_tokens, asks.dtype, tokens.device)):
            vouched, where = vouch(base, states[some].to(asks.dtype), heard.written_out(some)), (row[some], place[some])
            log_nu[where], kept[where] = pick(vouched, tokens[some]).double(), kept_by(base, vouched).double()
            if asked is not None and policy_read is not None:
                logits = asked.policy.logits(policy_read[row[some], place[some] - 1]) / panel.temperature
                kl[where] = kl_raised(logits, vouched, asked.lowest_nats)
    others = ~rows.own
    return log_nu.masked_fill(others, 0.0), kept.masked_fill(others, 0.0), kl.masked_fill(others, 0.0)


def what_it_asks(base: Base, asked: Asked | None) -> Asks:
    """float32 for bases that look at each token by itself, else float64; a capped base looks at one kind of counts alone."""
    inner = base
    while isinstance(inner, Turn):
        inner = inner.base
    dtype = torch.float32 if isinstance(inner, BY_TOKEN) and asked is None else torch.float64
    if isinstance(inner, Capped):
        return Asks(dtype, inner.against == "counts", inner.against == "situations")
    return Asks(dtype)


def is_plain_minimum(panel: Panel, base: Base) -> bool:
    """Whether the base is the minimum over the networks and nothing else, and all of these have a head."""
    return isinstance(base, Minimum) and panel.counts is None and all(network.divides for network in panel.networks)


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


def places(panel: Panel, rows: Rows, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """``(row, place, number)`` of the tokens that move the base, in blocks that fit the memory.

    They come by their number among those of their row: first those that come first in a row, then the second ones, ...
    """
    row, place = rows.acting.nonzero(as_tuple=True)
    number = (rows.acting.cumsum(1) - 1)[row, place]
    order = number.argsort(stable=True)
    size = rows_in_block(panel.n_tokens, dtype, len(panel.networks))
    return zip(*(torch.split(values[order], size) for values in (row, place, number)), strict=True)


def led(
    base: Base, state: State, said: MemberStep, row: Tensor, number: Tensor, tokens: Tensor, own: Tensor
) -> tuple[State, State]:
    """The base's state at each of these places (``number`` ascending), and every row's state after them.

    ``said``: what everybody says of the token that was chosen there. A token that is impossible under everything has no
    state after it (NaN): the state before it stays.
    """
    if not state.shape[1]:
        return state[row], state
    if isinstance(base, Capped):
        return led_capped(base, state, said, row, number, own)
    states, state = state[row].clone(), state.clone()
    begins = np.unique(number.cpu().numpy(), return_index=True)[1].tolist()
    for begin, end in pairwise([*begins, len(row)]):
        here, part = row[begin:end], slice(begin, end)
        states[part] = before = state[here]
        moved = moved_on(base, before, some_rows(said, part), tokens[part], own[part])
        state[here] = torch.where(moved.isnan().any(1, keepdim=True), before, moved)
    return states, state


def led_capped(
    base: Capped, state: State, said: MemberStep, row: Tensor, number: Tensor, own: Tensor
) -> tuple[State, State]:
    """As :func:`led`, whose loop is its oracle: for a capped base a step is s -> min(max(s + log q / P, 0), log c).

    (log R' = max(0, log R + log nu / P) with nu = min(q, c P / R); s -> 0 where there is no support, and s stays where the
    demonstrator chose or P forbids the token.) Cost: three operations a step, on one number a row.
    """
    member = base.member(said)[:, 0]
    assert said.supported is not None, "this base needs the support of the demonstrations"
    moves = (own & (member > -torch.inf)).cpu().numpy()
    ratio = (said.networks[0, :, 0] - member).masked_fill(~said.supported[:, 0], -torch.inf).cpu().numpy()
    r, t = row.cpu().numpy(), number.cpu().numpy() - int(number[0])
    steps = np.full((t[-1] + 1, len(state)), np.nan)
    steps[t[moves], r[moves]] = ratio[moves]
    log_r, top, before = state[:, 0].cpu().numpy(), max(base.log_cap_nats, 0.0), np.empty_like(steps)
    for step, ratios in enumerate(steps):
        before[step] = log_r
        log_r = np.where(np.isnan(ratios), log_r, np.clip(log_r + ratios, 0.0, top))
    return torch.from_numpy(before[t, r][:, None]).to(state), torch.from_numpy(log_r[:, None]).to(state)


def moved_on(base: Base, state: State, step: MemberStep, tokens: Tensor, own: Tensor) -> State:
    """The state after these tokens, of which alone the step speaks: they are number 0 there, also where one ends a turn."""
    if not isinstance(base, Turn):
        return base.advance(state, step, torch.zeros_like(tokens), own)
    goes_on = moved_on(base.base, state, step, tokens, own)
    return torch.where((tokens == base.end)[:, None], base.start(len(tokens)).to(state), goes_on)


def some_rows(step: MemberStep, part: slice) -> MemberStep:
    """What was said in some rows."""
    rows = {name: value[..., part, :] for name, value in vars(step).items() if value is not None}
    return replace(step, **rows)


def vouch(base: Base, state: State, step: MemberStep) -> Tensor:
    """log nu by the base, shape (places, tokens); :class:`Minimum` without counts is the minimum over the networks."""
    if isinstance(base, Minimum) and step.counts is None:
        return step.networks.amin(0)
    return base.predict(state, step)


def kept_by(base: Base, vouched: Tensor) -> Tensor:
    """log sum_x nu(x), shape (places,): 0 for one network, which keeps all, unless it allows nothing."""
    if isinstance(base, Single) and not base.of_counts:
        return torch.where(vouched.amax(-1).isneginf(), -torch.inf, 0.0)
    return log_sums(vouched).clamp(max=0.0)


def kl_raised(logits: Tensor, log_nu: Tensor, lowest_nats: float) -> Tensor:
    """KL of softmax(logits) to nu raised to a lowest log-probability, in nats, shape (places,). Rows to spare are forbidden."""
    log_policy = logits.double().to(log_nu.device).log_softmax(-1)
    spare = log_policy.shape[1] - log_nu.shape[1]
    raised = torch.nn.functional.pad(log_nu, (0, spare), value=-torch.inf).clamp(min=lowest_nats)
    return kl_step_nats(log_policy, raised)
