"""Whether lower bounds are kept: of events given probability p at least, does a share p or more happen?

At every decision a base gives each token a lower bound nu(x). Its tokens are sorted into bins by nu(x); a bin's tokens
together should be chosen with probability sum nu(x) at least, the demonstrator's token falls among them or not, and over
many held-out decisions what was predicted is compared with what happened.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mightnt.audits.intervals import dependent_share_interval, ratio_of_means_interval, share_interval
from mightnt.errors import InputError
from mightnt.prediction import TOLERANCE, FloatArray

IntArray = NDArray[np.int64]
Outcome = Literal["holds", "fails", "too little data"]
Independent = Literal["nothing", "dialogues", "decisions"]
"""What is taken to be independent; see :func:`reliability`."""

EDGES = (0.0, 1e-4, 1e-3, 1e-2, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Of bins [low, high), the last one closed; a lower bound of 0 predicts nothing and is in none."""
CONFIDENCE = 0.95
TOLERANCE_NATS = 0.1
"""A bin holds when its events surely happen at least exp(-this) times as often as predicted."""


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """What was predicted and what happened, summed by dialogue and bin; tallies of the same dialogues can be added."""

    edges: tuple[float, ...]
    """Of the bins."""
    predicted: FloatArray
    """Sum of lower bounds: at least so many hits were to be expected. Shape (dialogues, bins)."""
    hits: FloatArray
    """Decisions in which the chosen token was one of the bin's. Shape (dialogues, bins)."""
    predictions: FloatArray
    """Lower bounds in the bin: pairs of decision and token. Shape (dialogues, bins)."""
    trials: FloatArray
    """Decisions with a lower bound in the bin. Shape (dialogues, bins)."""
    decisions: FloatArray
    """All decisions. Shape (dialogues,)."""
    unforeseen: FloatArray
    """Decisions whose token had the lower bound 0. Shape (dialogues,)."""
    missing: FloatArray
    """Sum over decisions of 1 - sum_x nu(x), the asking probability. Shape (dialogues,)."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.edges, *(one + more for one, more in zip(self.columns, other.columns, strict=True)))

    @property
    def columns(self) -> tuple[FloatArray, ...]:
        """All but the edges."""
        return (
            *(self.predicted, self.hits, self.predictions, self.trials),
            *(self.decisions, self.unforeseen, self.missing),
        )


def stacked(tallies: Sequence[Tally]) -> Tally:
    """One tally of the dialogues of all of these, which have the same edges; at least one."""
    return Tally(tallies[0].edges, *map(np.concatenate, zip(*(one.columns for one in tallies), strict=True)))


def tally(
    lower_bounds: FloatArray, chosen: IntArray, dialogue: IntArray, n_dialogues: int, edges: Sequence[float] = EDGES
) -> Tally:
    """The tally of decisions, each with lower bounds for all tokens.

    Args:
        lower_bounds: nu(x), shape (decisions, tokens); each row sums to 1 at most.
        chosen: the token that was chosen, shape (decisions,); -1 for none of these.
        dialogue: the number of each decision's dialogue, shape (decisions,), below ``n_dialogues``.
        edges: of the bins, ascending from 0 to 1.

    Errors: :class:`~mightnt.errors.InputError` for a NaN, a negative bound, or more than 1 in a row.
    Kind: exact. Cost: one look at each bound.
    """
    edges = check_edges(edges)
    rows, n_bins = check_bounds(lower_bounds), len(edges) - 1
    if not (chosen.shape == dialogue.shape == rows.shape[:1]) or (chosen >= rows.shape[1]).any():
        raise InputError(f"{len(rows)} decisions need a chosen token below {rows.shape[1]} and a dialogue each")
    binned = np.searchsorted(edges[1:-1], rows, side="right")
    place = (np.arange(len(rows))[:, None] * n_bins + binned)[rows > 0]
    summed = np.bincount(place, rows[rows > 0], minlength=len(rows) * n_bins).reshape(-1, n_bins)
    sums = np.asarray(summed, dtype=np.float64)
    counts = np.bincount(place, minlength=len(rows) * n_bins).reshape(-1, n_bins)
    every, one_of = np.arange(len(rows)), np.maximum(chosen, 0)
    foreseen = (chosen >= 0) & (rows[every, one_of] > 0)
    hits = np.zeros_like(sums)
    hits[every[foreseen], binned[every, one_of][foreseen]] = 1.0

    def by_dialogue(values: FloatArray) -> FloatArray:
        summed = np.zeros((n_dialogues, *values.shape[1:]))
        np.add.at(summed, dialogue, values)
        return summed

    missing = np.maximum(0.0, 1.0 - rows.sum(axis=1))
    columns: list[FloatArray] = [sums, hits, counts.astype(np.float64), (counts > 0).astype(np.float64)]
    totals: list[FloatArray] = [np.ones(len(rows)), (~foreseen).astype(np.float64), missing]
    return Tally(edges, *map(by_dialogue, [*columns, *totals]))


def tally_events(lower_bounds: FloatArray, happened: NDArray[np.bool_], dialogue: IntArray, n_dialogues: int) -> Tally:
    """The tally of single events, each with its own lower bound; all arguments of shape (events,)."""
    return tally(lower_bounds[:, None], np.where(happened, 0, -1), dialogue, n_dialogues)


def check_edges(edges: Sequence[float]) -> tuple[float, ...]:
    """The edges, if they ascend from 0 to 1."""
    edges = tuple(map(float, edges))
    if len(edges) < 2 or (edges[0], edges[-1]) != (0.0, 1.0) or not all(np.diff(edges) > 0):
        raise InputError(f"edges of bins {edges}; they must ascend from 0 to 1")
    return edges


def check_bounds(lower_bounds: FloatArray) -> FloatArray:
    """The rows, if each is a list of lower bounds of one decision."""
    rows = np.asarray(lower_bounds, dtype=np.float64)
    if rows.ndim != 2 or not (rows >= 0).all():
        raise InputError(f"lower bounds of shape {rows.shape} with NaN or negative ones; rows of 0 or more are needed")
    if (rows.sum(axis=1) > 1 + TOLERANCE).any():
        raise InputError(f"lower bounds of one decision sum to {rows.sum(axis=1).max():.9g}; at most 1 is possible")
    return rows


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions of about the same size, and how often they came true."""

    edge_low: float
    edge_high: float
    n_predictions: int
    """Lower bounds in the bin: pairs of decision and token."""
    n_decisions: int
    """Decisions with such a token."""
    n_hits: int
    """Decisions in which such a token was chosen."""
    predicted: float
    """Mean lower bound."""
    observed: float
    """Share of the predictions whose token was chosen."""
    low: float
    """Lower end of the interval of how often they come true; simultaneous over all bins."""
    high: float
    """Its upper end."""
    outcome: Outcome
    """``holds``: they come true at least exp(-tolerance) times as often as predicted; ``fails``: less often than predicted."""

    @property
    def slack_nats(self) -> float:
        """The least s such that the events surely happen at least exp(-s) times as often as predicted; inf where nothing
        is sure."""
        if self.low >= self.predicted:
            return 0.0
        return math.log(self.predicted / self.low) if self.low > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far the lower bounds of one base were kept on held-out decisions."""

    bins: tuple[Bin, ...]
    """Those in which something was predicted, ascending."""
    confidence: float
    """With which all intervals hold at once (Bonferroni, empty bins included)."""
    tolerance_nats: float
    independent: Independent
    n_dialogues: int
    """Dialogues with a decision."""
    n_decisions: int
    unforeseen_share: float
    """Share of the decisions whose token had the lower bound 0: the veto met the demonstrator."""
    mean_asking_probability: float
    """Mean over decisions of the mass that the lower bounds leave open."""

    @property
    def outcome(self) -> Outcome:
        """``fails`` if one bin does, ``holds`` if all do, also where nothing was predicted."""
        found = {part.outcome for part in self.bins}
        return "fails" if "fails" in found else "holds" if found <= {"holds"} else "too little data"

    def where(self, outcome: Outcome) -> str:
        """The p of the bins with this outcome, neighbors together: ``0.01 to 0.5, 0.9 to 1``."""
        ranges: list[tuple[float, float]] = []
        for part in (part for part in self.bins if part.outcome == outcome):
            begin = ranges.pop()[0] if ranges and ranges[-1][1] == part.edge_low else part.edge_low
            ranges.append((begin, part.edge_high))
        return ", ".join(f"{low:g} to {high:g}" for low, high in ranges)

    @property
    def slack_nats(self) -> float:
        """The slack with which all surely hold: lower bounds times exp(-this) are kept; inf where data are too few."""
        return max((part.slack_nats for part in self.bins), default=0.0)

    @property
    def sentence(self) -> str:
        """The verdict with its confidence, in words."""
        sure = f"{100 * self.confidence:.4g}% confidence over all bins"
        within = f", within {100 * -math.expm1(-self.tolerance_nats):.2g}% of it" if self.tolerance_nats else ""
        if not self.bins:
            return "The base vouches for nothing, so no lower bound could be broken."
        if self.outcome == "fails":
            where = self.where("fails")
            return f"Not kept: events happen less often than the lower bound p says for p in {where} ({sure})."
        if self.outcome == "holds":
            return f"Kept: events happen at least as often as the lower bound says{within} ({sure})."
        where = self.where("holds")
        some = f"surely kept for p in {where}{within}" if where else "nowhere surely kept"
        return f"Too little data: the lower bounds are {some}, and nowhere refuted ({sure})."


def reliability(
    found: Tally,
    confidence: float = CONFIDENCE,
    tolerance_nats: float = TOLERANCE_NATS,
    independent: Independent = "nothing",
    n_checks: int = 1,
) -> Reliability:
    """Are the lower bounds kept, bin by bin, with one verdict?

    The interval of each bin misses with probability (1 - confidence) / (bins x checks) at most, so that with probability
    ``confidence`` none does (Bonferroni). A bin *fails* when its interval lies below what was predicted, and *holds* when it
    lies above exp(-tolerance) of it; else there is too little data. ``independent`` says what the interval relies on:

    - ``nothing``: tokens may depend on one another in any way. The statement is about the decisions that were made: on
      their histories the demonstrator's own probabilities of these events are, on the mean, so large.
    - ``dialogues``: they are independent and alike. The statement is about a random decision of a new dialogue, each
      dialogue counting the same; it needs many dialogues to say anything of small p.
    - ``decisions``: all of them (Clopper-Pearson). Too short where decisions of one dialogue go together.

    Args:
        n_checks: of how many reliabilities this is one that are read together.

    Errors: :class:`~mightnt.errors.InputError` for no decision, a confidence that is no probability, a negative tolerance.
    Kind: the intervals' coverage is proven, given the assumption. Cost: two roots a bin.
    """
    if not found.decisions.sum():
        raise InputError("no held-out decision to check the lower bounds on; hold out more demonstrations")
    if not 0 < confidence < 1 or not 0 <= tolerance_nats < math.inf or n_checks < 1:
        raise InputError(
            f"confidence {confidence}, tolerance {tolerance_nats} nats; between 0 and 1, and finite are needed"
        )
    if independent not in get_args(Independent):
        raise InputError(f"independent {independent!r}; allowed are {', '.join(get_args(Independent))}")
    error = (1 - confidence) / ((len(found.edges) - 1) * n_checks)
    some = np.flatnonzero(found.predictions.sum(axis=0))
    n_decisions = float(found.decisions.sum())
    return Reliability(
        bins=tuple(one_bin(found, int(i), error, tolerance_nats, independent) for i in some),
        confidence=confidence,
        tolerance_nats=tolerance_nats,
        independent=independent,
        n_dialogues=int((found.decisions > 0).sum()),
        n_decisions=int(n_decisions),
        unforeseen_share=float(found.unforeseen.sum()) / n_decisions,
        mean_asking_probability=float(found.missing.sum()) / n_decisions,
    )


def one_bin(found: Tally, i: int, error: float, tolerance_nats: float, independent: Independent) -> Bin:
    """A bin in which something was predicted, with an interval that misses with probability ``error`` at most."""
    spoken = found.decisions > 0
    weight = 1.0 / found.decisions[spoken] if independent == "dialogues" else np.ones(int(spoken.sum()))
    hits, expected = found.hits[spoken, i], found.predicted[spoken, i]
    n_hits, n_trials, n_predictions = (int(x[:, i].sum()) for x in (found.hits, found.trials, found.predictions))
    weighed = float(weight @ found.predictions[spoken, i])
    predicted, observed = float(weight @ expected) / weighed, float(weight @ hits) / weighed
    if independent == "dialogues":
        low, high = (predicted * ratio for ratio in ratio_of_means_interval(weight * hits, weight * expected, error))
    else:
        interval = share_interval if independent == "decisions" else dependent_share_interval
        low, high = (share * n_trials / n_predictions for share in interval(n_hits, n_trials, error))
    refuted, kept = high < predicted * (1 - TOLERANCE), low >= math.exp(-tolerance_nats) * predicted
    return Bin(
        edge_low=found.edges[i],
        edge_high=found.edges[i + 1],
        n_predictions=n_predictions,
        n_decisions=n_trials,
        n_hits=n_hits,
        predicted=predicted,
        observed=observed,
        low=low,
        high=min(1.0, high),
        outcome="fails" if refuted else "holds" if kept else "too little data",
    )
