"""Intervals for how often something happens, from how often it did; none is too short for any number of trials.

They differ in what they take to be independent: every trial, nothing at all, or whole dialogues.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaincinv

from mightnt.errors import InputError
from mightnt.prediction import FloatArray

TILTS: FloatArray = np.exp2(np.arange(-10.0, 5.0))
"""Each is the best for some number of hits; :func:`dependent_share_interval` bets a little on all of them."""
STAKES: FloatArray = 0.99 * np.exp2(-np.arange(10.0))
"""Shares of the capital that :func:`ratio_of_means_interval` bets on each dialogue."""


def share_interval(n_hits: int, n_trials: int, error: float) -> tuple[float, float]:
    """The interval of Clopper and Pearson for the probability of independent trials; (0, 1) for no trial.

    It misses the probability, on either side together, with probability at most ``error``. Where independent trials have
    different probabilities it is meant for their mean.

    Kind: exact coverage or more. Paper: Clopper and Pearson 1934. Cost: O(1).
    """
    check_counts(n_hits, n_trials, error)
    low = float(betaincinv(n_hits, n_trials - n_hits + 1, error / 2)) if n_hits else 0.0
    high = float(betaincinv(n_hits + 1, n_trials - n_hits, 1 - error / 2)) if n_hits < n_trials else 1.0
    return low, high


def dependent_share_interval(n_hits: int, n_trials: int, error: float) -> tuple[float, float]:
    """An interval for the mean probability of the trials that were made, whatever they depended on; (0, 1) for no trial.

    Trial t happens with probability a_t given all before it, and the interval is for a = mean a_t. For every l,
    exp(l hits) / prod_t (1 + a_t (e^l - 1)) has mean 1, and prod_t (1 + a_t (e^l - 1)) <= (1 + a (e^l - 1))^n; so has, at
    most, the mean over l in ``TILTS`` of exp(l hits) / (1 + a (e^l - 1))^n, and an a that makes it 2 / error or more is
    left out (Markov). The same for misses gives the other end.

    Kind: coverage at least 1 - ``error`` (a mixture martingale; the number of trials may depend on them too). Paper: none
    of this project's; the method is Robbins 1970. Cost: two roots.
    """
    check_counts(n_hits, n_trials, error)
    low = least_dependent_share(n_hits, n_trials, error / 2)
    return low, 1.0 - least_dependent_share(n_trials - n_hits, n_trials, error / 2)


def least_dependent_share(n_hits: int, n_trials: int, error: float) -> float:
    """The lower end: the a at which the mixture above is 1 / error; 0 where it is less even at 0."""

    def surplus(share: float) -> float:
        grown = TILTS * n_hits - n_trials * np.log1p(share * np.expm1(TILTS))
        return float(np.logaddexp.reduce(grown)) - math.log(len(TILTS)) + math.log(error)

    if not n_hits or surplus(0.0) <= 0:
        return 0.0
    return float(brentq(surplus, 0.0, n_hits / n_trials, xtol=1e-15))


def ratio_of_means_interval(numerators: FloatArray, denominators: FloatArray, error: float) -> tuple[float, float]:
    """An interval for E[X] / E[Y] from independent, alike pairs (X, Y) in [0, 1]; (0, inf) where nothing can be said.

    A ratio r is too small if betting a share of the capital on every X - r Y (over max(1, r), so that no bet loses more
    than the stake) makes it grow 2 / error fold, on the mean over ``STAKES``; too large likewise by r Y - X.

    Kind: coverage at least 1 - ``error``. Paper: none of this project's; betting as in Waudby-Smith and Ramdas 2024.
    Cost: two roots, each some ten passes over the pairs.
    """
    x, y = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    check_counts(0, len(x), error)
    if x.shape != y.shape or not all(((v >= 0) & (v <= 1 + 1e-9)).all() for v in (x, y)):
        raise InputError("pairs must be of equal number and within [0, 1], both of them")

    def surplus(place: float, sign: float) -> float:
        """log capital x error / 2 at the ratio place / (1 - place)."""
        ratio = place / (1.0 - place) if place < 1 else math.inf
        gains = sign * (x * min(1.0, 1.0 / ratio if ratio else math.inf) - y * min(1.0, ratio))
        grown = np.log1p(STAKES[:, None] * gains).sum(axis=1)
        return float(np.logaddexp.reduce(grown)) - math.log(len(STAKES)) + math.log(error / 2)

    middle = float(x.sum() / (x.sum() + y.sum())) if x.sum() + y.sum() > 0 else 0.5
    low = brentq(surplus, 0.0, middle, args=(1.0,), xtol=1e-15) if surplus(0.0, 1.0) > 0 else 0.0
    high = brentq(surplus, middle, 1.0, args=(-1.0,), xtol=1e-15) if surplus(1.0, -1.0) > 0 else 1.0
    return low / (1.0 - low), high / (1.0 - high) if high < 1 else math.inf


def check_counts(n_hits: int, n_trials: int, error: float) -> None:
    """Refuse counts that are none, and an error that is no probability."""
    if not 0 <= n_hits <= n_trials:
        raise InputError(f"{n_hits} hits of {n_trials} trials; there can be 0 to all of them")
    if not 0 < error < 1:
        raise InputError(
            f"an interval that may be wrong with probability {error}; more than 0 and less than 1 is needed"
        )
