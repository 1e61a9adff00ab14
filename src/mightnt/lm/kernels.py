"""One launch on a GPU for the minimum of several networks and its mass: each logit is read once from device memory.

The minimum is over *normalized* log-probabilities: nothing can be compared before every member's sum over the vocabulary
is known, so each logit is needed twice. The work is cut into pieces (one position, a slice of the vocabulary, all members),
and programs take tickets from a counter. A program adds up the piece of its ticket; then it compares the piece ``lag``
tickets before, which was read so recently that the second-level cache still has it. A program waits only for sums that lower
tickets owe. Those are taken by programs that already run, and what they owe is written before they wait for the same or
more: so nobody waits for ever, however few programs run at a time (in an interpreter it is one).

Floor: members x positions x vocabulary x bytes of a logit, over the bandwidth of device memory. Each byte goes twice from
the second-level cache to a multiprocessor: where that is less than twice as fast as device memory, that is the floor. The
cache must hold about (lag + programs under way) x :data:`PIECE_BYTES`; a smaller one costs a second read.

Needs triton, the package's extra of that name; the way without it is ``vocabulary.py``, the one that chooses ``fused.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

PIECE_BYTES = 2**15
"""What a program reads at once of all members together. This and the numbers below are reckoned, not yet tuned on a GPU."""
LEAST_TOKENS, MOST_TOKENS = 256, 8192
"""Limits of a slice of the vocabulary."""
WARPS = 8
"""Of a program."""
PROGRAMS = 2
"""A program compares what this many programs a multiprocessor have added up before it, so that it seldom has to wait."""

INTERPRETED = not isinstance(tl.cdiv, triton.JITFunction)
"""Whether tensors of a CPU are served as well, slowly: by ``TRITON_INTERPRET=1``, set before anything loads triton."""

LOWEST = tl.constexpr(torch.finfo(torch.float32).min)
"""The top of a slice that allows nothing: finite, so that infinities are never subtracted."""
NOT_YET = tl.constexpr(-1)
"""Stands where a sum will be. As two numbers its top would be NaN, which no top is."""


class Members(NamedTuple):
    """Who is read: all members of the minimum, and behind them the policy, where there is one."""

    logits: tuple[Any, ...]
    """Shape (positions, vocabulary) each; float32, float16 or bfloat16."""
    strides: tuple[Any, ...]
    """Of each, in numbers."""
    log_slack_nats: tuple[Any, ...]
    """Of each member of the minimum."""
    is_action: Any
    """int8, shape (vocabulary,), or ``None`` where everything may be chosen."""
    vocabulary: Any
    per_temperature: Any
    """One over the temperature."""


class Found(NamedTuple):
    """What is written."""

    log_nu: Any
    """float32, shape (positions,)."""
    log_kept: Any
    """float32, shape (positions, slices): the log of nu's mass in each slice."""
    kl_nats: Any
    """float32, shape (positions, slices): each slice's share of KL(policy || nu); ``None`` without a policy."""
    wholes: Any
    """int64, shape (positions, tensors): top and sum of every row."""
    sums: Any
    """int64, shape (positions, tensors, slices): the same of every slice."""
    tickets: Any
    """int64, shape (1,): how many are taken."""


def compared(
    logits: Sequence[Tensor],
    policy: Tensor | None,
    targets: Tensor,
    log_slack_nats: Sequence[float],
    temperature: float,
    is_action: Tensor | None,
) -> Found:
    """Everything in one launch, nothing checked: at least one member and one position, all on one device.

    Args:
        policy: as one more tensor of logits, whose KL to nu is wanted; ``None`` for no KL.
        targets: int64, contiguous, shape (positions,), inside the vocabulary.
        is_action: bool, contiguous, shape (vocabulary,).

    Kind: exact (float32). Paper: nu_alpha of a finite set, and theta. Cost: the floor above; memory of 8 bytes a piece and
    tensor.
    """
    read = [tensor.detach() for tensor in ([*logits] if policy is None else [*logits, policy])]
    (positions, vocabulary), device = read[0].shape, read[0].device
    width = slice_tokens(vocabulary, sum(tensor.element_size() for tensor in read))
    slices = triton.cdiv(vocabulary, width)
    by_slice = torch.empty(2, positions, slices, device=device)
    found = Found(
        log_nu=torch.empty(positions, device=device),
        log_kept=by_slice[0],
        kl_nats=None if policy is None else by_slice[1],
        wholes=torch.full((positions, len(read)), NOT_YET.value, dtype=torch.int64, device=device),
        sums=torch.full((positions, len(read), slices), NOT_YET.value, dtype=torch.int64, device=device),
        tickets=torch.zeros(1, dtype=torch.int64, device=device),
    )
    members = Members(
        tuple(read),
        tuple(tensor.stride() for tensor in read),
        tuple(map(float, log_slack_nats)),
        None if is_action is None else is_action.view(torch.int8),
        vocabulary,
        1 / temperature,
    )
    last, lag = positions * slices, slices + PROGRAMS * multiprocessors(device)
    with torch.cuda.device(device.index if device.type == "cuda" else -1):
        one_turn[(last + lag,)](
            *(members, targets, found, last, lag), SLICE=width, SLICES=triton.next_power_of_2(slices), num_warps=WARPS
        )
    return found


def slice_tokens(vocabulary: int, bytes_a_token: int) -> int:
    """Tokens of a slice, a power of two: what fits :data:`PIECE_BYTES`, no more than there are."""
    fits: int = triton.next_power_of_2(PIECE_BYTES // bytes_a_token + 1) // 2
    there: int = triton.next_power_of_2(vocabulary)
    return max(LEAST_TOKENS, min(MOST_TOKENS, fits, there))


def multiprocessors(device: torch.device) -> int:
    """How many the device has; one where programs are interpreted."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count) if device.type == "cuda" else 1


@triton.jit(do_not_specialize=["last", "lag"])
def one_turn(
    members: tl.tuple,
    targets: tl.tensor,
    found: tl.tuple,
    last: tl.tensor,
    lag: tl.tensor,
    SLICE: tl.constexpr,
    SLICES: tl.constexpr,
) -> None:
    """The sums of the next piece of ``last``, then the minimum of an earlier one. ``lag`` is at least the slices of a row."""
    ticket = tl.atomic_add(found.tickets, 1, sem="relaxed")
    if ticket < last:
        add_up(members, found, ticket, SLICE, SLICES)
    if ticket >= lag:
        compare(members, targets, found, ticket - lag, SLICE)


@triton.jit
def add_up(members: tl.tuple, found: tl.tuple, ticket: tl.tensor, SLICE: tl.constexpr, SLICES: tl.constexpr) -> None:
    """Top and sum of exponentials of one piece, for all tensors; and of the whole row, where the piece is its last."""
    slices = tl.cdiv(members.vocabulary, SLICE)
    row, piece = ticket // slices, ticket % slices
    count: tl.constexpr = len(members.logits)
    tokens, shut = tokens_of(members, piece, SLICE)
    for k in tl.static_range(count):
        here = logits_of(members, k, row, tokens, shut)
        top = tl.maximum(tl.max(here, 0), LOWEST)
        total = tl.sum(tl.exp((here - top) * members.per_temperature), 0)
        tl.atomic_xchg(found.sums + (row * count + k) * slices + piece, pair_of(top, total), sem="relaxed")
    if piece == slices - 1:
        for k in tl.static_range(count):
            tops, totals = numbers_of(written(found.sums + (row * count + k) * slices, slices, SLICES))
            tops = tl.where(tl.arange(0, SLICES) < slices, tops, LOWEST)
            top = tl.max(tops, 0)
            total = tl.sum(totals * tl.exp((tops - top) * members.per_temperature), 0)
            tl.atomic_xchg(found.wholes + row * count + k, pair_of(top, total), sem="relaxed")


@triton.jit
def compare(members: tl.tuple, targets: tl.tensor, found: tl.tuple, ticket: tl.tensor, SLICE: tl.constexpr) -> None:
    """The minimum over one piece: its mass, the target's share where the target is in it, the policy's share of the KL."""
    slices = tl.cdiv(members.vocabulary, SLICE)
    row, piece = ticket // slices, ticket % slices
    count: tl.constexpr = len(members.log_slack_nats)
    tokens, shut = tokens_of(members, piece, SLICE)
    least = tl.full([SLICE], float("inf"), tl.float32)
    for k in tl.static_range(count):
        least = tl.minimum(least, normalized(members, found, k, row, tokens, shut) + members.log_slack_nats[k])
    target = tl.load(targets + row)
    tl.store(found.log_nu + row, tl.max(tl.where(tokens == target, least, -float("inf")), 0), target // SLICE == piece)
    top = tl.maximum(tl.max(least, 0), LOWEST)
    mass = tl.sum(tl.exp(least - top), 0)
    tl.store(found.log_kept + ticket, tl.where(mass > 0.0, log_of(mass) + top, -float("inf")))
    if found.kl_nats is not None:
        policy = normalized(members, found, count, row, tokens, shut)
        may, never = policy > -float("inf"), least == -float("inf")
        terms = tl.exp(policy) * (tl.where(may, policy, 0.0) - tl.where(never, 0.0, least))
        tl.store(found.kl_nats + ticket, tl.sum(tl.where(may & never, float("inf"), terms), 0))


@triton.jit
def tokens_of(members: tl.tuple, piece: tl.tensor, SLICE: tl.constexpr) -> tl.tuple:
    """The tokens of a slice, int64, and 0 for actions and -inf for the others (or just 0)."""
    tokens = piece * SLICE + tl.arange(0, SLICE)
    shut = 0.0
    if members.is_action is not None:
        allowed = tl.load(members.is_action + tokens, mask=tokens < members.vocabulary, other=0)
        shut = tl.where(allowed != 0, 0.0, -float("inf"))
    return tokens, shut


@triton.jit
def logits_of(members: tl.tuple, k: tl.constexpr, row: tl.tensor, tokens: tl.tensor, shut: tl.tensor) -> tl.tensor:
    """One tensor's logits in float32, -inf where nothing can be chosen. NaN stays, and +inf makes NaN of every sum."""
    strides = members.strides[k]
    where = members.logits[k] + row * strides[0] + tokens * strides[1]
    return tl.load(where, mask=tokens < members.vocabulary, other=-float("inf")).to(tl.float32) + shut


@triton.jit
def normalized(
    members: tl.tuple, found: tl.tuple, k: tl.constexpr, row: tl.tensor, tokens: tl.tensor, shut: tl.tensor
) -> tl.tensor:
    """log softmax(logits / temperature) of a piece, as soon as the sum of its row is written; the top is taken off first."""
    here = logits_of(members, k, row, tokens, shut)
    whole = found.wholes + row * len(members.logits) + k
    pair = tl.load(whole, volatile=True)
    while pair == NOT_YET:
        pair = tl.load(whole, volatile=True)
    top, total = numbers_of(pair)
    return (here - top) * members.per_temperature - log_of(total)


@triton.jit
def written(pairs: tl.tensor, n: tl.tensor, ROOM: tl.constexpr) -> tl.tensor:
    """The first ``n`` pairs from here, as soon as all are written, and zeros behind them."""
    lane = tl.arange(0, ROOM)
    seen = tl.load(pairs + lane, mask=lane < n, other=0, volatile=True)
    while tl.min((seen != NOT_YET).to(tl.int32), 0) == 0:
        seen = tl.load(pairs + lane, mask=lane < n, other=0, volatile=True)
    return seen


@triton.jit
def pair_of(top: tl.tensor, total: tl.tensor) -> tl.tensor:
    """Two float32 as one int64: whoever sees one of them sees both."""
    low = total.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
    return (top.to(tl.int32, bitcast=True).to(tl.int64) << 32) | low


@triton.jit
def numbers_of(pair: tl.tensor) -> tl.tuple:
    """(top, total) of a pair."""
    return (pair >> 32).to(tl.int32).to(tl.float32, bitcast=True), pair.to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def log_of(total: tl.tensor) -> tl.tensor:
    """The logarithm, and 0 where there is nothing (or NaN: whoever reads ``wholes`` sees that)."""
    return tl.log(tl.where(total > 0.0, total, 1.0))
