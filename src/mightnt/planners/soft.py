"""The best policy under an expected-KL budget, exactly, on a small tree: soft value iteration and a bisection.

pi(a|h) is proportional to beta(a|h) exp(Q(h,a) / lambda). The price lambda is a utility per nat: at price infinity the
policy is the cheapest there is (the base, where that sums to one), at price 0 the best within the support of the base.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np

from mightnt.constraints.budget import KLBudget
from mightnt.constraints.ledger import TOLERANCE_NATS
from mightnt.errors import BudgetError, InputError
from mightnt.history import Chooser, History, Step
from mightnt.prediction import FloatArray, Model, Prediction
from mightnt.worlds.tree import Path, TreeWorld

TIE = 1e-12
"""Actions this close to the best value (times 1 + its size) count as equally good, and the base decides among them."""

N_BISECTIONS = 64
"""Enough to halve forty orders of magnitude, in logs, down to rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """A tree below one node, level by level; level t has N_t = (n_actions * n_observations) ** t nodes in order.

    ``log_base``: per level ``(N_t, n_actions)``; ``observations``: per level ``(N_t, n_actions, n_observations)``;
    ``utilities``: ``(N_last,)``.
    """

    log_base: tuple[FloatArray, ...]
    observations: tuple[FloatArray, ...]
    utilities: FloatArray


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
    if base.n_symbols != world.n_actions:
        raise InputError(f"the base predicts {base.n_symbols} actions, the world has {world.n_actions}")
    levels = lay_out(world, base, world.start(), base.start())
    price = 0.0 if budget.nats == inf else price_within(levels, budget.nats)
    value, kl = evaluate(levels, log_policy_at_price(levels, price, budget.nats == inf))
    return SoftPolicy(world, base, budget, price, value, kl)


def lay_out(world: TreeWorld, base: Model, at_world: Path, at_base: Any) -> Levels:
    """The tree below a node where an action is due. Cost: one prediction of base and world at every node."""
    nodes, log_base, observations = [(at_world, at_base)], [], []
    while world.turn(nodes[0][0]) is Chooser.AGENT:
        log_base.append(np.stack([base.predict(b).log_probabilities for _, b in nodes]))
        nodes = _children(world, base, nodes, Chooser.AGENT, world.n_actions)
        told = np.stack([world.predict(w).probabilities for w, _ in nodes])
        observations.append(told.reshape(-1, world.n_actions, world.n_observations))
        nodes = _children(world, base, nodes, Chooser.WORLD, world.n_observations)
    return Levels(tuple(log_base), tuple(observations), np.array([world.utility(w) for w, _ in nodes]))


def price_within(levels: Levels, budget_nats: float) -> float:
    """The lowest price lambda at which the policy costs at most ``budget_nats``: 0, a positive number or ``inf``."""

    def kl_at(price: float) -> float:
        return evaluate(levels, log_policy_at_price(levels, price))[1]

    cheapest = kl_at(inf)
    if cheapest > budget_nats + TOLERANCE_NATS:
        raise BudgetError(
            f"the cheapest policy costs {cheapest:.6g} nats (the base misses that much probability) and the budget is "
            f"{budget_nats:.6g}; raise it, or let the demonstrator be asked"
        )
    scale = float(np.ptp(levels.utilities))
    if cheapest >= budget_nats or scale == 0:
        return inf
    if kl_at(0.0) <= budget_nats:
        return 0.0
    low, high = np.log(scale) - 46.0, np.log(scale) + 46.0
    if kl_at(np.exp(high)) > budget_nats:
        return inf
    for _ in range(N_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if kl_at(np.exp(middle)) <= budget_nats else (middle, high)
    return float(np.exp(high))


def log_policy_at_price(levels: Levels, price: float, free: bool = False) -> list[FloatArray]:
    """log pi level by level, each ``(N_t, n_actions)``, for a price in [0, inf].

    ``free`` (at price 0) also allows actions to which the base gives zero. Where nothing can be paid for (the base
    gives zero to all that is left) the first of the best actions is taken; its KL is ``inf``.
    """
    if price == 0:
        return _log_best_policy(levels, free)
    value = levels.utilities if price < inf else np.zeros_like(levels.utilities)
    log_policies = []
    for log_base, observations in _upwards(levels):
        action_value = _expected(observations, value)
        log_policy, log_total = _softmax(log_base + action_value / (price if price < inf else 1.0), action_value)
        value = (price if price < inf else 1.0) * log_total
        log_policies.append(log_policy)
    return log_policies[::-1]


def evaluate(levels: Levels, log_policies: list[FloatArray]) -> tuple[float, float]:
    """``(expected utility, expected KL in nats)`` of a policy from the top node; the KL may be ``inf``."""
    value, kl = levels.utilities, np.zeros_like(levels.utilities)
    rows = zip(levels.log_base, levels.observations, log_policies, strict=True)
    for log_base, observations, log_policy in reversed(list(rows)):
        policy = np.exp(log_policy)
        used = policy > 0
        log_ratio = np.subtract(log_policy, log_base, where=used, out=np.zeros_like(policy))
        value = _weighted(policy, _expected(observations, value))
        kl = _weighted(policy, log_ratio + _expected(observations, kl))
    return float(value[0]), max(0.0, float(kl[0]))


def _log_best_policy(levels: Levels, free: bool) -> list[FloatArray]:
    """The best policy, and among the best ones the nearest to the base: first by value, then by KL."""
    value, kl = levels.utilities, np.zeros_like(levels.utilities)
    log_policies = []
    for log_base, observations in _upwards(levels):
        action_value = _expected(observations, value)
        if not free:
            action_value = np.where(log_base > -inf, action_value, -inf)
        value = action_value.max(axis=1)
        best = action_value >= (value - TIE * (1 + np.abs(np.where(value > -inf, value, 0))))[:, None]
        log_policy, log_total = _softmax(np.where(best, log_base - _expected(observations, kl), -inf), action_value)
        kl = -log_total
        log_policies.append(log_policy)
    return log_policies[::-1]


def _children(
    world: TreeWorld, base: Model, nodes: list[tuple[Path, Any]], chooser: Chooser, size: int
) -> list[tuple[Path, Any]]:
    steps = [Step(symbol, chooser) for symbol in range(size)]
    return [(world.advance(w, step), base.advance(b, step)) for w, b in nodes for step in steps]


def _upwards(levels: Levels) -> Iterator[tuple[FloatArray, FloatArray]]:
    """The levels from the last to the first."""
    return zip(reversed(levels.log_base), reversed(levels.observations), strict=True)


def _weighted(weights: FloatArray, values: FloatArray) -> FloatArray:
    """sum over the last axis of weights * values, where 0 * inf is 0."""
    return np.asarray(np.multiply(weights, values, where=weights > 0, out=np.zeros_like(weights)).sum(axis=-1))


def _expected(observations: FloatArray, value: FloatArray) -> FloatArray:
    """sum_o p(o|ha) value(hao), shape ``(N_t, n_actions)``, from the values of the next level."""
    return _weighted(observations, value.reshape(observations.shape))


def _softmax(logits: FloatArray, action_value: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``(log policy, log total)`` row by row; a row that is all ``-inf`` takes the first best action."""
    log_total = np.logaddexp.reduce(logits, axis=1)
    dead = np.isneginf(log_total)
    log_policy = logits - np.where(dead, 0, log_total)[:, None]
    log_policy[dead, np.argmax(action_value[dead], axis=1)] = 0.0
    return log_policy, log_total
