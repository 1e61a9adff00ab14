"""The cone program and the linear program against enumeration, a general optimizer, closed forms and rivals."""

import itertools
import sys
from math import inf, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from mightnt.constraints.budget import KLBudget, TVDBudget
from mightnt.constraints.kl import kl_max_observations_nats
from mightnt.constraints.tvd import tvd_max_observations
from mightnt.errors import BudgetError, InputError, MightntError
from mightnt.history import Chooser, Step
from mightnt.models.categorical import Categorical
from mightnt.models.switch import Switch
from mightnt.planners import conic
from mightnt.planners.conic import dual_value, plan_max_kl, plan_max_tvd, supported
from mightnt.planners.levels import (
    by_sequence,
    evaluate,
    kl_of_sequences_nats,
    lay_out,
    log_trajectories,
    tvd_of_sequences,
)
from mightnt.prediction import check_model, follow
from mightnt.worlds.tree import TreeWorld, random_tree
from tests.strategies import RandomModel, agent_paths, probability_of_actions, seeds


def world_of(seed, horizon=2, n_actions=2, n_observations=2):
    return random_tree(np.random.default_rng(seed), n_actions, n_observations, horizon)


def most(nats):
    return KLBudget(nats, over="max_observations")


def levels_of(world, base):
    return lay_out(world, base, world.start(), base.start())


@given(seeds, st.floats(0, 3))
@settings(max_examples=25, deadline=None)
def test_kl_keeps_its_budget_and_its_promises(seed, nats):
    world, base = world_of(seed), RandomModel(seed, 2, zeros=0.1)
    policy = plan_max_kl(world, base, most(nats))
    check_model(policy, list(agent_paths(2, 2, 2))[:4])
    measured = kl_max_observations_nats(policy, base, 2, 2)
    assert measured <= nats + 1e-12
    assert measured == pytest.approx(policy.divergence, abs=1e-12)
    assert evaluate(levels_of(world, base), policy.log_policy)[0] == policy.value


@given(seeds, st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_tvd_keeps_its_budget_and_its_promises(seed, probability):
    world, base = world_of(seed), RandomModel(seed, 2, zeros=0.3)
    policy = plan_max_tvd(world, base, TVDBudget(probability))
    check_model(policy, list(agent_paths(2, 2, 2))[:4])
    measured = tvd_max_observations(policy, base, 2, 2)
    assert measured <= probability + 1e-12
    assert measured == pytest.approx(policy.divergence, abs=1e-12)
    assert evaluate(levels_of(world, base), policy.log_policy)[0] == policy.value


def log_sigmoids(numbers):
    logs = -np.logaddexp(0, -np.stack([numbers, -numbers], axis=1))
    return [logs[:1], logs[1:5]]


@pytest.mark.parametrize("seed", range(6))
def test_a_general_optimizer_finds_nothing_better_and_no_less(seed):
    """In conditional probabilities the constraints are not convex; several starts."""
    world, base, nats = world_of(seed), RandomModel(seed, 2), 0.3
    levels = levels_of(world, base)
    found = [
        minimize(
            lambda x: -evaluate(levels, log_sigmoids(x))[0],
            start,
            bounds=[(-30, 30)] * 5,
            constraints={"type": "ineq", "fun": lambda x: nats - kl_of_sequences_nats(levels, log_sigmoids(x))},
            options={"maxiter": 300, "ftol": 1e-12},
        )
        for start in np.random.default_rng(seed).normal(size=(4, 5))
    ]
    kept = [r for r in found if kl_of_sequences_nats(levels, log_sigmoids(r.x)).max() <= nats + 1e-7]
    best = max(-r.fun for r in kept)
    assert plan_max_kl(world, base, most(nats)).value == pytest.approx(best, abs=1e-5)


@given(seeds, seeds)
@settings(max_examples=25, deadline=None)
def test_no_random_rival_of_the_same_cost_is_better(seed, rival):
    world, base = world_of(seed), RandomModel(seed, 2)
    levels = levels_of(world, base)
    other = log_sigmoids(np.random.default_rng(rival).normal(0, 2, size=5))
    value = evaluate(levels, other)[0]
    nats, probability = (float(f(levels, other).max()) for f in (kl_of_sequences_nats, tvd_of_sequences))
    assert plan_max_kl(world, base, most(nats)).value >= value - 1e-6
    assert plan_max_tvd(world, base, TVDBudget(probability)).value >= value - 1e-9


@given(seeds, seeds)
@settings(max_examples=40, deadline=None)
def test_the_dual_value_bounds_every_policy_for_any_multipliers(seed, other):
    """Weak duality, on three rounds; that the bound is also met is checked at every solve."""
    world, base = world_of(seed, horizon=3, n_observations=2), RandomModel(seed, 2, zeros=0.03)
    levels = supported(levels_of(world, base))
    rng = np.random.default_rng(other)
    weights = rng.exponential(size=4) * (rng.uniform(size=4) < 0.7)
    for rows in (levels.log_base, [np.log(rng.dirichlet([1, 1], size=rows.shape[0])) for rows in levels.log_base]):
        kl = kl_of_sequences_nats(levels, list(rows))
        paid = sum(w * nats for w, nats in zip(weights, kl, strict=True) if w > 0)
        assert 0.7 * evaluate(levels, list(rows))[0] - paid <= dual_value(levels, weights, 0.7) + 1e-12


def deterministic(levels):
    """Every deterministic policy of two rounds as indicators of the last actions, shape (n policies, n leaves)."""
    n_actions, n_observations = levels.n_actions, levels.n_observations
    rows = []
    for first in range(n_actions):
        for answers in itertools.product(range(n_actions), repeat=n_observations):
            leaves = np.zeros((n_actions, n_observations, n_actions))
            for o, second in enumerate(answers):
                leaves[first, o, second] = 1
            rows.append(leaves.ravel())
    return np.array(rows)


@given(seeds, st.floats(0.02, 0.7))
@settings(max_examples=20, deadline=None)
def test_tvd_is_the_best_mixture_of_deterministic_policies(seed, probability):
    """Another linear program: weights on all deterministic policies, no flow, values path by path."""
    world, base = world_of(seed, n_actions=3), RandomModel(seed, 3, zeros=0.2)
    levels = levels_of(world, base)
    pure = deterministic(levels)
    worth = np.array([
        sum(
            float(world.predict((a,)).probabilities[o] * world.predict((a, o, b)).probabilities[p])
            * world.utility((a, o, b, p))
            * leaves.reshape(3, 2, 3)[a, o, b]
            for a, o, b, p in itertools.product(range(3), range(2), range(3), range(2))
        )
        for leaves in pure
    ])  # fmt: skip
    beta = np.exp(log_trajectories(levels, levels.log_base)).ravel()
    index = by_sequence(levels, np.arange(beta.size).reshape(-1, 3))
    sums = np.array([np.isin(np.arange(beta.size), row) for row in index]).astype(float)
    n = len(pure)
    result = linprog(
        -np.concatenate([worth, np.zeros(beta.size)]),
        A_ub=np.block([[pure.T, -np.eye(beta.size)], [np.zeros((2, n)), sums]]),
        b_ub=np.concatenate([beta, [probability] * 2]),
        A_eq=np.concatenate([np.ones(n), np.zeros(beta.size)])[None],
        b_eq=[1],
    )
    assert plan_max_tvd(world, base, TVDBudget(probability)).value == pytest.approx(-result.fun, abs=1e-7)


@given(seeds, st.floats(0.02, 0.9))
@settings(max_examples=25, deadline=None)
def test_tvd_without_observations_takes_from_the_worst_trajectories_and_gives_to_the_best(seed, probability):
    world, base = world_of(seed, horizon=3, n_observations=1), RandomModel(seed, 2, zeros=0.2)
    paths = list(agent_paths(2, 1, 3))
    beta = np.array([probability_of_actions(base, path) for path in paths])
    worth = np.array([world.utility(follow(world, path)) for path in paths])
    order, left, value = np.argsort(worth), probability, float(beta @ worth)
    for i in order[:-1]:
        taken = min(left, beta[i])
        left, value = left - taken, value + taken * (worth.max() - worth[i])
    assert plan_max_tvd(world, base, TVDBudget(probability)).value == pytest.approx(value, abs=1e-8)


@given(seeds)
@settings(max_examples=6, deadline=None)
def test_values_are_nondecreasing_and_concave_in_the_budget(seed):
    world, base = world_of(seed, horizon=3), RandomModel(seed, 2, zeros=0.1)
    nats = np.array([plan_max_kl(world, base, most(b)).value for b in np.linspace(0, 2, 7)])
    tvd = np.array([plan_max_tvd(world, base, TVDBudget(b)).value for b in np.linspace(0, 1, 7)])
    for values in (nats, tvd):
        assert (np.diff(values) >= -1e-8).all()
        assert (np.diff(values, 2) <= 1e-6).all()


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_nothing_to_spend_is_the_base_and_no_limit_is_the_optimum(seed):
    world, base = world_of(seed), RandomModel(seed, 2, zeros=0.3)

    def optimum(path):
        if world.turn(path) is None:
            return world.utility(path)
        if world.turn(path) is Chooser.AGENT:
            return max(optimum((*path, a)) for a in range(2))
        return sum(p * optimum((*path, o)) for o, p in enumerate(world.predict(path).probabilities))

    for policy in (plan_max_kl(world, base, most(0)), plan_max_tvd(world, base, TVDBudget(0))):
        for history in [(), *agent_paths(2, 2, 1)]:
            if probability_of_actions(base, history) > 0:
                here, there = (m.predict(follow(m, history)).probabilities for m in (policy, base))
                np.testing.assert_allclose(here, there, atol=1e-9)
    for policy in (plan_max_kl(world, base, most(inf)), plan_max_tvd(world, base, TVDBudget(1))):
        assert policy.value == pytest.approx(optimum(()), rel=1e-9)


def test_one_choice_by_hand():
    world = TreeWorld(3, 1, 1, lambda path: [1.0], lambda path: [1.0, 0.5, 0.0][path[0]])
    base = Categorical.of([0, 0.5, 0.5])
    moved = plan_max_tvd(world, base, TVDBudget(0.2))
    assert moved.predict(()).probabilities.tolist() == pytest.approx([0.2, 0.5, 0.3])
    assert moved.value == pytest.approx(0.45)
    held = plan_max_kl(world, base, most(100))
    assert held.predict(()).probabilities.tolist() == pytest.approx([0, 1, 0])
    assert held.divergence == pytest.approx(log(2))
    p = np.e / (1 + np.e)  # odds e, for the nats that they cost
    nats = p * log(2 * p) + (1 - p) * log(2 * (1 - p))
    assert plan_max_kl(world, base, most(nats)).predict(()).probabilities[1] == pytest.approx(p, abs=1e-6)


def test_after_an_action_it_never_takes_it_plays_the_base():
    world = TreeWorld(2, 1, 2, lambda path: [1.0], lambda path: float(path[0]))
    policy = plan_max_kl(world, Categorical.of([0.7, 0.3]), most(50))
    assert policy.predict(()).probabilities[1] == pytest.approx(1)
    assert policy.predict((0, 0)).probabilities.tolist() == pytest.approx([0.7, 0.3])
    moved = plan_max_tvd(world, Categorical.of([0.7, 0.3]), TVDBudget(0.7))
    assert moved.predict((0, 0)).probabilities.tolist() == pytest.approx([0.7, 0.3])


class Dead(RandomModel):
    """After action 1 and observation 1 everything is impossible."""

    def predict(self, state):
        return Categorical.of([0, 0] if state[:2] == (1, 1) else [0.5, 0.5]).prediction


def test_no_finite_budget_goes_where_some_observation_leads_off_the_base():
    """Even though the world never shows that observation."""
    world = TreeWorld(2, 2, 2, lambda path: [1.0, 0.0], lambda path: float(path[0]))
    policy = plan_max_kl(world, Dead(0, 2), most(100))
    assert policy.value == 0
    assert policy.divergence == pytest.approx(log(2))
    assert plan_max_kl(world, Dead(0, 2), most(inf)).value == 1


def test_the_floors_of_a_base_that_misses_mass():
    """After observation 0 it misses half, after 1 nothing; the first step misses a fifth."""
    base = Switch(
        Categorical.of([0.4, 0.4]),
        lambda h: len(h) == 2,
        Switch(Categorical.of([0.5, 0.5]), lambda h: h[1:2] == (Step(0, Chooser.WORLD),), Categorical.of([0.25, 0.25])),
    )
    world = TreeWorld(2, 2, 2, lambda path: [0.5, 0.5], lambda path: float(path[0]))
    floor = log(1 / 0.8) + log(2)
    assert plan_max_kl(world, base, most(floor + 1e-3)).divergence <= floor + 1e-3
    with pytest.raises(BudgetError, match=r"costs 0\.916"):
        plan_max_kl(world, base, most(floor - 1e-3))
    assert plan_max_tvd(world, base, TVDBudget(0.6)).divergence == pytest.approx(0.6)
    with pytest.raises(BudgetError, match=r"misses 0\.6 of the trajectories"):
        plan_max_tvd(world, base, TVDBudget(0.599))
    for nothing in (Categorical.of([0, 0]),):
        with pytest.raises(BudgetError, match="costs inf"):
            plan_max_kl(world, nothing, most(1e9))
        assert plan_max_tvd(world, nothing, TVDBudget(1)).value == 1


@given(seeds, seeds)
@settings(max_examples=15, deadline=None)
def test_no_policy_is_cheaper_than_the_floors(seed, rival):
    world, base = world_of(seed), RandomModel(seed, 2, missing=0.8)
    levels, rng = levels_of(world, base), np.random.default_rng(rival)
    other = log_sigmoids(rng.normal(0, 2, size=5))
    nats, probability = (float(f(levels, other).max()) for f in (kl_of_sequences_nats, tvd_of_sequences))
    assert plan_max_kl(world, base, most(nats)).divergence <= nats
    assert plan_max_tvd(world, base, TVDBudget(min(1, probability))).divergence <= probability + 1e-9


def test_a_failed_solve_is_an_error(monkeypatch):
    """A solver that stops early is not believed, nor one that gives up."""
    import cvxpy

    world, base = world_of(0, horizon=3), RandomModel(0, 2)
    monkeypatch.setattr(conic, "ACCURACY", {"max_iter": 2})
    with pytest.raises(MightntError, match="was not solved"):
        plan_max_kl(world, base, most(0.3))
    monkeypatch.setattr(conic, "ACCURACY", {"tol_gap_abs": 0.3, "tol_gap_rel": 0.3, "tol_feas": 0.3})
    with pytest.raises(MightntError, match="away from its dual bound"):
        plan_max_kl(world, base, most(0.3))
    monkeypatch.setattr(cvxpy.Problem, "solve", lambda *_, **__: (_ for _ in ()).throw(cvxpy.error.SolverError("no")))
    with pytest.raises(MightntError, match="was not solved: no"):
        plan_max_kl(world, base, most(0.3))


def test_the_extra_and_the_size_are_asked_for_before_anything_is_built(monkeypatch):
    world, base = world_of(0), RandomModel(0, 2)
    large = TreeWorld(4, 4, 6, lambda path: 1 / 0, lambda path: 1 / 0)
    for planner, budget in ((plan_max_kl, most(1)), (plan_max_tvd, TVDBudget(0.5))):
        with pytest.raises(InputError, match=r"4\.19e\+06 last actions; at most 50000"):
            planner(large, RandomModel(0, 4), budget)
        with pytest.raises(InputError, match="the base predicts 3 actions, the world has 2"):
            planner(world, RandomModel(0, 3), budget)
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(InputError, match=r'pip install "mightnt\[plan\]"'):
        plan_max_kl(world, base, most(0.3))
    assert plan_max_tvd(world, base, TVDBudget(0.3)).value > 0
