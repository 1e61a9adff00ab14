"""The corpus on disk against the tables in memory, number by number, and against scanning every choice."""

import os
import tempfile
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.models.corpus import build, frequent
from mightnt.models.corpus.build import build_corpus
from mightnt.models.corpus.model import open_corpus
from mightnt.models.counts import BEFORE_START, Support, fit_counts, suffixes_of
from tests.models.corpus.oracle import corpora, flat

N_SYMBOLS = 5
IS_ACTION = np.array([False, True, True, True, True])
tokens_of = st.integers(BEFORE_START, N_SYMBOLS - 1)


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Neither git nor the disk is waited for, and rows counted in advance are used in small corpora, too."""
    monkeypatch.setattr(frequent, "FREQUENT", 2)
    monkeypatch.setattr(build, "provenance", lambda *_: {})
    monkeypatch.setattr(os, "fsync", lambda _: None)


def opened(demonstrations, longest, strength=2.0, shard_tokens=9, frequent_above=4, is_action=IS_ACTION):
    """The corpus of these demonstrations, open; its folder is gone, but what is mapped stays."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(frequent, "FREQUENT", frequent_above)
        build_corpus(*demonstrations, is_action, Path(folder), shard_tokens=shard_tokens)
        return open_corpus(Path(folder), longest, strength, check=True)


def scanned(demonstrations, suffix, length):
    """What was chosen after the last ``length`` tokens of ``suffix``, by looking at every choice."""
    tokens, starts, chosen = demonstrations
    found = Counter()
    for place in np.flatnonzero(chosen):
        begin = starts[np.searchsorted(starts, place, side="right") - 1]
        before = [BEFORE_START] * length + tokens[begin:place].tolist()
        if before[len(before) - length :] == list(suffix[len(suffix) - length :]):
            found[int(tokens[place])] += 1
    return found


@settings(max_examples=60, deadline=None)
@given(corpora(N_SYMBOLS), st.data())
def test_it_answers_as_the_tables_in_memory_do(corpus, data):
    """Equal bit by bit: predictions and support, dense and sparse, with any shards and any rows counted in advance."""
    demonstrations = flat(corpus)
    if not demonstrations[2].any():
        return
    longest = data.draw(st.integers(0, 5))
    strength, rule = (
        data.draw(st.sampled_from([0.3, 2.0])),
        Support(data.draw(st.integers(0, 9)), data.draw(st.integers(0, 3))),
    )
    ours = opened(demonstrations, longest, strength, data.draw(st.integers(1, 60)), data.draw(st.integers(1, 9)))
    tables = fit_counts(*demonstrations, IS_ACTION, longest, strength)
    strange = data.draw(st.lists(st.lists(tokens_of, min_size=longest, max_size=longest), max_size=5))
    queries = np.vstack(
        [suffixes_of(*demonstrations[:2], longest), np.array(strange, dtype=int).reshape(len(strange), longest)]
    )
    some = np.array(data.draw(st.lists(st.integers(0, 4), min_size=2, max_size=2)))[None].repeat(len(queries), axis=0)
    expected, allowed = tables.predict(queries), tables.supported(queries, rule)
    np.testing.assert_allclose(ours.predict(queries), expected, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(
        ours.predict_at(queries, some), np.take_along_axis(expected, some, axis=1), rtol=1e-14, atol=1e-14
    )
    np.testing.assert_array_equal(ours.supported(queries, rule), allowed)
    np.testing.assert_array_equal(ours.supported_at(queries, some, rule), np.take_along_axis(allowed, some, axis=1))
    assert (ours.n_symbols, ours.longest, ours.strength) == (tables.n_symbols, tables.longest, tables.strength)


@settings(max_examples=25, deadline=None)
@given(corpora(N_SYMBOLS), st.lists(tokens_of, min_size=14, max_size=14), st.integers(1, 5), st.integers(1, 30))
def test_the_longest_ample_suffix_is_found_however_long(corpus, strange, ample, shard_tokens):
    demonstrations = flat(corpus)
    if not demonstrations[2].any():
        return
    ours = opened(demonstrations, None, shard_tokens=shard_tokens)
    queries = np.vstack([suffixes_of(*demonstrations[:2], 14)[::3], strange])
    matches, rows = ours.matches(queries, ample), ours.next_counts(queries, ample)
    for i, suffix in enumerate(queries):
        lengths = [k for k in range(15) if scanned(demonstrations, suffix, k).total() >= ample]
        assert matches.lengths[i] == max(lengths, default=-1)
        counts = scanned(demonstrations, suffix, lengths[-1]) if lengths else Counter()
        here = slice(rows.row_starts[i], rows.row_starts[i + 1])
        assert dict(zip(rows.tokens[here].tolist(), rows.counts[here].tolist(), strict=True)) == counts
        assert matches.slices.totals[i] == rows.totals[i] == counts.total()


@settings(max_examples=15, deadline=None)
@given(corpora(N_SYMBOLS), st.integers(1, 30))
def test_every_length_can_be_asked_for(corpus, shard_tokens):
    demonstrations = flat(corpus)
    if not demonstrations[2].any():
        return
    ours, queries = opened(demonstrations, 4, shard_tokens=shard_tokens), suffixes_of(*demonstrations[:2], 4)
    wanted = np.tile(np.arange(N_SYMBOLS), (len(queries), 1))
    for length, (rows, slices) in enumerate(ours.by_length(queries)):
        counts = ours.counts_of(slices, wanted[rows])
        for row, found in zip(rows, counts, strict=True):
            expected = scanned(demonstrations, queries[row], length)
            assert found.tolist() == [expected[x] for x in range(N_SYMBOLS)]
        missing = np.setdiff1d(np.arange(len(queries)), rows)
        assert not any(scanned(demonstrations, queries[row], length) for row in missing)


DEMONSTRATIONS = np.array([1, 2, 3, 1, 2, 4, 3]), np.array([0, 3, 7]), np.array([0, 1, 1, 0, 1, 1, 1], dtype=bool)


def test_by_hand():
    ours = opened(DEMONSTRATIONS, 2)
    rows = ours.next_counts(np.array([[1, 2], [2, 2], [BEFORE_START, BEFORE_START], [4, 4]]))
    assert rows.row_starts.tolist() == [0, 2, 4, 7, 8]
    assert rows.tokens.tolist() == [3, 4, 3, 4, 2, 3, 4, 3]
    assert rows.counts.tolist() == [1, 1, 1, 1, 2, 2, 1, 1]
    assert ours.matches(np.array([[1, 2], [2, 2], [BEFORE_START, BEFORE_START], [4, 4]])).lengths.tolist() == [
        2,
        1,
        0,
        1,
    ]
    once = np.exp(ours.predict_at(np.array([[BEFORE_START, 1]]), np.array([[2, 3]])))
    first = (np.array([2, 2]) + 2 * 0.25) / (5 + 2)
    second = (np.array([2, 0]) + 2 * first) / (2 + 2)
    np.testing.assert_allclose(once[0], (np.array([2, 0]) + 2 * second) / (2 + 2), rtol=1e-14, atol=1e-14)


def test_suffixes_do_not_reach_across_dialogues():
    ours = opened(DEMONSTRATIONS, None)
    across = np.array([[2, 3, 1], [3, 1, 2], [BEFORE_START, BEFORE_START, 1]])
    assert ours.matches(across).lengths.tolist() == [1, 2, 3]


def test_a_beginning_is_followed_by_nothing_but_beginnings():
    ours = opened(DEMONSTRATIONS, None)
    assert ours.matches(np.array([[3, BEFORE_START, 1], [BEFORE_START, 3, BEFORE_START]])).lengths.tolist() == [2, 0]


def test_wider_rows_than_the_longest_suffix_are_cut():
    ours = opened(DEMONSTRATIONS, 1)
    np.testing.assert_array_equal(ours.predict(np.array([[4, 4, 2]])), ours.predict(np.array([[2]])))


def test_no_questions_no_answers():
    ours = opened(DEMONSTRATIONS, 2)
    none = np.zeros((0, 2), dtype=int)
    assert ours.predict(none).shape == (0, N_SYMBOLS)
    assert ours.supported(none, Support()).shape == (0, N_SYMBOLS)
    assert ours.predict_at(none, none).shape == (0, 2)
    assert ours.supported_at(none, none, Support()).shape == (0, 2)
    assert ours.next_counts(none).row_starts.tolist() == [0]
    assert ours.matches(none).lengths.tolist() == []


def test_no_row_of_all_symbols_is_made_for_a_few_tokens():
    """A vocabulary that would not fit: 4096 rows of it would take 5 GB."""
    n_symbols = 152_000
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, n_symbols, 20_000)
    demonstrations = tokens, np.array([0, 20_000]), np.ones(20_000, dtype=bool)
    ours = opened(demonstrations, 4, 2.0, 10**6, 256, np.ones(n_symbols, dtype=bool))
    queries = suffixes_of(*demonstrations[:2], 4)[:4096]
    tracemalloc.start()
    ours.predict_at(queries, tokens[:4096, None])
    ours.supported_at(queries, tokens[:4096, None], Support())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6, f"{peak / 1e6:.0f} MB"


@pytest.mark.parametrize(
    ("suffixes", "match"),
    [
        (np.array([[1, 5]]), "tokens 1 to 5 are not all within -1 and 4"),
        (np.array([[-2, 1]]), "are not all within -1 and 4"),
        (np.array([[1]]), "suffixes of 1 tokens are shorter"),
        (np.array([1, 2]), "are not rows of tokens"),
        (np.array([[1.0, 2.0]]), "are not rows of tokens"),
    ],
)
def test_suffixes_that_are_none_are_refused(suffixes, match):
    with pytest.raises(InputError, match=match):
        opened(DEMONSTRATIONS, 2).predict(suffixes)


@pytest.mark.parametrize("tokens", [np.array([[5]]), np.array([[BEFORE_START]]), np.array([1])])
def test_tokens_that_are_none_are_refused(tokens):
    ours = opened(DEMONSTRATIONS, 2)
    with pytest.raises(InputError):
        ours.predict_at(np.array([[1, 2]]), tokens)
    with pytest.raises(InputError):
        ours.supported_at(np.array([[1, 2]]), tokens, Support())


def test_settings_that_mean_nothing_are_refused(tmp_path):
    with pytest.raises(InputError, match="strength"):
        open_corpus(tmp_path, strength=0.0)
    with pytest.raises(InputError, match="below 0"):
        open_corpus(tmp_path, longest=-1)


def test_a_rule_about_new_tokens_is_refused():
    model = opened((np.array([1, 2]), np.array([0, 2]), np.array([True, True])), 2)
    suffix = np.array([[BEFORE_START, 1]])
    for ask in (
        lambda rule: model.supported(suffix, rule),
        lambda rule: model.supported_at(suffix, suffix[:, 1:], rule),
    ):
        with pytest.raises(InputError, match="missing"):
            ask(Support(1, 1, 0.5))


def test_opening_loads_nothing_but_the_small_arrays(tmp_path):
    build_corpus(*DEMONSTRATIONS, IS_ACTION, tmp_path)
    ours = open_corpus(tmp_path)
    assert all(
        isinstance(array.base, np.memmap) for array in (ours.contexts.text, ours.contexts.places, ours.followers)
    )
