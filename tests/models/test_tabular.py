"""Tables: the last observation decides; the least that plausible tables allow, against brute force and exact coverage."""

import itertools
from math import comb, exp, inf, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.history import Chooser, Step, demonstrated
from mightnt.models.tabular import (
    ByObservation,
    PessimisticTable,
    demonstrated_pairs,
    log_least_probabilities,
)
from mightnt.prediction import check_model, follow

histories = st.lists(
    st.builds(Step, st.integers(0, 2), st.sampled_from(list(Chooser))),
    max_size=30,
)


def seen(observation):
    return Step(observation, Chooser.WORLD)


def shown(action):
    return Step(action, Chooser.DEMONSTRATOR)


def lost_nats(counts, probabilities):
    """How much less likely the counts are than under their own shares."""
    share = counts / counts.sum()
    return sum(n * (log(s) - log(p)) for n, s, p in zip(counts, share, probabilities, strict=True) if n > 0)


@pytest.mark.parametrize("counts", [[3, 2, 1], [7, 0, 2], [4, 0, 0], [1, 1, 1]])
@pytest.mark.parametrize("slack", [0.3, 2.0, 4.6])
def test_the_least_is_that_of_all_plausible_distributions(counts, slack):
    """Brute force over a fine grid of the simplex: nothing plausible lies lower, and something plausible comes near."""
    counts, fine = np.array(counts, float), 240
    least = np.exp(log_least_probabilities(counts, slack))
    grid = [np.array([i, j, fine - i - j]) / fine for i in range(fine + 1) for j in range(fine + 1 - i)]
    possible = [p for p in grid if all(p[counts > 0] > 0)]
    plausible = np.array([p for p in possible if lost_nats(counts, p) <= slack])
    assert (plausible.min(axis=0) >= least - 1e-12).all()
    assert (plausible.min(axis=0) <= least + 3 / fine).all()


@settings(max_examples=200)
@given(st.lists(st.integers(0, 60), min_size=2, max_size=5), st.floats(0.01, 30))
def test_the_least_loses_just_the_slack_rounded_down(counts, slack):
    counts = np.array(counts, float)
    least = np.exp(log_least_probabilities(counts, slack))
    assert least.sum() <= 1 + 1e-12
    assert (least[counts == 0] == 0).all()
    for i in np.flatnonzero(counts):
        rest = np.array([counts[i], counts.sum() - counts[i]])
        assert lost_nats(rest, [least[i], 1 - least[i]]) == pytest.approx(slack, rel=1e-6, abs=1e-9)
        assert least[i] <= counts[i] / counts.sum()


def test_one_action_alone_has_a_closed_form():
    np.testing.assert_allclose(np.exp(log_least_probabilities(np.array([5.0, 0.0]), log(100))), [0.01 ** (1 / 5), 0])


def test_the_ends_of_the_slack():
    counts = np.array([3.0, 1.0, 0.0])
    np.testing.assert_allclose(np.exp(log_least_probabilities(counts, 0.0)), [0.75, 0.25, 0.0])
    assert (log_least_probabilities(counts, inf) == -inf).all()
    assert (log_least_probabilities(np.zeros(2), 1.0) == -inf).all()


@pytest.mark.parametrize("truth", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("n", [1, 5, 40])
def test_it_lies_above_the_truth_at_most_as_often_as_promised(truth, n):
    """Exact: the sum of the binomial probabilities of all counts from which the bound lies too high."""
    ratio = 0.05
    too_high = sum(
        comb(n, k) * truth**k * (1 - truth) ** (n - k)
        for k in range(n + 1)
        if exp(log_least_probabilities(np.array([k, n - k], float), log(1 / ratio))[0]) > truth
    )
    assert too_high <= ratio


def test_the_promise_is_not_kept_by_the_shares_themselves():
    """Without the slack the bound lies too high almost half of the time: the slack is needed."""
    n, truth = 40, 0.5
    too_high = sum(comb(n, k) * truth**n for k in range(n + 1) if k / n > truth)
    assert too_high > 0.4


@settings(max_examples=60)
@given(histories)
def test_both_tables_keep_the_contract(history):
    check_model(ByObservation.of(np.full((3, 3), 0.3)), [history])
    check_model(PessimisticTable(3, 3, 0.1), [history])


@settings(max_examples=100)
@given(histories)
def test_the_table_counts_the_demonstrated_pairs_and_nothing_else(history):
    table = PessimisticTable(3, 3, 0.1)
    state = follow(table, history)
    expected = np.zeros((3, 3))
    np.add.at(expected, demonstrated_pairs(history), 1)
    np.testing.assert_array_equal(state.counts, expected)
    for observation in range(3):
        ahead = table.predict(table.advance(state, seen(observation)))
        np.testing.assert_array_equal(ahead.log_probabilities, log_least_probabilities(expected[observation], log(10)))


def test_it_asks_where_nothing_was_shown_and_less_with_every_demonstration():
    table = PessimisticTable(2, 2, 0.01)
    state = table.start()
    assert table.predict(state).missing == 1
    missing = []
    for _ in range(20):
        state = table.advance(table.advance(state, seen(0)), shown(1))
        missing.append(table.predict(state).missing)
    assert all(later < earlier for earlier, later in itertools.pairwise(missing))
    assert missing[-1] == pytest.approx(1 - 0.01 ** (1 / 20))
    assert table.predict(table.advance(state, seen(1))).missing == 1


def test_the_agent_s_own_steps_are_no_evidence():
    table = PessimisticTable(1, 2, 0.01)
    state = follow(table, [seen(0), Step(1, Chooser.AGENT), seen(0)])
    assert table.predict(state).missing == 1


def test_a_known_table_says_its_row():
    table = ByObservation.of([[0.2, 0.8], [0.5, 0.0]])
    np.testing.assert_allclose(table.predict(follow(table, [seen(0), shown(1)])).probabilities, [0.2, 0.8])
    np.testing.assert_allclose(table.predict(follow(table, [seen(0), seen(1)])).probabilities, [0.5, 0.0])
    assert table.predict(table.start()).missing == 1


def test_pairs():
    history = (shown(2), seen(0), shown(1), Step(2, Chooser.AGENT), seen(2), shown(0))
    assert [pair.tolist() for pair in demonstrated_pairs(history)] == [[0, 2], [1, 0]]
    assert [len(pair) for pair in demonstrated_pairs(demonstrated([1]))] == [0, 0]


def test_refusals():
    for ratio in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="ratio"):
            PessimisticTable(2, 2, ratio)
    with pytest.raises(InputError, match="least"):
        PessimisticTable(0, 2, 0.1)
    with pytest.raises(InputError, match="one size"):
        ByObservation(())
    for table in (PessimisticTable(2, 2, 0.1), ByObservation.of(np.eye(2))):
        with pytest.raises(InputError, match="observation 2"):
            table.advance(table.start(), seen(2))
        with pytest.raises(InputError, match="observation -1"):
            table.advance(table.start(), seen(-1))
    with pytest.raises(InputError, match="action 5"):
        follow(PessimisticTable(2, 2, 0.1), [seen(0), shown(5)])
