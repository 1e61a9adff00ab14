"""The one call: world, base, constraint -> policy."""

import pytest

from mightnt.constraints.budget import KLBudget
from mightnt.errors import InputError
from mightnt.models.categorical import Categorical
from mightnt.planners.plan import plan
from mightnt.planners.soft import plan_expected_kl
from mightnt.worlds.tree import TreeWorld


def test_a_kl_budget_is_an_expected_one():
    world = TreeWorld(2, 1, 1, lambda path: [1.0], lambda path: float(path[0]))
    base = Categorical.of([0.9, 0.1])
    policy, expected = plan(world, base, KLBudget(0.5)), plan_expected_kl(world, base, KLBudget(0.5))
    assert (policy.value, policy.kl_expected_nats) == (expected.value, expected.kl_expected_nats)
    assert policy.base is base
    assert policy.budget == KLBudget(0.5)


def test_another_constraint_is_refused():
    world = TreeWorld(1, 1, 1, lambda path: [1.0], lambda path: 0.0)
    with pytest.raises(InputError, match="KLBudget"):
        plan(world, Categorical.of([1.0]), 2.0)
