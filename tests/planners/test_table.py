"""A policy written out obeys the contract and finds its rows."""

from math import inf

import numpy as np
import pytest

from mightnt.constraints.budget import KLBudget, TVDBudget
from mightnt.desk.play import play
from mightnt.errors import InputError
from mightnt.history import Chooser, Step
from mightnt.planners.plan import plan
from mightnt.planners.table import TablePolicy
from mightnt.prediction import check_model, follow
from mightnt.worlds.tree import TreeWorld
from tests.strategies import RandomModel, agent_paths

WORLD = TreeWorld(2, 3, 2, lambda path: [0.2, 0.3, 0.5], lambda path: float(path[0]))


def numbered():
    """The first action's probability is the number of the node, in hundredths."""
    shares = [np.array([0.5]), np.arange(6) / 100]
    with np.errstate(divide="ignore"):
        rows = [np.log(np.stack([p, 1 - p], axis=1)) for p in shares]
    return TablePolicy(WORLD, RandomModel(0, 2), TVDBudget(0.5), 0.0, 0.0, rows)


def test_each_history_has_its_row_whoever_chose_it():
    policy = numbered()
    check_model(policy, list(agent_paths(2, 3, 2))[:6])
    for who in (Chooser.AGENT, Chooser.DEMONSTRATOR):
        for a in range(2):
            for o in range(3):
                state = follow(policy, (Step(a, who), Step(o, Chooser.WORLD)))
                assert policy.predict(state).probabilities[0] == pytest.approx((3 * a + o) / 100)


def test_where_no_action_is_due_it_has_none():
    policy = numbered()
    assert policy.predict((0,)).missing == 1
    assert policy.predict((0, 0, 0, 0)).missing == 1
    with pytest.raises(InputError, match="one of 2 symbols"):
        policy.advance((), Step(2, Chooser.AGENT))


def test_a_ledger_keeps_its_nats_and_a_distance_has_none():
    assert numbered().budget == KLBudget(inf)
    base, constraint = RandomModel(0, 2), KLBudget(0.2, over="max_observations")
    policy = plan(WORLD, base, constraint)
    assert policy.budget is constraint
    for seed in range(20):
        record = play(policy, WORLD, seed=seed)
        assert sum(step.kl_base_nats for step in record.steps) <= 0.2 + 1e-9
    free = plan(WORLD, RandomModel(1, 2, zeros=1.0), TVDBudget(1.0))
    assert play(free, WORLD, seed=0).utility == 1
