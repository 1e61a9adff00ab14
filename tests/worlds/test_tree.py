"""Small worlds: whose turn it is, what is observed, what it is worth, what is refused."""

import numpy as np
import pytest
from hypothesis import given

from mightnt.errors import InputError
from mightnt.history import Chooser, Step
from mightnt.prediction import check_model, follow
from mightnt.worlds.tree import TreeWorld, random_tree
from tests.strategies import agent_paths, seeds


def echo(horizon=2, **changes):
    """The observation repeats the action; the utility counts the ones."""
    parts = {"observe": lambda path: np.eye(2)[path[-1]], "utility_of": lambda path: sum(path[::2])}
    return TreeWorld(2, 2, horizon, **{**parts, **changes})


@given(seeds)
def test_it_obeys_the_contract_and_is_a_value(seed):
    world = random_tree(np.random.default_rng(seed), 2, 3, 2)
    check_model(world, list(agent_paths(2, 3, 2))[:5])
    again = random_tree(np.random.default_rng(seed), 2, 3, 2)
    for path in agent_paths(2, 3, 2):
        end = follow(world, path)
        assert world.turn(end) is None
        assert world.utility(end) == again.utility(end)
        told = world.predict(follow(world, path[:3]))
        assert told.missing < 1e-9
        assert np.array_equal(told.log_probabilities, again.predict(follow(again, path[:3])).log_probabilities)


def test_turns_observations_and_utility():
    world = echo()
    acted = world.advance(world.start(), Step(1, Chooser.AGENT))
    assert [world.turn(()), world.turn(acted)] == [Chooser.AGENT, Chooser.WORLD]
    assert world.predict(acted).probabilities.tolist() == [0, 1]
    assert world.predict(()).missing == 1  # no observation is due
    assert world.utility((1, 1, 0, 0)) == 1
    assert world.n_symbols == 2


@pytest.mark.parametrize(
    "history",
    [
        (Step(2, Chooser.AGENT),),
        (Step(-1, Chooser.AGENT),),
        (Step(0, Chooser.WORLD),),
        (Step(0, Chooser.AGENT), Step(0, Chooser.DEMONSTRATOR)),
    ],
)
def test_a_step_that_is_not_due_is_refused(history):
    with pytest.raises(InputError, match="is due"):
        follow(echo(), history)


def test_the_end_is_the_end():
    with pytest.raises(InputError, match="is over"):
        echo().advance((0, 0, 0, 0), Step(0, Chooser.AGENT))
    with pytest.raises(InputError, match="end of an episode"):
        echo().utility((0, 0))


def test_what_is_no_world_is_refused():
    with pytest.raises(InputError, match="at least one"):
        TreeWorld(2, 0, 1, lambda path: [], lambda path: 0)
    with pytest.raises(InputError, match="sum to 1 are needed"):
        echo(observe=lambda path: [0.5, 0.4]).predict((0,))
    with pytest.raises(InputError, match="sum to 1 are needed"):
        echo(observe=lambda path: [1.0]).predict((0,))
    with pytest.raises(InputError, match="is nan"):
        echo(utility_of=lambda path: np.nan).utility((0, 0, 0, 0))
