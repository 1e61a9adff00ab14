"""The step-wise plan against a linear program at every step, by hand, and the order of the readings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from mightnt.constraints.budget import TVDBudget
from mightnt.constraints.tvd import tvd_largest_step, tvd_max_observations
from mightnt.errors import BudgetError, InputError
from mightnt.models.categorical import Categorical
from mightnt.planners.conic import plan_max_tvd
from mightnt.planners.levels import evaluate, lay_out
from mightnt.planners.stepwise import moved_to_the_best, plan_step_tvd
from mightnt.prediction import check_model, follow
from mightnt.worlds.tree import TreeWorld, random_tree
from tests.strategies import RandomModel, agent_paths, probability_of_actions, seeds

budgets = st.floats(0, 1)


def step(probability):
    return TVDBudget(probability, over="step")


def world_of(seed, n_actions=2):
    return random_tree(np.random.default_rng(seed), n_actions, 2, 2)


def by_program(base, action_value, limit):
    """max pi q with sum max(0, pi - beta) <= limit: the value, or None where nothing is within it."""
    n = len(base)
    result = linprog(
        -np.concatenate([action_value, np.zeros(n)]),
        A_ub=np.block([[np.eye(n), -np.eye(n)], [np.zeros((1, n)), np.ones((1, n))]]),
        b_ub=np.concatenate([base, [limit]]),
        A_eq=np.concatenate([np.ones(n), np.zeros(n)])[None],
        b_eq=[1],
    )
    return -result.fun if result.status == 0 else None


@given(seeds, budgets, st.sampled_from([0.0, 0.3]))
@settings(max_examples=60, deadline=None)
def test_one_step_is_the_linear_program(seed, limit, missing):
    rng = np.random.default_rng(seed)
    base = rng.dirichlet(np.ones(4)) * (rng.uniform(size=4) < 0.8) * (1 - missing)
    action_value = rng.integers(0, 4, size=4) / 4  # ties now and then
    policy = moved_to_the_best(base[None], action_value[None], limit)[0]
    best = by_program(base, action_value, limit)
    assert policy.sum() == pytest.approx(1)
    assert (policy >= 0).all()
    if best is None:
        assert np.maximum(policy - base, 0).sum() > limit
    else:
        assert np.maximum(policy - base, 0).sum() <= max(limit, 1 - base.sum()) + 1e-12
        assert policy @ action_value == pytest.approx(best, abs=1e-9)


@given(seeds, budgets)
@settings(max_examples=30, deadline=None)
def test_it_keeps_its_budget_and_its_promises_and_is_the_best_by_induction(seed, limit):
    world, base = world_of(seed, 3), RandomModel(seed, 3, zeros=0.2)
    policy = plan_step_tvd(world, base, step(limit))
    check_model(policy, list(agent_paths(3, 2, 2))[:4])
    measured = tvd_largest_step(policy, base, 2, 2)
    assert measured <= limit + 1e-12
    assert measured == pytest.approx(policy.divergence, abs=1e-12)
    assert evaluate(lay_out(world, base, (), base.start()), policy.log_policy)[0] == policy.value

    def best(path):
        if len(path) == 4:
            return world.utility(path)
        gains = [
            sum(p * best((*path, a, o)) for o, p in enumerate(world.predict((*path, a)).probabilities))
            for a in range(3)
        ]
        return by_program(base.predict(path).probabilities, np.array(gains), limit)

    assert policy.value == pytest.approx(best(()), abs=1e-9)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_values_are_nondecreasing_from_the_base_to_the_optimum(seed):
    world, base = world_of(seed), RandomModel(seed, 2, zeros=0.2)
    values = [plan_step_tvd(world, base, step(b)).value for b in np.linspace(0, 1, 9)]
    assert (np.diff(values) >= -1e-12).all()
    levels = lay_out(world, base, (), base.start())
    assert values[0] == pytest.approx(evaluate(levels, list(levels.log_base))[0])
    assert values[-1] == pytest.approx(plan_max_tvd(world, base, TVDBudget(1)).value)


@given(seeds, st.floats(0.01, 0.9))
@settings(max_examples=15, deadline=None)
def test_a_step_limit_allows_more_than_the_same_limit_on_trajectories_takes_and_less_than_its_sum(seed, limit):
    """Every step within d implies the trajectories within 1 - (1 - d) ** m, whose best plan is worth at least as much."""
    world, base = world_of(seed), RandomModel(seed, 2)
    policy, within = plan_step_tvd(world, base, step(limit)), 1 - (1 - limit) ** 2
    assert tvd_max_observations(policy, base, 2, 2) <= within + 1e-12
    assert policy.value <= plan_max_tvd(world, base, TVDBudget(within)).value + 1e-9


def one_choice(utilities):
    return TreeWorld(len(utilities), 1, 1, lambda path: [1.0], lambda path: utilities[path[0]])


@pytest.mark.parametrize(
    ("base", "limit", "expected"),
    [
        ([0.0, 0.5, 0.5], 0.2, [0.2, 0.5, 0.3]),  # from the worst, to the best, zero or not
        ([0.1, 0.5, 0.4], 0.6, [0.7, 0.3, 0.0]),  # the worst is empty, then the next
        ([0.1, 0.5, 0.4], 1.0, [1.0, 0.0, 0.0]),
        ([0.1, 0.5, 0.2], 0.2, [0.3, 0.5, 0.2]),  # what is missing goes to the best and is all that may move
        ([0.1, 0.5, 0.2], 0.3, [0.4, 0.5, 0.1]),
    ],
)
def test_by_hand(base, limit, expected):
    policy = plan_step_tvd(one_choice([1.0, 0.5, 0.0]), Categorical.of(base), step(limit))
    assert policy.predict(()).probabilities.tolist() == pytest.approx(expected)
    assert policy.divergence == pytest.approx(limit if limit < 1 else 0.9)


def test_among_equally_good_actions_the_base_decides():
    policy = plan_step_tvd(one_choice([1.0, 1.0, 0.0]), Categorical.of([0.1, 0.3, 0.6]), step(0.2))
    assert policy.predict(()).probabilities.tolist() == pytest.approx([0.15, 0.45, 0.4])
    still = plan_step_tvd(one_choice([2.0, 2.0]), Categorical.of([0.3, 0.7]), step(0.5))
    assert still.predict(()).probabilities.tolist() == pytest.approx([0.3, 0.7])


class Gap(RandomModel):
    """Misses a half after action 1."""

    def predict(self, state):
        return Categorical.of([0.25, 0.25] if state[:1] == (1,) else [0.7, 0.3]).prediction


def test_it_stays_away_from_where_the_base_misses_more_than_the_budget():
    world = TreeWorld(2, 1, 2, lambda path: [1.0], lambda path: float(path[0]))
    avoids = plan_step_tvd(world, Gap(0, 2), step(0.3))
    assert avoids.value == 0
    assert probability_of_actions(avoids, follow_one(1)) == 0
    assert plan_step_tvd(world, Gap(0, 2), step(0.5)).value == pytest.approx(0.8)
    with pytest.raises(BudgetError, match="no policy stays within"):
        plan_step_tvd(world, Gap(0, 2), step(0.29))


def follow_one(action):
    return next(path for path in agent_paths(2, 1, 1) if path[0].symbol == action)


def test_off_the_plan_it_plays_as_if_it_had_come_there():
    world = TreeWorld(2, 1, 2, lambda path: [1.0], lambda path: path[0] + path[2] / 2)
    policy = plan_step_tvd(world, Categorical.of([0.7, 0.3]), step(0.7))
    assert policy.predict(()).probabilities[0] == pytest.approx(0)
    assert policy.predict(follow(policy, follow_one(0))).probabilities.tolist() == pytest.approx([0, 1])


def test_another_alphabet_is_refused():
    with pytest.raises(InputError, match="the base predicts 1 actions, the world has 2"):
        plan_step_tvd(one_choice([1.0, 0.0]), Categorical.of([1.0]), step(0.1))
