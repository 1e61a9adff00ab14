"""Rows counted in advance for suffixes that occur often, so that no question has to read a long slice.

Only a short cut: a slice whose row is not here is counted where it stands, with the same result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mightnt.models.corpus.contexts import BEGINNING, Contexts, Slices
from mightnt.models.corpus.slices import IntArray, counted, lower_bounds, rows_of, spread

FREQUENT = 256
"""Slices longer than this are counted in advance."""

LONGEST = 64
"""Suffixes longer than this are not, however often they occur: bounds the time where whole dialogues repeat."""

ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class FrequentRows:
    """The counted rows of slices of the sorted choices."""

    keys: IntArray
    """begin * (n_chosen + 1) + end of each slice, ascending, shape (rows,)."""
    row_starts: IntArray
    """Where each row's entries begin, and their total; shape (rows + 1,)."""
    tokens: NDArray[Any]
    """The token of each entry, ascending within a row."""
    counts: NDArray[Any]
    """How often it was chosen."""

    def find(self, begins: IntArray, ends: IntArray, n_chosen: int) -> tuple[IntArray, IntArray]:
        """``(which slices have a row here, their rows)``."""
        if not len(self.keys):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        long = np.flatnonzero(ends - begins > FREQUENT)
        wanted = keys_of(begins[long], ends[long], n_chosen)
        rows = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        found = self.keys[rows] == wanted
        return long[found], rows[found]

    def entries(self, rows: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """``(index into rows, token, how often)`` of every entry of these rows."""
        sizes = self.row_starts[rows + 1] - self.row_starts[rows]
        at = spread(self.row_starts[rows], sizes)
        return (
            np.repeat(np.arange(len(rows)), sizes),
            self.tokens[at].astype(np.int64),
            self.counts[at].astype(np.int64),
        )

    def of(self, rows: IntArray, tokens: IntArray) -> IntArray:
        """How often each of ``tokens`` (n, any) was chosen in the rows (n,)."""
        begins, ends = (np.repeat(self.row_starts[rows + shift], tokens.shape[1]) for shift in (0, 1))
        at = lower_bounds(lambda places: self.tokens[places], begins, ends, tokens.ravel())
        here = np.flatnonzero(at < ends)
        here = here[self.tokens[at[here]] == tokens.ravel()[here]]
        counts = np.zeros(tokens.size, dtype=np.int64)
        counts[here] = self.counts[at[here]]
        return counts.reshape(tokens.shape)


def keys_of(begins: IntArray, ends: IntArray, n_chosen: int) -> IntArray:
    """One number for each slice, in the order of begins, then ends; below 2^63 for up to 3 * 10^9 choices."""
    return begins * (n_chosen + 1) + ends


def frequent_slices(contexts: Contexts) -> tuple[IntArray, IntArray]:
    """``(begins, ends)`` of every slice longer than ``FREQUENT`` that a suffix of at most ``LONGEST`` tokens has.

    By length: each such slice holds a multiple of ``FREQUENT`` steps from the begin of the one around it, so only the
    contexts at those steps are looked at. Cost: n_chosen / ``FREQUENT`` searches for each length, as long as there are any.
    """
    whole = contexts.all(1)
    begins, ends = long_ones(whole.begins[0], whole.ends[0])
    found = [(begins, ends)]
    for back in range(1, LONGEST + 1):
        steps = (ends - begins - 1) // FREQUENT + 1
        outer = np.repeat(np.arange(len(begins)), steps)
        probes = begins[outer] + spread(np.zeros_like(steps), steps) * FREQUENT
        symbols = contexts.symbols(probes, back)
        fresh = np.ones(len(probes), dtype=bool)
        fresh[1:] = (outer[1:] != outer[:-1]) | (symbols[1:] != symbols[:-1])
        outer, symbols = outer[fresh], symbols[fresh]
        inner = contexts.narrow(Slices(begins[outer, None], ends[outer, None]), back, symbols)
        found.append(long_ones(inner.begins[:, 0], inner.ends[:, 0]))
        going_on = symbols != BEGINNING
        begins, ends = long_ones(inner.begins[going_on, 0], inner.ends[going_on, 0])
        if not len(begins):
            break
    pairs = np.unique(np.concatenate([np.stack(both, axis=1) for both in found]), axis=0)
    return pairs[:, 0], pairs[:, 1]


def long_ones(begins: IntArray, ends: IntArray) -> tuple[IntArray, IntArray]:
    """The slices longer than ``FREQUENT``."""
    long = ends - begins > FREQUENT
    return begins[long], ends[long]


def count_frequent(
    followers: NDArray[Any], begins: IntArray, ends: IntArray, n_symbols: int
) -> Iterator[tuple[IntArray, IntArray, IntArray]]:
    """``(entries of each row, tokens, counts)`` of these slices, some rows at a time. Cost: one read of every slice."""
    for first in range(0, len(begins), ROWS_AT_ONCE):
        here = slice(first, first + ROWS_AT_ONCE)
        n = len(begins[here])
        rows = rows_of(list(counted(followers, begins[here], ends[here], np.arange(n), n_symbols)), n, n_symbols)
        yield np.diff(rows.row_starts), rows.tokens, rows.counts
