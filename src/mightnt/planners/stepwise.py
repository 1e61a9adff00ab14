"""The best policy that differs from the base by at most so much at every step, in closed form.

At each history, the last ones first: take mass from the actions of the least value, the worst first, and give it to the
best. The only actions that gain are then the best ones.
"""

from __future__ import annotations

from math import inf

import numpy as np

from mightnt.constraints.budget import TVDBudget
from mightnt.errors import BudgetError
from mightnt.planners.levels import (
    TIE,
    Levels,
    LogPolicy,
    evaluate,
    expected,
    lay_out,
    realize,
    refuse_other_alphabet,
    softmax,
    upwards,
)
from mightnt.planners.table import TablePolicy
from mightnt.prediction import TOLERANCE, FloatArray, Model
from mightnt.worlds.tree import TreeWorld


def plan_step_tvd(world: TreeWorld, base: Model, budget: TVDBudget) -> TablePolicy:
    """The policy of highest expected utility with TVD(pi( . |h), beta( . |h)) <= b at every history it can come to.

    The constraint ties no two histories together, so backward induction is exact. What the base misses goes to the best
    action and counts as moved: a base that misses more than b somewhere cannot be followed there, and the policy stays
    away if it can. Among equally good actions the base decides; b = 0 is the base where that sums to one, b = 1 is no
    limit. Off the plan it plays as if it had come there.

    Errors: :class:`~mightnt.errors.BudgetError` where no policy keeps the budget;
    :class:`~mightnt.errors.InputError` for other alphabets or a tree too large.

    Kind: exact (float64). Paper: the step-wise TVD constraint. Cost: the tree once, then one pass over it.
    """
    refuse_other_alphabet(world, base)
    levels = lay_out(world, base, world.start(), base.start())
    log_policy = best_within_steps(levels, budget.probability)
    return TablePolicy(
        world, base, budget, evaluate(levels, log_policy)[0], largest_step(levels, log_policy), log_policy
    )


def best_within_steps(levels: Levels, limit: float) -> LogPolicy:
    """The policy, level by level; :class:`~mightnt.errors.BudgetError` where none keeps ``limit`` at every step."""
    value, possible, log_policy = levels.utilities, np.ones(levels.utilities.shape, dtype=bool), list[FloatArray]()
    for log_base, observations in upwards(levels):
        usable = possible.reshape(observations.shape).all(axis=2)
        action_value = np.where(usable, expected(observations, np.where(possible, value, 0)), -inf)
        policy = moved_to_the_best(np.exp(log_base), action_value, limit)
        spent = np.maximum(policy - np.exp(log_base), 0).sum(axis=1)
        possible = (spent <= limit + TOLERANCE) & (np.where(usable, 0, policy).sum(axis=1) == 0)
        value = (policy * np.where(usable, action_value, 0)).sum(axis=1)
        with np.errstate(divide="ignore"):
            log_policy.append(np.log(policy))
    if not possible[0]:
        raise BudgetError(
            f"no policy stays within {limit:.6g} of the base at every step (it misses more than that on every way); "
            "raise the budget, or let the demonstrator be asked"
        )
    return log_policy[::-1]


def moved_to_the_best(base: FloatArray, action_value: FloatArray, limit: float) -> FloatArray:
    """Rows of the best policy within TVD ``limit`` of rows of ``base``, shape ``(n, n_actions)``; they sum to one.

    ``limit`` minus what the base misses is taken from the worst actions; that and what is missing goes to the best,
    shared as the base shares itself among them (to the first, where it gives them nothing).
    """
    top = action_value.max(axis=1, keepdims=True)
    slack = TIE * (1 + np.abs(np.where(top > -inf, top, 0)))
    best = action_value >= top - slack
    order = np.argsort(np.where(best, inf, action_value), axis=1, kind="stable")
    takeable = np.take_along_axis(np.where(best, 0, base), order, axis=1)
    missing = np.maximum(1 - base.sum(axis=1, keepdims=True), 0)
    before = np.cumsum(takeable, axis=1) - takeable
    taken = np.clip(np.maximum(limit - missing, 0) - before, 0, takeable)
    kept = base.copy()
    np.put_along_axis(kept, order, np.take_along_axis(base, order, axis=1) - taken, axis=1)
    with np.errstate(divide="ignore"):
        shares = np.exp(softmax(np.where(best, np.log(base), -inf), action_value)[0])
    return np.asarray(kept + (1 - kept.sum(axis=1, keepdims=True)) * shares)


def largest_step(levels: Levels, log_policy: LogPolicy) -> float:
    """The largest TVD of a single decision that the policy can come to."""
    reached, most = np.ones(1), 0.0
    for log_base, row, plan in zip(levels.log_base, log_policy, realize(levels, log_policy), strict=True):
        steps = np.maximum(np.exp(row) - np.exp(log_base), 0).sum(axis=1)
        most = max(most, float(steps[reached > 0].max()))
        reached = np.repeat(plan.ravel(), levels.n_observations)
    return most
