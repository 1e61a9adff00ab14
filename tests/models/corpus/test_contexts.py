"""The order of contexts against sorting them as lists."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.models.corpus.contexts import BEGINNING, Contexts, Slices, as_bytes, sort_contexts, suffix_array
from tests.models.corpus.oracle import context, dialogues, text_of


@settings(deadline=None)
@given(dialogues)
def test_all_choices_come_sorted_by_what_stood_before_them(drawn):
    text, chosen = text_of(drawn)
    places = np.concatenate(list(sort_contexts(text.astype(np.uint16), chosen)))
    assert sorted(places) == np.flatnonzero(chosen).tolist()
    contexts = [context(text, place) for place in places]
    assert contexts == sorted(contexts)


@pytest.mark.parametrize(("n_symbols", "width"), [(1, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 3)])
def test_symbols_take_as_few_bytes_as_they_need_and_keep_their_order(n_symbols, width):
    symbols = np.random.default_rng(0).permutation(n_symbols) * 3 + 5
    encoded = as_bytes(symbols)
    assert encoded.shape == (n_symbols, width)
    numbers = sum(encoded[:, digit].astype(int) << 8 * (width - 1 - digit) for digit in range(width))
    assert numbers.tolist() == ((symbols - 5) // 3).tolist()


def test_three_bytes_a_symbol_sort_as_well():
    rng = np.random.default_rng(0)
    text = np.concatenate([[BEGINNING], rng.permutation(70_000) + 1, rng.integers(1, 70_001, 30_000)])
    chosen = np.ones(len(text), dtype=bool)
    chosen[0] = False
    places = np.concatenate(list(sort_contexts(text.astype(np.uint32), chosen)))
    assert np.array_equal(np.sort(places), np.arange(1, len(text)))
    newest = text[places - 1]
    assert np.all(newest[1:] >= newest[:-1])
    tied = np.flatnonzero(newest[1:] == newest[:-1])
    assert len(tied) > 10_000
    assert all(context(text[: places[i]], places[i]) <= context(text, places[i + 1]) for i in tied[:20])


@settings(deadline=None)
@given(dialogues, st.data())
def test_narrowing_keeps_exactly_those_that_agree(drawn, data):
    text, chosen = text_of(drawn)
    if not chosen.any():
        return
    places = np.concatenate(list(sort_contexts(text.astype(np.uint16), chosen)))
    contexts = Contexts(text.astype(np.uint16), places, np.array([0, len(places)]))
    slices, agreed = contexts.all(1), []
    for back in range(1, 5):
        symbol = data.draw(st.sampled_from([0, 1, 2, 3, 4, 300, 301, 302]))
        slices, agreed = contexts.narrow(slices, back, np.array([symbol])), [*agreed, symbol]
        inside = places[slices.begins[0, 0] : slices.ends[0, 0]]
        assert sorted(inside) == [p for p in np.flatnonzero(chosen) if context(text, p)[:back] == agreed]
        assert slices.totals.tolist() == [len(inside)]
        if symbol == BEGINNING or not len(inside):
            break
        assert contexts.symbols(slices.begins[0], 1).tolist() == agreed[:1]


def test_slices_are_taken_by_row():
    slices = Slices(np.array([[0, 5], [1, 6]]), np.array([[2, 5], [4, 9]]))
    assert slices.totals.tolist() == [2, 6]
    assert slices.take(np.array([False, True])).begins.tolist() == [[1, 6]]


def test_without_the_library_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydivsufsort", None)
    with pytest.raises(InputError, match=r'pip install "mightnt\[corpus\]"'):
        suffix_array(np.zeros(3, dtype=np.uint8))
