"""Predictions keep what they miss, refuse what is no probability, and check_model finds each way to break the contract."""

import math
import random
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.errors import ContractError, InputError
from mightnt.history import Chooser, Step, demonstrated
from mightnt.prediction import Prediction, check_model, follow

weights = st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=6)


# Predictions


@given(weights, st.floats(0.01, 1.0))
def test_what_is_missing_is_kept(values, total):
    assumed = max(sum(values), 1e-6)
    probabilities = np.array(values) / assumed * total
    prediction = Prediction.of(probabilities)
    np.testing.assert_allclose(prediction.probabilities, probabilities, rtol=1e-12, atol=1e-300)
    assert prediction.missing == pytest.approx(1 - probabilities.sum(), abs=1e-12)
    assert 0 <= prediction.missing <= 1
    assert prediction.n_symbols == len(values)


def test_hand_computed():
    prediction = Prediction.of([0.5, 0.25, 0.0])
    assert prediction.log_probabilities.tolist() == [math.log(0.5), math.log(0.25), -math.inf]
    assert prediction.missing == 0.25
    assert Prediction(np.array([-np.inf, -np.inf])).missing == 1
    assert Prediction(np.log([0.1] * 10)).missing == 0, "a sum of one but for rounding misses nothing"


def test_a_sum_above_one_is_refused_beyond_rounding_only():
    assert Prediction.of([0.5, 0.5 + 5e-10]).missing == 0
    with pytest.raises(InputError, match=r"sum to 1\.00000001, at most 1 is allowed"):
        Prediction.of([0.5, 0.5 + 1e-8])


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("make", [Prediction.of, lambda row: Prediction(np.array(row))])
def test_nan_and_inf_are_refused(make, value):
    with pytest.raises(InputError, match="NaN or"):
        make([value, 0.0])


def test_negative_probabilities_are_refused_even_if_the_sum_is_fine():
    with pytest.raises(InputError, match=r"negative: -0\.1"):
        Prediction.of([0.6, -0.1, 0.5])
    assert Prediction.of([-0.0, 1.0]).missing == 0


def test_logits_are_refused_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="nothing here renormalizes"):
            Prediction(np.array([1000.0, 3.0]))


@pytest.mark.parametrize("row", [[], [[0.5, 0.5]], 0.5])
def test_what_is_no_row_is_refused(row):
    with pytest.raises(InputError, match="a row of log-probabilities"):
        Prediction.of(row)


def test_a_prediction_does_not_change():
    row = np.log([0.5, 0.5])
    prediction = Prediction(row)
    row[0] = 0
    assert prediction.probabilities.tolist() == pytest.approx([0.5, 0.5])
    with pytest.raises(ValueError, match="read-only"):
        prediction.log_probabilities[0] = 0


# The contract

HISTORIES = [demonstrated([0, 1, 1, 0]), (Step(1, Chooser.AGENT), Step(0, Chooser.WORLD))]


class Counts:
    """A model that keeps the contract: Laplace's rule on all symbols so far; each breaker below changes one thing."""

    n_symbols = 2

    def start(self):
        return [1, 1]

    def predict(self, state):
        return Prediction.of(np.array(state) / sum(state))

    def advance(self, state, step):
        return [count + (symbol == step.symbol) for symbol, count in enumerate(state)]


class AdvancesInPlace(Counts):
    def advance(self, state, step):
        state[step.symbol] += 1
        return state


class StartsWhereItStopped(Counts):
    """Restarting does not forget."""

    def __init__(self):
        self.started = 0

    def start(self):
        self.started += 1
        return [self.started, 1]


class KeepsTheStateInItself(Counts):
    """The state is a token, the truth is inside the model."""

    def __init__(self):
        self.counts = [1, 1]

    def start(self):
        self.counts = [1, 1]

    def predict(self, state):
        return super().predict(self.counts)

    def advance(self, state, step):
        self.counts = super().advance(self.counts, step)


class PredictsByDice(Counts):
    def predict(self, state):
        return Prediction.of(np.array([random.random(), 0.0]))


class AdvancesByDice(Counts):
    def advance(self, state, step):
        return [1 + random.random(), 1]


class PredictsByDiceAtTheEnd(Counts):
    """Only after the last step of the longest history."""

    def predict(self, state):
        return Prediction.of([random.random(), 0.0]) if sum(state) == 6 else super().predict(state)


class GrowsAtTheEnd(Counts):
    def predict(self, state):
        return Prediction.of([0.2, 0.2, 0.2]) if sum(state) == 6 else super().predict(state)


class MiscountsItsSymbols(Counts):
    n_symbols = 3


class PredictsAnArray(Counts):
    def predict(self, state):
        return np.array([0.5, 0.5])


@pytest.mark.parametrize(
    ("breaker", "says"),
    [
        (AdvancesInPlace, "position 0 changed the old state"),
        (StartsWhereItStopped, "two fresh starts"),
        (KeepsTheStateInItself, "position 0 changed the old state"),
        (PredictsByDice, "at the start: predicts differently when asked twice"),
        (AdvancesByDice, "advancing twice at position 0"),
        (PredictsByDiceAtTheEnd, "after position 3: predicts differently when asked twice"),
        (GrowsAtTheEnd, "after position 3: predicts 3 symbols, its n_symbols is 2"),
        (MiscountsItsSymbols, "at the start: predicts 2 symbols, its n_symbols is 3"),
        (PredictsAnArray, "predict returned a ndarray"),
    ],
)
def test_check_model_finds_each_breaker_by_its_name(breaker, says):
    with pytest.raises(ContractError, match=f"^{breaker.__name__}.*{says}"):
        check_model(breaker(), HISTORIES)


@pytest.mark.parametrize("breaker", [MiscountsItsSymbols, PredictsByDice, PredictsAnArray])
def test_the_start_is_checked_even_without_histories(breaker):
    with pytest.raises(ContractError):
        check_model(breaker(), [])


@given(st.lists(st.lists(st.builds(Step, st.integers(0, 1), st.sampled_from(Chooser)), max_size=5), max_size=4))
def test_check_model_lets_pass_what_keeps_the_contract(histories):
    check_model(Counts(), histories)


@given(st.lists(st.integers(0, 1), max_size=8))
def test_follow_is_one_advance_after_the_other(symbols):
    assert follow(Counts(), demonstrated(symbols)) == [1 + symbols.count(0), 1 + symbols.count(1)]


def test_follow_leaves_the_way_open_to_branch():
    @dataclass
    class Path(Counts):
        def start(self):
            return ()

        def advance(self, state, step):
            return (*state, step.symbol)

    trunk = follow(Path(), demonstrated([0, 1]))
    left, right = (Path().advance(trunk, Step(symbol, Chooser.AGENT)) for symbol in (0, 1))
    assert (trunk, left, right) == ((0, 1), (0, 1, 0), (0, 1, 1))
