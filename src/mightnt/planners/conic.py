"""Maximum over observation sequences, exactly: one cone program for KL, one linear program for TVD.

In realization plans x (products of the policy's own probabilities) the value is linear, the flow is linear, and for each
sequence of observations KL and TVD are convex functions of the last entries. Nothing a solver says is passed on: its
policy is evaluated again, pulled back where it overspends, and held against the dual bound of its own multipliers.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linprog

from mightnt.constraints.budget import KLBudget, TVDBudget
from mightnt.errors import BudgetError, InputError, MightntError
from mightnt.planners.levels import (
    TIE,
    Levels,
    LogPolicy,
    by_sequence,
    evaluate,
    expected,
    kl_of_sequences_nats,
    lay_out,
    log_best,
    log_conditionals,
    log_trajectories,
    pulled,
    refuse_other_alphabet,
    softmax,
    tvd_of_sequences,
    upwards,
    world_probabilities,
)
from mightnt.planners.soft import log_policy_at_price
from mightnt.planners.table import TablePolicy
from mightnt.prediction import TOLERANCE, FloatArray, Model
from mightnt.worlds.tree import TreeWorld

GAP = 1e-6
"""Largest distance between a policy and its dual bound that is accepted: a share of the range of utilities, or nats."""

ACCURACY = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
"""What the cone solver is asked for; where it stops short of that, its dual bound decides."""

LARGEST_PROGRAM_LEAVES = 50_000
"""How many last actions a program may have, one cone each; at a sixth of this a solve takes seconds and 0.2 GB."""

Mask = NDArray[np.bool_]


def plan_max_kl(world: TreeWorld, base: Model, budget: KLBudget) -> TablePolicy:
    """The policy of highest expected utility whose KL to the base is within the budget whatever is observed.

    maximize E U over policies with max over o_{1:m} of sum over a_{1:m} of prod pi log [prod pi / prod beta] <= b.
    The limit holds exactly (float64). The value lies within 1e-6 of the range of utilities of the optimum, which is
    checked after the fact against the dual bound. Value is nondecreasing and concave in b; b = 0 gives the base where
    it sums to one; ``inf`` gives the unconstrained optimum, which may go where the base does not.

    Errors: :class:`~mightnt.errors.BudgetError` where the budget cannot pay for the cheapest policy (a base that
    misses mass); :class:`~mightnt.errors.InputError` for other alphabets, for a tree too large, without the extra
    ``plan``; :class:`~mightnt.errors.MightntError` where the solver fails.

    Kind: exact to the tolerance above. Paper: the optimum under KL_{h,m}. Cost: a cone program with one exponential
    cone for each of the (n_actions * n_observations) ** (m-1) * n_actions last actions.
    """
    refuse_other_alphabet(world, base)
    refuse_too_large(world)
    levels = lay_out(world, base, world.start(), base.start())
    if budget.nats == inf:
        return _planned(world, base, budget, levels, log_best(levels, free=True))
    held = supported(levels)
    cheapest, floor = cheapest_max_kl(held)
    if floor > budget.nats:
        raise BudgetError(
            f"the cheapest policy costs {floor:.6g} nats under the worst observations (the base misses that much "
            f"probability) and the budget is {budget.nats:.6g}; raise it, or let the demonstrator be asked"
        )
    found = log_best(held, free=False)
    if kl_of_sequences_nats(held, found).max() > budget.nats:
        found = cheapest if floor >= budget.nats else _spend(held, budget.nats, cheapest)
    return _planned(world, base, budget, levels, found)


def _spend(held: Levels, budget_nats: float, cheapest: LogPolicy) -> LogPolicy:
    """The best policy within a budget that neither forbids nor allows everything."""
    solution = solve_cone(held, budget_nats=budget_nats)
    off_plan = log_policy_at_price(held, inf)
    found = log_conditionals(solution.plan, off_plan)
    found = pulled(held, found, cheapest, lambda p: float(kl_of_sequences_nats(held, p).max()) - budget_nats, off_plan)
    bound = dual_value(held, solution.weights, 1.0) + budget_nats * float(solution.weights.sum())
    _refuse_gap(bound - evaluate(held, found)[0], float(np.ptp(held.utilities)), "of the range of utilities")
    return found


def least_max_kl_nats(levels: Levels, value: float) -> float:
    """The least KL, maximal over observation sequences, of a policy worth at least ``value``; see ``least.py``."""
    held = supported(levels)
    best = log_best(held, free=False)
    cheapest, floor = cheapest_max_kl(held)
    most, tie = evaluate(held, best)[0], TIE * (1 + abs(value)) if value > -inf else 0.0
    if floor == inf or evaluate(held, cheapest)[0] >= value - tie:
        return floor
    if value > most + tie:
        return inf
    if value >= most - tie:
        return cheapest_max_kl(optimal_only(held))[1]
    solution = solve_cone(held, value=value)
    off_plan = log_policy_at_price(held, inf)
    found = pulled(
        held, log_conditionals(solution.plan, off_plan), best, lambda p: value - evaluate(held, p)[0], off_plan
    )
    nats = float(kl_of_sequences_nats(held, found).max())
    weights = solution.weights / solution.weights.sum()
    _refuse_gap(
        nats - (solution.nats_per_value * value - dual_value(held, weights, solution.nats_per_value)), 1, "nats"
    )
    return nats


def cheapest_max_kl(held: Levels) -> tuple[LogPolicy, float]:
    """The policy with the least KL under the worst observations, and that KL: the floor of every budget.

    The base itself and 0 where it sums to one; ``inf`` where it gives nothing to go on with.
    """
    nearest = log_policy_at_price(held, inf)
    if not np.isfinite(held.log_base[0]).any():
        return nearest, inf
    if all((np.abs(np.exp(rows).sum(axis=1) - 1) <= TOLERANCE).all() for rows in held.log_base):
        return nearest, 0.0
    solution = solve_cone(held, value=-inf)
    found = log_conditionals(solution.plan, nearest)
    nats = float(kl_of_sequences_nats(held, found).max())
    _refuse_gap(nats + dual_value(held, solution.weights / solution.weights.sum(), 0.0), 1, "nats")
    return found, nats


def supported(levels: Levels) -> Levels:
    """The tree without the actions that no finite budget takes: those after which some observation leads to where the
    base gives nothing."""
    alive: Mask = np.ones(levels.utilities.shape, dtype=np.bool_)
    rows = list[FloatArray]()
    for log_base, observations in upwards(levels):
        goes_on = alive.reshape(observations.shape).all(axis=2)
        rows.append(np.where(goes_on, log_base, -inf))
        alive = np.asarray(np.isfinite(rows[-1]).any(axis=1))
    return replace(levels, log_base=tuple(rows[::-1]))


def optimal_only(held: Levels) -> Levels:
    """The tree without the actions that cost value: what is left are the policies that reach the highest value."""
    reach = world_probabilities(held)[-2::-1]
    value, rows = held.utilities, list[FloatArray]()
    for (log_base, observations), here in zip(upwards(held), reach, strict=True):
        action_value = np.where(log_base > -inf, expected(observations, value), -inf)
        value = action_value.max(axis=1)
        slack = TIE * (1 + np.abs(np.where(value > -inf, value, 0)))
        best = (action_value >= (value - slack)[:, None]) | (here == 0)[:, None]
        rows.append(np.where(best, log_base, -inf))
    return supported(replace(held, log_base=tuple(rows[::-1])))


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """What the cone solver gives: a realization plan, the multipliers of the sequences of observations (utilities a nat,
    or shares), and the multiplier of the value (nats a utility; 0 where none was asked for)."""

    plan: list[FloatArray]
    weights: FloatArray
    nats_per_value: float = 0.0


def solve_cone(held: Levels, *, budget_nats: float | None = None, value: float = -inf) -> Solution:
    """The realization plan of highest value within ``budget_nats``; without a budget, of least KL worth ``value``.

    The utilities are scaled to [0, 1] for the solver and its multipliers scaled back.
    """
    cvxpy = _cvxpy()
    used = _reachable(held)
    flow, inflow = _flow(held, used)
    n_leaves = held.log_base[-1].size
    leaves = np.flatnonzero(used[-n_leaves:])
    log_beta = log_trajectories(held, held.log_base).ravel()[leaves]
    sequence_of = _sequence_of(held)[leaves]
    sums = sparse.csr_array((np.ones(leaves.size), (sequence_of, np.arange(leaves.size))))
    low, scale = float(held.utilities.min()), float(np.ptp(held.utilities)) or 1.0
    worth = _worth(replace(held, utilities=(held.utilities - low) / scale))[leaves]
    x = cvxpy.Variable(int(used.sum()))
    ends = x[-leaves.size :]
    most = cvxpy.Variable() if budget_nats is None else budget_nats
    within = sums @ (-cvxpy.entr(ends) - cvxpy.multiply(log_beta, ends)) <= most
    enough = [worth @ ends >= (value - low) / scale] if value > -inf else []
    goal = cvxpy.Minimize(most) if budget_nats is None else cvxpy.Maximize(worth @ ends)
    problem = cvxpy.Problem(goal, [flow @ x == inflow, within, *enough])
    _solve(cvxpy, problem)
    full = np.zeros(used.size)
    full[used] = np.maximum(x.value, 0)
    weights = np.maximum(np.atleast_1d(within.dual_value), 0).reshape(-1)
    if budget_nats is not None:
        return Solution(_split(held, full), weights * scale)
    return Solution(_split(held, full), weights, float(np.squeeze(enough[0].dual_value)) / scale if enough else 0.0)


def dual_value(held: Levels, weights: FloatArray, scale: float) -> float:
    """max over policies of scale * E U - sum over sequences o of weights_o KL_o: an upper bound by any multipliers.

    W(h) = max_pi sum_a pi(a) [sum_o W(hao) - L(h) log(pi(a) / beta(a|h))] = L(h) log sum_a beta(a|h) exp(sum_o W(hao) /
    L(h)), where L(h) sums the weights of the sequences that go on from h (a hard maximum where L = 0) and the leaves
    hold scale * U times the world's probability of the observations. So E U <= W + b sum(weights) within budget b.

    Kind: exact (float64). Cost: one pass.
    """
    worth, rounds = scale * world_probabilities(held)[-1] * held.utilities, held.horizon - 1
    shares = weights.reshape((held.n_observations,) * rounds)
    for t in range(rounds, -1, -1):
        log_base = held.log_base[t]
        of_prefix = shares.sum(axis=tuple(range(t, rounds)))
        tiled = of_prefix.reshape((1, held.n_observations) * t) if t else of_prefix
        price = np.broadcast_to(tiled, (held.n_actions, held.n_observations) * t).reshape(-1, 1)
        gains = worth.reshape(-1, held.n_actions, held.n_observations).sum(axis=2)
        gains = np.where(log_base > -inf, gains, -inf)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            soft = price * np.logaddexp.reduce(log_base + gains / price, axis=1, keepdims=True)
        worth = np.where(price > 1e-300, soft, gains.max(axis=1, keepdims=True)).ravel()
    return float(worth[0])


def plan_max_tvd(world: TreeWorld, base: Model, budget: TVDBudget) -> TablePolicy:
    """The policy of highest expected utility whose TVD to the base is within the budget whatever is observed.

    maximize E U over policies with max over o_{1:m} of sum over a_{1:m} of max(0, prod pi - prod beta) <= b: a linear
    program, solved at a vertex. The limit holds exactly (float64), the value to about 1e-9 of the range of utilities.
    Actions to which the base gives zero can receive mass. b = 1 is no limit. A base that misses mass has a floor: the
    most that it misses along a sequence of observations.

    Errors: as :func:`plan_max_kl`; no extra is needed.

    Kind: exact to the tolerance above. Paper: the optimum under TVD. Cost: a linear program with two variables for each
    of the (n_actions * n_observations) ** (m-1) * n_actions last actions.
    """
    refuse_other_alphabet(world, base)
    refuse_too_large(world)
    levels = lay_out(world, base, world.start(), base.start())
    return _planned(world, base, budget, levels, best_within_trajectories(levels, budget.probability))


def best_within_trajectories(levels: Levels, limit: float) -> LogPolicy:
    """The policy of :func:`plan_max_tvd` on a tree given as arrays, level by level."""
    cheapest = normalized(levels)
    floor = float(tvd_of_sequences(levels, cheapest).max())
    if floor > limit + TOLERANCE:
        raise BudgetError(
            f"the base misses {floor:.6g} of the trajectories under the worst observations, so no policy is nearer, and "
            f"the budget is {limit:.6g}; raise it, or let the demonstrator be asked"
        )
    found = log_best(levels, free=True)
    if tvd_of_sequences(levels, found).max() <= limit:
        return found
    found = log_conditionals(_solve_linear(levels, limit), cheapest)
    within = max(limit, floor)
    return pulled(levels, found, cheapest, lambda p: float(tvd_of_sequences(levels, p).max()) - within, cheapest)


def normalized(levels: Levels) -> LogPolicy:
    """The base divided by its sum at every node (where that is zero: the first action); nothing is nearer in TVD."""
    return [softmax(rows, np.zeros_like(rows))[0] for rows in levels.log_base]


def _solve_linear(levels: Levels, limit: float) -> list[FloatArray]:
    """The realization plan at a best vertex: x over all actions, and u >= max(0, x - beta) over the last ones."""
    used = np.ones(sum(rows.size for rows in levels.log_base), dtype=bool)
    flow, inflow = _flow(levels, used)
    beta = np.exp(log_trajectories(levels, levels.log_base)).ravel()
    sequence_of, n = _sequence_of(levels), beta.size
    sums = sparse.csr_array((np.ones(n), (sequence_of, np.arange(n))))
    last = sparse.hstack([sparse.csr_array((n, used.size - n)), sparse.eye_array(n)])
    result = linprog(
        -np.concatenate([np.zeros(used.size - n), _worth(levels), np.zeros(n)]),
        A_ub=sparse.vstack([sparse.hstack([last, -sparse.eye_array(n)]), sparse.hstack([0 * (sums @ last), sums])]),
        b_ub=np.concatenate([beta, np.full(sums.shape[0], limit)]),
        A_eq=sparse.hstack([flow, sparse.csr_array((flow.shape[0], n))]),
        b_eq=inflow,
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if result.status != 0:
        raise MightntError(f"the linear program was not solved: {result.message}")
    return _split(levels, np.maximum(result.x[: used.size], 0))


def _planned(
    world: TreeWorld, base: Model, constraint: KLBudget | TVDBudget, levels: Levels, found: LogPolicy
) -> TablePolicy:
    """The table with what it promises, measured on the policy itself."""
    divergence = kl_of_sequences_nats if isinstance(constraint, KLBudget) else tvd_of_sequences
    return TablePolicy(
        world, base, constraint, evaluate(levels, found)[0], float(divergence(levels, found).max()), found
    )


def refuse_too_large(world: TreeWorld) -> None:
    """Raise :class:`~mightnt.errors.InputError` where a program for this world would have more than 50,000 leaves."""
    n_leaves = (world.n_actions * world.n_observations) ** (world.horizon - 1) * world.n_actions
    if n_leaves > LARGEST_PROGRAM_LEAVES:
        raise InputError(
            f"a program over {n_leaves:.3g} last actions; at most {LARGEST_PROGRAM_LEAVES} are solved: shorten the tree, "
            "or limit the expected KL or the TVD of a step, which need no program"
        )


# The actions of all levels in one row: node g (0 is the root) owns the actions g A + a, and after action i comes, on
# observation o, the node i O + 1 + o. So the action above node g is (g - 1) // O.


def _reachable(held: Levels) -> Mask:
    """Which actions a policy on this tree can ever take."""
    node_used, used = np.ones(1, dtype=bool), list[Mask]()
    for rows in held.log_base:
        used.append((node_used[:, None] & (rows > -inf)).ravel())
        node_used = np.repeat(used[-1], held.n_observations)
    return np.concatenate(used)


def _flow(levels: Levels, used: Mask) -> tuple[Any, FloatArray]:
    """``(F, f)`` with F x = f: the actions of a node share what flows into it (1 at the root), whatever is observed."""
    action = np.flatnonzero(used)
    node = action // levels.n_actions
    column = np.cumsum(used) - 1
    below = np.unique(node)
    row_of = np.searchsorted(below, node)
    above = column[(below[1:] - 1) // levels.n_observations]
    ones = np.ones(action.size)
    entries = np.concatenate([ones, -np.ones(above.size)])
    rows = np.concatenate([row_of, np.arange(1, below.size)])
    columns = np.concatenate([column[action], above])
    flow = sparse.csr_array((entries, (rows, columns)), shape=(below.size, action.size))
    return flow, np.eye(1, below.size).ravel()


def _worth(levels: Levels) -> FloatArray:
    """What a unit of flow through each last action adds to the expected utility, shape ``(N_{m-1} * n_actions,)``."""
    reach = world_probabilities(levels)[-2]
    return np.asarray((reach[:, None] * expected(levels.observations[-1], levels.utilities)).ravel())


def _sequence_of(levels: Levels) -> NDArray[np.intp]:
    """Which sequence of observations each last action stands in."""
    index = by_sequence(levels, np.arange(levels.log_base[-1].size))
    sequence = np.empty(index.size, dtype=np.intp)
    sequence[index] = np.arange(index.shape[0])[:, None]
    return sequence


def _split(levels: Levels, plan: FloatArray) -> list[FloatArray]:
    """One row of numbers back into levels."""
    ends = np.cumsum([rows.size for rows in levels.log_base])[:-1]
    return [part.reshape(-1, levels.n_actions) for part in np.split(plan, ends)]


def _solve(cvxpy: Any, problem: Any) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "may be inaccurate": the dual bound will tell
            problem.solve(solver=cvxpy.CLARABEL, **ACCURACY)
    except cvxpy.error.SolverError as error:
        raise MightntError(f"the cone program was not solved: {error}") from error
    if problem.status not in ("optimal", "optimal_inaccurate"):
        raise MightntError(f"the cone program was not solved: its status is {problem.status}")


def _refuse_gap(gap: float, scale: float, unit: str) -> None:
    if not gap <= GAP * (scale or 1.0):
        raise MightntError(
            f"the solver's policy is {gap / (scale or 1.0):.3g} {unit} away from its dual bound, at most {GAP:g} is "
            "accepted; probabilities of the base below 1e-8 or utilities of very different size can cause this"
        )


def _cvxpy() -> Any:
    try:
        import cvxpy
    except ImportError as error:
        raise InputError(
            'a limit on the maximum over observations is a cone program: pip install "mightnt[plan]"'
        ) from error
    return cvxpy
