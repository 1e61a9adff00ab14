"""Every decision is charged to its episode, noted in order, and stopped where it would exceed the limit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mightnt.errors import BudgetError
from mightnt.lm.ledgers import Ledgers
from tests.strategies import seeds


def columns(n, start=0):
    """The other columns of n decisions, told apart by their numbers."""
    number = torch.arange(start, start + n)
    return {
        "features": number[:, None].float(),
        "log_base": number[:, None].double() * torch.ones(1, 3),
        "spendable": number.double() + 0.5,
        "choice": number,
        "log_probability": -number.double(),
    }


def enter(ledgers, rows, cost, **more):
    ledgers.enter(np.array(rows), torch.tensor(cost, dtype=torch.float64), **columns(len(rows), ledgers.n), **more)


@given(seeds, st.integers(1, 6))
def test_what_is_spent_is_what_was_entered_and_decisions_keep_their_order(seed, n_steps):
    rng = np.random.default_rng(seed)
    ledgers, entered = Ledgers(4, 100.0), []
    for _ in range(n_steps):
        rows = np.flatnonzero(rng.random(4) < 0.6)
        costs = rng.random(len(rows))
        enter(ledgers, rows, costs)
        entered += list(zip(rows.tolist(), costs.tolist(), strict=True))
    decisions = ledgers.decisions()
    assert list(zip(decisions.row.tolist(), decisions.cost_nats.tolist(), strict=True)) == entered
    n = len(entered)
    assert decisions.choice.tolist() == decisions.features.flatten().tolist() == list(range(n))
    assert decisions.log_base.shape == (n, 3)
    assert decisions.spendable_nats.tolist() == [i + 0.5 for i in range(n)]
    assert decisions.log_probability.tolist() == [-i for i in range(n)]
    spent = [sum(cost for r, cost in entered if r == row) for row in range(4)]
    assert ledgers.spent.tolist() == pytest.approx(spent)
    assert ledgers.left(np.array([2, 0])).tolist() == pytest.approx([100 - spent[2], 100 - spent[0]])


def test_decisions_know_their_turn_whenever_it_is_counted_on():
    turns = np.zeros(3, dtype=np.int64)
    ledgers = Ledgers(3, 10.0, turns)
    enter(ledgers, [0, 2], [0.0, 0.0])
    turns[2] += 1
    enter(ledgers, [2, 0], [0.0, 0.0])
    turns[:] += 1
    enter(ledgers, [1], [0.0])
    assert ledgers.decisions().turn.tolist() == [0, 0, 1, 0, 1]
    alone = Ledgers(2, 10.0)
    enter(alone, [1], [0.0])
    assert alone.decisions().turn.tolist() == [0]
    assert Ledgers(2, 0.0).decisions().turn.tolist() == []


def test_a_charge_beyond_the_limit_stops_everything_and_changes_nothing():
    ledgers = Ledgers(2, 1.0)
    enter(ledgers, [0, 1], [0.75, 0.25])
    with pytest.raises(BudgetError, match=r"budget of 1\.0 nats by 0\.25"):
        enter(ledgers, [0, 1], [0.5, 0.5])
    assert ledgers.spent.tolist() == [0.75, 0.25]
    assert ledgers.n == 2


@pytest.mark.parametrize(("cost", "refused"), [(1.0, False), (1.0 + 5e-7, False), (1.0 + 2e-6, True)])
def test_the_limit_allows_rounding_and_no_more(cost, refused):
    ledgers = Ledgers(1, 1.0)
    if refused:
        with pytest.raises(BudgetError):
            enter(ledgers, [0], [cost])
    else:
        enter(ledgers, [0], [cost])


def test_rounding_does_not_add_up():
    ledgers = Ledgers(1, 1.0)
    enter(ledgers, [0], [1.0 + 9e-7])
    with pytest.raises(BudgetError):
        enter(ledgers, [0], [9e-7])


@pytest.mark.parametrize(("cost", "limit"), [(math.nan, 1.0), (math.nan, math.inf), (math.inf, 1.0)])
def test_costs_that_are_no_numbers_are_refused(cost, limit):
    with pytest.raises(BudgetError):
        enter(Ledgers(1, limit), [0], [cost])


def test_without_a_limit_anything_goes():
    ledgers = Ledgers(1, math.inf)
    enter(ledgers, [0], [1e9])
    assert ledgers.left(np.array([0])).tolist() == [math.inf]


def test_a_reward_goes_to_the_latest_decision_of_its_episode():
    ledgers = Ledgers(3, 10.0)
    ledgers.credit(np.array([9.0, 9.0, 9.0]))
    enter(ledgers, [0, 1], [0.0, 0.0])
    ledgers.credit(np.array([0.0, 8.0, 0.0]))
    enter(ledgers, [1], [0.0])
    ledgers.credit(np.array([1.0, 2.0, 3.0]))
    ledgers.credit(np.array([0.0, 0.5, 0.0]))
    enter(ledgers, [0], [0.0])
    ledgers.credit(np.array([0.25, 0.0, 0.0]))
    assert ledgers.decisions().row.tolist() == [0, 1, 1, 0]
    assert ledgers.decisions().reward.tolist() == [1.0, 8.0, 2.5, 0.25]


def test_a_kept_reward_does_not_change_with_the_array_it_came_in():
    ledgers, reward = Ledgers(1, 10.0), np.array([1.0])
    enter(ledgers, [0], [0.0])
    ledgers.credit(reward)
    reward[:] = 0.0
    assert ledgers.decisions().reward.tolist() == [1.0]


def test_the_distance_to_the_demonstrator_is_kept_where_it_is_known():
    known, unknown = Ledgers(1, 10.0), Ledgers(1, 10.0)
    enter(known, [0], [0.0], kl_demonstrator=torch.tensor([0.125]))
    enter(unknown, [0], [0.0])
    assert known.decisions().kl_demonstrator_nats.tolist() == [0.125]
    assert unknown.decisions().kl_demonstrator_nats is None


def test_nothing_entered_is_no_rows():
    decisions = Ledgers(2, 0.0).decisions()
    assert len(decisions.row) == len(decisions.features) == len(decisions.log_base[:, -1]) == len(decisions.reward) == 0
    assert float(decisions.cost_nats.sum()) == 0.0
