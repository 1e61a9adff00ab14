"""Many runs at once give what the classes and bases give one at a time."""

from dataclasses import dataclass
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.bases.pessimistic import Pessimistic
from mightnt.errors import InputError
from mightnt.experiments.theory.timetables import (
    Timetable,
    ask,
    asking_probabilities,
    believed,
    coins,
    crude_order,
    cubed_asking_bound,
    draw,
    late_novelties,
    smallest_levels,
)
from mightnt.history import Chooser, Step
from mightnt.models.finite import ModelClass, top_set
from mightnt.prediction import Prediction

THREE = coins([0.5, 0.2, 0.9], [0.2, 0.5, 0.3])
PHASES = Timetable(
    np.array([0.5, 0.3, 0.1]),
    np.array(
        [[[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.1, 0.9, 0.0]], [[0.2, 0.3, 0.5], [0.6, 0.4, 0.0], [0.2, 0.3, 0.4]]]
    ),
    np.array([0, 2]),
)


@dataclass(frozen=True)
class Row:
    """One model of a timetable by the contract."""

    table: Timetable
    index: int

    @property
    def n_symbols(self):
        return self.table.probabilities.shape[2]

    def start(self):
        return 0

    def predict(self, state):
        return Prediction.of(self.table.probabilities[int(self.table.phase_at(np.array([state]))[0]), self.index])

    def advance(self, state, step):
        return state + 1


def as_class(table):
    return ModelClass.of([Row(table, i) for i in range(len(table.prior))], table.prior)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"starts": np.array([0])}, "rows for 1 phases"),
        ({"probabilities": PHASES.probabilities * 1.5}, "at most 1 in sum"),
        ({"probabilities": -PHASES.probabilities}, "at most 1 in sum"),
        ({"probabilities": PHASES.probabilities * 0.5}, "misses probability"),
        ({"prior": np.array([0.5, 0.5, 0.0])}, "positive"),
        ({"prior": np.array([0.5, 0.5, 0.5])}, "at most 1"),
        ({"starts": np.array([0, 0])}, "ascending"),
        ({"starts": np.array([1, 2])}, "0 and then"),
    ],
)
def test_what_is_no_timetable_is_refused(changes, words):
    values = {"prior": PHASES.prior, "probabilities": PHASES.probabilities, "starts": PHASES.starts} | changes
    with pytest.raises(InputError, match=words):
        Timetable(**values)


def test_phases_and_ratios_by_hand():
    assert PHASES.phase_at(np.array([0, 1, 2, 99])).tolist() == [0, 0, 1, 1]
    ratios = PHASES.log_ratios
    assert ratios.shape == (2, 3, 3)
    assert ratios[1, 0].tolist() == pytest.approx([0, log(3), 0])
    assert ratios[1, 2].tolist() == pytest.approx([0, -np.inf, log(0.8)])
    assert ratios[0, 2].tolist() == [0, 0, 0]  # the demonstrator never gives this symbol


def test_late_novelties_by_hand():
    table = late_novelties(3, after=0.9)
    assert table.prior.tolist() == [0.25] * 4
    assert table.starts.tolist() == [0, 1, 2, 4]
    heads = table.probabilities[:, :, 1]
    assert heads.tolist() == [[0.5, 0.5, 0.5, 0.5], [0.5, 0.9, 0.5, 0.5], [0.5, 0.9, 0.9, 0.5], [0.5, 0.9, 0.9, 0.9]]


weights = st.lists(st.sampled_from([-np.inf, -3.0, -1.0, -1.0, 0.0, 2.5]), min_size=4, max_size=4)


@given(weights.filter(lambda w: max(w) > -np.inf), st.sampled_from([0.01, 0.2, 0.5, 1.0]))
def test_believed_is_the_top_set_row_by_row(row, level):
    both = np.array([row, row[::-1]])
    for got, log_weights in zip(believed(both, level), both, strict=True):
        assert set(np.flatnonzero(got)) == set(top_set(log_weights, level))


@pytest.mark.parametrize("table", [THREE, PHASES], ids=["steady", "phases"])
def test_asking_probabilities_are_those_of_the_pessimistic_base(table):
    base = Pessimistic(as_class(table), 0.1)
    for sequence in ([], [0], [1, 1], [0, 1, 1], [1, 0, 0, 1]):
        state = base.start()
        for symbol in sequence:
            state = base.advance(state, Step(symbol, Chooser.DEMONSTRATOR))
        got = asking_probabilities(
            table, table.phase_at(np.array([len(sequence)])), state.of_class.log_posterior[None], 0.1
        )
        assert got.tolist() == pytest.approx([base.predict(state).missing], abs=1e-12)


@pytest.mark.parametrize("table", [THREE, PHASES], ids=["steady", "phases"])
def test_smallest_level_is_where_the_demonstrator_is_first_lost(table):
    n_runs, n_steps, model_class = 20, 6, as_class(table)
    lowest = smallest_levels(table, n_steps, n_runs, np.random.default_rng(0))
    rng, edges = np.random.default_rng(0), np.cumsum(table.probabilities[:, 0], axis=1)[:, :-1]
    symbols = [draw(edges[int(table.phase_at(np.array([t]))[0])], rng.uniform(size=n_runs)) for t in range(n_steps)]
    for run in range(n_runs):
        state, posteriors = model_class.start(), [model_class.start().log_posterior]
        for t in range(n_steps):
            state = model_class.advance(state, Step(int(symbols[t][run]), Chooser.DEMONSTRATOR), "demonstrated")
            posteriors.append(state.log_posterior)
        assert all(0 in top_set(p, lowest[run] * (1 - 1e-9)) for p in posteriors)
        assert lowest[run] == 1 or not all(0 in top_set(p, lowest[run] * (1 + 1e-9)) for p in posteriors)
    assert len(set(lowest.round(9))) > 3


def expected_sum(base, mu, power, n_steps, state=None):
    """E sum_t theta_t^power of the asking imitator, by its tree: it acts alone, or it asks and learns from each answer."""
    if n_steps == 0:
        return 0.0
    state = base.start() if state is None else state
    theta, at = base.predict(state).missing, state.of_class.member_states[0]
    total = theta**power
    total += (1 - theta) * expected_sum(base, mu, power, n_steps - 1, base.advance(state, Step(0, Chooser.AGENT)))
    for symbol, p in enumerate(mu.predict(at).probabilities):
        if theta * p > 0:
            after = base.advance(state, Step(symbol, Chooser.DEMONSTRATOR))
            total += theta * p * expected_sum(base, mu, power, n_steps - 1, after)
    return total


@pytest.mark.parametrize("table", [THREE, PHASES], ids=["steady", "phases"])
def test_asking_by_questions_is_asking_step_by_step(table):
    """The mean over runs of the quick simulation against the exact expectation, within four standard errors."""
    times, n_runs = np.array([1, 3, 5]), 4000
    sums = ask(table, 0.1, times, n_runs, np.random.default_rng(1))
    base = Pessimistic(as_class(table), 0.1)
    for power in (1, 2, 3):
        for column, n_steps in enumerate(times.tolist()):
            got, exact = sums[power][:, column], expected_sum(base, Row(table, 0), power, n_steps)
            assert abs(got.mean() - exact) <= 4 * got.std() / np.sqrt(n_runs) + 1e-12
    assert sums[3][:, -1].std() > 0.01


def test_asking_ends_when_nothing_is_left_to_ask():
    times = np.array([10, 10**9])
    sums = ask(coins([0.5, 0.5]), 0.1, times, 3, np.random.default_rng(0))
    assert (sums[1] == 0).all()
    known = ask(coins([1.0, 0.0]), 0.1, times, 3, np.random.default_rng(0))
    assert known[1].tolist() == [[1.0, 1.0]] * 3  # asked once, for certain; the first answer tells


def test_bounds_by_hand():
    pair, level = coins([0.5, 0.75], [0.2, 0.8]), 0.1
    assert cubed_asking_bound(pair, level) == pytest.approx(2 * log(41))
    assert cubed_asking_bound(THREE, level) == pytest.approx(4 * (log(26) + log(16)))
    assert cubed_asking_bound(PHASES, level) == pytest.approx(4 * (log(7) + log(3)))
    assert crude_order(pair, level) == pytest.approx(2 * 1000 / 0.2)


@given(st.floats(0.001, 1), st.floats(0.01, 0.99))
def test_the_bound_never_exceeds_the_one_for_countable_classes(level, prior):
    table = coins([0.5, 0.2, 0.9], [prior, (1 - prior) / 2, (1 - prior) / 2])
    assert cubed_asking_bound(table, level) <= 4 / (level * prior)
