"""Spend exactly this many nats: the tilt of a base, in a proposed direction, that costs a given KL.

The one differentiable step between what an actor proposes and what a hard budget allows. With q the base divided by its
sum, the policy is p(x) = q(x) exp(lambda d(x)) / Z, and lambda >= 0 solves KL(p || q) = the allotment.

Inside, the direction is moved and scaled so that its highest value is 0 and its lowest -1 wherever the base has mass.
Hence Z lies between q(highest) and 1 and nothing overflows; and the result depends on the shape of a direction, not on
its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from mightnt.errors import InputError
from mightnt.lm.logs import exp_of
from mightnt.prediction import FloatArray

STEPS_MOST = 64
"""Root-finding steps before the safe lower end of the bracket is used; 3 to 8 is the rule."""
ROOT_TOLERANCE = 1e-10
"""A root is accepted at this relative error of the KL, or at 1e-13 nats."""
LAST_STEP = 1e-5
"""A step this short, in lambda and in parts of it, is the last: its result is taken without a look."""
SHORT_OF_SUPREMUM_NATS = 1e-7
"""How far below the highest reachable KL an allotment beyond it stops, so that lambda stays finite."""
DAMPED_BELOW_NATS = 1e-8
"""Allotments below this have a gradient that falls to zero with them; see :func:`tilt_to_kl`."""
NUMBERS_AT_ONCE = 2**18
"""Symbols times rows that are worked on together: a few such tables of float64 fit a processor's cache."""
FAINTEST_LOG_SHARE = -650.0
"""Symbols with a smaller share of the base are carried along, never sought."""
LOWEST_LOG_SHARE = -700.0
"""What all smaller shares count as while a tilt is sought: beside any that is sought they are nothing, even a million of
them, and exp of less is slow on a processor, or no float64 number."""


def tilt_to_kl(log_base: Tensor, direction: Tensor, kl_nats: Tensor) -> Tensor:
    """Log-probabilities that go from the base in a direction as far as ``kl_nats`` allows, and no further.

    log_softmax(log_base + lambda * direction), with lambda >= 0 the solution of

        KL(result || base / sum base) = min(kl_nats, the highest KL this direction reaches).

    ``kl_nats`` is the *extra*: what may be spent beyond the floor -log(1 - theta) = -log(sum base), which a sub-normalized
    base costs whatever the policy does. The floor is not charged here: the KL to the base as given is floor + extra, and
    :func:`mightnt.lm.full_kl.kl_step_nats` returns that sum.

    Args:
        log_base: shape ``[..., n_symbols]``, float32 or float64, nats; may sum to less than one, may hold ``-inf``
            (where the policy is ``-inf`` too), must hold some mass. It is frozen: **no gradient flows to it**.
        direction: the same shape: proposed logits of any size. Where the base has no mass it is ignored, whatever it is.
        kl_nats: shape ``[...]``, the allotment of each row, finite and >= 0.

    Returns the shape of ``direction``; probabilities that sum to one. The KL never exceeds the allotment by more than
    1e-6. It falls short by less than 1e-6 in float64 and 2e-6 * (1 + kl_nats) in float32, which cannot write it closer.

    Edges: an allotment of 0, one symbol with mass, or a direction that is constant where the base has mass give the
    normalized base with zero gradient to everything; so an actor must not start from constant logits: it would stay there.
    An allotment above the supremum (lambda -> inf), -log(share of the base on the highest symbols), stops 1e-7 nats short
    of it, with zero gradient to ``kl_nats``. Zero rows give zero rows. No gradient is ever NaN or infinite.

    Gradient (implicit-function theorem), with p the result, c = lambda * (direction - E_p direction), g what comes in:

        to kl_nats    s = sum_x g c / E_p[c^2]
        to direction  lambda * (g - p sum_x g - p c s)

    As kl_nats -> 0 the first grows like 1 / sqrt(kl_nats); below 1e-8 nats it is multiplied by kl_nats / 1e-8, which
    keeps it continuous and makes it 0 at 0. The second grows as 1 / (size of the direction): only its shape matters.

    Errors: :class:`~mightnt.errors.InputError` for shapes that do not fit, dtypes other than float32 and float64, an
    allotment that is negative, infinite or NaN, a direction that is not finite where the base has mass, a base that has
    no mass or holds NaN or +inf.

    Kind: exact to 1e-6 nats, per step. Paper: the KL constraint, made hard; the projection is ours.
    Cost: 2 to 6 passes over ``[..., n_symbols]`` in float64 as a rule; keeps two such arrays and a mask for the
    gradient.
    """
    log_policy: Tensor = _Tilt.apply(*_rows(log_base, direction, kl_nats))  # type: ignore[no-untyped-call]
    return log_policy.reshape(direction.shape)


def choices_after_tilt(log_base: Tensor, direction: Tensor, kl_nats: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
    """``(log-probability of one choice a row, KL spent)`` of :func:`tilt_to_kl`: what learning from choices needs of it.

    The same numbers and gradients as picking the choice from its result and taking the KL to the normalized base, with no
    gradient over the whole vocabulary ever written out in between. Errors and edges are the same.

    Args:
        log_base, direction, kl_nats: as for :func:`tilt_to_kl`.
        choice: shape ``[...]``, a symbol that the base gives mass.

    Returns shapes ``[...]`` and ``[...]``, float64; the KL is what was aimed at: min(kl_nats, the highest within reach).

    Gradient, with g of the log-probability of choice x and k of the KL coming in (notation as there):

        to kl_nats    s = g c(x) / E_p[c^2], and k
        to direction  lambda * (g 1[choice] - p g - p c s)

    Kind: exact to 1e-6 nats, per step. Cost: that of :func:`tilt_to_kl`, which keeps as much; what is saved are the sweeps of
    the KL and of both gradients outside of it.
    """
    rows = _rows(log_base, direction, kl_nats)
    found: tuple[Tensor, Tensor] = _Choices.apply(*rows, choice.reshape(-1, 1))  # type: ignore[no-untyped-call]
    log_probability, spent = (column.reshape(choice.shape) for column in found)
    return log_probability, spent


def _rows(log_base: Tensor, direction: Tensor, kl_nats: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The arguments as ``[rows, n_symbols]``, ``[rows, n_symbols]``, ``[rows]``, or a sentence on what does not fit."""
    if log_base.shape != direction.shape or direction.shape[:-1] != kl_nats.shape or not direction.shape[-1:].numel():
        raise InputError(
            f"got a base of shape {tuple(log_base.shape)}, a direction {tuple(direction.shape)} and allotments "
            f"{tuple(kl_nats.shape)}; needed are [..., n], [..., n] and [...] with n >= 1"
        )
    dtype = torch.promote_types(log_base.dtype, direction.dtype)
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"got {log_base.dtype} and {direction.dtype}; float32 or float64 is needed for 1e-6 nats")
    n_symbols = direction.shape[-1]
    return log_base.reshape(-1, n_symbols), direction.reshape(-1, n_symbols), kl_nats.reshape(-1)


class _Tilt(torch.autograd.Function):
    """:func:`tilt_to_kl` on rows: ``[rows, n_symbols]``, ``[rows, n_symbols]``, ``[rows]``."""

    @staticmethod
    def forward(ctx: Any, log_base: Tensor, direction: Tensor, kl_nats: Tensor) -> Tensor:
        found = _all_tilted(log_base, direction, kl_nats)
        ctx.save_for_backward(found.log_policy, found.unit, found.unsought, found.tilt, found.span, found.damping)
        ctx.dtypes = direction.dtype, kl_nats.dtype
        return found.log_policy.to(torch.promote_types(log_base.dtype, direction.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        direction_dtype, kl_dtype = ctx.dtypes
        log_policy, unit, unsought, tilt, span, damping = ctx.saved_tensors
        to_direction = torch.empty_like(gradient, dtype=direction_dtype)
        to_kl = torch.empty_like(tilt, dtype=kl_dtype)
        for some in _blocks(gradient):
            step, slope = tilt[some].unsqueeze(-1), (tilt[some] / span[some]).clamp(max=torch.finfo(torch.float64).max)
            p, g = exp_of(log_policy[some]), gradient[some].to(torch.float64, copy=True)
            g.masked_fill_(log_policy[some] == -torch.inf, 0.0)
            c = (unit[some] - torch.linalg.vecdot(p, unit[some]).unsqueeze(-1)).mul_(step)
            g.addcmul_(p, g.sum(-1, keepdim=True), value=-1)
            pc = p.mul_(c)
            variance = torch.linalg.vecdot(pc, c)
            slant = torch.where(variance > 0, torch.linalg.vecdot(g, c) / variance, 0.0)
            g.addcmul_(pc, slant.unsqueeze(-1), value=-1).mul_(slope.unsqueeze(-1)).masked_fill_(unsought[some], 0.0)
            to_direction[some] = _finite(g, direction_dtype)
            to_kl[some] = _finite(slant * damping[some], kl_dtype)
        return None, to_direction, to_kl


class _Choices(torch.autograd.Function):
    """:func:`choices_after_tilt` on rows, with choices of shape ``[rows, 1]``."""

    @staticmethod
    def forward(
        ctx: Any, log_base: Tensor, direction: Tensor, kl_nats: Tensor, choice: Tensor
    ) -> tuple[Tensor, Tensor]:
        found = _all_tilted(log_base, direction, kl_nats)
        ctx.save_for_backward(
            found.log_policy, found.unit, found.unsought, found.tilt, found.span, found.damping, choice
        )
        ctx.dtypes = direction.dtype, kl_nats.dtype
        return found.log_policy.gather(1, choice).squeeze(1), found.spent

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, of_kl: Tensor) -> tuple[None, Tensor, Tensor, None]:
        direction_dtype, kl_dtype = ctx.dtypes
        log_policy, unit, unsought, tilt, span, damping, choice = ctx.saved_tensors
        to_direction = torch.empty_like(unit, dtype=direction_dtype)
        to_kl = torch.empty_like(tilt, dtype=kl_dtype)
        for some in _blocks(unit):
            g, at = gradient[some].double().unsqueeze(-1), choice[some]
            step, slope = tilt[some].unsqueeze(-1), (tilt[some] / span[some]).clamp(max=torch.finfo(torch.float64).max)
            p, slope = exp_of(log_policy[some]), slope.unsqueeze(-1)
            c = unit[some] - (p * unit[some]).sum(-1, keepdim=True)
            c.mul_(step)
            slant = g * c.gather(1, at) / (p * c).mul_(c).sum(-1, keepdim=True)
            slant.masked_fill_(~slant.isfinite(), 0.0)
            to = c.mul_(-slope * slant).sub_(slope * g).mul_(p)
            to.scatter_add_(1, at, slope * g).masked_fill_(unsought[some], 0.0)
            to_direction[some] = _finite(to, direction_dtype)
            to_kl[some] = _finite((slant.squeeze(-1) + of_kl[some]) * damping[some], kl_dtype)
        return None, to_direction, to_kl, None


class _Tilted(NamedTuple):
    """Every row tilted, and what its gradients need; tables ``[rows, n_symbols]``, the rest ``[rows]``, float64."""

    log_policy: Tensor
    unit: Tensor
    unsought: Tensor
    tilt: Tensor
    span: Tensor
    damping: Tensor
    spent: Tensor


def _all_tilted(log_base: Tensor, direction: Tensor, kl_nats: Tensor) -> _Tilted:
    """Rows do not touch each other, so they are worked on a few at a time: dozens of passes over numbers that stay in the
    cache, in memory that is used again. The result is the same, bit by bit.
    """
    dtype = torch.promote_types(log_base.dtype, direction.dtype)
    log_policy, unit = (torch.empty_like(direction, dtype=torch.float64) for _ in range(2))
    unsought = torch.empty_like(direction, dtype=torch.bool)
    noted = [torch.empty_like(kl_nats, dtype=torch.float64) for _ in range(4)]
    for some in _blocks(direction):
        parts = [table[some] for table in (log_policy, unit, unsought)]
        found = _tilted(log_base[some], direction[some], kl_nats[some], dtype, some.start, *parts)
        for numbers, part in zip(noted, found, strict=True):
            numbers[some] = part
    return _Tilted(log_policy, unit, unsought, *noted)


def _blocks(table: Tensor) -> Iterator[slice]:
    """Rows of the table that are worked on together: some at a time on a processor, all elsewhere."""
    rows = max(1, NUMBERS_AT_ONCE // table.shape[1] if table.device.type == "cpu" else len(table))
    return (slice(first, min(first + rows, len(table))) for first in range(0, len(table), rows))


def _tilted(
    log_base: Tensor,
    direction: Tensor,
    kl_nats: Tensor,
    dtype: torch.dtype,
    first: int,
    log_policy: Tensor,
    unit: Tensor,
    unsought: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fill in what a block of rows comes to (the last three); ``(tilt, span of the direction, damping, KL)`` of each row.

    ``first`` is the number of the block's first row, for whoever reads an error.
    """
    log_share = log_base.double().log_softmax(-1)
    torch.lt(log_share, FAINTEST_LOG_SHARE, out=unsought)
    span = _standardize(direction, unsought, unit)
    raised = log_share.clamp(min=LOWEST_LOG_SHARE)
    supremum, mean, variance = _base_moments(raised, unit)
    usable = (kl_nats >= 0) & (kl_nats + span + mean).isfinite()
    if not bool(usable.all()):
        row = int(usable.int().argmin())
        _refuse(first + row, float(kl_nats[row]), float(span[row]))
    reachable = supremum * (1 - SHORT_OF_SUPREMUM_NATS / (1 + supremum))
    aim = _below_rounding(torch.minimum(kl_nats, reachable), unit.shape[-1], dtype)
    tilt, log_total = _tilts(raised, unit, *(x.cpu().numpy() for x in (aim, supremum, mean, variance)))
    torch.addcmul(log_share, tilt.unsqueeze(-1), unit, out=log_policy).sub_(log_total.unsqueeze(-1))
    return tilt, span, (kl_nats / DAMPED_BELOW_NATS).clamp(max=1) * (kl_nats <= reachable), aim


def _finite(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """``gradient`` in ``dtype``; what is too large for it (a direction of size 1e-40) becomes its largest number."""
    largest = torch.finfo(dtype).max
    return gradient.clamp_(-largest, largest).to(dtype)


def _refuse(row: int, allotment: float, spread: float) -> None:
    """Say what is wrong with this row."""
    if not 0 <= allotment < math.inf:
        raise InputError(f"row {row}: the allotment is {allotment} nats; a finite number >= 0 is needed")
    if not spread < math.inf:
        raise InputError(f"row {row}: the direction holds NaN or inf; finite logits are needed where the base has mass")
    raise InputError(f"row {row}: the base holds NaN or +inf, or no mass at all; log-probabilities are needed")


def _standardize(direction: Tensor, unsought: Tensor, unit: Tensor) -> Tensor:
    """Fill in ``unit``, the direction moved and scaled to [-1, 0], ``[rows, n]``; its span, ``[rows]``.

    Where ``unsought`` it counts as highest. A constant direction is 0 everywhere, with span 1.
    """
    unit.copy_(direction).masked_fill_(unsought, -torch.inf)
    unit.sub_(unit.amax(-1, keepdim=True)).masked_fill_(unsought, 0.0)
    span = -unit.amin(-1, keepdim=True)
    span.masked_fill_(span == 0, 1.0)
    unit.div_(span)
    return span.squeeze(-1)


def _base_moments(log_share: Tensor, unit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The highest reachable KL, -log(share of the base on the highest symbols); mean and variance under the base."""
    share = log_share.exp()
    supremum = share.masked_fill(unit < 0, 0.0).sum(-1).log().neg()
    mean = share.mul_(unit).sum(-1)
    return supremum.masked_fill(mean == 0, 0.0), mean, share.mul_(unit).sum(-1) - mean * mean


def _below_rounding(kl: Tensor, n_symbols: int, dtype: torch.dtype) -> Tensor:
    """The KL to aim at so that rounding the result to ``dtype`` lifts it by less than 1e-6 above ``kl``, ``[rows]``.

    A log-probability L is rounded by at most eps/2 * L, which moves the KL by eps/2 * sum p L |1 + log(p / q)|: at most
    eps/2 * entropy * (1 + KL) if L and the ratio have nothing to do with each other, and if they have, then a symbol that
    carries the KL alone has L <= log(650 / KL), because log(p / q) is at most 650.
    """
    if dtype == torch.float64:
        return kl
    rounding = torch.finfo(dtype).eps / 2 * math.log(max(n_symbols, -FAINTEST_LOG_SHARE)) * (1 + kl)
    return (kl - (rounding - 9e-7).clamp(min=0)).clamp(min=0)


def _tilts(
    log_share: Tensor, unit: Tensor, aim: FloatArray, supremum: FloatArray, mean: FloatArray, variance: FloatArray
) -> Tensor:
    """lambda >= 0 and log Z for the standardized direction, with KL = ``aim`` (below ``supremum``), ``[2, rows]``.

    The bracket starts at a proven lower end: the direction's range is 1, so KL <= lambda * -mean and KL <= lambda^2 / 8.
    """
    solution = np.zeros((2, len(aim)))
    rows = np.flatnonzero(aim)
    if len(rows) < len(aim):
        log_share, unit = _picked(rows, log_share, unit)
        aim, supremum, mean, variance = aim[rows], supremum[rows], mean[rows], variance[rows]
    if len(rows):
        low = np.maximum(aim / -mean, np.sqrt(8 * aim)) * (1 - 1e-9)
        guess = _straightened(np.sqrt(aim / supremum)) * np.sqrt(2 * supremum / np.maximum(variance, 1e-30))
        solution[:, rows] = _roots(
            log_share, unit, aim, supremum, low, np.maximum(np.minimum(guess, 1 + supremum), low)
        )
    return torch.from_numpy(solution).to(unit.device)


def _straightened(share: FloatArray) -> FloatArray:
    """-log(1 - sqrt(KL / supremum)), of that root: nearly linear in lambda at 0 (KL ~ lambda^2) and at the supremum
    (gap ~ e^-lambda)."""
    return -np.log1p(-share)


def _cumulants(log_share: Tensor, unit: Tensor, tilt: FloatArray, buffer: Tensor) -> tuple[FloatArray, ...]:
    """log Z and the first three cumulants of the standardized direction under the policy with this tilt, ``[rows]``."""
    weight = torch.addcmul(log_share, torch.from_numpy(tilt).to(unit.device).unsqueeze(-1), unit, out=buffer).exp_()
    sums = torch.stack([weight.sum(-1)] + [weight.mul_(unit).sum(-1) for _ in range(3)]).cpu().numpy()
    mean, square, cube = sums[1:] / sums[0]
    variance = square - mean * mean
    return np.log(sums[0]), mean, variance, cube - mean * (square + 2 * variance)


def _picked(rows: NDArray[np.intp], *tables: Tensor) -> list[Tensor]:
    """These rows of each table."""
    index = torch.from_numpy(rows).to(tables[0].device)
    return [table.index_select(0, index) for table in tables]


def _halley(
    tilt: FloatArray, kl: FloatArray, variance: FloatArray, skew: FloatArray, supremum: FloatArray, target: FloatArray
) -> FloatArray:
    """The next tilt by Newton's method with curvature on the straightened KL, towards ``target``; NaN where it has none.

    With s = sqrt(KL / supremum), dKL/dlambda = lambda * variance and d variance/dlambda = skew (third cumulant).
    """
    share, rate = np.sqrt(kl / supremum), tilt * variance
    share_rate = rate / (2 * supremum * share)
    straight_rate = share_rate / (1 - share)
    step = (target - _straightened(share)) / straight_rate
    curvature = 1 / tilt + skew / variance - share_rate / share + straight_rate
    new: FloatArray = tilt + step / np.minimum(np.maximum(1 + step * curvature / 2, 0.5), 2)
    return new


@np.errstate(divide="ignore", invalid="ignore")
def _roots(
    log_share: Tensor, unit: Tensor, aim: FloatArray, supremum: FloatArray, low: FloatArray, tilt: FloatArray
) -> FloatArray:
    """The tilt at which the KL is ``aim``, and log Z there, ``[2, rows]``, from the guess ``tilt`` with ``low`` <= root.

    A Halley step that leaves the shrinking bracket is replaced by its geometric middle, and no step is longer than
    fourfold. A row has landed when its KL is the aim or a last short step makes it so, which cubes the error; log Z after
    that step follows from the cumulants before it. Once half of the rows have landed they drop out. A row that never
    lands stays at the lower end, where the KL is below the aim. Row arithmetic is numpy's: it starts an operation faster
    than torch.
    """
    found, rows, high = np.full((2, len(aim)), np.nan), np.arange(len(aim)), np.full_like(aim, np.inf)
    landed, buffer = np.zeros(len(aim), dtype=bool), torch.empty_like(unit)
    target = _straightened(np.sqrt(aim / supremum))
    for _ in range(STEPS_MOST):
        log_total, mean, variance, skew = _cumulants(log_share, unit, tilt, buffer)
        kl = tilt * mean - log_total
        below, done = kl < aim, np.abs(kl - aim) <= ROOT_TOLERANCE * aim + 1e-13
        low, high = np.where(below | done, tilt, low), np.where(below, high, tilt)
        new = _halley(tilt, kl, variance, skew, supremum, target)
        inside = (new > low) & (new < high)
        step = np.where(done, 0.0, new - tilt)
        landing = ~landed & (done | inside & (np.abs(step) <= LAST_STEP * np.minimum(tilt, 1)))
        if landing.any():
            landed |= landing
            log_total += step * (mean + step * (variance / 2 + step * skew / 6))
            found[:, rows[landing]] = (tilt + step)[landing], log_total[landing]
            if landed.all():
                return found
        furthest = 4 * tilt
        if not inside.all():
            new = np.where(inside, new, np.sqrt(low) * np.sqrt(np.minimum(high, furthest)))
        tilt = np.where(landed, tilt, np.minimum(new, furthest))
        if 2 * np.count_nonzero(landed) > len(rows):
            kept = np.flatnonzero(~landed)
            rows, landed, buffer = rows[kept], landed[kept], buffer[: len(kept)]
            log_share, unit = _picked(kept, log_share, unit)
            aim, supremum, target, low, high, tilt = (x[kept] for x in (aim, supremum, target, low, high, tilt))
    found[:, rows[~landed]] = low[~landed], _cumulants(log_share, unit, low, buffer)[0][~landed]
    return found
