"""Events against their definition on whole sequences, and their code against the inequality of Kraft."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.models.switching.events import (
    Alphabets,
    Event,
    Kind,
    Watch,
    Whose,
    events_up_to,
    gamma,
    gamma_bits,
    n_events_by_bits,
    run_lengths,
)
from tests.models.switching.oracle import happened, is_prefix_free

alphabets = st.builds(Alphabets, st.integers(2, 3), st.integers(1, 3))


def test_the_gamma_code_by_hand():
    assert [gamma(n) for n in (1, 2, 3, 4, 9)] == ["1", "010", "011", "00100", "0001001"]
    assert all(gamma_bits(n) == len(gamma(n)) for n in range(1, 70))
    with pytest.raises(InputError, match="begins at 1"):
        gamma(0)


def test_codes_by_hand():
    two = Alphabets(2, 2)
    assert Event(Kind.TIME, number=0).code(two) == "001"
    assert Event(Kind.RUN, Whose.OBSERVATIONS, 2).code(two) == "0111"
    assert Event(Kind.SEEN, Whose.ACTIONS, word=(1,)).code(two) == "10011"
    assert Event(Kind.LAST, Whose.OBSERVATIONS, word=(0, 1)).code(Alphabets(2, 3)) == "1110100001"


@given(alphabets, st.integers(0, 12))
def test_every_event_is_listed_once_the_shortest_first_and_no_code_begins_another(alphabets, max_bits):
    events = events_up_to(alphabets, max_bits)
    codes = [event.code(alphabets) for event in events]
    lengths = [len(code) for code in codes]
    assert len(set(codes)) == len(codes)
    assert is_prefix_free(codes)
    assert lengths == sorted(lengths)
    assert {b: lengths.count(b) for b in set(lengths)} == n_events_by_bits(alphabets, max_bits)


@given(alphabets, st.integers(20, 80))
def test_kraft(alphabets, max_bits):
    assert sum(n * 2.0**-bits for bits, n in n_events_by_bits(alphabets, max_bits).items()) <= 1


def test_with_powers_of_two_hardly_anything_of_the_code_is_wasted():
    """All code words are used in the limit, so the Kraft sum comes near one: the code is no longer than it need be."""
    assert sum(n * 2.0**-bits for bits, n in n_events_by_bits(Alphabets(2, 4), 200).items()) > 0.85


@given(
    alphabets, st.integers(5, 11), st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(1, 9), max_size=20)
)
def test_watching_in_pieces_is_the_definition(alphabets, max_bits, symbols, pieces):
    for whose in Whose:
        size = alphabets.size(whose)
        told = [symbol % size for symbol in symbols]
        events = tuple(event for event in events_up_to(alphabets, max_bits) if event.whose is whose)
        watch = Watch(size, events)
        track, at = watch.start(), 0
        while at < len(told):
            piece = told[at : at + (pieces.pop() if pieces else 50)]
            rows, track = watch.advance(track, np.array(piece, dtype=np.int64))
            for i, row in enumerate(rows):
                so_far = told[: at + i]
                both = (so_far, []) if whose is Whose.ACTIONS else ([], so_far)
                assert row.tolist() == [happened(event, *both) for event in events]
            at += len(piece)
        assert track.length == len(told)


def test_what_has_occurred_stays_and_the_last_symbols_come_and_go():
    seen, last = Event(Kind.SEEN, word=(1,)), Event(Kind.LAST, word=(1,))
    rows, _ = Watch(2, (seen, last)).advance(Watch(2, (seen, last)).start(), np.array([0, 1, 0, 1]))
    assert rows.T.tolist() == [[False, False, True, True, True], [False, False, True, False, True]]
    assert [seen.is_for_ever, last.is_for_ever] == [True, False]


def test_runs_go_on_from_what_came_before():
    assert run_lengths(np.array([1, 1, 0, 0, 0, 1]), None, 0).tolist() == [1, 2, 1, 2, 3, 1]
    assert run_lengths(np.array([1, 1, 0]), 1, 3).tolist() == [4, 5, 1]
    assert run_lengths(np.array([1, 1]), 1, 3).tolist() == [4, 5]
    assert run_lengths(np.array([0, 1]), 1, 3).tolist() == [1, 1]


def test_words():
    assert str(Event(Kind.SEEN, Whose.OBSERVATIONS, word=(1,))) == "observation 1 has occurred"
    assert str(Event(Kind.LAST, word=(1, 0))) == "the last actions are 1 0"
    assert str(Event(Kind.TIME, number=3)) == "time >= 2^3"
    assert str(Event(Kind.RUN, number=4)) == "4 equal actions in a row have occurred"


def test_alphabets_that_leave_nothing_to_choose_are_refused():
    with pytest.raises(InputError, match="at least two actions"):
        Alphabets(1, 2)
