"""Rows counted in advance: all that are long enough, and no other result than without them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.models.corpus import frequent
from mightnt.models.corpus.contexts import Contexts, sort_contexts
from mightnt.models.corpus.frequent import FrequentRows, count_frequent, frequent_slices, keys_of
from tests.models.corpus.oracle import context, dialogues, text_of


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(frequent, "FREQUENT", 3)
    monkeypatch.setattr(frequent, "LONGEST", 6)


def sorted_contexts(drawn, shards=1):
    """The same dialogues in each shard."""
    text, chosen = text_of(drawn)
    places = np.concatenate(list(sort_contexts(text.astype(np.uint16), chosen)))
    return Contexts(
        np.tile(text, shards).astype(np.uint16),
        np.concatenate([places + len(text) * shard for shard in range(shards)]),
        np.arange(shards + 1) * len(places),
    )


@settings(deadline=None)
@given(dialogues, st.integers(1, 5), st.integers(1, 2))
def test_every_long_slice_of_a_short_suffix_is_found(drawn, times, shards):
    contexts = sorted_contexts(drawn * times, shards)
    read = [context(contexts.text, place) for place in contexts.places]
    expected = set()
    for shard in range(shards):
        here = range(contexts.shards[shard], contexts.shards[shard + 1])
        for suffix in {tuple(read[i][:length]) for i in here for length in range(7)}:
            inside = [i for i in here if tuple(read[i][: len(suffix)]) == suffix]
            if len(inside) > 3:
                expected.add((inside[0], inside[-1] + 1))
    assert set(zip(*map(np.ndarray.tolist, frequent_slices(contexts)), strict=True)) == expected


def test_a_slice_just_long_enough_at_the_end_of_another_is_found():
    contexts = sorted_contexts([[(1, False), (9, True)]] * 2 + [[(2, False), (9, True)]] * 4)
    assert [bound.tolist() for bound in frequent_slices(contexts)] == [[0, 2], [6, 6]]


def test_a_suffix_that_repeats_too_long_is_left_out():
    contexts = sorted_contexts([[(1, True)] * 30])
    begins, ends = frequent_slices(contexts)
    assert sorted((ends - begins).tolist()) == [24, 25, 26, 27, 28, 29, 30]


def rows(n_chosen):
    slices = (np.array([0, 0, 4]), np.array([9, 4, 9]))
    followers = np.array([1, 1, 0, 1, 2, 2, 2, 0, 2], dtype=np.uint16)
    (sizes, tokens, counts), *rest = count_frequent(followers, *slices, 3)
    assert not rest
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return FrequentRows(keys_of(*slices, n_chosen), starts, tokens.astype(np.uint16), counts.astype(np.int32))


def test_rows_by_hand():
    order = rows(9)
    assert order.row_starts.tolist() == [0, 3, 5, 7]
    assert order.tokens.tolist() == [0, 1, 2, 0, 1, 0, 2]
    assert order.counts.tolist() == [2, 3, 4, 1, 3, 1, 4]
    owner, tokens, counts = order.entries(np.array([2, 1]))
    assert (owner.tolist(), tokens.tolist(), counts.tolist()) == ([0, 0, 1, 1], [0, 2, 0, 1], [1, 4, 1, 3])
    assert order.of(np.array([2, 1]), np.array([[0, 1, 2], [2, 1, 0]])).tolist() == [[1, 0, 4], [0, 3, 1]]


def test_only_slices_that_are_there_are_found():
    slices = FrequentRows(np.array([4, 49]), np.array([0, 1, 2]), np.array([0, 0]), np.array([4, 5]))
    begins, ends = np.array([4, 0, 0, 4, 5]), np.array([9, 4, 5, 8, 5])
    here, found = slices.find(begins, ends, 9)
    assert (here.tolist(), found.tolist()) == ([0, 1], [1, 0])
    none = FrequentRows(*(np.zeros(n, dtype=np.int64) for n in (0, 1, 0, 0)))
    assert [len(part) for part in none.find(begins, ends, 9)] == [0, 0]


def test_rows_come_some_at_a_time(monkeypatch):
    monkeypatch.setattr(frequent, "ROWS_AT_ONCE", 2)
    followers = np.array([1, 1, 0, 1], dtype=np.uint16)
    parts = list(count_frequent(followers, np.array([0, 1, 2]), np.array([4, 3, 4]), 2))
    assert [size.tolist() for size, _, _ in parts] == [[2, 2], [2]]
    assert np.concatenate([counts for _, _, counts in parts]).tolist() == [1, 3, 1, 1, 1, 1]
