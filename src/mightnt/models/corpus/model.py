"""The count model over a corpus on disk: the back-off of :mod:`mightnt.models.counts`, for suffixes of any length.

It answers as :class:`~mightnt.models.counts.SuffixCounts` does, number by number, where both look at suffixes of the same
length; and for large vocabularies it has sparse forms that never make a row of all symbols.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mightnt.errors import InputError
from mightnt.models.corpus.contexts import BEGINNING, Contexts, Slices
from mightnt.models.corpus.folder import check_sums, mapped, read_record
from mightnt.models.corpus.frequent import FrequentRows
from mightnt.models.corpus.slices import CountRows, counted, rows_of
from mightnt.models.counts import BEFORE_START, BoolArray, IntArray, Support
from mightnt.prediction import FloatArray


@dataclass(frozen=True)
class Matches:
    """The longest suffix of each of n histories that was seen often enough."""

    lengths: IntArray
    """Its length in tokens, ``-1`` where not even the empty one was; shape (n,)."""
    slices: Slices
    """Where its occurrences stand among the sorted choices; empty where there is none."""


@dataclass(frozen=True)
class CorpusCounts:
    """The count model of a corpus on disk. Rows of ``suffixes`` (n, at least ``longest``) are the last tokens, newest last,
    ``BEFORE_START`` where none was.

    Kind: exact given its counts. Cost: two binary searches in the sorted choices per length, shard and row, and the
    entries found; nothing is loaded but the pages that are touched.
    """

    contexts: Contexts
    """The places of all choices in the order of their contexts."""
    followers: NDArray[Any]
    """What was chosen there, shape (n_chosen,)."""
    frequent: FrequentRows
    """Rows that are counted already."""
    is_action: BoolArray
    """Which tokens can be chosen at all, shape (n_symbols,); the others have probability 0."""
    longest: int | None
    """Length of the longest suffix that is looked at; ``None``: as long as the rows of ``suffixes``."""
    strength: float
    """How many observations the shorter suffix is worth."""

    @property
    def n_symbols(self) -> int:
        """Size of the vocabulary."""
        return len(self.is_action)

    def predict(self, suffixes: IntArray) -> FloatArray:
        """Log-probabilities of the next action, shape (n, n_symbols), normalized over actions.

        p_k(x) = (n_k(x) + s p_{k-1}(x)) / (N_k + s) from p_{-1} uniform over actions to the longest suffix.
        """
        probabilities = np.repeat((self.is_action / self.is_action.sum())[None], len(suffixes), axis=0)
        for rows, slices in self.by_length(suffixes):
            found = self.counts(slices)
            weight = 1.0 / (slices.totals + self.strength)
            probabilities[rows] *= (self.strength * weight)[:, None]
            probabilities[rows[found.owner], found.tokens] += found.counts * weight[found.owner]
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(probabilities))

    def predict_at(self, suffixes: IntArray, tokens: IntArray) -> FloatArray:
        """Log-probabilities of these ``tokens`` (n, any), the same numbers as ``predict`` has there, without the others."""
        tokens = self.checked(tokens, 0)
        probabilities = (self.is_action / self.is_action.sum())[tokens]
        for rows, slices in self.by_length(suffixes):
            weight = 1.0 / (slices.totals + self.strength)
            probabilities[rows] *= (self.strength * weight)[:, None]
            probabilities[rows] += self.counts_of(slices, tokens[rows]) * weight[:, None]
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(probabilities))

    def supported(self, suffixes: IntArray, rule: Support) -> BoolArray:
        """Which tokens the demonstrations support after each suffix, shape (n, n_symbols).

        A token is supported unless the longest ample suffix has hardly ever been followed by it. With no ample suffix,
        not even the empty one, every action is supported.
        """
        refuse_missing(rule)
        matches = self.matches(suffixes, rule.ample)
        supported = (matches.lengths < 0)[:, None] & self.is_action
        found = self.counts(matches.slices)
        seen = found.counts >= rule.seen
        supported[found.owner[seen], found.tokens[seen]] = True
        return supported

    def supported_at(self, suffixes: IntArray, tokens: IntArray, rule: Support) -> BoolArray:
        """Whether these ``tokens`` (n, any) are supported, as ``supported`` says, without the others."""
        tokens = self.checked(tokens, 0)
        refuse_missing(rule)
        matches = self.matches(suffixes, rule.ample)
        seen = self.counts_of(matches.slices, tokens) >= max(rule.seen, 1)
        return np.where((matches.lengths < 0)[:, None], self.is_action[tokens], seen)

    def next_counts(self, suffixes: IntArray, ample: int = 1) -> CountRows:
        """How often each token was chosen after the longest suffix that was seen at least ``ample`` times, sparse."""
        return self.counts(self.matches(suffixes, ample).slices)

    def matches(self, suffixes: IntArray, ample: int = 1) -> Matches:
        """The longest suffix of each row that was seen at least ``ample`` times (at least once)."""
        lengths = np.full(len(suffixes), -1)
        begins = np.zeros((len(suffixes), len(self.contexts.shards) - 1), dtype=np.int64)
        ends = begins.copy()
        for length, (rows, slices) in enumerate(self.by_length(suffixes, ample)):
            lengths[rows], begins[rows], ends[rows] = length, slices.begins, slices.ends
        return Matches(lengths, Slices(begins, ends))

    def by_length(self, suffixes: IntArray, ample: int = 1) -> Iterator[tuple[IntArray, Slices]]:
        """``(rows, slices)`` for the suffixes of length 0, 1, ...: where those seen at least ``ample`` times stand.

        ``counts`` of the slices gives the distribution at each length. Ends with the first length that no row has.
        """
        symbols = self.symbols(suffixes)
        rows, slices = np.arange(len(symbols)), self.contexts.all(len(symbols))
        for length in range(symbols.shape[1] + 1):
            if length:
                slices = self.narrow(slices, length, symbols[rows])
            enough = slices.totals >= max(ample, 1)
            rows, slices = rows[enough], slices.take(enough)
            if not len(rows):
                return
            yield rows, slices

    def narrow(self, slices: Slices, back: int, symbols: IntArray) -> Slices:
        """The part of each slice that agrees with ``symbols`` one step farther; before a beginning stand beginnings."""
        wanted = symbols[:, -back]
        begun = symbols[:, 1 - back] == BEGINNING if back > 1 else np.zeros(len(symbols), dtype=bool)
        begins, ends = slices.begins.copy(), slices.ends.copy()
        ends[begun & (wanted != BEGINNING)] = begins[begun & (wanted != BEGINNING)]
        inner = self.contexts.narrow(slices.take(~begun), back, wanted[~begun])
        begins[~begun], ends[~begun] = inner.begins, inner.ends
        return Slices(begins, ends)

    def counts(self, slices: Slices) -> CountRows:
        """How often each token was chosen in each row of slices, sparse."""
        rows, found, pieces = self.count(slices)
        entry, tokens, counts = self.frequent.entries(found)
        return rows_of([*pieces, (rows[entry] * self.n_symbols + tokens, counts)], len(slices.begins), self.n_symbols)

    def counts_of(self, slices: Slices, tokens: IntArray) -> IntArray:
        """How often each of ``tokens`` (n, any) was chosen in its row of slices, the same numbers as ``counts`` has."""
        rows, found, pieces = self.count(slices)
        total = rows_of(pieces, len(tokens), self.n_symbols).of(tokens, self.n_symbols)
        np.add.at(total, rows, self.frequent.of(found, tokens[rows]))
        return total

    def count(self, slices: Slices) -> tuple[IntArray, IntArray, list[tuple[IntArray, IntArray]]]:
        """``(rows, frequent rows)`` of the slices that are counted already, and the others, counted now."""
        n, shards = slices.begins.shape
        rows, begins, ends = np.repeat(np.arange(n), shards), slices.begins.ravel(), slices.ends.ravel()
        here, found = self.frequent.find(begins, ends, len(self.followers))
        rest = np.delete(np.arange(len(rows)), here)
        pieces = counted(self.followers, begins[rest], ends[rest], rows[rest], self.n_symbols)
        return rows[here], found, list(pieces)

    def symbols(self, suffixes: IntArray) -> IntArray:
        """The tokens that are looked at, shifted as in the text; shape (n, longest)."""
        suffixes = self.checked(suffixes, BEFORE_START)
        longest = suffixes.shape[1] if self.longest is None else self.longest
        if suffixes.shape[1] < longest:
            raise InputError(
                f"suffixes of {suffixes.shape[1]} tokens are shorter than the longest that counts, {longest}"
            )
        return suffixes[:, suffixes.shape[1] - longest :] + 1

    def checked(self, tokens: IntArray, lowest: int) -> IntArray:
        """``tokens`` as whole numbers, shape (n, any), each from ``lowest`` to the last symbol."""
        tokens = np.asarray(tokens)
        if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
            raise InputError(f"{tokens.dtype} {tokens.shape} are not rows of tokens")
        if tokens.size and (tokens.min() < lowest or tokens.max() >= self.n_symbols):
            raise InputError(
                f"tokens {tokens.min()} to {tokens.max()} are not all within {lowest} and {self.n_symbols - 1}"
            )
        return tokens.astype(np.int64)


def open_corpus(folder: Path, longest: int | None = 4, strength: float = 2.0, check: bool = False) -> CorpusCounts:
    """The count model of what :func:`~mightnt.models.corpus.build.build_corpus` wrote; files are mapped, not loaded.

    Args:
        longest: length of the longest suffix that is looked at; ``None`` for no limit.
        strength: how many observations the shorter suffix is worth to the longer one.
        check: read every file and compare its check sum. Without it only kinds and sizes are compared.

    Raises :class:`~mightnt.errors.InputError` where the folder holds no finished corpus, one of another version, or a file
    that is not whole.
    """
    if not strength > 0:
        raise InputError(f"strength {strength} is not above 0")
    if longest is not None and longest < 0:
        raise InputError(f"a longest suffix of {longest} tokens is below 0")
    record = read_record(folder)
    if check:
        check_sums(folder, record)
    arrays = {name: mapped(folder, about) for name, about in record["files"].items()}
    return CorpusCounts(
        contexts=Contexts(arrays["text"], arrays["places"], np.array(arrays["shards"])),
        followers=arrays["followers"],
        frequent=FrequentRows(arrays["keys"], arrays["row_starts"], arrays["tokens"], arrays["counts"]),
        is_action=np.array(arrays["is_action"]),
        longest=longest,
        strength=strength,
    )


def refuse_missing(rule: Support) -> None:
    """A rule that asks how likely a new token is needs the count of single ones, which no slice keeps."""
    if rule.missing < 1.0:
        raise InputError(f"{rule}: counts over a corpus know no `missing`; use 1.0, or models.counts")
