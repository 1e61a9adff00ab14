"""One model until the event, the other from then on, and the price of holding such a pair in a class."""

import numpy as np
import pytest
from hypothesis import given

from mightnt.bases.mixture import BayesMixture
from mightnt.history import Chooser, Step, demonstrated
from mightnt.models.categorical import Categorical
from mightnt.models.finite import ModelClass
from mightnt.models.switch import Switch
from mightnt.prediction import check_model, follow
from tests.strategies import RandomModel, histories, seeds


def saw_a_one(history):
    return any(step.symbol == 1 and step.chooser is Chooser.WORLD for step in history)


@given(seeds, histories())
def test_it_is_the_first_until_the_event_and_the_second_for_ever_after(seed, history):
    before, afterwards = RandomModel(seed, 2), RandomModel(seed + 1, 2)
    model = Switch(before, saw_a_one, afterwards)
    check_model(model, [history])
    for t in range(len(history) + 1):
        past = history[:t]
        inside = afterwards if saw_a_one(past) else before
        expected = inside.predict(follow(inside, past)).log_probabilities
        assert np.array_equal(model.predict(follow(model, past)).log_probabilities, expected)


def test_an_event_that_stops_being_true_has_happened_all_the_same():
    just_now = Switch(Categorical.of([1, 0]), lambda h: bool(h) and h[-1].symbol == 1, Categorical.of([0, 1]))
    history = demonstrated([0, 1, 0, 0])
    assert just_now.predict(follow(just_now, history)).probabilities.tolist() == [0, 1]


def test_an_event_true_of_the_empty_history_switches_at_once():
    model = Switch(Categorical.of([1, 0]), lambda h: True, Categorical.of([0, 1]))
    assert model.predict(model.start()).probabilities.tolist() == [0, 1]


@pytest.mark.parametrize("n_demonstrated", [1, 10, 200])
def test_the_mixture_leaves_at_the_price_of_the_switch_however_much_was_demonstrated(n_demonstrated):
    """The mechanism of theorem 1: after E, xi(1) = 2^-Delta here, for any amount of demonstration."""
    careful, switch_cost_bits = Categorical.of([1.0, 0.0]), 6
    turns = Switch(careful, saw_a_one, Categorical.of([0.0, 1.0]))
    ratio = 2.0**-switch_cost_bits
    base = BayesMixture(ModelClass.of([careful, turns], [1 / (1 + ratio), ratio / (1 + ratio)]))
    quiet = demonstrated([0, 0] * n_demonstrated)
    novel = (*quiet[:-1], Step(1, Chooser.WORLD))
    assert base.predict(follow(base, quiet)).probabilities[1] == 0
    assert base.predict(follow(base, novel)).probabilities[1] == pytest.approx(ratio / (1 + ratio))
