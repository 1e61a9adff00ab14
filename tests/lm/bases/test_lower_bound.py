"""Lower confidence bounds on counts: the closed form where there is one, the definition, and how often they are kept."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.lm.bases.lower_bound import binary_kl_nats, kl_lower_bound, lower_counts
from mightnt.models.counts import fit_counts
from tests.strategies import seeds

N_SYMBOLS = 6


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(1e-6, 1))
def test_it_is_the_least_probability_that_the_likelihood_ratio_allows(total, share, level):
    """The constraint holds with equality at the bound, and is broken below it."""
    n = round(share * total)
    bound = float(kl_lower_bound(np.array([float(n)]), np.array([float(total)]), level)[0])
    assert 0 <= bound <= n / total
    if n == 0:
        assert bound == 0
        return
    frequency, at = np.array([n / total]), np.array([bound])
    assert total * binary_kl_nats(frequency, at)[0] == pytest.approx(-math.log(level), rel=1e-6, abs=1e-6)
    assert total * binary_kl_nats(frequency, 0.99 * at)[0] > -math.log(level)


@given(st.integers(1, 1000), st.floats(1e-6, 1))
def test_what_always_happened(total, level):
    """n = N: kl = -log p, so the bound is level^(1 / N)."""
    found = kl_lower_bound(np.array([float(total)]), np.array([float(total)]), level)
    assert float(found[0]) == pytest.approx(level ** (1 / total), rel=1e-9)


def test_it_grows_with_evidence():
    totals = np.array([4.0, 40.0, 400.0, 4e6])
    bounds = kl_lower_bound(totals / 4, totals, 0.05)
    assert (np.diff(bounds) > 0).all()
    assert bounds[-1] == pytest.approx(0.25, abs=1e-3)


def test_it_is_kept_as_often_as_promised():
    """True p = .2, N = 60, 20000 samples: too high in 5% at most (Chernoff: well below), and not always far too low."""
    rng = np.random.default_rng(0)
    n = rng.binomial(60, 0.2, size=20_000).astype(float)
    bounds = kl_lower_bound(n, np.full(len(n), 60.0), 0.05)
    assert (bounds > 0.2).mean() <= 0.05
    assert bounds.mean() > 0.08


@pytest.mark.parametrize("level", [0.0, -1.0, 1.5, math.nan])
def test_no_such_level(level):
    with pytest.raises(InputError, match="level"):
        kl_lower_bound(np.ones(1), np.ones(1), level)


def counted(seed, n=400):
    """Counts of suffixes up to 2 in a random corpus of one dialogue, and the corpus."""
    rng = np.random.default_rng(seed)
    tokens = rng.choice(N_SYMBOLS, size=n, p=[0.4, 0.3, 0.15, 0.1, 0.05, 0.0])
    return fit_counts(tokens, np.array([0, n]), np.ones(n, bool), np.ones(N_SYMBOLS, bool), longest=2), tokens


@settings(max_examples=15)
@given(seeds, st.sampled_from([5, 20, 60, 1000]))
def test_the_longest_ample_suffix_decides(seed, ample):
    """Against counting by hand; nothing is vouched for where not even the empty suffix is ample."""
    model, tokens = counted(seed)
    lower = lower_counts(model, 0.1, ample)
    suffixes = np.random.default_rng(seed).integers(0, N_SYMBOLS, size=(10, 2))
    found = np.exp(lower.predict(suffixes))
    for suffix, row in zip(suffixes.tolist(), found, strict=True):
        expected = np.zeros(N_SYMBOLS)
        for length in (0, 1, 2):
            after = [t for t in range(length, len(tokens)) if tokens[t - length : t].tolist() == suffix[2 - length :]]
            if len(after) >= ample:
                n = np.bincount(tokens[after], minlength=N_SYMBOLS).astype(float)
                expected = kl_lower_bound(n, np.full(N_SYMBOLS, float(len(after))), 0.1)
        np.testing.assert_allclose(row, expected, rtol=1e-12)
        assert row.sum() < 1


def test_a_token_never_seen_is_impossible():
    model, _ = counted(0)
    assert lower_counts(model).predict(np.array([[0, 1]]))[0, 5] == -math.inf
