"""Tables: what is done next depends on the last observation alone.

One is known (:class:`ByObservation`), one is learned from demonstrations and vouches only for what they show
(:class:`PessimisticTable`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import xlog1py, xlogy

from mightnt.errors import InputError
from mightnt.history import Chooser, Step
from mightnt.models.counts import IntArray
from mightnt.prediction import FloatArray, Prediction

HALVINGS = 50
"""How often a bracket of log-probabilities is halved; the result lies below the truth by 2^-50 of its width at most."""


@dataclass(frozen=True, slots=True, eq=False)
class ByObservation:
    """The model that looks at the last observation only: nu(a | h) = p(a | o), o the last symbol of the world in h.

    A state is that observation, ``None`` before the first one; then every action has probability zero.

    Args:
        rows: one prediction for each observation, at least one, all over the same actions; they may miss mass.

    Errors: :class:`~mightnt.errors.InputError` for no rows, rows of several sizes, an observation without a row.
    Kind: exact. Paper: a stationary policy. Cost: O(1) a step.
    """

    rows: tuple[Prediction, ...]

    def __post_init__(self) -> None:
        sizes = sorted({row.n_symbols for row in self.rows})
        if len(sizes) != 1:
            raise InputError(f"the rows of a table are over {sizes} actions; at least one row and one size is needed")

    @classmethod
    def of(cls, probabilities: ArrayLike) -> ByObservation:
        """The table with these probabilities, shape ``(n_observations, n_actions)``; a row sums to at most one."""
        return cls(tuple(Prediction.of(row) for row in np.atleast_2d(np.asarray(probabilities, dtype=np.float64))))

    @property
    def n_symbols(self) -> int:
        """Number of actions."""
        return self.rows[0].n_symbols

    def start(self) -> int | None:
        """Nothing was observed."""
        return None

    def predict(self, state: int | None) -> Prediction:
        """The row of the last observation."""
        return nothing(self.n_symbols) if state is None else self.rows[state]

    def advance(self, state: int | None, step: Step) -> int | None:
        """An observation is remembered in place of the one before; actions change nothing."""
        return state if step.is_action else checked(step.symbol, len(self.rows), "observation")


@dataclass(frozen=True, slots=True, eq=False)
class TableState:
    """What was demonstrated so far, and where we are."""

    counts: FloatArray
    """How often each action was demonstrated after each observation, shape (n_observations, n_actions)."""
    log_least: FloatArray
    """What follows for its probability: :func:`log_least_probabilities` of each row, nats."""
    observation: int | None
    """The last symbol of the world; ``None`` before the first."""


@dataclass(frozen=True, slots=True, eq=False)
class PessimisticTable:
    """The tabular imitator that vouches for no more than every plausible table allows; it learns from each demonstration.

    Plausible are all tables p(a | o) under which the demonstrations are at least ``likelihood_ratio`` times as likely as
    under the best one. The least that any of them gives to a after o (the others of its rows being the best ones) is

        nu(a | o) = min { p : N_o kl(n_oa / N_o, p) <= log(1 / likelihood_ratio) },  kl of two coins,

    with n_oa demonstrations of a after o and N_o of anything. An action never demonstrated there has probability 0; after
    an observation without demonstrations everything has. What is missing is the asking probability. Steps of the
    demonstrator's are counted, whenever they come; the agent's own never are.

    For one observation, one action and a number N_o that does not depend on what was demonstrated,
    nu(a | o) <= mu(a | o) with probability at least 1 - likelihood_ratio (Chernoff). For all of them at once, or where
    the questions depend on earlier answers, divide by the number of cells and of looks.

    Args:
        likelihood_ratio: in (0, 1): smaller is more pessimistic. Else :class:`~mightnt.errors.InputError`.

    Kind: exact (rounded down). Paper: nu_alpha over all tables, level read as a likelihood ratio. Cost: a step O(1); a
    demonstration copies the table.
    """

    n_observations: int
    n_actions: int
    likelihood_ratio: float

    def __post_init__(self) -> None:
        if min(self.n_observations, self.n_actions) < 1:
            raise InputError(f"a table of {self.n_observations} x {self.n_actions}: one of each is the least")
        if not 0 < self.likelihood_ratio < 1:
            raise InputError(f"the likelihood ratio is {self.likelihood_ratio}; more than 0 and less than 1 is allowed")

    @property
    def n_symbols(self) -> int:
        """Number of actions."""
        return self.n_actions

    def start(self) -> TableState:
        """Nothing was demonstrated, nothing observed."""
        counts = np.zeros((self.n_observations, self.n_actions))
        return TableState(counts, np.full_like(counts, -np.inf), None)

    def predict(self, state: TableState) -> Prediction:
        """nu( . | o) at the last observation, never renormalized."""
        if state.observation is None:
            return nothing(self.n_actions)
        return Prediction(state.log_least[state.observation])

    def advance(self, state: TableState, step: Step) -> TableState:
        """An observation moves us; a demonstration is counted where we are."""
        if step.chooser is Chooser.WORLD:
            here = checked(step.symbol, self.n_observations, "observation")
            return TableState(state.counts, state.log_least, here)
        action = checked(step.symbol, self.n_actions, "action")
        if step.chooser is Chooser.AGENT or state.observation is None:
            return state
        counts, log_least, here = state.counts.copy(), state.log_least.copy(), state.observation
        counts[here, action] += 1
        log_least[here] = log_least_probabilities(counts[here], log(1 / self.likelihood_ratio))
        return TableState(counts, log_least, here)


def log_least_probabilities(counts: FloatArray, slack_nats: float) -> FloatArray:
    """How low each probability of a distribution can be while the counts stay plausible, log, never above the truth.

    log min { p_x : sum_y n_y log(n_y / N) - sum_y n_y log p_y <= slack }. At the minimum the other symbols share 1 - p_x
    as they share their counts, so that only N kl(n_x / N, p_x) <= slack is left, kl of two coins. It is solved by halving
    a bracket of log p: above by n_x / N, below by -(slack + N H(n_x / N)) / n_x, where N kl >= slack already.

    Args:
        counts: shape (n,), >= 0. All zero: nothing is known, ``-inf`` everywhere.
        slack_nats: >= 0; 0 gives the shares themselves, ``inf`` gives ``-inf``.

    Kind: exact to rounding, rounded down. Paper: top set as a likelihood region. Cost: 50 passes over the counts.
    """
    lowest = np.full(counts.shape, -np.inf)
    seen, total = counts > 0, float(counts.sum())
    if not seen.any() or slack_nats == np.inf:
        return lowest
    seen_counts = counts[seen]
    others, share = total - seen_counts, seen_counts / total
    best = xlogy(seen_counts, share) + xlog1py(others, -share)
    high, low = np.log(share), (best - slack_nats) / seen_counts
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        too_far = seen_counts * middle + xlog1py(others, -np.exp(middle)) < best - slack_nats
        low, high = np.where(too_far, middle, low), np.where(too_far, high, middle)
    lowest[seen] = low
    return lowest


def demonstrated_pairs(history: Sequence[Step]) -> tuple[IntArray, IntArray]:
    """``(observations, actions)``, shape (n,) each: what the demonstrator did after what, in order.

    The agent's own actions are left out, and so is what was done before the first observation.
    """
    pairs, observation = [], None
    for step in history:
        if step.chooser is Chooser.WORLD:
            observation = step.symbol
        elif step.chooser is Chooser.DEMONSTRATOR and observation is not None:
            pairs.append((observation, step.symbol))
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def nothing(n_actions: int) -> Prediction:
    """The prediction that vouches for no action."""
    return Prediction(np.full(n_actions, -np.inf))


def checked(symbol: int, n_symbols: int, what: str) -> int:
    """``symbol``, if it is one of 0..n_symbols-1; else :class:`~mightnt.errors.InputError`."""
    if not 0 <= symbol < n_symbols:
        raise InputError(f"the {what} {symbol} is none of 0..{n_symbols - 1}")
    return symbol
