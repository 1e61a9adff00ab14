"""Counts of what the demonstrator chose in situations like this one: clusters of hidden states, coarse to fine.

Suffixes of tokens tell situations apart by their last words and grow rare; a network's hidden state tells them apart by what
matters for the next word. Its clusters are a feature that scales: they generalize over words, and every one holds enough
demonstrated places to say "never". What a cluster cannot see is a network misled by the agent's own words (it then files an
odd place under an ordinary one), so suffixes veto beside it, and places far from every cluster support nothing.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mightnt.errors import InputError
from mightnt.models.counts import BoolArray, IntArray, SuffixTable, Support, backed_off, sum_pairs, supported_by
from mightnt.models.spread import NOTHING, Allowed, Spread
from mightnt.prediction import FloatArray

Vectors = NDArray[np.float32]

CLOSED = Support(ample=1, seen=2, missing=0.02)
"""Chance enough: a cluster vetoes what it saw less than twice if that would come with a chance of at most 2%."""
SAMPLE_PER_CLUSTER = 50
"""Places a cluster that the centers are found from; all places are counted."""


@dataclass(frozen=True)
class Clusters:
    """How fine clusters are."""

    places: int = 40
    """Demonstrated places a cluster holds, in the mean, on the finest level."""
    levels: int = 5
    """Levels of clusters."""
    coarser: int = 2
    """How many times fewer clusters the next coarser level has."""
    most: int = 1024
    """Clusters of the finest level, at most."""

    def __post_init__(self) -> None:
        if min(self.places, self.levels, self.most) < 1 or self.coarser < 2:
            raise InputError(f"{self}: places, levels and most of at least 1 and coarser of at least 2 are needed")

    def of_level(self, n_places: int, level: int) -> int:
        """Clusters of a level among so many places; level 0 is the finest."""
        finest: int = min(n_places // self.places, self.most)
        return max(1, finest // int(self.coarser**level))


@dataclass(frozen=True)
class Located:
    """Which clusters places fall into."""

    keys: tuple[NDArray[np.uint64], ...]
    """Cluster numbers on the levels, after the one key of the whole, each of shape (n,)."""
    distance: FloatArray
    """To the nearest center of the finest level, shape (n,)."""


@dataclass(frozen=True)
class SituationCounts:
    """The fitted counts. Rows of ``hidden`` are hidden states before a choice, shape (n, width).

    Kind: exact given its clusters. Cost: n x clusters x width operations, plus the entries found.
    """

    centers: tuple[Vectors, ...]
    """Cluster centers of each level, coarse to fine, each of shape (clusters, width)."""
    tables: tuple[SuffixTable, ...]
    """What was chosen in each cluster of each level; keys are cluster numbers."""
    is_action: BoolArray
    """Which tokens can be chosen at all, shape (n_symbols,)."""
    strength: float
    """Observations that a coarser level is worth to a finer one."""
    rule: Support = CLOSED
    """When a cluster vetoes a token."""
    farthest: float = float("inf")
    """Distance to the nearest finest center beyond which a place is unlike any demonstrated one."""

    def predict(self, hidden: Vectors) -> FloatArray:
        """Log-probabilities of the next action, backed off from fine to coarse to uniform, shape (n, n_symbols)."""
        return self.spread(self.located(hidden)).written_out()

    def supported(self, hidden: Vectors) -> BoolArray:
        """Which tokens were chosen in situations like this one, shape (n, n_symbols).

        The finest cluster that is closed decides (``rule``); farther than ``farthest`` nothing is supported.
        """
        return self.allowed(self.located(hidden)).written_out()

    def keys(self, hidden: Vectors) -> tuple[NDArray[np.uint64], ...]:
        """Cluster numbers on the levels, after the one key of the whole."""
        return self.located(hidden).keys

    def located(self, hidden: Vectors) -> Located:
        """The clusters that places fall into: what all else here follows from."""
        whole, distance = np.zeros(len(hidden), dtype=np.uint64), np.zeros(len(hidden))
        keys = [whole]
        for centers, squares in zip(self.centers, self.squares, strict=True):
            number, distance = nearest(hidden, centers, squares)
            keys.append(number.astype(np.uint64))
        return Located(tuple(keys), distance)

    @cached_property
    def squares(self) -> tuple[FloatArray, ...]:
        """Squared lengths of the centers of each level."""
        return tuple(squared_lengths(centers) for centers in self.centers)

    def spread(self, located: Located) -> Spread:
        """What :meth:`predict` says, not written out."""
        return backed_off(self.tables, located.keys, self.is_action, self.strength)

    def allowed(self, located: Located) -> Allowed:
        """What :meth:`supported` says, not written out."""
        near = supported_by(self.tables, located.keys, self.is_action, self.rule)
        far = located.distance > self.farthest
        return Allowed(
            near.sets, np.where(far, NOTHING, near.which), near.codes[~far[near.codes // len(self.is_action)]]
        )


def nearest(
    vectors: Vectors, centers: Vectors, squares: FloatArray | None = None, block: int = 8192
) -> tuple[IntArray, FloatArray]:
    """``(number of the nearest center, Euclidean distance to it)`` of each row, shapes (n,), (n,).

    ``squares``: squared lengths of the centers, for whoever has them: with few rows they take longer than all else.
    """
    squares = squared_lengths(centers) if squares is None else squares
    numbers, distances = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for first in range(0, len(vectors), block):
        rows = vectors[first : first + block]
        less = squares - (2.0 * rows) @ centers.T
        number = less.argmin(axis=1)
        squared = less[np.arange(len(rows)), number] + squared_lengths(rows)
        numbers.append(number)
        distances.append(np.sqrt(np.maximum(squared, 0.0)))
    return np.concatenate(numbers), np.concatenate(distances)


def squared_lengths(vectors: Vectors) -> FloatArray:
    """|v|^2 of each row, in float64, shape (n,)."""
    return np.asarray((vectors.astype(np.float64) ** 2).sum(axis=1))


def find_centers(sample: Vectors, n_clusters: int, seed: int) -> Vectors:
    """Centers of k-means (ten rounds from random points), shape (at most n_clusters, width); deterministic given ``seed``.

    Kind: estimate (a local optimum). Paper: Lloyd (1982), by SciPy. Cost: 10 x sample x clusters x width operations.
    """
    from scipy.cluster.vq import kmeans2

    distinct = np.unique(sample, axis=0)
    if len(distinct) <= n_clusters:
        return distinct
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster keeps its center, and no count
        centers, _ = kmeans2(sample.astype(np.float64), n_clusters, minit="points", missing="warn", rng=seed)
    return np.asarray(centers, dtype=np.float32)


def fit_situations(
    hidden: Vectors,
    actions: IntArray,
    is_action: BoolArray,
    clusters: Clusters | None = None,
    strength: float = 4.0,
    seed: int = 0,
) -> SituationCounts:
    """Cluster the hidden states before the demonstrator's choices and count what was chosen in each cluster.

    Args:
        hidden: hidden states before the choices, shape (n, width), finite.
        actions: what was chosen, shape (n,).
        is_action: which symbols can be chosen, shape (n_symbols,).

    Raises :class:`~mightnt.errors.InputError` for no choice, or hidden states that are not finite.
    """
    clusters = clusters or Clusters()
    if not len(actions):
        raise InputError("the demonstrations hold no action to count")
    if hidden.ndim != 2 or len(hidden) != len(actions) or not np.isfinite(hidden).all():
        raise InputError(
            f"hidden states of shape {hidden.shape} for {len(actions)} choices; one finite row a choice is needed"
        )
    rng = np.random.default_rng(seed)
    centers, tables = [], [sum_pairs(np.zeros(len(actions), dtype=np.uint64), actions, np.ones(len(actions)))]
    for level in reversed(range(clusters.levels)):
        n_clusters = clusters.of_level(len(actions), level)
        size = min(len(actions), SAMPLE_PER_CLUSTER * n_clusters)
        sample = hidden[np.sort(rng.choice(len(actions), size, replace=False))]
        centers.append(find_centers(sample, n_clusters, seed))
        number, _ = nearest(hidden, centers[-1])
        tables.append(sum_pairs(number.astype(np.uint64), actions, np.ones(len(actions))))
    return SituationCounts(tuple(centers), tuple(tables), is_action, strength)


def add_situations(model: SituationCounts, hidden: Vectors, actions: IntArray) -> SituationCounts:
    """``model`` after more demonstrated choices; clusters stay where they are.

    Kind: exact given the clusters. Cost: one sort of the tables' entries and the new choices a level.
    """
    tables = []
    for table, keys in zip(model.tables, model.keys(hidden), strict=True):
        rows = np.concatenate([np.repeat(table.keys, np.diff(table.row_starts)), keys])
        counts = np.concatenate([table.counts, np.ones(len(actions))])
        tables.append(sum_pairs(rows, np.concatenate([table.actions, actions]), counts))
    return replace(model, tables=tuple(tables))


def with_farthest(model: SituationCounts, held_out: Vectors, turn: IntArray, rate: float) -> SituationCounts:
    """``model`` with ``farthest`` such that at most a share ``rate`` of held-out turns goes farther.

    Args:
        held_out: hidden states before held-out choices, shape (n, width).
        turn: a number for the turn that each belongs to, ascending, shape (n,).

    Kind: exact quantile of the held-out turns (an estimate for new ones).
    """
    if not len(held_out):
        raise InputError("no held-out action to choose the distance on; hold out more demonstrations")
    _, distance = nearest(held_out, model.centers[-1])
    first = np.flatnonzero(np.diff(turn, prepend=turn[0] - 1))
    worst = np.sort(np.maximum.reduceat(distance, first))
    allowed = int(np.floor(rate * len(worst) + 1e-9))
    return replace(model, farthest=float(worst[max(0, len(worst) - 1 - allowed)]))
