"""Lower confidence bounds on counts: what the demonstrations make sure is done at least so often."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mightnt.errors import InputError
from mightnt.models.counts import IntArray, SuffixCounts
from mightnt.models.spread import Spread
from mightnt.prediction import FloatArray

HALVINGS = 60
"""Of the interval that holds a bound: beyond float64."""


def binary_kl_nats(frequency: FloatArray, probability: FloatArray) -> FloatArray:
    """kl(f, p) = f log(f / p) + (1 - f) log((1 - f) / (1 - p)), elementwise; 0 log 0 = 0, inf where p excludes f.

    Kind: exact.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        yes = np.where(frequency > 0, frequency * np.log(frequency / probability), 0.0)
        no = np.where(frequency < 1, (1 - frequency) * (np.log1p(-frequency) - np.log1p(-probability)), 0.0)
    return np.asarray(yes + no)


def kl_lower_bound(counts: FloatArray, totals: FloatArray, level: float) -> FloatArray:
    """The least p with N kl(n / N, p) <= log(1 / level), elementwise; 0 where n = 0, never above n / N.

    What was seen n times in N trials has probability p or more, but for a chance ``level`` (for one event; the minimum
    of the multinomial likelihood-ratio set reduces to it). p -> n / N as N grows at a fixed frequency; where n = N it is
    level^(1/N).

    Args:
        counts, totals: n and N >= n, N > 0, of one shape.
        level: alpha, above 0 and at most 1 (there p = n / N).

    Errors: :class:`~mightnt.errors.InputError` for another level.
    Kind: lower bound (Chernoff). Cost: 60 halvings of an interval.
    """
    if not 0 < level <= 1:
        raise InputError(f"a level of {level}; above 0 and at most 1 is needed")
    frequency, allowed = counts / totals, -math.log(level) / totals
    low, high = np.zeros_like(frequency), frequency.copy()
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        inside = binary_kl_nats(frequency, middle) <= allowed
        low, high = np.where(inside, low, middle), np.where(inside, middle, high)
    return np.where(counts > 0, low, 0.0)


@dataclass(frozen=True)
class LowerCounts(SuffixCounts):
    """Counts that say at least how likely a token is: sums are below one, and zero is what the deciding suffix never saw.

    The longest suffix that was seen ``ample`` times decides; where none was, not even the empty one, nothing is vouched for.

    Kind: lower bound at ``level`` for each token and suffix (not for all at once), if the next token depends on the
    deciding suffix alone. Cost: a binary search per length and row, plus 60 halvings for the entries of the deciding rows.
    """

    level: float = 0.05
    """alpha: the chance that a bound is too high."""
    ample: int = 50
    """How often a suffix must have been seen to decide."""

    def spread(self, suffixes: IntArray) -> Spread:
        """The lower bounds, not written out; :meth:`predict` is their log, shape (n, n_symbols)."""
        length_of, row_of = self.deciding(suffixes)
        codes, bounds = [], []
        for length in np.unique(length_of[length_of >= 0]):
            table, found = self.tables[length], np.flatnonzero(length_of == length)
            owner, entry = table.entries(row_of[found])
            totals = table.totals[row_of[found]][owner]
            codes.append(found[owner] * self.n_symbols + table.actions[entry])
            bounds.append(kl_lower_bound(table.counts[entry], totals, self.level))
        return Spread(np.zeros(self.n_symbols), np.zeros(len(suffixes)), tuple(codes), tuple(bounds))

    def deciding(self, suffixes: IntArray) -> tuple[IntArray, IntArray]:
        """``(length of the longest ample suffix or -1, its row in the table of that length)``, both of shape (n,)."""
        length_of, row_of = np.full(len(suffixes), -1), np.zeros(len(suffixes), dtype=np.int64)
        for length, keys in enumerate(self.keys(suffixes)):
            table = self.tables[length]
            found, rows = table.find(keys)
            ample = table.totals[rows] >= self.ample
            length_of[found[ample]], row_of[found[ample]] = length, rows[ample]
        return length_of, row_of


def lower_counts(counts: SuffixCounts, level: float = 0.05, ample: int = 50) -> LowerCounts:
    """These counts as lower bounds."""
    return LowerCounts(counts.tables, counts.token_codes, counts.is_action, counts.strength, level, ample)
