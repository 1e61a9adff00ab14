"""Searching and counting in slices against one slice at a time, the plain way."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.models.corpus import slices
from mightnt.models.corpus.slices import CountRows, counted, look_up, lower_bounds, rows_of, spread

N_SYMBOLS = 5
arrays = st.lists(st.integers(0, N_SYMBOLS - 1), min_size=1, max_size=40).map(np.array)
pairs = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8)


def bounds(array, drawn):
    """Slices within the array, some of them empty, from any pairs of numbers."""
    ordered = np.array([sorted(pair) for pair in drawn], dtype=np.int64).reshape(-1, 2)
    return np.minimum(ordered, len(array)).T


@given(arrays, pairs, st.integers(-1, N_SYMBOLS))
def test_the_lower_bound_is_that_of_each_slice_alone(array, drawn, symbol):
    array = np.sort(array)
    begins, ends = bounds(array, drawn)
    found = lower_bounds(lambda at: array[at], begins, ends, np.full(len(begins), symbol))
    assert found.tolist() == [b + np.searchsorted(array[b:e], symbol) for b, e in zip(begins, ends, strict=True)]


@given(arrays, pairs)
def test_spread_lists_every_place(array, drawn):
    begins, ends = bounds(array, drawn)
    places = [place for b, e in zip(begins, ends, strict=True) for place in range(b, e)]
    assert spread(begins, ends - begins).tolist() == places


@given(arrays, pairs, st.lists(st.integers(0, 2), min_size=8, max_size=8), st.integers(1, 9))
def test_rows_are_the_counts_of_their_slices(array, drawn, steps, block):
    """Several slices a row, rows without any, and slices longer than what is counted at once."""
    begins, ends = bounds(array, drawn)
    rows = np.cumsum(steps)[: len(begins)]
    n_rows = int(rows.max(initial=0)) + 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "BLOCK", block)
        pieces = list(counted(array.astype(np.uint16), begins, ends, rows, N_SYMBOLS))
    found = rows_of(pieces, n_rows, N_SYMBOLS)
    expected = [Counter() for _ in range(n_rows)]
    for row, begin, end in zip(rows, begins, ends, strict=True):
        expected[row].update(array[begin:end].tolist())
    for row in range(n_rows):
        here = slice(found.row_starts[row], found.row_starts[row + 1])
        assert found.tokens[here].tolist() == sorted(expected[row])
        assert found.counts[here].tolist() == [expected[row][token] for token in sorted(expected[row])]
    assert found.totals.tolist() == [counts.total() for counts in expected]
    wanted = np.tile(np.arange(N_SYMBOLS), (n_rows, 1))
    assert found.of(wanted, N_SYMBOLS).tolist() == [[counts[x] for x in range(N_SYMBOLS)] for counts in expected]


@pytest.mark.parametrize("n_symbols", [3, 100_000])
def test_few_and_many_symbols_are_counted_alike(n_symbols):
    tokens = np.array([0, 2, 2, 1, 2])
    keys, counts = next(counted(tokens, np.array([0, 3]), np.array([3, 5]), np.array([4, 6]), n_symbols))
    assert (keys - np.array([4, 4, 6, 6]) * n_symbols).tolist() == [0, 2, 1, 2]
    assert counts.tolist() == [1, 2, 1, 1]


def test_nothing_is_counted_in_nothing():
    none = np.zeros(0, dtype=np.int64)
    assert list(counted(none, none, none, none, 3)) == []
    rows = rows_of([], 2, 3)
    assert (rows.row_starts.tolist(), rows.totals.tolist(), rows.owner.tolist()) == ([0, 0, 0], [0, 0], [])
    assert look_up(none, none, np.array([[1, 2]])).tolist() == [[0, 0]]


def test_by_hand():
    rows = CountRows(np.array([0, 2, 2, 3]), np.array([1, 4, 0]), np.array([3, 5, 7]))
    assert rows.owner.tolist() == [0, 0, 2]
    assert rows.totals.tolist() == [8, 0, 7]
    assert rows.of(np.array([[4, 0], [4, 0], [4, 0]]), 5).tolist() == [[5, 0], [0, 0], [0, 7]]
