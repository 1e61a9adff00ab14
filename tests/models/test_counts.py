"""The count model against a dictionary written the obvious way."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.models.counts import BEFORE_START, Support, fit_counts, suffixes_of

N_SYMBOLS, LONGEST, STRENGTH = 5, 3, 2.0
IS_ACTION = np.array([False, True, True, True, True])

corpora = st.lists(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=12), min_size=1, max_size=6
)


def flat(corpus):
    tokens = np.array([token for dialogue in corpus for token, _ in dialogue])
    chosen = np.array([own and token > 0 for dialogue in corpus for token, own in dialogue])
    starts = np.cumsum([0] + [len(dialogue) for dialogue in corpus])
    return tokens, starts, chosen


def obvious_counts(corpus):
    tables = defaultdict(Counter)
    for dialogue in corpus:
        padded = [BEFORE_START] * LONGEST + [token for token, _ in dialogue]
        for i, (token, own) in enumerate(dialogue):
            if own and token > 0:
                for length in range(LONGEST + 1):
                    tables[tuple(padded[i + LONGEST - length : i + LONGEST])][token] += 1
    return tables


def obvious_prediction(tables, suffix):
    p = IS_ACTION / IS_ACTION.sum()
    for length in range(LONGEST + 1):
        counts = tables.get(tuple(suffix[LONGEST - length :]), Counter())
        total = sum(counts.values())
        p = np.array([(counts[x] + STRENGTH * p[x]) / (total + STRENGTH) for x in range(N_SYMBOLS)])
    return p


@settings(max_examples=80, deadline=None)
@given(corpora, st.lists(st.integers(-1, 4), min_size=LONGEST, max_size=LONGEST))
def test_prediction_is_the_back_off_formula(corpus, query):
    tokens, starts, chosen = flat(corpus)
    if not chosen.any():
        with pytest.raises(InputError, match="no action"):
            fit_counts(tokens, starts, chosen, IS_ACTION, LONGEST, STRENGTH)
        return
    model = fit_counts(tokens, starts, chosen, IS_ACTION, LONGEST, STRENGTH)
    tables = obvious_counts(corpus)
    queries = np.vstack([query, suffixes_of(tokens, starts, LONGEST)])
    expected = np.array([obvious_prediction(tables, row) for row in queries])
    np.testing.assert_allclose(np.exp(model.predict(queries)), expected, atol=1e-12)
    np.testing.assert_allclose(np.exp(model.predict(queries)).sum(axis=1), 1.0, atol=1e-12)


@settings(max_examples=80, deadline=None)
@given(corpora, st.integers(1, 4), st.integers(1, 3))
def test_support_is_decided_by_the_longest_ample_suffix(corpus, ample, seen):
    tokens, starts, chosen = flat(corpus)
    if not chosen.any():
        return
    model = fit_counts(tokens, starts, chosen, IS_ACTION, LONGEST, STRENGTH)
    tables = obvious_counts(corpus)
    queries = suffixes_of(tokens, starts, LONGEST)
    supported = model.supported(queries, Support(ample, seen))
    for row, suffix in zip(supported, queries, strict=True):
        deciding = None
        for length in range(LONGEST + 1):
            counts = tables.get(tuple(suffix[LONGEST - length :]))
            if counts and sum(counts.values()) >= ample:
                deciding = counts
        expected = IS_ACTION if deciding is None else [deciding[x] >= seen for x in range(N_SYMBOLS)]
        assert row.tolist() == list(expected)


def test_only_the_demonstrator_s_choices_are_counted():
    tokens, starts = np.array([1, 2, 1, 3]), np.array([0, 4])
    model = fit_counts(tokens, starts, np.array([False, True, False, False]), IS_ACTION, 1, STRENGTH)
    after_one = np.exp(model.predict(np.array([[1]])))[0]
    assert after_one[2] > after_one[3] == after_one[4]


def test_more_demonstrations_sharpen():
    def model(n):
        tokens = np.tile([1, 2], n)
        return fit_counts(tokens, np.arange(0, 2 * n + 1, 2), np.tile([False, True], n), IS_ACTION, 1, STRENGTH)

    chances = [np.exp(model(n).predict(np.array([[1]])))[0, 3] for n in (1, 10, 100)]
    assert chances[0] > chances[1] > chances[2] > 0


def test_suffixes_do_not_reach_across_dialogues():
    rows = suffixes_of(np.array([1, 2, 3, 4]), np.array([0, 2, 4]), 2)
    assert rows.tolist() == [[-1, -1], [-1, 1], [-1, -1], [-1, 3]]


def test_refusals():
    tokens, starts, chosen = np.array([1, 2]), np.array([0, 2]), np.array([True, True])
    with pytest.raises(InputError, match="strength"):
        fit_counts(tokens, starts, chosen, IS_ACTION, 1, 0.0)
    with pytest.raises(InputError, match="shorter"):
        fit_counts(tokens, starts, chosen, IS_ACTION, 60, 1.0)
