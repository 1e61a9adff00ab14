"""The minimum over a large vocabulary where the logits are: by one fused kernel on a GPU, else a block at a time.

The kernel (``kernels.py``) gives what ``vocabulary.py`` gives, in float32, and reads each logit once from device memory.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mightnt.errors import InputError
from mightnt.lm.vocabulary import (
    MinimumRule,
    Said,
    Vouched,
    alone,
    checked_targets,
    minimum_rule,
    pieces,
    said_by_logits,
    vouched,
    vouched_by_logits,
    vouched_kl_nats,
)

TYPES = torch.float32, torch.float16, torch.bfloat16
"""What the kernel reads; it reckons in float32."""
TEMPERATURES = 1e-30, 1e30
"""What it divides by; one over these is still a float32 with all its digits."""


def vouched_where_they_are(
    logits: Sequence[Tensor],
    targets: Tensor,
    *,
    log_slack_nats: Sequence[float] | None = None,
    temperature: float = 1.0,
    is_action: Tensor | None = None,
) -> Vouched:
    """What the members together vouch for at each position, by the fastest way that this device and these types have.

    The kernel on a GPU with triton, for float32, float16 and bfloat16; else
    :func:`~mightnt.lm.vocabulary.vouched_by_logits`, whose arguments, result, edges and errors these are.

    Kind: exact (float32, or float64). Paper: nu_alpha of a finite set, and theta. Cost: one read of the logits from device
    memory, or one sweep.
    """
    by = vouched_by_kernel if kernel_serves(logits, temperature) else vouched_by_logits
    return by(logits, targets, log_slack_nats=log_slack_nats, temperature=temperature, is_action=is_action)


def kl_where_they_are_nats(
    policy_logits: Tensor,
    logits: Sequence[Tensor],
    *,
    log_slack_nats: Sequence[float] | None = None,
    temperature: float = 1.0,
    is_action: Tensor | None = None,
) -> Tensor:
    """KL(pi || nu) of each decision over the whole vocabulary, in nats, shape (positions,), by the fastest way there is.

    As :func:`vouched_where_they_are`, with the arguments of :func:`~mightnt.lm.vocabulary.vouched_kl_nats`.

    Kind: exact, per step (float32, or float64). Paper: one step of the KL constraint. Cost: one read of all logits.
    """
    by = kl_by_kernel_nats if kernel_serves([policy_logits, *logits], temperature) else vouched_kl_nats
    return by(policy_logits, logits, log_slack_nats=log_slack_nats, temperature=temperature, is_action=is_action)


def vouched_in_blocks(said: Said, rule: MinimumRule, targets: Tensor, block: int) -> Vouched:
    """Both numbers of every position, from logits that are made a block at a time: all members of fewer positions at once.

    As :func:`~mightnt.lm.vocabulary.vouched`, and by it where the kernel does not serve. Two blocks of ``block`` positions
    hold one member and the running minimum there, all members here: memory is the same, unless there are more members than
    two blocks have positions.
    """
    fewer, parts = max(1, 2 * block // said.members), []
    if not said.positions or not kernel_serves(
        [torch.empty(0, dtype=said.dtype, device=said.device)], rule.temperature
    ):
        return vouched(said, rule, targets, block)
    for rows in pieces(said.positions, fewer):
        found = run_kernel([said.block(member, rows) for member in range(said.members)], None, targets[rows], rule)
        if found is None:
            return vouched(said, rule, targets, block)
        parts.append(found[0])
    return Vouched(torch.cat([part.log_nu for part in parts]), torch.cat([part.log_kept for part in parts]))


def vouched_by_kernel(
    logits: Sequence[Tensor],
    targets: Tensor,
    *,
    log_slack_nats: Sequence[float] | None = None,
    temperature: float = 1.0,
    is_action: Tensor | None = None,
) -> Vouched:
    """What the members together vouch for at each position, by the fused kernel and nothing else, in float32.

    Arguments, result, edges and errors are those of :func:`~mightnt.lm.vocabulary.vouched_by_logits`; moreover an
    :class:`~mightnt.errors.InputError` where the kernel cannot serve: without triton, off a GPU, for float64.

    Kind: exact (float32). Paper: nu_alpha of a finite set, and theta. Cost: one read of the logits from device memory, two
    from the second-level cache; beside them 8 bytes a member, position and slice of the vocabulary.
    """
    said = said_by_logits(logits)
    rule = alone(minimum_rule(said, log_slack_nats, temperature, is_action))
    targets = checked_targets(targets, said)
    found = run_kernel(logits, None, targets, rule)
    return vouched(said, rule, targets, 1) if found is None else found[0]


def kl_by_kernel_nats(
    policy_logits: Tensor,
    logits: Sequence[Tensor],
    *,
    log_slack_nats: Sequence[float] | None = None,
    temperature: float = 1.0,
    is_action: Tensor | None = None,
) -> Tensor:
    """KL(pi || nu) of each decision over the whole vocabulary, in nats, by the fused kernel and nothing else, in float32.

    As :func:`vouched_by_kernel`, with the arguments of :func:`~mightnt.lm.vocabulary.vouched_kl_nats`. Kind: exact, per
    step (float32). Paper: one step of the KL constraint. Cost: that of :func:`vouched_by_kernel` with one more member.
    """
    said = said_by_logits([policy_logits, *logits])
    rule = alone(minimum_rule(said_by_logits(logits), log_slack_nats, temperature, is_action))
    anything = torch.zeros(said.positions, dtype=torch.int64, device=said.device)
    found = run_kernel(logits, policy_logits, anything, rule)
    if found is None:
        rest = {"log_slack_nats": log_slack_nats, "temperature": temperature, "is_action": is_action}
        return vouched_kl_nats(policy_logits, logits, **rest)  # type: ignore[arg-type]
    return found[1]


def run_kernel(
    logits: Sequence[Tensor], policy: Tensor | None, targets: Tensor, rule: MinimumRule
) -> tuple[Vouched, Tensor] | None:
    """What is vouched for and the policy's KL to it (0 without one); ``None`` where a tensor holds NaN or +inf, or the
    policy allows nothing: the slow way says which and where."""
    tensors = [*logits] if policy is None else [*logits, policy]
    kernels = kernels_for(tensors, rule.temperature)
    if not len(targets):
        nothing = targets.new_zeros(0, dtype=torch.float32)
        return Vouched(nothing, nothing), nothing
    is_action = None if rule.mask is None else rule.mask == 0
    found = kernels.compared(logits, policy, targets.contiguous(), rule.log_slack_nats, rule.temperature, is_action)
    total = found.wholes.view(torch.float32).unflatten(-1, (-1, 2))[..., 0]
    if bool(total.isnan().any()) or (policy is not None and not bool(total[:, -1].all())):
        return None
    log_kept = found.log_kept.logsumexp(-1).clamp_(max=0.0)
    kl = torch.zeros_like(log_kept) if policy is None else found.kl_nats.sum(-1)
    return Vouched(found.log_nu, log_kept), kl


def kernel_serves(tensors: Sequence[Tensor], temperature: float = 1.0) -> bool:
    """Whether the fused kernel is at hand for these: on one GPU, of types that it reads, with triton to compile it."""
    return bool(tensors) and all(t.device.type == "cuda" for t in tensors) and not hindrance(tensors, temperature)


def hindrance(tensors: Sequence[Tensor], temperature: float) -> str:
    """What keeps the kernel from serving these, whatever the device is; empty where nothing does."""
    if importlib.util.find_spec("triton") is None:
        return 'the fused kernel needs triton: pip install "mightnt[triton]"'
    if len(devices := {str(tensor.device) for tensor in tensors}) > 1:
        return f"logits lie on {sorted(devices)}; the fused kernel needs them on one device"
    if types := {str(tensor.dtype) for tensor in tensors if tensor.dtype not in TYPES}:
        return f"logits are {sorted(types)}; the fused kernel reads float32, float16 and bfloat16"
    if not TEMPERATURES[0] <= temperature <= TEMPERATURES[1]:
        return f"a temperature of {temperature}; the fused kernel takes {TEMPERATURES[0]} to {TEMPERATURES[1]}"
    return ""


def kernels_for(tensors: Sequence[Tensor], temperature: float) -> Any:
    """The compiled kernels, or a refusal that says why they do not serve."""
    if sentence := hindrance(tensors, temperature):
        raise InputError(sentence)
    from mightnt.lm import kernels

    device = tensors[0].device
    if device.type != "cuda" and not (kernels.INTERPRETED and device.type == "cpu"):
        raise InputError(f"logits are on {device}; the fused kernel needs a GPU (vouched_by_logits does not)")
    return kernels
