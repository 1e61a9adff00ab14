"""The one call: world, base, constraint -> policy; and the readings against each other."""

from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.constraints.budget import KLBudget, TVDBudget
from mightnt.constraints.kl import kl_expected_nats, kl_max_observations_nats
from mightnt.constraints.tvd import tvd_largest_step, tvd_max_observations
from mightnt.errors import InputError
from mightnt.models.categorical import Categorical
from mightnt.planners.plan import plan
from mightnt.planners.soft import plan_expected_kl
from mightnt.worlds.tree import TreeWorld, random_tree
from tests.strategies import RandomModel, seeds


def test_a_kl_budget_is_an_expected_one():
    world = TreeWorld(2, 1, 1, lambda path: [1.0], lambda path: float(path[0]))
    base = Categorical.of([0.9, 0.1])
    policy, expected = plan(world, base, KLBudget(0.5)), plan_expected_kl(world, base, KLBudget(0.5))
    assert (policy.value, policy.kl_expected_nats) == (expected.value, expected.kl_expected_nats)
    assert policy.base is base
    assert policy.budget == KLBudget(0.5)


@pytest.mark.parametrize("seed", range(4))
def test_each_constraint_is_kept_in_its_own_reading(seed):
    world, base = random_tree(np.random.default_rng(seed), 2, 2, 3), RandomModel(seed, 2)
    for constraint, distance in (
        (KLBudget(0.2), lambda p: kl_expected_nats(p, base, world)),
        (KLBudget(0.2, over="max_observations"), lambda p: kl_max_observations_nats(p, base, 2, 3)),
        (TVDBudget(0.2), lambda p: tvd_max_observations(p, base, 2, 3)),
        (TVDBudget(0.2, over="step"), lambda p: tvd_largest_step(p, base, 2, 3)),
    ):
        assert distance(plan(world, base, constraint)) == pytest.approx(0.2, abs=1e-8)  # spent, and not more


def deaf(seed, horizon=3):
    """A random world whose observations do not depend on actions."""
    world = random_tree(np.random.default_rng(seed), 2, 2, horizon)
    return TreeWorld(
        2,
        2,
        horizon,
        lambda path: world.observe(tuple(s if i % 2 else 0 for i, s in enumerate(path))),
        world.utility_of,
    )


@given(seeds, st.floats(0.01, 1))
@settings(max_examples=10, deadline=None)
def test_where_observations_do_not_depend_on_actions_the_expected_reading_allows_more(seed, nats):
    world, base = deaf(seed), RandomModel(seed, 2)
    expected, maximal = plan(world, base, KLBudget(nats)), plan(world, base, KLBudget(nats, over="max_observations"))
    assert maximal.value <= expected.value + 1e-9
    assert kl_expected_nats(maximal, base, world) <= nats + 1e-9


@given(seeds, st.floats(0.01, 1))
@settings(max_examples=10, deadline=None)
def test_the_cone_program_and_soft_iteration_agree_where_nothing_is_observed(seed, nats):
    world, base = random_tree(np.random.default_rng(seed), 3, 1, 3), RandomModel(seed, 3, zeros=0.1, missing=0.002)
    expected, maximal = plan(world, base, KLBudget(nats)), plan(world, base, KLBudget(nats, over="max_observations"))
    assert maximal.value == pytest.approx(expected.value, abs=1e-6)
    assert maximal.divergence == pytest.approx(expected.kl_expected_nats, abs=1e-5)


@given(seeds, st.floats(0.01, 0.4))
@settings(max_examples=10, deadline=None)
def test_a_kl_budget_allows_no_more_than_the_tvd_budget_of_pinsker(seed, nats):
    world, base = random_tree(np.random.default_rng(seed), 2, 2, 3), RandomModel(seed, 2)
    held = plan(world, base, KLBudget(nats, over="max_observations"))
    assert held.value <= plan(world, base, TVDBudget(sqrt(nats / 2))).value + 1e-9


def test_no_limit_is_one_and_the_same():
    world, base = random_tree(np.random.default_rng(0), 2, 2, 3), RandomModel(0, 2, zeros=0.4)
    limits = (KLBudget(inf), KLBudget(inf, over="max_observations"), TVDBudget(1), TVDBudget(1, over="step"))
    values = [plan(world, base, constraint).value for constraint in limits]
    assert values == pytest.approx([values[0]] * 4)


def test_another_constraint_is_refused():
    world = TreeWorld(1, 1, 1, lambda path: [1.0], lambda path: 0.0)
    with pytest.raises(InputError, match=r"type float; KLBudget\(nats=...\) and TVDBudget"):
        plan(world, Categorical.of([1.0]), 2.0)
