"""What stands in slices of one long array: binary searches in many slices at once, and sparse rows of (token, count)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

BLOCK = 2**20
"""Entries that are worked on at once: bounds the work space to some 50 MB."""


@dataclass(frozen=True)
class CountRows:
    """How often each token was chosen, a sparse row for each of n questions."""

    row_starts: IntArray
    """Where each row's entries begin, and their total; shape (n + 1,)."""
    tokens: IntArray
    """The token of each entry, ascending within a row."""
    counts: IntArray
    """How often it was chosen, at least 1."""

    @property
    def owner(self) -> IntArray:
        """The row of each entry."""
        return np.repeat(np.arange(len(self.row_starts) - 1), np.diff(self.row_starts))

    @property
    def totals(self) -> IntArray:
        """Sum of each row, shape (n,)."""
        running = np.concatenate([[0], np.cumsum(self.counts)])
        return np.asarray(np.diff(running[self.row_starts]), dtype=np.int64)

    def of(self, tokens: IntArray, n_symbols: int) -> IntArray:
        """The counts of these ``tokens``, shape (n, any), each in the row of its own."""
        return look_up(self.owner * n_symbols + self.tokens, self.counts, paired(tokens, n_symbols))


def paired(tokens: IntArray, n_symbols: int) -> IntArray:
    """One number for each pair (row, token) of ``tokens``, shape (n, any)."""
    return np.arange(len(tokens))[:, None] * n_symbols + tokens


def look_up(keys: IntArray, counts: IntArray, wanted: IntArray) -> IntArray:
    """The count of each wanted key, 0 where it is not among ``keys`` (ascending)."""
    if not len(keys):
        return np.zeros(wanted.shape, dtype=np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.asarray(np.where(keys[place] == wanted, counts[place], 0))


def spread(begins: IntArray, sizes: IntArray) -> IntArray:
    """begins[0], begins[0] + 1, ..., ``sizes[0]`` of them, then those of the next, and so on."""
    before = np.cumsum(sizes) - sizes
    places: IntArray = np.arange(int(sizes.sum())) + np.repeat(begins - before, sizes)
    return places


def lower_bounds(
    values: Callable[[IntArray], NDArray[Any]], begins: IntArray, ends: IntArray, wanted: IntArray
) -> IntArray:
    """The first place in each ``begins:ends`` whose value is at least ``wanted``, or its end.

    ``values(places)`` must be ascending within each slice. Cost: one read a slice for each halving of the longest one.
    """
    low, left = begins.copy(), ends - begins
    for _ in range(int(left.max(initial=0)).bit_length()):
        half = left - left // 2
        low += half * (values(low + half - 1) < wanted)  # nothing left: half is 0, and what is read does not matter
        left //= 2
    return low


def counted(
    tokens: NDArray[Any], begins: IntArray, ends: IntArray, rows: IntArray, n_symbols: int
) -> Iterator[tuple[IntArray, IntArray]]:
    """``(row * n_symbols + token, how often)`` in the slices ``tokens[begins:ends]`` of the ``rows`` (ascending).

    In pieces, each ascending; a pair may come in several. Cost: one read and about one sort of the slices; ``BLOCK``
    entries are held at once.
    """
    parts = -(-(ends - begins) // BLOCK)
    slice_ = np.repeat(np.arange(len(begins)), parts)
    begins = begins[slice_] + spread(np.zeros_like(parts), parts) * BLOCK
    ends, rows = np.minimum(begins + BLOCK, ends[slice_]), rows[slice_]
    sizes = ends - begins
    group = (np.cumsum(sizes) - sizes) // BLOCK
    for here in np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(group)) + 1):
        if len(here):
            found = (
                tokens[begins[here[0]] : ends[here[0]]] if len(here) == 1 else tokens[spread(begins[here], sizes[here])]
            )
            first, width = rows[here[0]], int(rows[here[-1]] - rows[here[0]] + 1) * n_symbols
            keys = np.repeat((rows[here] - first) * n_symbols, sizes[here]) + found
            if width <= 4 * len(keys):
                dense = np.bincount(keys, minlength=width)
                keys = np.flatnonzero(dense)
                counts = dense[keys]
            else:
                keys, counts = np.unique(keys, return_counts=True)
            yield keys + first * n_symbols, counts


def rows_of(pieces: list[tuple[IntArray, IntArray]], n_rows: int, n_symbols: int) -> CountRows:
    """The sparse rows of (row * n_symbols + token, how often) pairs, which may repeat."""
    keys = np.concatenate([np.zeros(0, dtype=np.int64), *(keys for keys, _ in pieces)])
    counts = np.concatenate([np.zeros(0, dtype=np.int64), *(counts for _, counts in pieces)])
    if np.any(keys[1:] <= keys[:-1]):
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], counts[order]
    if np.any(keys[1:] == keys[:-1]):
        first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        keys, counts = keys[first], np.add.reduceat(counts, first)
    row_starts = np.searchsorted(keys, np.arange(n_rows + 1) * n_symbols)
    return CountRows(row_starts, keys % n_symbols, counts)
