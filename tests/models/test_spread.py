"""Lists against what they stand for, written out entry by entry."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mightnt.models.spread import NOTHING, Allowed, Spread, listed, of_rows, shortlist

N = 5


@st.composite
def lists(draw, rows=3):
    """Ascending distinct codes of so many rows of five symbols."""
    return np.array(sorted(draw(st.sets(st.integers(0, rows * N - 1)))), dtype=np.int64)


@given(lists(), lists(), st.sets(st.integers(0, 3 * N - 1)))
def test_a_spread_is_its_sums(first, second, wanted):
    rng = np.random.default_rng(len(first))
    common, scale = rng.random(N) * np.array([0, 1, 1, 1, 1]), rng.random(3)
    more = rng.random(len(first)), rng.random(len(second))
    table = np.outer(scale, common)
    for codes, added in zip((first, second), more, strict=True):
        for code, number in zip(codes, added, strict=True):
            table[code // N, code % N] += number
    spread = Spread(common, scale, (first, second), more)
    np.testing.assert_allclose(np.exp(spread.written_out()), table, atol=1e-15)
    wanted = np.array(sorted(wanted), dtype=np.int64)
    np.testing.assert_allclose(np.exp(spread.at(wanted)), table.reshape(-1)[wanted], atol=1e-15)


@st.composite
def sources(draw):
    sets = np.array(
        [[False, True, True, True, True], draw(st.lists(st.booleans(), min_size=N, max_size=N)), [False] * N]
    )
    return Allowed(sets, np.array(draw(st.lists(st.integers(0, 2), min_size=3, max_size=3))), draw(lists()))


def obvious(source):
    table = np.array([source.sets[which] for which in source.which])
    for code in source.codes:
        table[code // N, code % N] = True
    return table


@given(sources(), sources())
def test_support_of_two_sources_is_what_both_allow(one, other):
    every, both = np.arange(3 * N), obvious(one) & obvious(other)
    for source in (one, other):
        np.testing.assert_array_equal(source.written_out(), obvious(source))
        np.testing.assert_array_equal(source.at(every), obvious(source).reshape(-1))
    closed, codes = shortlist([one, other])
    np.testing.assert_array_equal(closed, (one.which == NOTHING) | (other.which == NOTHING))
    np.testing.assert_array_equal(codes, np.flatnonzero(both & closed[:, None]))
    np.testing.assert_array_equal(shortlist([one])[1], np.flatnonzero(obvious(one) & (one.which == NOTHING)[:, None]))


@given(lists(), lists(), st.lists(st.integers(0, 2), max_size=4))
def test_entries_are_found_again(codes, wanted, rows):
    found, entries = listed(codes, wanted)
    np.testing.assert_array_equal(wanted[found], codes[entries])
    assert set(wanted[found]) == set(codes) & set(wanted)
    inside, moved = of_rows(codes, np.array(rows, dtype=np.int64), N)
    expected = [(code, place * N + code % N) for place, row in enumerate(rows) for code in codes if code // N == row]
    assert list(zip(codes[inside], moved, strict=True)) == expected
