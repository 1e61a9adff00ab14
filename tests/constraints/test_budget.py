"""A budget is a number of nats, zero and infinity included."""

import pytest

from mightnt.constraints.budget import KLBudget
from mightnt.errors import BudgetError


@pytest.mark.parametrize("nats", [0, 0.0, 2.5, float("inf")])
def test_amounts(nats):
    assert KLBudget(nats).nats == nats


@pytest.mark.parametrize("nats", [-1e-12, -3, float("nan"), float("-inf")])
def test_what_is_no_amount_is_refused(nats):
    with pytest.raises(BudgetError, match="the budget is"):
        KLBudget(nats)
