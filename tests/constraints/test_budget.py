"""A budget is an amount, zero and infinity included, and says which reading it limits."""

import pytest

from mightnt.constraints.budget import KLBudget, TVDBudget
from mightnt.errors import BudgetError


@pytest.mark.parametrize("nats", [0, 0.0, 2.5, float("inf")])
def test_amounts(nats):
    assert KLBudget(nats).nats == nats


@pytest.mark.parametrize("nats", [-1e-12, -3, float("nan"), float("-inf")])
def test_what_is_no_amount_is_refused(nats):
    with pytest.raises(BudgetError, match="the budget is"):
        KLBudget(nats)


def test_the_reading_is_said_and_has_a_default():
    assert KLBudget(1.0) == KLBudget(1.0, over="expected")
    assert TVDBudget(0.1) == TVDBudget(0.1, over="max_observations")
    assert KLBudget(1.0) != KLBudget(1.0, over="max_observations")
    with pytest.raises(BudgetError, match="allowed are 'expected' and 'max_observations'"):
        KLBudget(1.0, over="step")
    with pytest.raises(BudgetError, match="over 'expected'; allowed are 'max_observations' and 'step'"):
        TVDBudget(0.1, over="expected")


@pytest.mark.parametrize("probability", [-1e-12, 1.0000001, 2, float("nan"), float("inf")])
def test_a_distance_is_a_probability(probability):
    with pytest.raises(BudgetError, match="a probability from 0 to 1 is allowed"):
        TVDBudget(probability)
