"""The best policy under an expected-KL budget, exactly, on a tree: soft value iteration and a bisection.

pi(a|h) is proportional to beta(a|h) exp(Q(h,a) / lambda). The price lambda is a utility per nat: at price infinity the
policy is the cheapest there is (the base, where that sums to one), at price 0 the best within the support of the base.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np

from mightnt.constraints.budget import KLBudget, refuse_no_amount
from mightnt.constraints.ledger import TOLERANCE_NATS
from mightnt.errors import BudgetError, InputError
from mightnt.history import Chooser, History, Step
from mightnt.planners.levels import (
    Levels,
    LogPolicy,
    evaluate,
    expected,
    lay_out,
    log_best,
    refuse_other_alphabet,
    softmax,
    upwards,
)
from mightnt.prediction import FloatArray, Model, Prediction
from mightnt.worlds.tree import Path, TreeWorld

N_BISECTIONS = 64
"""Enough to halve forty orders of magnitude, in logs, down to rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class PlannedState:
    """The steps so far, and where they leave the world and the base."""

    history: History
    at_world: Path
    at_base: Any


@dataclass(frozen=True, slots=True, eq=False)
class SoftPolicy:
    """The planned policy.

    It plans on the base as that now is: after an answered question moved the base, it goes on at the same price from
    there. Where no action is due, or after the end, every action has probability zero.

    ``price_per_nat`` is lambda; ``value`` and ``kl_expected_nats`` are what it promises from the start.

    Kind: exact. Paper: the KL-constrained optimum, expected version. Cost: the first ``predict`` after a history lays out the
    tree below it; the row is kept for the next time.
    """

    world: TreeWorld
    base: Model
    budget: KLBudget
    price_per_nat: float
    value: float
    kl_expected_nats: float
    _rows: dict[History, Prediction] = field(default_factory=dict, repr=False)

    @property
    def n_symbols(self) -> int:
        """Number of actions."""
        return self.world.n_actions

    def start(self) -> PlannedState:
        """World and base at their start."""
        return PlannedState((), self.world.start(), self.base.start())

    def predict(self, state: PlannedState) -> Prediction:
        """The probabilities of the actions."""
        if self.world.turn(state.at_world) is not Chooser.AGENT:
            return Prediction(np.full(self.n_symbols, -inf))
        if state.history not in self._rows:
            levels = lay_out(self.world, self.base, state.at_world, state.at_base)
            rows = log_policy_at_price(levels, self.price_per_nat, self.budget.nats == inf)
            self._rows[state.history] = Prediction(rows[0][0])
        return self._rows[state.history]

    def advance(self, state: PlannedState, step: Step) -> PlannedState:
        """World and base move on."""
        return PlannedState(
            (*state.history, step), self.world.advance(state.at_world, step), self.base.advance(state.at_base, step)
        )


def plan_expected_kl(world: TreeWorld, base: Model, budget: KLBudget) -> SoftPolicy:
    """The policy of highest expected utility whose expected KL to the base in this world is within the budget.

    maximize E U over policies with E sum_t KL(pi( . |h_t), beta( . |h_t)) <= b + 1e-9. Single episodes may cost more.
    The value is nondecreasing and concave in b; b = 0 gives the base where it sums to one; ``inf`` gives the
    unconstrained optimum, which may go where the base does not. Among equally good actions the base decides.

    A base that misses theta has a floor: some policy must be the cheapest, and it costs at least -log(1-theta) a step.
    Errors: :class:`~mightnt.errors.BudgetError` where the budget cannot pay for the cheapest policy;
    :class:`~mightnt.errors.InputError` where base and world have different actions.

    Kind: exact (to about 1e-9 nats). Paper: the KL-constrained optimum, expected.
    Cost: the tree once, then about 70 passes over it in numpy.
    """
    refuse_other_alphabet(world, base)
    found = best_within_expected_kl(lay_out(world, base, world.start(), base.start()), budget.nats)
    return SoftPolicy(world, base, budget, found.price_per_nat, found.value, found.kl_expected_nats)


@dataclass(frozen=True, slots=True, eq=False)
class SoftPlan:
    """A plan on a tree given as arrays: the price, what it promises from the start, and its rows level by level."""

    price_per_nat: float
    value: float
    kl_expected_nats: float
    log_policy: LogPolicy


def best_within_expected_kl(levels: Levels, budget_nats: float, compiled: bool = False) -> SoftPlan:
    """The plan of :func:`plan_expected_kl` on a tree given as arrays, to millions of nodes.

    Args:
        compiled: search for the price with compiled passes: the same plan up to rounding, about ten times as fast on a
            large tree; needs the extra ``theory``.

    Errors: as :func:`plan_expected_kl`; arrays are not checked here (:func:`~mightnt.planners.levels.check_levels`).

    Kind: exact (to about 1e-9 nats). Paper: the KL-constrained optimum, expected. Cost: about 70 passes.
    """
    refuse_no_amount(budget_nats, "the budget")
    price = 0.0 if budget_nats == inf else price_within(levels, budget_nats, compiled)
    log_policy = log_policy_at_price(levels, price, budget_nats == inf)
    return SoftPlan(price, *evaluate(levels, log_policy), log_policy)


def price_within(levels: Levels, budget_nats: float, compiled: bool = False) -> float:
    """The lowest price lambda at which the policy costs at most ``budget_nats``: 0, a positive number or ``inf``."""
    cheapest = kl_at_price_nats(levels, inf)
    if cheapest > budget_nats + TOLERANCE_NATS:
        raise BudgetError(
            f"the cheapest policy costs {cheapest:.6g} nats (the base misses that much probability) and the budget is "
            f"{budget_nats:.6g}; raise it, or let the demonstrator be asked"
        )
    if cheapest >= budget_nats or np.ptp(levels.utilities) == 0:
        return inf
    if kl_at_price_nats(levels, 0.0) <= budget_nats:
        return 0.0
    kl_nats = _compiled_passes(levels) if compiled else lambda price: kl_at_price_nats(levels, price)
    low, high = log_price_range(levels)
    if kl_nats(np.exp(high)) > budget_nats:
        return inf
    for _ in range(N_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if kl_nats(np.exp(middle)) <= budget_nats else (middle, high)
    return float(np.exp(high))


def kl_at_price_nats(levels: Levels, price: float) -> float:
    """The expected KL of the policy of a price in [0, inf], in nats."""
    return evaluate(levels, log_policy_at_price(levels, price))[1]


def _compiled_passes(levels: Levels) -> Callable[[float], float]:
    try:
        from mightnt.planners.kernels import kl_at_prices_nats
    except ImportError as error:
        raise InputError('compiled passes need numba: pip install "mightnt[theory]"') from error
    return kl_at_prices_nats(levels)


def log_price_range(levels: Levels) -> tuple[float, float]:
    """Logs of two prices: so low that only the best actions are taken, so high that the cheapest are."""
    middle = float(np.log(np.ptp(levels.utilities)))
    return middle - 46.0, middle + 46.0


def log_policy_at_price(levels: Levels, price: float, free: bool = False) -> LogPolicy:
    """log pi level by level, each ``(N_t, n_actions)``, for a price in [0, inf].

    ``free`` (at price 0) also allows actions to which the base gives zero. Where nothing can be paid for (the base
    gives zero to all that is left) the first of the best actions is taken; its KL is ``inf``.
    """
    if price == 0:
        return log_best(levels, free)
    value = levels.utilities if price < inf else np.zeros_like(levels.utilities)
    per_nat, log_policy = (price if price < inf else 1.0), list[FloatArray]()
    for log_base, observations in upwards(levels):
        action_value = expected(observations, value)
        best = np.where(log_base > -inf, action_value, -inf).max(axis=1)
        best = np.where(best > -inf, best, 0)  # taken off first: at a low price Q / lambda has no digits to spare
        log_row, log_total = softmax(log_base + (action_value - best[:, None]) / per_nat, action_value)
        value = best + per_nat * log_total
        log_policy.append(log_row)
    return log_policy[::-1]
