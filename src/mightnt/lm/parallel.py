"""Members spread over processes: the same minimum, combined by an all-reduce.

Every process holds some of the members (or none), lowers its own running minimum over a block of positions, and the blocks
are combined by ``torch.distributed`` with MIN: minima of minima are exact, so every process ends with the numbers that one
process with all members would have. Each process first tells the others what it has; what does not fit is refused by all
with one sentence, and nobody is left waiting.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

from mightnt.errors import ContractError, InputError
from mightnt.lm.vocabulary import (
    MinimumRule,
    Said,
    Vouched,
    at_least_one,
    block_rows,
    both_numbers,
    checked_targets,
    lower,
    minimum_rule,
    pieces,
    rows_of,
    said_by_heads,
    said_by_logits,
    strange,
    too_much,
)

TIMEOUT_SECONDS = 300.0
"""How long a process waits for the others by default."""
SENTENCE_BYTES = 1024
"""How much of a complaint travels to the other processes."""


@dataclass(frozen=True)
class Together:
    """Which processes share the members, and how long one waits for the others."""

    group: dist.ProcessGroup | None = None
    """A group of ``torch.distributed``; ``None`` for all processes."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Where a process is not there for so long, all others stop; the group is of no more use then."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout_seconds) and self.timeout_seconds > 0):
            raise InputError(f"a timeout of {self.timeout_seconds} seconds; a finite number above 0 is needed")


def vouched_by_logits_together(
    logits: Sequence[Tensor],
    targets: Tensor,
    *,
    log_slack_nats: Sequence[float] | None = None,
    temperature: float = 1.0,
    is_action: Tensor | None = None,
    block_positions: int | None = None,
    together: Together = Together(),
) -> Vouched:
    """What the members of all processes together vouch for; every process gets the whole answer.

    As :func:`~mightnt.lm.vocabulary.vouched_by_logits` of all members, called by every process of the group at the same
    time with its own members' logits (an empty list for none) and the same targets, temperature and actions.

    Args:
        log_slack_nats: of this process' members. Not all slacks of all processes may be above 0.
        block_positions: positions combined at once, the least that any process asks for; by default what fits memory.

    Errors: :class:`~mightnt.errors.InputError` with the same sentence in every process, whichever of them has what does
    not fit; :class:`~mightnt.errors.ContractError` in every process where a member gives NaN or +inf, and in all others
    where a process died or does not come within ``together.timeout_seconds``.

    Kind: exact. Paper: nu_alpha of a finite set, and theta. Cost: the local members', and one all-reduce of positions x
    vocabulary numbers; memory two blocks of them.
    """

    def own() -> Said:
        return said_by_logits(logits)

    return vouched_together(
        own if logits else None, targets, log_slack_nats, temperature, is_action, block_positions, together
    )


def vouched_by_heads_together(
    hidden: Sequence[Tensor],
    heads: Sequence[Tensor],
    targets: Tensor,
    *,
    biases: Sequence[Tensor | None] | None = None,
    log_slack_nats: Sequence[float] | None = None,
    temperature: float = 1.0,
    is_action: Tensor | None = None,
    block_positions: int | None = None,
    block_vocabulary: int | None = None,
    together: Together = Together(),
) -> Vouched:
    """What the members of all processes together vouch for, from hidden states and output layers of each process' own.

    Arguments, result and errors as in :func:`vouched_by_logits_together` and
    :func:`~mightnt.lm.vocabulary.vouched_by_heads`. Kind: exact. Paper: nu_alpha of a finite set, and theta. Cost: the local
    members', and one all-reduce of positions x vocabulary numbers; memory two blocks of them.
    """

    def own() -> Said:
        return said_by_heads(hidden, heads, biases, block_vocabulary)

    any_member = len(hidden) or len(heads)
    return vouched_together(
        own if any_member else None, targets, log_slack_nats, temperature, is_action, block_positions, together
    )


@dataclass(frozen=True)
class Share:
    """What one process brings: numbers that all must agree on, or a complaint."""

    members: int = 0
    positions: int = 0
    vocabulary: int = 0
    long: int = 0
    """1 where this process works in float64."""
    slack_above_0: int = 1
    """1 where all of its members have a slack above 0 (or there are none)."""
    block: int = 0
    """Positions it wants to combine at once; 0 for whatever the others want."""
    same: int = 0
    """A digest of targets, temperature and actions."""
    complaint: str = ""
    """Why this process cannot take part."""

    def packed(self) -> Tensor:
        """As integers, all processes' the same number of them."""
        numbers = [getattr(self, field.name) for field in fields(self)[:-1]]
        sentence = self.complaint.encode()[:SENTENCE_BYTES].ljust(SENTENCE_BYTES)
        return torch.tensor([*numbers, *sentence], dtype=torch.int64)

    @classmethod
    def unpacked(cls, packed: Tensor) -> Share:
        """The reverse of :meth:`packed`."""
        numbers = packed[:-SENTENCE_BYTES].tolist()
        sentence = bytes(packed[-SENTENCE_BYTES:].tolist()).decode(errors="ignore").rstrip()
        return cls(**dict(zip([field.name for field in fields(cls)], [*numbers, sentence], strict=True)))


def vouched_together(
    own: Callable[[], Said] | None,
    targets: Tensor,
    log_slack_nats: Sequence[float] | None,
    temperature: float,
    is_action: Tensor | None,
    block_positions: int | None,
    together: Together,
) -> Vouched:
    """Both numbers of every position, from this process' members (``None`` without any) and the others'."""
    said, rule = nobody(targets), MinimumRule(())
    try:
        if own:
            said = own()
            rule = minimum_rule(said, log_slack_nats, temperature, is_action)
            targets = checked_targets(targets, said)
        share = share_of(said, rule, block_positions, digest(targets, temperature, is_action))
    except InputError as error:
        share = Share(complaint=str(error))
    shares = agreed(exchanged(share, said.device, together))
    if not own:
        dtype = torch.float64 if any(other.long for other in shares) else torch.float32
        said = replace(said, vocabulary=max(other.vocabulary for other in shares), dtype=dtype)
    return both_numbers(said, targets.to(said.device, torch.int64), combined(said, rule, shares, together))


def combined(
    said: Said, rule: MinimumRule, shares: Sequence[Share], together: Together
) -> Iterator[tuple[slice, Tensor]]:
    """Positions, and log nu there of all members of all processes, shape (rows, vocabulary), block by block.

    One number travels behind each block: 0, or minus (1 + the member that gives NaN or +inf, counted over all processes).
    """
    block = min(share.block for share in shares if share.block)
    first = sum(share.members for share in shares[: dist.get_rank(together.group)])
    space = torch.empty(min(block, said.positions) * said.vocabulary + 1, dtype=said.dtype, device=said.device)
    for rows in pieces(said.positions, block):
        sent = space[: (rows.stop - rows.start) * said.vocabulary + 1].fill_(torch.inf)
        least, sent[-1] = sent[:-1].view(-1, said.vocabulary), 0.0
        for member in range(said.members):
            if not lower(least, said.block(member, rows), rule, member, rows_of(said)):
                sent[-1] = -1.0 - first - member
        lowest_of_all(sent, together)
        if (wrong := round(-1 - float(sent[-1]))) >= 0:
            raise strange(f"member {wrong} of {sum(share.members for share in shares)} (from 0, over all processes)")
        yield rows, least


def share_of(said: Said, rule: MinimumRule, block_positions: int | None, same: int) -> Share:
    """What this process tells the others."""
    if block_positions is None:
        block = block_rows(said) if said.members else 0
    else:
        block = at_least_one("block_positions", block_positions)
    slack_above_0 = min(rule.log_slack_nats, default=math.inf) > 0
    is_long = said.dtype == torch.float64
    return Share(said.members, said.positions, said.vocabulary, int(is_long), int(slack_above_0), block, same)


def nobody(targets: Tensor) -> Said:
    """No member: only the positions are known."""
    return Said(nothing_said, 0, len(targets), 0, torch.float32, targets.device)


def nothing_said(member: int, rows: slice) -> Tensor:
    """Never called."""
    raise IndexError(member)


def digest(targets: Tensor, temperature: float, is_action: Tensor | None) -> int:
    """A number that two processes share if they mean the same text, temperature and actions."""
    parts = [targets.long().cpu().numpy().tobytes(), repr(float(temperature)).encode()]
    parts.append(b"all" if is_action is None else is_action.cpu().numpy().tobytes())
    return int.from_bytes(hashlib.sha256(b"|".join(parts)).digest()[:7], "big")


def exchanged(share: Share, device: torch.device, together: Together) -> list[Share]:
    """What every process brings, in the order of their ranks."""
    if not dist.is_available() or not dist.is_initialized():
        raise InputError("no process group; call torch.distributed.init_process_group in every process first")
    own = share.packed().to(device)
    everybody = [torch.empty_like(own) for _ in range(dist.get_world_size(together.group))]
    waited(lambda: dist.all_gather(everybody, own, together.group, async_op=True), together)
    return [Share.unpacked(packed) for packed in everybody]


def agreed(shares: list[Share]) -> list[Share]:
    """The shares, if they fit together; else the refusal that every process gives."""
    for rank, share in enumerate(shares):
        if share.complaint:
            raise InputError(f"process {rank}: {share.complaint}")
    holders = [share for share in shares if share.members]
    if not holders:
        raise InputError("no process holds a member; at least one member is needed")
    for what, values in {
        "positions": [share.positions for share in shares],
        "vocabulary": [share.vocabulary for share in holders],
        "number type (1: float64)": [share.long for share in holders],
        "targets, temperature or actions (digests)": [share.same for share in shares],
    }.items():
        if len(set(values)) > 1:
            raise InputError(f"processes differ in {what}: {values}; all must score the same text by the same rule")
    if all(share.slack_above_0 for share in shares):
        raise too_much("all log slacks of all processes are above 0")
    return shares


def lowest_of_all(numbers: Tensor, together: Together) -> None:
    """Each number becomes the least that any process has there."""
    waited(lambda: dist.all_reduce(numbers, dist.ReduceOp.MIN, together.group, async_op=True), together)


def waited(start: Callable[[], dist.Work | None], together: Together) -> None:
    """Start a collective and wait until it is done, or refuse to go on without the others."""
    try:
        work = start()
        if work is not None:
            work.wait(timedelta(seconds=together.timeout_seconds))
    except RuntimeError as error:
        got = f"another process died or did not come within {together.timeout_seconds:g} s"
        raise ContractError(f"{got}; start all processes again ({str(error).splitlines()[0]})") from error
