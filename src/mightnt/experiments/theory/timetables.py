"""Thousands of demonstrators and imitators at once, for classes whose models depend on the time alone.

Such models need no history: a class is a table, and a run is a row of log posterior ratios.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mightnt.errors import InputError
from mightnt.models.finite import ROUNDING
from mightnt.prediction import TOLERANCE, FloatArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Timetable:
    """A class of models, the demonstrator mu first: model i gives symbol x at step t the probability of its phase.

    Args:
        prior: w(nu), shape ``(n_models,)``, positive, sum at most one.
        probabilities: shape ``(n_phases, n_models, n_symbols)``; rows may sum to less than one, the demonstrator's do not.
        starts: the first step of each phase, ascending from 0, shape ``(n_phases,)``.

    Errors: :class:`~mightnt.errors.InputError` for other shapes, sums above one, or a demonstrator that misses mass.

    Kind: exact. Cost: O(n_phases * n_models * n_symbols) memory.
    """

    prior: FloatArray
    probabilities: FloatArray
    starts: IntArray

    def __post_init__(self) -> None:
        sums, n_models = self.probabilities.sum(axis=2), len(self.prior)
        if sums.shape != (len(self.starts), n_models) or (self.probabilities < 0).any() or sums.max() > 1 + TOLERANCE:
            raise InputError(
                f"{sums.shape} rows for {len(self.starts)} phases of {n_models} models, each at most 1 in sum"
            )
        if np.abs(sums[:, 0] - 1).max() > TOLERANCE:
            raise InputError("the demonstrator, model 0, misses probability; it must sum to 1 at every step")
        if not (self.prior > 0).all() or self.prior.sum() > 1 + TOLERANCE:
            raise InputError(f"the prior must be positive and sum to at most 1; got a sum of {self.prior.sum():.12g}")
        if self.starts[0] != 0 or (np.diff(self.starts) <= 0).any():
            raise InputError(f"phases start at {self.starts.tolist()}; 0 and then ascending is needed")

    @classmethod
    def steady(cls, models: ArrayLike, prior: ArrayLike | None = None) -> Timetable:
        """Models without memory, shape ``(n_models, n_symbols)``; equal weights when none are given."""
        rows = np.asarray(models, dtype=np.float64)
        weights = np.full(len(rows), 1 / len(rows)) if prior is None else np.asarray(prior, dtype=np.float64)
        return cls(weights, rows[None], np.zeros(1, dtype=np.int64))

    @property
    def log_ratios(self) -> FloatArray:
        """log nu(x) / mu(x), shape ``(n_phases, n_symbols, n_models)``; symbols the demonstrator never gives count as 0."""
        possible = self.probabilities[:, :1] > 0
        ratios = np.divide(
            self.probabilities, self.probabilities[:, :1], where=possible, out=np.ones_like(self.probabilities)
        )
        with np.errstate(divide="ignore"):
            return np.log(ratios).transpose(0, 2, 1)

    def phase_at(self, steps: IntArray) -> IntArray:
        """The phase that is in force at each step."""
        return np.searchsorted(self.starts, steps, side="right") - 1


def coins(heads: Sequence[float], prior: Sequence[float] | None = None) -> Timetable:
    """Coins that show 1 with these probabilities, the demonstrator's first."""
    return Timetable.steady([[1 - p, p] for p in heads], prior)


def late_novelties(n_doublings: int, after: float = 0.9) -> Timetable:
    """A fair coin, and for each j a rival that is the same until step 2^j and shows 1 with probability ``after`` from then.

    All are equally likely; no demonstration before step 2^j can tell rival j from mu.
    """
    starts = np.concatenate([[0], 2 ** np.arange(n_doublings)])
    switched = starts[:, None] >= 2 ** np.arange(n_doublings)[None]
    heads = np.concatenate([np.full((len(starts), 1), 0.5), np.where(switched, after, 0.5)], axis=1)
    return Timetable(np.full(n_doublings + 1, 1 / (n_doublings + 1)), np.stack([1 - heads, heads], axis=2), starts)


def believed(log_weights: FloatArray, level: float) -> NDArray[np.bool_]:
    """Which models are in the top set, for many posteriors at once: as :func:`~mightnt.models.finite.top_set`, row by row.

    ``log_weights``: shape ``(n_runs, n_models)``, nats, up to a constant a row; the same shape comes back.

    Kind: exact (float64). Paper: the top set at level alpha. Cost: O(n_runs * n_models log n_models).
    """
    order = np.argsort(-log_weights, axis=1, kind="stable")
    weights = np.exp(np.take_along_axis(log_weights, order, axis=1) - log_weights.max(axis=1, keepdims=True))
    kept = (weights > 0) & (weights >= level * np.cumsum(weights, axis=1) * (1.0 - ROUNDING))
    result: NDArray[np.bool_] = np.zeros_like(kept)
    np.put_along_axis(result, order, np.logical_and.accumulate(kept, axis=1), axis=1)
    return result


def asking_probabilities(table: Timetable, phases: IntArray, log_weights: FloatArray, level: float) -> FloatArray:
    """theta = 1 - sum_x min over believed nu of nu(x), for many runs at once, shape ``(n_runs,)``.

    Missing mass up to 1e-9 is read as rounding: 0.
    """
    rows = np.where(believed(log_weights, level)[:, :, None], table.probabilities[phases], np.inf)
    missing = 1.0 - rows.min(axis=1).sum(axis=1)
    return np.where(missing > TOLERANCE, missing, 0.0)


def smallest_levels(table: Timetable, n_steps: int, n_runs: int, rng: np.random.Generator) -> FloatArray:
    """How low the demonstrator ever stands while it demonstrates ``n_steps`` steps, run by run, shape ``(n_runs,)``.

    The largest alpha at which mu is in the top set at every time: the least over time of w(mu|h) divided by the sum of w(nu|h)
    over mu and the models ahead of it. mu leaves the top set at alpha exactly when this is below alpha (up to the rounding
    that the top set forgives), so one set of runs tells of every level.

    Kind: exact along sampled demonstrations. Paper: coverage. Cost: O(n_steps * n_runs * n_models).
    """
    ratios, edges = table.log_ratios, np.cumsum(table.probabilities[:, 0], axis=1)[:, :-1]
    lead = np.tile(np.log(table.prior / table.prior[0]), (n_runs, 1))
    behind = np.zeros(n_runs)
    for phase in table.phase_at(np.arange(n_steps + 1)).tolist():
        with np.errstate(over="ignore"):
            behind = np.maximum(behind, np.where(lead > 0, np.exp(lead), 0).sum(axis=1))
        lead += ratios[phase][draw(edges[phase], rng.uniform(size=n_runs))]
    return 1 / (1 + behind)


def ask(
    table: Timetable, level: float, times: IntArray, n_runs: int, rng: np.random.Generator
) -> dict[int, FloatArray]:
    """Sums of theta, theta^2 and theta^3 over the steps before each of ``times`` (ascending), by their power.

    The asking imitator: asked with probability theta, mu answers; only answers are evidence. Each array has shape
    ``(n_runs, n_times)``; the first power is the expected number of questions given the way so far. Between two questions
    nothing changes but the time, so the step of the next question is drawn at once (geometric in theta, afresh at each
    phase): the same distribution as step by step.

    Kind: exact along sampled answers. Paper: the asking imitator (Cohen, Hutter, Nanda 2022). Cost: O(n_models log n_models)
    a run and question.
    """
    ratios, edges = table.log_ratios, np.cumsum(table.probabilities[:, 0], axis=1)[:, :-1]
    last, ends = times[-1], np.append(table.starts[1:], times[-1])
    lead = np.tile(np.log(table.prior / table.prior[0]), (n_runs, 1))
    now, runs = np.zeros(n_runs, dtype=np.int64), np.arange(n_runs)
    so_far, sums = {p: np.zeros(n_runs) for p in (1, 2, 3)}, {p: np.zeros((n_runs, len(times))) for p in (1, 2, 3)}
    while len(runs):
        start, phases = now[runs], table.phase_at(now[runs])
        theta, end = asking_probabilities(table, phases, lead[runs], level), np.minimum(ends[phases], last)
        wait = np.full(len(runs), last)
        wait[theta > 0] = np.minimum(rng.geometric(theta[theta > 0]) - 1, last)
        asked = start + wait < end
        now[runs] = np.where(asked, start + wait + 1, end)
        passed = (times > start[:, None]) & (times <= now[runs][:, None])
        for p in sums:
            along = so_far[p][runs, None] + theta[:, None] ** p * (times - start[:, None])
            sums[p][runs] = np.where(passed, along, sums[p][runs])
            so_far[p][runs] += theta**p * (now[runs] - start)
        symbols = draw(edges[phases[asked]], rng.uniform(size=int(asked.sum())))
        lead[runs[asked]] += ratios[phases[asked], symbols]
        runs = runs[now[runs] < last]
    return sums


def cubed_asking_bound(table: Timetable, level: float) -> float:
    """The most that asking can come to: E_mu sum_t theta_t^3 over all time is at most this.

    2 k sum over nu other than mu of log(1 + w(nu) / (alpha w(mu))), k = min(n_symbols, n_models - 1); at most
    2 k / (alpha w(mu)), hence finite for countable classes too.

    Proof. Let r_t = w(nu|h_t) / w(mu|h_t) and A_nu a set of actions. (1) If nu is in the top set, r_t >= alpha: w(nu|h) is
    at least alpha times the sum of the weights up to its own place, and mu either stands in that sum or behind it.
    (2) With phi(r) = log(1 + r/alpha), q = alpha / (alpha + r), one answer of mu lowers phi on average by exactly
    KL(mu, q mu + (1-q) nu) >= 2 (1-q)^2 d^2, d = the largest of mu(A) - nu(A) over sets A (Pinsker; what nu misses is one
    more symbol). This is never negative, and with (1) at least d^2 / 2 while nu is in the top set. (3) phi >= 0, it moves
    only when an answer comes, and that is with probability theta_t whatever the answer: so
    E sum_t theta_t [nu in the top set] d_t(nu)^2 <= 2 log(1 + w(nu) / (alpha w(mu))). (4) mu sums to one: theta = sum_a
    (mu(a) - least(a)) <= the sum of d(nu) over the at most k models other than mu that are least somewhere, so
    theta^2 <= k sum d(nu)^2. Multiply by theta, sum, use (3). What the agent does when it does not ask is left open.

    Kind: upper bound. Paper: this project's; the paper's source has the order n_symbols alpha^-3 / w(mu). Cost: O(n_models).
    """
    odds = table.prior[1:] / (level * table.prior[0])
    n_symbols = int(table.probabilities.shape[2])
    return 2.0 * min(n_symbols, len(odds)) * float(np.log1p(odds).sum())


def crude_order(table: Timetable, level: float) -> float:
    """n_symbols alpha^-3 / w(mu): the order of the bound of Cohen, Hutter and Nanda (2022), without its constant."""
    return int(table.probabilities.shape[2]) / (level**3 * float(table.prior[0]))


def draw(edges: FloatArray, uniform: FloatArray) -> IntArray:
    """The symbols at which cumulative probabilities pass ``uniform``; ``edges`` leaves out the last, always 1."""
    symbols: IntArray = (uniform[:, None] >= edges).sum(axis=1)
    return symbols
