"""How far one decision is from the base: the KL over the whole vocabulary, not a sample's estimate of it."""

from __future__ import annotations

import torch
from torch import Tensor

from mightnt.errors import InputError


def kl_step_nats(log_policy: Tensor, log_base: Tensor) -> Tensor:
    """The KL of each decision to the base, in nats: the Rao-Blackwellized form of every sample estimate of it.

    KL(pi || beta) = sum_x pi(x) log(pi(x) / beta(x)), over the last dimension.

    Args:
        log_policy: log-probabilities, nats, shape ``[..., n_symbols]``, ``-inf`` allowed.
        log_base: the same shape (or one that broadcasts). It may sum to less than one; nothing is renormalized, so the
            result is at least -log(sum beta) = -log(1 - theta).

    Returns shape ``[...]`` in the dtype of the inputs. Rounding may leave a tiny negative number where both are equal.

    Edges: 0 log 0 = 0, with zero gradient; policy > 0 where base = 0 gives inf, and a row that is inf has zero gradient
    to everything (no NaN ever). An empty batch gives an empty result.

    Errors: :class:`~mightnt.errors.InputError` where an argument holds NaN or +inf.

    Kind: exact, per step. Paper: one step of the KL constraint. Cost: O(n_symbols) a row.
    """
    nothing = log_policy == -torch.inf
    forbidden = (log_base == -torch.inf) & ~nothing
    outside = nothing | forbidden
    policy = log_policy.masked_fill(outside, 0.0)
    kl = (policy.exp() * (policy - log_base.masked_fill(outside, 0.0))).sum(-1)
    if not bool(kl.isfinite().all()):
        raise InputError("log-probabilities hold NaN or +inf; finite numbers or -inf are allowed")
    return kl.masked_fill(forbidden.any(-1), torch.inf)
