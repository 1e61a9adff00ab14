"""The minimum of several networks over a large vocabulary, and the mass it leaves, a block of positions at a time.

nu(x) = min_k e^(slack_k) p_k(x) at every position of finished text. What is wanted is two numbers a position: log nu of the
token that was said, and log sum_x nu(x) = log(1 - theta). Members are read one after the other into a running minimum:
memory is two blocks of (positions x vocabulary), however many members and positions there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mightnt.errors import ContractError, InputError
from mightnt.lm.full_kl import kl_step_nats
from mightnt.lm.logs import log_sums

CACHE_BYTES = 2**21
"""Numbers swept over several times in a row: on a CPU they should stay in the cache."""
DEVICE_BYTES = 2**28
"""The same on an accelerator, where few large calls are better than many small ones."""
BLOCK_BYTES = 2**27
"""What :func:`vouched_by_heads` holds by default: the logits of one member and the running minimum."""
HEAD_BYTES = 2**26
"""A longer copy of part of a head, where the head itself is kept in a shorter type."""


@dataclass(frozen=True)
class Vouched:
    """What all members together vouch for, one number a position."""

    log_nu: Tensor
    """log nu of the target token, shape (positions,); ``-inf`` where a member forbids it."""
    log_kept: Tensor
    """log sum_x nu(x) = log(1 - theta), shape (positions,); at most 0, ``-inf`` where nothing is vouched for."""


def vouched_by_logits(
    logits: Sequence[Tensor],
    targets: Tensor,
    *,
    log_slack_nats: Sequence[float] | None = None,
    temperature: float = 1.0,
    is_action: Tensor | None = None,
) -> Vouched:
    """What the members together vouch for at each position, from logits that are already there.

    nu(x) = min_k e^(slack_k) softmax(logits_k / temperature)(x); theta = 1 - sum_x nu(x).

    Args:
        logits: one tensor a member, shape (positions, vocabulary), any floating type; ``-inf`` is a true zero.
        targets: the token that was said at each position, integers, shape (positions,).
        log_slack_nats: how far nu may exceed each member, in nats, finite; 0 by default. Not all may be above 0.
        temperature: above 0.
        is_action: bool, shape (vocabulary,): members are conditioned on these tokens, the others cannot be chosen.

    Returns both numbers in float32 (float64 where a member is), without gradients. Totals above one by rounding count as
    one; nothing else is clipped.

    Edges: a position where a member allows nothing has log_nu = log_kept = -inf. No positions, an empty result.

    Errors: :class:`~mightnt.errors.InputError` for shapes, vocabularies or numbers that do not fit;
    :class:`~mightnt.errors.ContractError` naming the member that gives NaN or +inf.

    Kind: exact (float32, or float64). Paper: nu_alpha of a finite set, and theta. Cost: one sweep over each member's
    logits; beside them, a few positions of one member and of the minimum.
    """
    said = said_by_logits(logits)
    rule = alone(minimum_rule(said, log_slack_nats, temperature, is_action))
    return vouched(said, rule, checked_targets(targets, said), rows_of(said))


def vouched_by_heads(
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
) -> Vouched:
    """What the members together vouch for, from hidden states and output layers: logits exist a block at a time.

    As :func:`vouched_by_logits` of logits_k = hidden_k @ heads_k.T + bias_k, multiplied and summed in float32 or longer.

    Args:
        hidden: one tensor a member, shape (positions, width of that member).
        heads: weights of the output layers, shape (vocabulary, width of that member).
        biases: of the output layers, shape (vocabulary,); ``None`` for a member without.
        block_positions: positions worked on at once; by default what fits :data:`BLOCK_BYTES`.
        block_vocabulary: rows of a head multiplied at once; by default all, or what fits :data:`HEAD_BYTES` where a head
            must be copied into a longer type.

    The other arguments, the result, its edges and the errors are those of :func:`vouched_by_logits`.

    Kind: exact (float32, or float64). Paper: nu_alpha of a finite set, and theta. Cost: one product of hidden states and
    head a member; memory 2 x block_positions x vocabulary numbers and a block of a head, for any number of members.
    """
    said = said_by_heads(hidden, heads, biases, block_vocabulary)
    rule = alone(minimum_rule(said, log_slack_nats, temperature, is_action))
    block = block_rows(said) if block_positions is None else at_least_one("block_positions", block_positions)
    return vouched(said, rule, checked_targets(targets, said), block)


def vouched_kl_nats(
    policy_logits: Tensor,
    logits: Sequence[Tensor],
    *,
    log_slack_nats: Sequence[float] | None = None,
    temperature: float = 1.0,
    is_action: Tensor | None = None,
) -> Tensor:
    """The exact KL over the whole vocabulary of each decision of the policy to nu, in nats, shape (positions,).

    KL(pi || nu) = sum_x pi(x) log(pi(x) / nu(x)) with pi = softmax(policy_logits / temperature) over the actions; nu is not
    renormalized, so the result is at least -log_kept. For a log, not for a loss: no gradients.

    Args:
        policy_logits: shape (positions, vocabulary), any floating type.

    The other arguments are those of :func:`vouched_by_logits`. Edges: inf where the policy may choose what a member
    forbids. Errors: those of :func:`vouched_by_logits`; the policy must leave at least one action at every position.

    Kind: exact, per step (float32, or float64). Paper: one step of the KL constraint. Cost: one sweep over all logits.
    """
    everybody = said_by_logits([policy_logits, *logits])
    said = said_by_logits(logits)
    rule = alone(minimum_rule(said, log_slack_nats, temperature, is_action))
    result = torch.empty(said.positions, dtype=everybody.dtype, device=said.device)
    with torch.no_grad():
        for rows, least in minima(said, rule, rows_of(said)):
            policy = rule.normalized(everybody.block(0, rows))
            if not bool(policy.amax(-1).isfinite().all()):
                raise InputError("the policy's logits hold NaN or +inf, or allow no action; a finite logit is needed")
            result[rows] = kl_step_nats(policy, least.to(everybody.dtype))
    return result


@dataclass(frozen=True)
class Said:
    """Where the members' logits come from, a block of positions at a time."""

    block: Callable[[int, slice], Tensor]
    """Logits of one member at these positions, shape (rows, vocabulary), of type ``dtype``."""
    members: int
    positions: int
    vocabulary: int
    dtype: torch.dtype
    """float32, or float64 where a member is."""
    device: torch.device


@dataclass(frozen=True)
class MinimumRule:
    """How members are compared: nu(x) = min_k e^(slack_k) softmax(logits_k / temperature)(x), over the actions."""

    log_slack_nats: tuple[float, ...]
    """One a member."""
    temperature: float = 1.0
    """Every member's logits are divided by it."""
    mask: Tensor | None = None
    """0 for actions and ``-inf`` for all else, shape (vocabulary,); ``None`` where everything may be chosen."""

    def normalized(self, logits: Tensor, log_slack_nats: float = 0.0) -> Tensor:
        """log softmax(logits / temperature) + slack, a new tensor, shape (rows, vocabulary).

        A row that allows nothing is ``-inf`` throughout; one that holds NaN or +inf is NaN throughout. The top is taken off
        first, so that float32 rounds differences of logits, not their size. ``torch.log_softmax`` is not used: on a CPU it
        adds 10^5 terms up in a few running sums, less exactly than ``sum`` does, and theta is a small difference.
        """
        logits = logits if self.mask is None else logits + self.mask
        top = logits.amax(-1, keepdim=True)
        result = logits - top.masked_fill_(top.isneginf(), 0.0)
        if self.temperature != 1.0:
            result.div_(self.temperature)
        log_total = result.exp().sum(-1, keepdim=True).log_()
        return result.sub_(log_total.masked_fill_(log_total.isneginf(), 0.0).sub_(log_slack_nats))


def vouched(said: Said, rule: MinimumRule, targets: Tensor, block: int) -> Vouched:
    """Both numbers of every position, from a running minimum of ``block`` positions at a time."""
    return both_numbers(said, targets, minima(said, rule, block))


def both_numbers(said: Said, targets: Tensor, blocks: Iterable[tuple[slice, Tensor]]) -> Vouched:
    """Both numbers of every position, from log nu over the vocabulary, block by block as :func:`minima` gives it."""
    log_nu, log_kept = (torch.empty(said.positions, dtype=said.dtype, device=said.device) for _ in range(2))
    with torch.no_grad():
        for rows, least in blocks:
            log_nu[rows] = least.gather(-1, targets[rows, None]).squeeze(-1)
            log_kept[rows] = log_totals(least, rows_of(said))
    return Vouched(log_nu, log_kept)


def minima(said: Said, rule: MinimumRule, block: int) -> Iterator[tuple[slice, Tensor]]:
    """Positions, and log nu there over the vocabulary, shape (rows, vocabulary), block by block; +inf without members.

    The next block is written over the last. A member that gives NaN or +inf is refused before its block is shown.
    """
    space = torch.empty(min(block, said.positions), said.vocabulary, dtype=said.dtype, device=said.device)
    for rows in pieces(said.positions, block):
        least = space[: rows.stop - rows.start].fill_(torch.inf)
        for member in range(said.members):
            if not lower(least, said.block(member, rows), rule, member, rows_of(said)):
                raise strange(f"member {member} of {said.members} (from 0)")
        yield rows, least


def strange(member: str) -> ContractError:
    """What is said of a member that gives no numbers."""
    return ContractError(f"{member} gives NaN or +inf; finite logits, or -inf for a token it forbids, are needed")


def lower(least: Tensor, logits: Tensor, rule: MinimumRule, member: int, rows: int) -> bool:
    """Lower ``least`` in place to what this member says, ``rows`` rows at a time. False where a logit is NaN or +inf."""
    for part in pieces(len(least), rows):
        normalized = rule.normalized(logits[part], rule.log_slack_nats[member])
        if bool(normalized[:, 0].isnan().any()):
            return False
        torch.minimum(least[part], normalized, out=least[part])
    return True


def log_totals(least: Tensor, rows: int) -> Tensor:
    """log sum_x nu(x) of each row, at most 0, ``rows`` of them at a time."""
    return torch.cat([log_sums(least[part]) for part in pieces(len(least), rows)]).clamp_(max=0.0)


def pieces(total: int, size: int) -> Iterator[slice]:
    """0 to ``total`` in slices of at most ``size``."""
    return (slice(begin, min(begin + size, total)) for begin in range(0, total, size))


def rows_in_cache(vocabulary: int, dtype: torch.dtype, device: torch.device) -> int:
    """How many rows of the vocabulary are swept over at once."""
    size = CACHE_BYTES if device.type == "cpu" else DEVICE_BYTES
    return max(1, size // (vocabulary * dtype.itemsize))


def rows_of(said: Said) -> int:
    """How many rows of the vocabulary are swept over at once."""
    return rows_in_cache(said.vocabulary, said.dtype, said.device)


def rows_in_block(vocabulary: int, dtype: torch.dtype, members: int) -> int:
    """How many positions of the logits of so many members, and of one more, fit :data:`BLOCK_BYTES`."""
    return max(1, BLOCK_BYTES // ((members + 1) * vocabulary * dtype.itemsize))


def block_rows(said: Said) -> int:
    """How many positions of logits and of the minimum fit :data:`BLOCK_BYTES`."""
    return rows_in_block(said.vocabulary, said.dtype, 1)


def said_by_logits(logits: Sequence[Tensor]) -> Said:
    """Members whose logits are there."""
    positions, vocabulary = common_shape("logits", logits)
    dtype = working_type(logits)
    return Said(
        lambda member, rows: logits[member][rows].to(dtype), len(logits), positions, vocabulary, dtype, logits[0].device
    )


def said_by_heads(
    hidden: Sequence[Tensor],
    heads: Sequence[Tensor],
    biases: Sequence[Tensor | None] | None,
    block_vocabulary: int | None,
) -> Said:
    """Members whose logits are made when they are looked at."""
    biases = [None] * len(heads) if biases is None else biases
    vocabulary = common_size("heads", heads, 0, "vocabulary")
    positions = common_size("hidden", hidden, 0, "positions")
    if not len(hidden) == len(heads) == len(biases):
        raise InputError(
            f"{len(hidden)} hidden states, {len(heads)} heads, {len(biases)} biases; one of each a member is needed"
        )
    for k, (states, head, bias) in enumerate(zip(hidden, heads, biases, strict=True)):
        if states.shape[1] != head.shape[1] or (bias is not None and bias.shape != (vocabulary,)):
            shapes = (
                f"{tuple(states.shape)}, head {tuple(head.shape)}, bias {None if bias is None else tuple(bias.shape)}"
            )
            raise InputError(
                f"member {k}: hidden {shapes}; (positions, width), (vocabulary, width), (vocabulary,) are needed"
            )
    dtype = working_type([*hidden, *heads])

    def block(member: int, rows: slice) -> Tensor:
        return head_logits(hidden[member][rows].to(dtype), heads[member], biases[member], block_vocabulary)

    return Said(block, len(heads), positions, vocabulary, dtype, hidden[0].device)


def head_logits(states: Tensor, head: Tensor, bias: Tensor | None, block_vocabulary: int | None) -> Tensor:
    """states @ head.T + bias in the type of ``states``, shape (rows, vocabulary), NaN where a hidden state is not finite.

    The head is read a block at a time. (An infinite hidden state could pass for true zeros otherwise.)
    """
    vocabulary, width = head.shape
    whole = head.dtype == states.dtype
    if block_vocabulary is None:
        block_vocabulary = vocabulary if whole else max(1, HEAD_BYTES // (width * states.dtype.itemsize))
    result = states.new_empty(len(states), vocabulary)
    for part in pieces(vocabulary, at_least_one("block_vocabulary", block_vocabulary)):
        torch.mm(states, head[part].to(states.dtype).T, out=result[:, part])
    result[~states.isfinite().all(-1)] = torch.nan
    return result if bias is None else result.add_(bias)


def minimum_rule(
    said: Said, log_slack_nats: Sequence[float] | None, temperature: float, is_action: Tensor | None
) -> MinimumRule:
    """The rule for these members; refuses slacks, temperatures and actions that do not fit."""
    slack = tuple(float(nats) for nats in (log_slack_nats if log_slack_nats is not None else [0.0] * said.members))
    if len(slack) != said.members or not all(map(math.isfinite, slack)):
        raise InputError(f"log slacks {slack} for {said.members} members; one finite number of nats each is needed")
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"a temperature of {temperature}; a finite number above 0 is needed")
    return MinimumRule(slack, float(temperature), action_mask(said, is_action))


def alone(rule: MinimumRule) -> MinimumRule:
    """The rule, if no other members are needed for nu to sum to one at most."""
    if min(rule.log_slack_nats) > 0:
        raise too_much(f"log slacks {rule.log_slack_nats} are all above 0")
    return rule


def too_much(slacks: str) -> InputError:
    """What is said where no member holds nu down."""
    return InputError(f"{slacks}: nu could sum to more than one; give one member 0 or less")


def action_mask(said: Said, is_action: Tensor | None) -> Tensor | None:
    """0 for actions, ``-inf`` for the rest."""
    if is_action is None:
        return None
    if is_action.dtype != torch.bool or is_action.shape != (said.vocabulary,):
        got = f"{is_action.dtype} of shape {tuple(is_action.shape)}"
        raise InputError(f"is_action is {got}; bool of shape ({said.vocabulary},) is needed, one for each token")
    if not bool(is_action.any()):
        raise InputError("is_action allows no token; at least one action is needed")
    return torch.zeros(said.vocabulary, dtype=said.dtype, device=said.device).masked_fill_(
        ~is_action.to(said.device), -torch.inf
    )


def checked_targets(targets: Tensor, said: Said) -> Tensor:
    """Targets as indices where the logits are."""
    if targets.shape != (said.positions,) or targets.is_floating_point() or targets.dtype == torch.bool:
        got = f"{targets.dtype} of shape {tuple(targets.shape)}"
        raise InputError(f"targets are {got}; integers of shape ({said.positions},) are needed, one a position")
    if said.positions and (int(targets.min()) < 0 or int(targets.max()) >= said.vocabulary):
        got = f"targets go from {int(targets.min())} to {int(targets.max())}"
        raise InputError(f"{got}; the members' vocabulary has 0 to {said.vocabulary - 1}")
    return targets.to(said.device, torch.int64)


def common_shape(name: str, tensors: Sequence[Tensor]) -> tuple[int, int]:
    """(positions, vocabulary) of all members, or a refusal."""
    vocabulary = common_size(name, tensors, 1, "vocabulary")
    return common_size(name, tensors, 0, "positions"), vocabulary


def common_size(name: str, tensors: Sequence[Tensor], dimension: int, what: str) -> int:
    """The size that all members share in this dimension, or a refusal."""
    if not tensors or any(tensor.dim() != 2 or not tensor.is_floating_point() for tensor in tensors):
        got = [(str(tensor.dtype), tuple(tensor.shape)) for tensor in tensors]
        raise InputError(f"{name} {got}; one floating tensor of two dimensions a member is needed, at least one member")
    sizes = [tensor.shape[dimension] for tensor in tensors]
    if len(set(sizes)) > 1:
        advice = "members must share one tokenizer" if what == "vocabulary" else "score the same text with each"
        raise InputError(f"members differ in {what}: {sizes}; {advice}")
    if what == "vocabulary" and not sizes[0]:
        raise InputError(f"{name} have a vocabulary of 0 tokens; at least one is needed")
    return sizes[0]


def working_type(tensors: Sequence[Tensor]) -> torch.dtype:
    """float64 where anything is, else float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def at_least_one(name: str, number: int) -> int:
    """Refuse blocks of nothing."""
    if number < 1:
        raise InputError(f"{name} is {number}; at least 1 is needed")
    return number
