"""Intervals cover what they promise to cover, also against an adversary, and are not so wide that they say nothing."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from mightnt.audits import intervals
from mightnt.audits.intervals import dependent_share_interval, ratio_of_means_interval, share_interval
from mightnt.errors import InputError
from tests.strategies import seeds

errors = st.sampled_from([0.2, 0.05, 1e-3])
counts = st.integers(0, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


# Clopper and Pearson


@given(counts, errors)
def test_at_its_ends_such_a_count_has_just_the_promised_probability(case, error):
    hits, trials = case
    low, high = share_interval(hits, trials, error)
    assert binom.sf(hits - 1, trials, low) == pytest.approx(error / 2 if hits else 1.0)
    assert binom.cdf(hits, trials, high) == pytest.approx(error / 2 if hits < trials else 1.0)


@given(counts.filter(lambda case: case[1] > 0))
def test_it_is_the_interval_that_others_compute(case):
    theirs = binomtest(*case).proportion_ci(0.9, method="exact")
    assert share_interval(*case, 0.1) == pytest.approx((theirs.low, theirs.high))


# whatever depends on what


def worst_miss(interval, n_trials, error, grid=4, may_stop=True):
    """The greatest probability with which an adversary makes the interval miss the mean of the probabilities it chose.

    It chooses each trial's probability from 0, 1 / grid, ..., 1 after seeing all before, and when to stop.
    """
    missed = {}
    for n in range(n_trials + 1):
        for hits in range(n + 1):
            low, high = interval(hits, n, error)
            for total in range(n * grid + 1):
                mean = total / (n * grid) if n else 0.5
                missed[n, hits, total] = float(not low - 1e-12 <= mean <= high + 1e-12)
    for n in reversed(range(n_trials)):
        for hits in range(n + 1):
            for total in range(n * grid + 1):
                on = max(
                    a / grid * missed[n + 1, hits + 1, total + a] + (1 - a / grid) * missed[n + 1, hits, total + a]
                    for a in range(grid + 1)
                )
                missed[n, hits, total] = max(on, missed[n, hits, total] * may_stop)
    return missed[0, 0, 0]


@pytest.mark.parametrize("error", [0.4, 0.1])
def test_no_adversary_makes_it_miss_more_often_than_promised(error):
    """By dynamic programming over all adversaries that choose probabilities in fourths and when to stop."""
    assert worst_miss(dependent_share_interval, 14, error) <= error


def test_an_adversary_makes_the_interval_for_independent_trials_miss():
    """The neighbor, of equal error: whoever may stop when the count looks odd misleads Clopper and Pearson."""
    assert worst_miss(share_interval, 14, 0.4) > 0.4


@given(counts, errors)
def test_it_holds_the_share_and_misses_mirror_hits(case, error):
    hits, trials = case
    low, high = dependent_share_interval(hits, trials, error)
    assert 0 <= low <= (hits / trials if trials else 0.0)
    assert (hits / trials if trials else 1.0) <= high <= 1
    mirrored = dependent_share_interval(trials - hits, trials, error)
    assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))


@pytest.mark.parametrize("share", [0.001, 0.03, 0.5, 0.98])
@pytest.mark.parametrize("trials", [1000, 100_000])
def test_it_costs_less_than_as_much_again(share, trials):
    """At the error of one of ten bins it is at most 1.7 times as wide as the interval for independent trials."""
    hits = round(share * trials)
    wide = np.diff(dependent_share_interval(hits, trials, 0.005))
    assert wide < 1.7 * np.diff(share_interval(hits, trials, 0.005))


def test_it_is_where_the_mixture_says():
    """By a scan of shares in steps of 1/5000, with the mixture written out."""
    hits, trials, error = 7, 20, 0.1
    shares = np.arange(1, 5000) / 5000
    tilts = 2.0 ** np.arange(-10, 5)

    def mixture(hits, share):
        return np.mean([math.exp(t * hits) / (1 + share * (math.exp(t) - 1)) ** trials for t in tilts])

    fit = [s for s in shares if mixture(hits, s) < 2 / error and mixture(trials - hits, 1 - s) < 2 / error]
    assert dependent_share_interval(hits, trials, error) == pytest.approx((fit[0], fit[-1]), abs=2 / 5000)


# whole dialogues


def slow_capital(x, y, ratio, sign):
    """The capital after betting, on the mean over stakes, dialogue by dialogue."""
    capital = np.ones(len(intervals.STAKES))
    for a, b in zip(x, y, strict=True):
        capital *= 1 + intervals.STAKES * sign * (a - ratio * b) / max(1.0, ratio)
    return capital.mean()


@given(seeds, st.integers(1, 60), st.sampled_from([0.2, 0.05]))
def test_ends_are_where_the_capital_has_grown_enough_whatever_the_order(seed, n, error):
    rng = np.random.default_rng(seed)
    x, y = rng.beta(0.5, 1.0, size=n), rng.beta(1.0, rng.choice([1.0, 5.0]), size=n)
    low, high = ratio_of_means_interval(x, y, error)
    assert 0 <= low <= x.sum() / y.sum() <= high
    if low > 0:
        assert slow_capital(x, y, low, 1) == pytest.approx(2 / error, rel=1e-6)
    else:
        assert slow_capital(x, y, 1e-9, 1) <= 2 / error * (1 + 1e-6)
    if high < math.inf:
        assert slow_capital(x, y, high, -1) == pytest.approx(2 / error, rel=1e-6)
    order = rng.permutation(n)
    assert ratio_of_means_interval(x[order], y[order], error) == pytest.approx((low, high), rel=1e-6)


def covered(draw, ratio, runs=400, error=0.2):
    """How often the interval holds the true ratio."""
    rng = np.random.default_rng(0)
    pairs = [draw(rng) for _ in range(runs)]
    ends = [ratio_of_means_interval(x, y, error) for x, y in pairs]
    return sum(low <= ratio <= high for low, high in ends), runs


@pytest.mark.parametrize("n", [3, 100])
def test_it_covers_the_ratio_also_where_dialogues_are_all_or_nothing(n):
    """X is 0 or 1 for a whole dialogue, Y varies; the 99.9% lower bound of how often it covers is above the promised 80%."""

    def draw(rng):
        y = rng.choice([0.2, 0.6], size=n)
        return (rng.random(n) < y).astype(float), np.where(rng.random(n) < 0.5, y, 0.4)

    n_covered, runs = covered(draw, 1.0)
    assert share_interval(n_covered, runs, 0.002)[0] >= 0.8


def test_with_many_dialogues_it_is_narrow():
    rng = np.random.default_rng(0)
    y = rng.uniform(0.2, 0.4, size=2000)
    low, high = ratio_of_means_interval(rng.binomial(20, y) / 20, y, 0.005)
    assert 0.9 < low < 1 < high < 1.1


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [([], [], (0.0, math.inf)), ([0.0] * 50, [0.0] * 50, (0.0, math.inf))],
)
def test_nothing_says_nothing(x, y, expected):
    assert ratio_of_means_interval(np.array(x), np.array(y), 0.05) == expected


def test_only_one_end_where_one_side_never_happened():
    low, high = ratio_of_means_interval(np.zeros(50), np.full(50, 0.5), 0.05)
    assert low == 0
    assert 0 < high < 1
    low, high = ratio_of_means_interval(np.full(50, 0.5), np.zeros(50), 0.05)
    assert high == math.inf
    assert low > 1


@pytest.mark.parametrize("interval", [share_interval, dependent_share_interval])
def test_no_trial_says_nothing_and_impossible_counts_are_refused(interval):
    assert interval(0, 0, 0.05) == (0.0, 1.0)
    for hits, trials in ((-1, 3), (4, 3)):
        with pytest.raises(InputError, match="hits of"):
            interval(hits, trials, 0.05)
    for error in (0.0, 1.0, math.nan):
        with pytest.raises(InputError, match="probability"):
            interval(1, 3, error)


@pytest.mark.parametrize(("x", "y"), [([1.1], [0.5]), ([0.5], [math.nan]), ([0.5], [-0.1]), ([0.5], [0.1, 0.2])])
def test_pairs_outside_the_unit_square_are_refused(x, y):
    with pytest.raises(InputError, match="pairs"):
        ratio_of_means_interval(np.array(x), np.array(y), 0.05)
