"""What counts say of many places at once, not written out: what all places share, and the few entries that differ.

Written out it is a number for each place and symbol, most of which say nothing but "as anywhere": for a large vocabulary that
is where the time and the memory go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mightnt.prediction import FloatArray

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

EVERYTHING, WHOLE, NOTHING = 0, 1, 2
"""What a row of :class:`Allowed` begins with: every action, what the first table has, nothing."""


@dataclass(frozen=True)
class Spread:
    """Probabilities of many rows, not written out: scale(row) x common(symbol), and more at a few entries of each row."""

    common: FloatArray
    """Of every symbol, shape (n_symbols,)."""
    scale: FloatArray
    """Shape (n,)."""
    codes: tuple[IntArray, ...]
    """Entries where there is more, list by list: row x n_symbols + symbol, ascending and distinct in each list."""
    more: tuple[FloatArray, ...]
    """How much more, entry by entry; lists add up."""

    def written_out(self) -> FloatArray:
        """Log-probabilities, shape (n, n_symbols)."""
        result = self.scale[:, None] * self.common
        for codes, more in zip(self.codes, self.more, strict=True):
            result.reshape(-1)[codes] += more
        with np.errstate(divide="ignore"):
            return np.log(result)

    def at(self, wanted: IntArray) -> FloatArray:
        """Log-probabilities of some entries, ascending as ``codes`` are, shape (entries,)."""
        row, symbol = np.divmod(wanted, len(self.common))
        result = self.scale[row] * self.common[symbol]
        for codes, more in zip(self.codes, self.more, strict=True):
            found, entries = listed(codes, wanted)
            result[found] += more[entries]
        with np.errstate(divide="ignore"):
            return np.log(result)


@dataclass(frozen=True)
class Allowed:
    """Which symbols have support in many rows, not written out: one of three sets a row, and a few entries more."""

    sets: BoolArray
    """EVERYTHING, WHOLE, NOTHING: shape (3, n_symbols)."""
    which: IntArray
    """Which of the three each row begins with, shape (n,)."""
    codes: IntArray
    """Entries that have support as well: row x n_symbols + symbol, ascending, distinct."""

    def written_out(self) -> BoolArray:
        """Shape (n, n_symbols)."""
        result = self.sets[self.which]
        result.reshape(-1)[self.codes] = True
        return result

    def at(self, wanted: IntArray) -> BoolArray:
        """Of some entries, ascending as ``codes`` are, shape (entries,)."""
        row, symbol = np.divmod(wanted, self.sets.shape[1])
        result = self.sets[self.which[row], symbol]
        result[listed(self.codes, wanted)[0]] = True
        return result


def shortlist(sources: Sequence[Allowed]) -> tuple[BoolArray, IntArray]:
    """``(which rows are closed to all but a list, those lists)`` where support needs all of these sources, one or more.

    Shapes (n,) and (entries,), the latter row x n_symbols + symbol, ascending. Cost: the entries of the sources.
    """
    closed, lists = np.zeros(len(sources[0].which), dtype=np.bool_), []
    for source in sources:
        fresh = (source.which == NOTHING) & ~closed
        lists.append(source.codes[fresh[source.codes // source.sets.shape[1]]])
        closed |= fresh
    codes = np.sort(np.concatenate(lists), kind="stable")
    return closed, codes[np.logical_and.reduce([source.at(codes) for source in sources])]


def listed(codes: IntArray, wanted: IntArray) -> tuple[IntArray, IntArray]:
    """``(which of the wanted entries are among the ascending codes, where they stand there)``, both of shape (found,)."""
    entries = np.searchsorted(codes, wanted)
    entries[entries == len(codes)] = 0
    found = np.flatnonzero(codes[entries] == wanted) if len(codes) else np.zeros(0, dtype=np.int64)
    return found, entries[found]


def of_rows(codes: IntArray, rows: IntArray, n_symbols: int) -> tuple[IntArray, IntArray]:
    """``(where the entries of these rows stand among the ascending codes, their codes if these rows were all)``."""
    begin, end = np.searchsorted(codes, rows * n_symbols), np.searchsorted(codes, (rows + 1) * n_symbols)
    lengths = end - begin
    owner = np.repeat(np.arange(len(rows)), lengths)
    inside = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + begin[owner]
    return inside, codes[inside] + (owner - rows[owner]) * n_symbols
