"""The least KL that buys a value: the inverse of the planners."""

from __future__ import annotations

from math import inf, isnan

import numpy as np

from mightnt.constraints.budget import KLReading
from mightnt.errors import InputError
from mightnt.planners.conic import least_max_kl_nats, refuse_too_large
from mightnt.planners.levels import TIE, Levels, evaluate, lay_out, log_best, refuse_other_alphabet
from mightnt.planners.soft import N_BISECTIONS, log_policy_at_price, log_price_range
from mightnt.prediction import Model
from mightnt.worlds.tree import TreeWorld


def least_kl_nats(world: TreeWorld, base: Model, value: float, measure: KLReading = "expected") -> float:
    """The least KL to ``base`` of a policy whose expected utility in ``world`` is at least ``value``, in nats.

    min over policies with E U >= v of KL(pi, beta): ``expected`` in this world, or ``max_observations``, the worst over
    observation sequences fixed in advance. It is the KL of a policy that was found and evaluated, so the truth is never
    above it.

    Edges: 0 where the base reaches the value; ``inf`` where no policy of finite KL does (none at all, or only outside
    the support of the base); a base that misses mass has a floor, which is returned for any value low enough, -inf
    included. What is reached up to rounding (1 in 10^12) counts as reached.

    Args:
        value: in the utilities of the world; NaN is refused.
        measure: which KL.

    Errors: :class:`~mightnt.errors.InputError` for other alphabets, NaN, an unknown measure, a tree too large, and for
    ``max_observations`` without the extra ``plan``; :class:`~mightnt.errors.MightntError` where the solver fails.

    Kind: exact (to about 1e-9 nats for ``expected``, 1e-6 nats for ``max_observations``). Paper: what theorem 1 bounds.
    Cost: the tree once, then about 70 passes over it, or a cone program.
    """
    refuse_other_alphabet(world, base)
    if isnan(value):
        raise InputError("the value to be reached is NaN; a utility is needed")
    if measure not in ("expected", "max_observations"):
        raise InputError(f"the measure is {measure!r}; allowed are 'expected' and 'max_observations'")
    if measure == "max_observations":
        refuse_too_large(world)
    levels = lay_out(world, base, world.start(), base.start())
    return least_expected_kl_nats(levels, value) if measure == "expected" else least_max_kl_nats(levels, value)


def least_expected_kl_nats(levels: Levels, value: float) -> float:
    """The least expected KL, by bisection on the price: value and KL both fall as it rises."""
    tie = TIE * (1 + abs(value)) if value > -inf else 0.0
    reached, nats = evaluate(levels, log_policy_at_price(levels, inf))
    if reached >= value - tie or nats == inf:
        return nats
    most, nats = evaluate(levels, log_best(levels, free=False))
    if value >= most - tie:
        return nats if value <= most + tie else inf
    low, high = log_price_range(levels)
    for _ in range(N_BISECTIONS):
        middle = (low + high) / 2
        reached, spent = evaluate(levels, log_policy_at_price(levels, np.exp(middle)))
        low, high, nats = (middle, high, spent) if reached >= value else (low, middle, nats)
    return nats
