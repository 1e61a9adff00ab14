"""P2 computed: first occurrences against a search through the sequence, and the chapter's rows and pictures."""

import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.experiments.theory.simplest_event import (
    THEOREM,
    SimplestEvent,
    all_words_seen_at,
    alternating,
    champernowne,
    clock_bits,
    coin,
    compute,
    longest_runs_at,
    next_double_power_bits,
    next_power_bits,
    next_tower_bits,
    simplest,
    simplest_by_family,
    squares,
)
from mightnt.experiments.theory.theorem import Computed
from mightnt.files import plain
from mightnt.models.switching.events import Alphabets, Kind, Whose, events_up_to
from tests.models.switching.oracle import happened

SMALL = SimplestEvent(n_steps=2000, n_coins=2, n_points=25)
EVENTS = [e for e in events_up_to(Alphabets(2, 2), 13) if e.kind is Kind.TIME or e.whose is Whose.OBSERVATIONS]
FAMILY = {Kind.TIME: "time", Kind.RUN: "run", Kind.SEEN: "word", Kind.LAST: "last"}
sequences = st.lists(st.integers(0, 1), min_size=1, max_size=30).map(lambda s: np.array(s, dtype=np.uint8))


@functools.cache
def computed(seed):
    return compute(SMALL, seed, lambda done, of: None)


@given(sequences)
@settings(max_examples=40, deadline=None)
def test_the_simplest_event_of_every_family_by_asking_all_events_of_the_language(symbols):
    times = np.arange(1, len(symbols) + 1)
    found = simplest_by_family(symbols, times)
    for t in times[:: max(1, len(times) // 5)]:
        so_far = symbols[:t].tolist()
        for family in ("time", "run", "word"):
            new = [
                len(e.code(Alphabets(2, 2)))
                for e in EVENTS
                if FAMILY[e.kind] == family and not happened(e, [0] * int(t), so_far)
            ]
            assert found[family][t - 1] == min(new)
    every = [len(e.code(Alphabets(2, 2))) for e in EVENTS if e.is_for_ever and not happened(e, so_far, so_far)]
    assert simplest(found)[t - 1] == min(every)


@given(sequences)
def test_when_all_words_were_seen(symbols):
    expected = []
    for length in range(1, 7):
        ends = {}
        for end in range(length, len(symbols) + 1):
            ends.setdefault(tuple(symbols[end - length : end]), end)
        if len(ends) < 2**length:
            break
        expected.append(max(ends.values()))
    assert all_words_seen_at(symbols) == expected


def test_runs_by_hand():
    assert longest_runs_at(np.array([0, 1, 1, 0, 0, 0, 0, 1], dtype=np.uint8)).tolist() == [1, 3, 6, 7]
    assert longest_runs_at(np.array([1], dtype=np.uint8)).tolist() == [1]


def test_the_worlds():
    assert "".join(map(str, champernowne(19))) == "1101110010111011110"
    assert len(champernowne(100_003)) == 100_003
    assert np.flatnonzero(squares(30)).tolist() == [0, 3, 8, 15, 24]
    assert alternating(5).tolist() == [0, 1, 0, 1, 0]
    assert coin(1000, np.random.default_rng(0)).mean() == pytest.approx(0.5, abs=0.06)


def test_the_next_tick_of_each_clock_by_hand():
    x = np.array([0.0, 1.0, 2.5])  # t = 2, 4, 50.2...
    assert next_power_bits(x).tolist() == [5, 7, 7]  # 2^2, 2^3, 2^6: gamma of 3, 4, 7
    assert next_double_power_bits(x).tolist() == [7, 7, 9]  # 2^2^1, 2^2^2, 2^2^3: gamma of 2, 3, 4
    assert next_tower_bits(x).tolist() == [7, 9, 9]  # 2^2 (the second), 2^2^2, 2^2^2^2: gamma of 3, 4, 5


def test_a_made_clock_ticks_where_its_definition_says():
    growth = np.linspace(0, 40, 400)
    costs = [4 + 2 * (j + 1).bit_length() - 1 for j in range(5000)]
    expected = [next(costs[j] for j in range(4999) if g <= 2 * costs[j + 1]) for g in growth]
    assert clock_bits(growth).tolist() == expected


def test_the_quick_profile_computes_and_every_claim_comes_out():
    result = THEOREM.compute(THEOREM.profiles["quick"], 0, lambda done, of: None)
    assert {type(row.holds) for row in result.rows} == {bool, type(None)}
    assert [row.claim for row in result.rows if row.holds is False] == []
    assert sum(row.holds is True for row in result.rows) >= 7
    assert len({row.claim for row in result.rows}) == len(result.rows)
    assert all(panel.svg.startswith("<svg") for panel in THEOREM.draw(result.curves))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_and_a_record_draws_the_same():
    again = compute(SMALL, 0, lambda done, of: None)
    assert again == computed(0)
    read = Computed.from_json(json.loads(json.dumps(plain(again.as_json()))))
    assert THEOREM.draw(read.curves)[0].svg == THEOREM.draw(computed(0).curves)[0].svg
    assert computed(1) != computed(0)


@pytest.mark.parametrize("times", [[0, 3], [3, 6]])
def test_times_outside_the_sequence_are_refused(times):
    with pytest.raises(InputError, match="1 to 5 are in the sequence"):
        simplest_by_family(alternating(5), np.array(times))
