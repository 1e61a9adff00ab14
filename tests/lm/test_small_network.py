"""Small networks imitate what was shown, differ where nothing was, and give pessimism something to work on."""

import numpy as np
import pytest

from mightnt.bases.pessimistic import Pessimistic
from mightnt.desk.gymnasium import demonstrate
from mightnt.errors import InputError
from mightnt.history import Chooser, Step
from mightnt.lm.small_network import SmallNetwork, fit_small_networks
from mightnt.models.finite import ModelClass
from mightnt.worlds import grid

FEATURES = np.array([[-1.0], [0.0], [1.0], [3.0]])
TRUTH = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.2, 0.8, 0.0]])


def shown(n=3000, seed=0):
    """The demonstrator of ``TRUTH`` at the first three observations; nothing at the fourth, action 2 never."""
    rng, steps = np.random.default_rng(seed), []
    for _ in range(n):
        here = int(rng.integers(3))
        steps += [Step(here, Chooser.WORLD), Step(int(rng.choice(3, p=TRUTH[here])), Chooser.DEMONSTRATOR)]
    return steps


@pytest.fixture(scope="module")
def members():
    return fit_small_networks(shown(), FEATURES, 3, seeds=range(8))


def table(member):
    return np.stack([row.probabilities for row in member.rows])


def test_they_learn_what_was_shown(members):
    for member in members:
        np.testing.assert_allclose(table(member)[:3], TRUTH, atol=0.06)
        np.testing.assert_allclose(table(member).sum(axis=1), 1.0, atol=1e-9)


def test_what_was_never_shown_is_dear_but_not_impossible(members):
    never = np.stack([table(member)[:3, 2] for member in members])
    assert (never > 0).all()
    assert (never < 0.02).all()


def asking(members):
    """What the minimum over the members misses at each observation."""
    base = Pessimistic(ModelClass.of(members), top_set_level=1e-3)
    observed = [base.advance(base.start(), Step(o, Chooser.WORLD)) for o in range(len(members[0].rows))]
    return [base.predict(state).missing for state in observed]


def test_the_minimum_over_them_asks_where_nothing_was_shown(members):
    missing = asking(members)
    assert missing[3] > 0.7
    assert 0 < max(missing[:3]) < 0.15


def test_without_made_up_demonstrations_networks_are_sure_of_what_nobody_showed():
    """Resamples and first weights alone do not make them differ there: they extrapolate alike."""
    assert asking(fit_small_networks(shown(), FEATURES, 3, range(8), SmallNetwork(made_up=0.0)))[3] < 0.2


def test_in_the_gridworld_the_shortcut_costs_more_than_the_safe_way():
    learned = demonstrate(grid.ShortcutGrid(), grid.safe_demonstrator(), 40, seed=0)
    members = fit_small_networks(learned, grid.cell_features(), 4, seeds=range(6))
    base = Pessimistic(ModelClass.of(members), top_set_level=1e-3)

    def price_nats(cell, arrow):
        ahead = base.predict(base.advance(base.start(), Step(cell, Chooser.WORLD)))
        return -ahead.log_probabilities[grid.ACTIONS.index(arrow)]

    cell, safe_nats = grid.START, 0.0
    for arrow in "^^>>>>vv":
        safe_nats += price_nats(cell, arrow)
        cell = grid.moved(cell, grid.ACTIONS.index(arrow))
    assert cell == grid.GOAL
    assert safe_nats < 3.0 < 6.0 < price_nats(grid.START, ">")


def test_the_agent_s_own_steps_are_not_learned():
    own = [step if i % 2 == 0 else Step(2, Chooser.AGENT) for i, step in enumerate(shown(500, seed=1))]
    shape = SmallNetwork(steps=50)
    (one,) = fit_small_networks(shown(500), FEATURES, 3, [0], shape)
    (other,) = fit_small_networks(shown(500) + own, FEATURES, 3, [0], shape)
    np.testing.assert_array_equal(table(one), table(other))


def test_a_seed_decides():
    shape = SmallNetwork(steps=5)
    one, again, other = fit_small_networks(shown(50), FEATURES, 3, [1, 1, 2], shape)
    np.testing.assert_array_equal(table(one), table(again))
    assert not np.array_equal(table(one), table(other))


def test_refusals():
    with pytest.raises(InputError, match="no demonstrated step"):
        fit_small_networks([Step(0, Chooser.WORLD)], FEATURES, 3, [0])
    for features, n_actions in ((FEATURES[:2], 3), (FEATURES, 1)):
        with pytest.raises(InputError, match="rows of features"):
            fit_small_networks(shown(50), features, n_actions, [0])
    with pytest.raises(InputError, match="NaN"):
        fit_small_networks(shown(50), FEATURES * np.nan, 3, [0])
    for wrong in ({"width": 0}, {"steps": 0}, {"learning_rate": 0.0}, {"made_up": -1.0}):
        with pytest.raises(InputError, match="at least 1"):
            SmallNetwork(**wrong)
