"""Every choice of the demonstrators, ordered by what stood before it: the suffix array behind counts at corpus scale.

The text is 0, dialogue, 0, dialogue, ...: tokens are shifted by one, and 0 stands where a dialogue begins. A *context* is
what stands before a place, read backward from the newest token until 0. With the places of all choices sorted by context,
those that share their last k tokens form one slice, and each further token narrows it.

The corpus is sorted in *shards* of whole dialogues, one after the other, so that memory is bounded by a shard. A suffix
then has one slice in each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mightnt.errors import InputError
from mightnt.models.corpus.slices import BLOCK, IntArray, lower_bounds

BEGINNING = 0
"""What stands before the first token of a dialogue."""


@dataclass(frozen=True)
class Slices:
    """A slice of the sorted places for each of n suffixes and each shard."""

    begins: IntArray
    """Shape (n, shards)."""
    ends: IntArray
    """Shape (n, shards)."""

    @property
    def totals(self) -> IntArray:
        """How often something was chosen after each suffix, shape (n,)."""
        return np.asarray((self.ends - self.begins).sum(axis=1))

    def take(self, rows: NDArray[Any]) -> Slices:
        """Those of some suffixes, by index or mask."""
        return Slices(self.begins[rows], self.ends[rows])


@dataclass(frozen=True)
class Contexts:
    """The places of all choices in the order of their contexts."""

    text: NDArray[Any]
    """0, dialogue, 0, dialogue, ... with tokens shifted by one; shape (n_tokens + n_dialogues,)."""
    places: NDArray[Any]
    """Places in ``text`` of the choices, sorted by context within each shard; shape (n_chosen,)."""
    shards: IntArray
    """Where each shard's places begin, and their total; shape (shards + 1,)."""

    def all(self, n: int) -> Slices:
        """The slices of ``n`` empty suffixes: everything."""
        return Slices(np.tile(self.shards[:-1], (n, 1)), np.tile(self.shards[1:], (n, 1)))

    def narrow(self, slices: Slices, back: int, symbols: IntArray) -> Slices:
        """The part of each slice whose contexts have ``symbols`` (n,) ``back`` steps before the choice.

        The contexts of a slice must agree up to ``back - 1`` steps, none of them 0. Kind: exact. Cost: two binary
        searches a slice, all of them side by side.
        """
        shape, wanted = slices.begins.shape, np.repeat(symbols, slices.begins.shape[1])
        begins, ends = slices.begins.ravel(), slices.ends.ravel()
        bounds = lower_bounds(
            lambda at: self.text[self.places[at] - back],
            np.concatenate([begins, begins]),
            np.concatenate([ends, ends]),
            np.concatenate([wanted, wanted + 1]),
        )
        return Slices(bounds[: len(begins)].reshape(shape), bounds[len(begins) :].reshape(shape))

    def symbols(self, at: IntArray, back: int) -> IntArray:
        """What stands ``back`` steps before the choices at these sorted places; not farther than the beginning."""
        return np.asarray(self.text[self.places[at] - back], dtype=np.int64)


def sort_contexts(text: NDArray[Any], chosen: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """The places of ``text`` (one shard, beginning with 0) that were ``chosen``, sorted by context, in blocks.

    A suffix array of the text read backward, by libdivsufsort. That sorts bytes: symbols are renumbered without gaps and
    written with their high byte first, and only every suffix that begins with a whole symbol is kept.

    Kind: exact; the order of equal contexts has no meaning. Cost: the library's time for w bytes a symbol, and at most
    5 w + 5 bytes of memory a symbol, where w is 1, 2 or 3 for up to 256, 65,536 or more distinct symbols.
    """
    encoded = as_bytes(text[::-1])
    width = encoded.shape[1]
    suffixes = suffix_array(encoded.reshape(-1))
    for first in range(0, len(suffixes), BLOCK):
        block = suffixes[first : first + BLOCK]
        backward = block[block % width == 0] // width
        places = len(text) - backward.astype(np.int64)
        places = places[backward > 0]
        yield places[chosen[places]]


def as_bytes(symbols: NDArray[Any]) -> NDArray[np.uint8]:
    """``symbols`` (at least 0) renumbered in the same order, as numbers of as few bytes as they need, high byte first."""
    used = np.zeros(int(symbols.max()) + 1, dtype=bool)
    used[symbols] = True
    codes = np.cumsum(used) - 1
    width = max(1, -(-int(codes[-1]).bit_length() // 8))
    encoded = np.empty((len(symbols), width), dtype=np.uint8)
    for digit in range(width):
        encoded[:, digit] = ((codes >> (8 * (width - 1 - digit))) & 255).astype(np.uint8)[symbols]
    return encoded


def suffix_array(text: NDArray[np.uint8]) -> NDArray[Any]:
    """Where the suffixes of these bytes begin, in ascending order; int32 below 2^31 bytes, int64 from there.

    Raises :class:`~mightnt.errors.InputError` where the library that sorts is not installed.
    """
    try:
        from pydivsufsort import divsufsort  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as error:
        raise InputError('counts at corpus scale need pydivsufsort; pip install "mightnt[corpus]"') from error
    return np.asarray(divsufsort(text))
