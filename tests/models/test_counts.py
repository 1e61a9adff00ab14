"""The count model against a dictionary written the obvious way."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.models.counts import BEFORE_START, Support, add_counts, fit_counts, suffixes_of

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
@given(corpora, st.integers(1, 4), st.integers(1, 3), st.sampled_from([0.1, 0.3, 0.6, 1.0]))
def test_support_is_decided_by_the_longest_ample_suffix(corpus, ample, seen, missing):
    tokens, starts, chosen = flat(corpus)
    if not chosen.any():
        return
    model = fit_counts(tokens, starts, chosen, IS_ACTION, LONGEST, STRENGTH)
    tables = obvious_counts(corpus)
    queries = suffixes_of(tokens, starts, LONGEST)
    supported = model.supported(queries, Support(ample, seen, missing))
    for row, suffix in zip(supported, queries, strict=True):
        deciding = None
        for length in range(LONGEST + 1):
            counts = tables.get(tuple(suffix[LONGEST - length :]))
            seen_counts = [] if counts is None else list(counts.values())
            total, rare = sum(seen_counts), sum(count for count in seen_counts if count <= seen)
            if counts and total >= ample and (rare + 1) / (total + 1) <= missing:
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


# adding demonstrations


@settings(max_examples=150, deadline=None)
@given(corpora, corpora)
def test_adding_demonstrations_is_counting_them_all_again(first, more):
    """Array by array, whether the new ones bring new tokens or not, and with nothing chosen in them too."""
    (tokens, starts, chosen), extra, both = flat(first), flat(more), flat(first + more)
    if not chosen.any():
        return
    model = fit_counts(tokens, starts, chosen, IS_ACTION, LONGEST, STRENGTH)
    kept = [array.copy() for table in model.tables for array in vars_of(table)]
    grown, again = add_counts(model, *extra), fit_counts(*both, IS_ACTION, LONGEST, STRENGTH)
    np.testing.assert_array_equal(grown.token_codes, again.token_codes)
    assert grown.strength == again.strength
    for ours, theirs in zip(grown.tables, again.tables, strict=True):
        for one, other in zip(vars_of(ours), vars_of(theirs), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    for array, before in zip([array for table in model.tables for array in vars_of(table)], kept, strict=True):
        np.testing.assert_array_equal(array, before)


def vars_of(table):
    return [getattr(table, name) for name in ("keys", "row_starts", "actions", "counts", "totals")]


def test_adding_what_makes_too_many_tokens_is_refused():
    tokens = np.arange(2000)
    model = fit_counts(tokens, np.array([0, 2000]), np.ones(2000, bool), np.ones(70_000, bool), 4)
    more = np.arange(66_000)
    with pytest.raises(InputError, match="distinct tokens"):
        add_counts(model, more, np.array([0, len(more)]), np.ones(len(more), bool))
