"""A tree as arrays, level by level, and what a policy on it is worth and costs: the common ground of all planners.

Level t holds the N_t = K ** t histories of t rounds in order, K = n_actions * n_observations. A policy is a list of log
probabilities, per level ``(N_t, n_actions)``. Its *realization plan* is the product of its own probabilities along each
path: value and flow are linear in it, and for fixed observations the divergences are convex in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mightnt.errors import InputError
from mightnt.history import Chooser, Step
from mightnt.prediction import TOLERANCE, FloatArray, Model
from mightnt.worlds.tree import Path, TreeWorld

LogPolicy: TypeAlias = list[FloatArray]
"""log pi level by level, each ``(N_t, n_actions)``."""

TIE = 1e-12
"""Actions this close to the best value (times 1 + its size) count as equally good, and the base decides among them."""

LARGEST_TREE_NODES = 2_000_000
"""How many histories a tree may have that is laid out from Python models: about 1 kB each, so 2 GB."""

REACHED = 1e-9
"""Below this probability of the agent's own actions a solver's plan is noise, and the node counts as off the plan."""


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """A tree below one node, level by level; level t has N_t = (n_actions * n_observations) ** t nodes in order.

    ``log_base``: per level ``(N_t, n_actions)``; ``observations``: per level ``(N_t, n_actions, n_observations)``,
    probabilities; ``utilities``: ``(N_last,)``, one after the last observation. float64, in C order where compiled code
    is to read them.
    """

    log_base: tuple[FloatArray, ...]
    observations: tuple[FloatArray, ...]
    utilities: FloatArray

    @property
    def n_actions(self) -> int:
        """Size of the alphabet of actions."""
        return int(self.observations[0].shape[1])

    @property
    def n_observations(self) -> int:
        """Size of the alphabet of observations."""
        return int(self.observations[0].shape[2])

    @property
    def horizon(self) -> int:
        """Number of rounds."""
        return len(self.observations)


def check_levels(levels: Levels) -> None:
    """Raise :class:`~mightnt.errors.InputError` where the arrays are no tree: shapes, NaN, sums above one.

    Needed for arrays from outside; :func:`lay_out` makes them from checked predictions. Cost: one pass.
    """
    if not levels.observations or len(levels.log_base) != len(levels.observations):
        raise InputError(
            f"got {len(levels.log_base)} levels of the base and {len(levels.observations)} of observations"
        )
    if levels.observations[0].ndim != 3:
        raise InputError(f"observations of level 0 have shape {levels.observations[0].shape}; three axes are needed")
    n_actions, n_observations, n_nodes = levels.n_actions, levels.n_observations, 1
    for t, (log_base, observations) in enumerate(zip(levels.log_base, levels.observations, strict=True)):
        if log_base.shape != (n_nodes, n_actions) or observations.shape != (n_nodes, n_actions, n_observations):
            raise InputError(
                f"level {t} has shapes {log_base.shape} and {observations.shape}; "
                f"({n_nodes}, {n_actions}) and ({n_nodes}, {n_actions}, {n_observations}) are needed"
            )
        totals = np.exp(log_base).sum(axis=1)
        if not (totals <= 1 + TOLERANCE).all():
            raise InputError(f"level {t}: probabilities of the base sum to {totals.max():.12g}, or hold NaN")
        if not ((observations >= 0).all() and (np.abs(observations.sum(axis=2) - 1) <= TOLERANCE).all()):
            raise InputError(f"level {t}: the observations after an action must be probabilities that sum to 1")
        n_nodes *= n_actions * n_observations
    if levels.utilities.shape != (n_nodes,) or not np.isfinite(levels.utilities).all():
        raise InputError(f"got utilities of shape {levels.utilities.shape}; {n_nodes} finite numbers are needed")


def random_levels(rng: np.random.Generator, n_actions: int, n_observations: int, horizon: int) -> Levels:
    """A tree drawn at random: base and observations uniform on the simplex, utilities uniform on [0, 1].

    Cost: O(nodes), in numpy.
    """
    sizes = [(n_actions * n_observations) ** t for t in range(horizon + 1)]
    log_base, observations = list[FloatArray](), list[FloatArray]()
    for size in sizes[:-1]:
        rows, told = rng.exponential(size=(size, n_actions)), rng.exponential(size=(size, n_actions, n_observations))
        log_base.append(np.log(rows / rows.sum(axis=-1, keepdims=True)))
        observations.append(told / told.sum(axis=-1, keepdims=True))
    return Levels(tuple(log_base), tuple(observations), rng.uniform(size=sizes[-1]))


def refuse_other_alphabet(world: TreeWorld, base: Model) -> None:
    """Raise :class:`~mightnt.errors.InputError` unless base and world have equally many actions."""
    if base.n_symbols != world.n_actions:
        raise InputError(f"the base predicts {base.n_symbols} actions, the world has {world.n_actions}")


def lay_out(world: TreeWorld, base: Model, at_world: Path, at_base: Any) -> Levels:
    """The tree below a node where an action is due.

    Errors: :class:`~mightnt.errors.InputError` before anything is allocated where it has more than 2 million leaves.

    Cost: one prediction of base and world at every node.
    """
    rounds = world.horizon - len(at_world) // 2
    n_leaves = (world.n_actions * world.n_observations) ** rounds
    if n_leaves > LARGEST_TREE_NODES:
        raise InputError(
            f"a tree of {world.n_actions} actions, {world.n_observations} observations and {rounds} rounds has "
            f"{n_leaves:.3g} leaves; at most {LARGEST_TREE_NODES:.3g} fit: shorten it, or give arrays (Levels)"
        )
    nodes, log_base, observations = [(at_world, at_base)], [], []
    while world.turn(nodes[0][0]) is Chooser.AGENT:
        log_base.append(np.stack([base.predict(b).log_probabilities for _, b in nodes]))
        nodes = _children(world, base, nodes, Chooser.AGENT, world.n_actions)
        told = np.stack([world.predict(w).probabilities for w, _ in nodes])
        observations.append(told.reshape(-1, world.n_actions, world.n_observations))
        nodes = _children(world, base, nodes, Chooser.WORLD, world.n_observations)
    return Levels(tuple(log_base), tuple(observations), np.array([world.utility(w) for w, _ in nodes]))


def _children(
    world: TreeWorld, base: Model, nodes: list[tuple[Path, Any]], chooser: Chooser, size: int
) -> list[tuple[Path, Any]]:
    steps = [Step(symbol, chooser) for symbol in range(size)]
    return [(world.advance(w, step), base.advance(b, step)) for w, b in nodes for step in steps]


def upwards(levels: Levels) -> Iterator[tuple[FloatArray, FloatArray]]:
    """``(log_base, observations)`` of the levels from the last to the first."""
    return zip(reversed(levels.log_base), reversed(levels.observations), strict=True)


def weighted(weights: FloatArray, values: FloatArray) -> FloatArray:
    """sum over the last axis of weights * values, where 0 * inf is 0."""
    return np.asarray(np.multiply(weights, values, where=weights > 0, out=np.zeros_like(weights)).sum(axis=-1))


def expected(observations: FloatArray, value: FloatArray) -> FloatArray:
    """sum_o p(o|ha) value(hao), shape ``(N_t, n_actions)``, from the values of the next level."""
    return weighted(observations, value.reshape(observations.shape))


def evaluate(levels: Levels, log_policy: LogPolicy) -> tuple[float, float]:
    """``(expected utility, expected KL in nats)`` of a policy from the top node; the KL may be ``inf``."""
    value, kl = levels.utilities, np.zeros_like(levels.utilities)
    rows = zip(levels.log_base, levels.observations, log_policy, strict=True)
    for log_base, observations, log_row in reversed(list(rows)):
        policy = np.exp(log_row)
        used = policy > 0
        log_ratio = np.subtract(log_row, log_base, where=used, out=np.zeros_like(policy))
        value = weighted(policy, expected(observations, value))
        kl = weighted(policy, log_ratio + expected(observations, kl))
    return float(value[0]), max(0.0, float(kl[0]))


def world_probabilities(levels: Levels) -> list[FloatArray]:
    """The world's probability of the observations on the way to each node, ``(N_t,)`` for t = 0 to the horizon."""
    reach = [np.ones(1)]
    for observations in levels.observations:
        reach.append((reach[-1][:, None, None] * observations).ravel())
    return reach


def log_trajectories(levels: Levels, log_rows: LogPolicy | tuple[FloatArray, ...]) -> FloatArray:
    """log of the product of the rows along every path to a last action, shape ``(N_{m-1}, n_actions)``."""
    total = np.zeros((1, 1))
    for rows in log_rows:
        above = np.repeat(total.ravel(), levels.n_observations if rows.shape[0] > 1 else 1)
        total = above[:, None] + rows
    return total


def by_sequence(levels: Levels, leaves: NDArray[Any]) -> NDArray[Any]:
    """What stands at the last actions, sorted by the observations before them.

    From shape ``(N_{m-1}, n_actions)`` to ``(n_observations ** (m-1), n_actions ** m)``: one row for each sequence of
    observations that is fixed in advance.
    """
    rounds = levels.horizon - 1
    shaped = leaves.reshape((levels.n_actions, levels.n_observations) * rounds + (levels.n_actions,))
    observed_first = [*range(1, 2 * rounds, 2), *range(0, 2 * rounds + 1, 2)]
    return shaped.transpose(observed_first).reshape(levels.n_observations**rounds, -1)


def kl_of_sequences_nats(levels: Levels, log_policy: LogPolicy) -> FloatArray:
    """KL(policy, base) under each sequence of observations fixed in advance, shape ``(n_observations ** (m-1),)``."""
    ours, base = log_trajectories(levels, log_policy), log_trajectories(levels, levels.log_base)
    weights = np.exp(ours)
    log_ratio = np.subtract(ours, base, where=weights > 0, out=np.zeros_like(ours))
    return np.asarray(weighted(by_sequence(levels, weights), by_sequence(levels, log_ratio)))


def tvd_of_sequences(levels: Levels, log_policy: LogPolicy) -> FloatArray:
    """TVD of policy and base under each sequence of observations fixed in advance: sum of max(0, pi - beta)."""
    above = np.exp(log_trajectories(levels, log_policy)) - np.exp(log_trajectories(levels, levels.log_base))
    return np.asarray(by_sequence(levels, np.maximum(above, 0)).sum(axis=1))


def realize(levels: Levels, log_policy: LogPolicy) -> list[FloatArray]:
    """The realization plan: x(h, a) = the product of the policy's own probabilities, per level ``(N_t, n_actions)``."""
    return [np.exp(log_trajectories(levels, log_policy[: t + 1])) for t in range(levels.horizon)]


def log_conditionals(plan: list[FloatArray], off_plan: LogPolicy) -> LogPolicy:
    """The policy of a realization plan; where the plan does not go (below 1e-9), the rows of ``off_plan``."""
    log_policy = []
    for rows, other in zip(plan, off_plan, strict=True):
        total = rows.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_policy.append(np.where(total > REACHED, np.log(rows / total), other))
    return log_policy


def pulled(
    levels: Levels, found: LogPolicy, safe: LogPolicy, excess: Callable[[LogPolicy], float], off_plan: LogPolicy
) -> LogPolicy:
    """The mixture of trajectories of ``found`` and ``safe`` nearest to ``found`` whose ``excess`` is at most 0.

    ``excess`` is convex in the realization plan and at most 0 at ``safe``. Cost: 60 evaluations, none where ``found``
    will do.
    """
    if excess(found) <= 0:
        return found
    one, other = realize(levels, found), realize(levels, safe)

    def mixed(share: float) -> LogPolicy:
        return log_conditionals([(1 - share) * x + share * y for x, y in zip(one, other, strict=True)], off_plan)

    low, high, kept = 0.0, 1.0, safe
    for _ in range(60):
        middle = (low * high) ** 0.5 if low > 0 else high / 16
        candidate = mixed(middle)
        low, high, kept = (low, middle, candidate) if excess(candidate) <= 0 else (middle, high, kept)
    return kept


def log_best(levels: Levels, free: bool) -> LogPolicy:
    """The best policy, and among the best ones the nearest to the base: first by value, then by expected KL.

    ``free`` also allows actions to which the base gives zero.
    """
    value, kl = levels.utilities, np.zeros_like(levels.utilities)
    log_policy = []
    for log_base, observations in upwards(levels):
        action_value = expected(observations, value)
        if not free:
            action_value = np.where(log_base > -inf, action_value, -inf)
        value = action_value.max(axis=1)
        best = action_value >= (value - TIE * (1 + np.abs(np.where(value > -inf, value, 0))))[:, None]
        log_row, log_total = softmax(np.where(best, log_base - expected(observations, kl), -inf), action_value)
        kl = -log_total
        log_policy.append(log_row)
    return log_policy[::-1]


def softmax(logits: FloatArray, action_value: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``(log policy, log total)`` row by row; a row that is all ``-inf`` takes the first best action."""
    log_total = np.logaddexp.reduce(logits, axis=1)
    dead = np.isneginf(log_total)
    log_row = logits - np.where(dead, 0, log_total)[:, None]
    log_row[dead, np.argmax(action_value[dead], axis=1)] = 0.0
    return log_row, log_total
