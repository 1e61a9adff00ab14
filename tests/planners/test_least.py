"""The least KL that buys a value: the inverse of the planners, and by hand."""

from math import inf, log, log1p, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.constraints.budget import KLBudget
from mightnt.errors import InputError
from mightnt.history import Chooser, Step
from mightnt.models.categorical import Categorical
from mightnt.models.switch import Switch
from mightnt.planners.least import least_kl_nats
from mightnt.planners.levels import evaluate, kl_of_sequences_nats, lay_out
from mightnt.planners.plan import plan
from mightnt.prediction import Prediction
from mightnt.worlds.tree import TreeWorld, random_tree
from tests.strategies import RandomModel, seeds

MEASURES = ("expected", "max_observations")


def world_of(seed, horizon=2, n_observations=2):
    return random_tree(np.random.default_rng(seed), 2, n_observations, horizon)


@pytest.mark.parametrize("measure", MEASURES)
@given(seed=seeds, nats=st.floats(0.001, 1))
@settings(max_examples=15, deadline=None)
def test_it_is_the_inverse_of_the_planner(measure, seed, nats):
    """What the best policy of a budget is worth costs that budget, or less where the budget is not spent."""
    world, base = world_of(seed), RandomModel(seed, 2)
    policy = plan(world, base, KLBudget(nats, over=measure))
    spent = policy.kl_expected_nats if measure == "expected" else policy.divergence
    least = least_kl_nats(world, base, policy.value, measure)
    assert least <= spent + 1e-6
    assert least == pytest.approx(spent, abs=1e-4)
    assert plan(world, base, KLBudget(least + 1e-6, over=measure)).value >= policy.value - 1e-6


@pytest.mark.parametrize("measure", MEASURES)
@given(seed=seeds, rival=seeds)
@settings(max_examples=25, deadline=None)
def test_no_random_rival_reaches_the_value_for_less(measure, seed, rival):
    world, base = world_of(seed), RandomModel(seed, 2)
    levels, rng = lay_out(world, base, (), base.start()), np.random.default_rng(rival)
    rows = [np.log(rng.dirichlet([0.5, 0.5], size=rows.shape[0])) for rows in levels.log_base]
    value, kl = evaluate(levels, rows)
    paid = kl if measure == "expected" else float(kl_of_sequences_nats(levels, rows).max())
    assert least_kl_nats(world, base, value, measure) <= paid + 1e-6


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("rare", [0.1, 1e-6, 1e-30, 1e-100])
@pytest.mark.parametrize("share", [0.1, 0.9, 1.0])
def test_a_rare_action_by_hand(measure, rare, share):
    """Two rounds, worth the share of ones: each round must take the rare action with probability v."""
    world = TreeWorld(2, 2, 2, lambda path: [0.5, 0.5], lambda path: sum(path[::2]) / 2)
    base = Categorical(Prediction(np.array([log1p(-rare), log(rare)])))
    each = share * log(share / rare) + ((1 - share) * log((1 - share) / (1 - rare)) if share < 1 else 0)
    nats = 0.0 if rare >= share else 2 * each
    assert least_kl_nats(world, base, share, measure) == pytest.approx(nats, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("measure", MEASURES)
def test_edges(measure):
    world = TreeWorld(3, 1, 1, lambda path: [1.0], lambda path: [0.0, 1.0, 2.0][path[0]])
    base = Categorical.of([0.5, 0.5, 0.0])
    assert least_kl_nats(world, base, 0.5, measure) == 0
    assert least_kl_nats(world, base, -inf, measure) == 0
    assert least_kl_nats(world, base, 1.0, measure) == pytest.approx(log(2))
    assert least_kl_nats(world, base, 1.001, measure) == inf  # outside the support
    assert least_kl_nats(world, base, 5.0, measure) == inf  # nowhere
    assert least_kl_nats(world, Categorical.of([0, 0, 0]), 0.0, measure) == inf
    flat = TreeWorld(2, 1, 1, lambda path: [1.0], lambda path: 2.0)
    assert least_kl_nats(flat, Categorical.of([0.3, 0.7]), 2.0, measure) == pytest.approx(0, abs=1e-12)
    assert least_kl_nats(flat, Categorical.of([0.3, 0.7]), 2.1, measure) == inf


@pytest.mark.parametrize("measure", MEASURES)
def test_a_base_that_misses_mass_has_a_floor(measure):
    world = TreeWorld(2, 2, 2, lambda path: [0.5, 0.5], lambda path: float(path[0]))
    base = Categorical.of([0.25, 0.25])
    assert least_kl_nats(world, base, -inf, measure) == pytest.approx(2 * log(2))
    assert least_kl_nats(world, base, 0.4, measure) == pytest.approx(2 * log(2))
    assert least_kl_nats(world, base, 1, measure) == pytest.approx(3 * log(2))


def test_the_highest_value_leaves_the_base_alone_where_the_world_never_goes():
    """Observation 1 never comes; only the worst-case measure looks there, and no value need be reached at such a price."""
    world = TreeWorld(2, 2, 2, lambda path: [1.0, 0.0], lambda path: float(path[2]))
    told_1 = Step(1, Chooser.WORLD)
    base = Switch(Categorical.of([0.5, 0.5]), lambda h: told_1 in h, Categorical.of([0.99, 0.01]))
    assert least_kl_nats(world, base, 1.0, "expected") == pytest.approx(log(2))
    assert least_kl_nats(world, base, 1.0, "max_observations") == pytest.approx(log(2))


@pytest.mark.parametrize("seed", range(3))
def test_where_nothing_is_observed_the_two_measures_agree(seed):
    world, base = world_of(seed, horizon=4, n_observations=1), RandomModel(seed, 2)
    for value in (0.5, 0.7, 0.8):
        expected, maximal = (least_kl_nats(world, base, value, measure) for measure in MEASURES)
        assert expected == pytest.approx(maximal, abs=1e-6)


def test_what_cannot_be_asked():
    world, base = world_of(0), RandomModel(0, 2)
    with pytest.raises(InputError, match="is NaN"):
        least_kl_nats(world, base, nan)
    with pytest.raises(InputError, match="'pathwise'; allowed are 'expected' and 'max_observations'"):
        least_kl_nats(world, base, 0.5, "pathwise")
    with pytest.raises(InputError, match="predicts 3 actions"):
        least_kl_nats(world, RandomModel(0, 3), 0.5)
    with pytest.raises(InputError, match="last actions"):
        least_kl_nats(TreeWorld(4, 4, 6, lambda p: 1 / 0, lambda p: 1 / 0), RandomModel(0, 4), 0.5, "max_observations")
