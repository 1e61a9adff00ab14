"""A count model of token suffixes, fitted to demonstrations alone: sharp where they are ample, aware of what is absent.

Hierarchical-Dirichlet back-off: with n_k(x) the count of action x after the last k tokens and N_k their sum,
p_k(x) = (n_k(x) + s p_{k-1}(x)) / (N_k + s), from p_{-1} uniform over actions to the longest suffix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mightnt.errors import InputError
from mightnt.models.spread import NOTHING, Allowed, Spread
from mightnt.prediction import FloatArray

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
KeyArray = NDArray[np.uint64]

BEFORE_START = -1
"""Stands in a suffix where the dialogue had not begun."""


@dataclass(frozen=True)
class SuffixTable:
    """Counts of the actions that followed each suffix of one length, as sorted rows of a sparse matrix."""

    keys: KeyArray
    """Distinct suffixes, packed, ascending, shape (rows,)."""
    row_starts: IntArray
    """Where each row's entries begin, shape (rows + 1,)."""
    actions: IntArray
    """The action of each entry."""
    counts: FloatArray
    """How often it followed."""
    totals: FloatArray
    """Sum of each row, shape (rows,)."""

    def rare_share(self, rows: IntArray, seen: int) -> FloatArray:
        """How likely the next action of these rows is one that was seen fewer than ``seen`` times, shape of ``rows``.

            (observations of actions seen at most ``seen`` times + 1) / (total + 1)

        Left out, an observation of an action seen r times meets r - 1 others; for ``seen`` = 1 this is the chance of a new
        action. The two ones are caution where nothing is rare. Kind: estimate (leave one out). Paper: Good (1953).
        """
        if seen not in self.rare:
            sums = np.concatenate([[0.0], np.cumsum(np.where(self.counts <= seen, self.counts, 0.0))])
            self.rare[seen] = sums[self.row_starts[1:]] - sums[self.row_starts[:-1]]
        return np.asarray((self.rare[seen][rows] + 1.0) / (self.totals[rows] + 1.0))

    @cached_property
    def rare(self) -> dict[int, FloatArray]:
        """Observations of actions seen at most so many times, shape (rows,); filled as asked for."""
        return {}

    def find(self, keys: KeyArray) -> tuple[IntArray, IntArray]:
        """``(which queries were found, their rows)``."""
        rows = np.searchsorted(self.keys, keys)
        rows[rows == len(self.keys)] = 0
        found = np.flatnonzero(self.keys[rows] == keys) if len(self.keys) else np.zeros(0, dtype=np.int64)
        return found, rows[found]

    def entries(self, rows: IntArray) -> tuple[IntArray, IntArray]:
        """``(index into rows, index into actions and counts)`` of every entry of these rows."""
        lengths = self.row_starts[rows + 1] - self.row_starts[rows]
        owner = np.repeat(np.arange(len(rows)), lengths)
        offset = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return owner, self.row_starts[rows][owner] + offset


@dataclass(frozen=True)
class Support:
    """When the demonstrations speak clearly enough to say "never": the rule of the support veto.

    Of the suffixes (or situations) of a place, the longest (the finest) that is closed decides, and only there.
    """

    ample: int = 50
    """To be closed it was seen at least this often."""
    seen: int = 2
    """A token has support when it followed the deciding one at least this often."""
    missing: float = 1.0
    """To be closed, a token without support would follow with at most this chance (``SuffixTable.rare_share``)."""


@dataclass(frozen=True)
class SuffixCounts:
    """The fitted count model. Rows of ``suffixes`` are the last tokens, newest last, ``BEFORE_START`` where none was.

    Kind: exact given its counts. Cost: a binary search per length and row, plus the entries found.
    """

    tables: tuple[SuffixTable, ...]
    """One for each suffix length 0, 1, ..., longest."""
    token_codes: IntArray
    """Compact code of each token, 1 for tokens never seen; shape (n_symbols,)."""
    is_action: BoolArray
    """Which tokens can be chosen at all, shape (n_symbols,); the others have probability 0."""
    strength: float
    """s above: how many observations the shorter suffix is worth."""

    @property
    def n_symbols(self) -> int:
        """Size of the vocabulary."""
        return len(self.token_codes)

    @property
    def longest(self) -> int:
        """Length of the longest suffix."""
        return len(self.tables) - 1

    def predict(self, suffixes: IntArray) -> FloatArray:
        """Log-probabilities of the next action, shape (n, n_symbols), normalized over actions."""
        return self.spread(suffixes).written_out()

    def supported(self, suffixes: IntArray, rule: Support) -> BoolArray:
        """Which tokens the demonstrations support after each suffix, shape (n, n_symbols).

        Kind: exact given its counts. Cost: a binary search a length and row, plus the entries found.
        """
        return self.allowed(suffixes, rule).written_out()

    def spread(self, suffixes: IntArray) -> Spread:
        """What :meth:`predict` says, not written out."""
        return backed_off(self.tables, self.keys(suffixes), self.is_action, self.strength)

    def allowed(self, suffixes: IntArray, rule: Support) -> Allowed:
        """What :meth:`supported` says, not written out."""
        return supported_by(self.tables, self.keys(suffixes), self.is_action, rule)

    def keys(self, suffixes: IntArray) -> list[KeyArray]:
        """Packed keys of the suffixes of length 0, 1, ..., longest; each of shape (n,)."""
        codes = np.where(suffixes == BEFORE_START, 0, self.token_codes[suffixes]).astype(np.uint64)
        return pack(codes, self.longest, int(self.token_codes.max(initial=1)) + 1)


def supported_by(
    tables: Sequence[SuffixTable], keys: Sequence[KeyArray], is_action: BoolArray, rule: Support
) -> Allowed:
    """Which actions ``rule`` supports in n rows: the last table with a closed row under its keys decides.

    With no closed row at all, every action is supported. ``tables[0]`` has one row, which all share.
    """
    none = np.zeros_like(is_action)
    sets = np.stack([is_action, none, none])
    sets[1, tables[0].actions[tables[0].counts >= rule.seen]] = True
    level, row = np.full(len(keys[0]), -1), np.zeros(len(keys[0]), dtype=np.int64)
    for number, (table, key) in enumerate(zip(tables, keys, strict=True)):
        found, rows = table.find(key)
        closed = (table.totals[rows] >= rule.ample) & (table.rare_share(rows, rule.seen) <= rule.missing)
        level[found[closed]], row[found[closed]] = number, rows[closed]
    codes = [np.zeros(0, dtype=np.int64)]
    for number, table in enumerate(tables[1:], start=1):
        here = np.flatnonzero(level == number)
        owner, entry = table.entries(row[here])
        seen = table.counts[entry] >= rule.seen
        codes.append(here[owner[seen]] * len(is_action) + table.actions[entry[seen]])
    return Allowed(sets, np.minimum(level + 1, NOTHING), np.sort(np.concatenate(codes), kind="stable"))


def backed_off(
    tables: Sequence[SuffixTable], keys: Sequence[KeyArray], is_action: BoolArray, strength: float
) -> Spread:
    """Log-probabilities of n rows by hierarchical back-off, normalized over actions.

    p_k = (n_k + s p_{k-1}) / (N_k + s) with the counts n_k of the row of ``tables[k]`` under ``keys[k]``, each of shape (n,),
    p_{-1} uniform over actions; a key that was never met leaves p as it is. ``tables[0]`` has one row, which all share. Summed
    up, a count of table k weighs 1 / (N_k + s) times the s / (N_j + s) of every later table j that knows its key.

    Cost: a binary search a table and row, plus the entries found.
    """
    common, scale = shared_row(tables[0], is_action, strength), np.ones(len(keys[0]))
    codes, more = [], []
    for table, queries in zip(tables[:0:-1], keys[:0:-1], strict=True):
        found, rows = table.find(queries)
        owner, entry = table.entries(rows)
        weight = scale[found] / (table.totals[rows] + strength)
        codes.append(found[owner] * len(is_action) + table.actions[entry])
        more.append(table.counts[entry] * weight[owner])
        scale[found] = strength * weight
    return Spread(common, scale, tuple(codes), tuple(more))


def shared_row(table: SuffixTable, is_action: BoolArray, strength: float) -> FloatArray:
    """p_0, shape (n_symbols,): what the table of the empty suffix makes of the uniform one."""
    common = np.asarray(is_action / is_action.sum())
    if len(table.keys):
        common *= strength / (table.totals[0] + strength)
        common[table.actions] += table.counts / (table.totals[0] + strength)
    return common


def pack(codes: KeyArray, longest: int, base: int) -> list[KeyArray]:
    """Keys of all suffix lengths from codes of shape (n, longest): digits in ``base``, newest first."""
    keys = [np.zeros(len(codes), dtype=np.uint64)]
    for length in range(1, longest + 1):
        keys.append(keys[-1] + codes[:, -length] * np.uint64(base ** (length - 1)))
    return keys


def suffixes_of(tokens: IntArray, starts: IntArray, longest: int) -> IntArray:
    """The ``longest`` tokens before each token of a flat corpus, shape (n_tokens, longest), newest last.

    ``starts`` holds the offset of each dialogue and the total; suffixes do not reach across dialogues.
    """
    lengths = np.diff(starts)
    age = np.arange(len(tokens)) - np.repeat(starts[:-1], lengths)
    suffixes = np.full((len(tokens), longest), BEFORE_START, dtype=np.int64)
    for back in range(1, longest + 1):
        old_enough = np.flatnonzero(age >= back)
        suffixes[old_enough, -back] = tokens[old_enough - back]
    return suffixes


def fit_counts(
    tokens: IntArray,
    starts: IntArray,
    chosen: BoolArray,
    is_action: BoolArray,
    longest: int = 4,
    strength: float = 2.0,
) -> SuffixCounts:
    """Count what the demonstrator chose after each suffix.

    Args:
        tokens: flat corpus, shape (n_tokens,), values in [0, n_symbols).
        starts: offsets of the dialogues and the total, shape (n_dialogues + 1,).
        chosen: which tokens the demonstrator chose, shape (n_tokens,); only they are counted.
        is_action: which symbols can be chosen, shape (n_symbols,).

    Raises :class:`~mightnt.errors.InputError` when nothing was chosen, or so many distinct tokens occur that suffixes
    of this length do not fit into 64 bits. Cost: one sort of the corpus per length.
    """
    if not chosen.any():
        raise InputError("the demonstrations hold no action to count")
    if not strength > 0:
        raise InputError(f"strength {strength} is not above 0")
    token_codes = codes_of(np.unique(tokens), len(is_action), longest)
    tables = count_suffixes(tokens, starts, chosen, token_codes, longest)
    return SuffixCounts(tables, token_codes, is_action, strength)


def add_counts(model: SuffixCounts, tokens: IntArray, starts: IntArray, chosen: BoolArray) -> SuffixCounts:
    """``model`` after more demonstrations: what :func:`fit_counts` makes of the old and the new ones together.

    Takes the arguments of :func:`fit_counts` for the new demonstrations alone; the old ones are not needed. Demonstrations
    in which nothing was chosen only make their tokens known.

    Raises :class:`~mightnt.errors.InputError` where there are too many distinct tokens then. Kind: exact (equal array by
    array). Cost: one sort of the tables' entries and the new choices per length; tokens never seen before also cost a new
    packing of every key.
    """
    known = np.flatnonzero(model.token_codes > 1)
    token_codes = codes_of(np.union1d(known, tokens), model.n_symbols, model.longest)
    base_before, base = (int(codes.max(initial=1)) + 1 for codes in (model.token_codes, token_codes))
    recoded = np.concatenate([[0, 1], token_codes[known]]).astype(np.uint64)
    tables = []
    fresh = count_suffixes(tokens, starts, chosen, token_codes, model.longest)
    for length, (old, new) in enumerate(zip(model.tables, fresh, strict=True)):
        keys = old.keys if base == base_before else repack(old.keys, length, base_before, base, recoded)
        rows = [np.repeat(keys, np.diff(old.row_starts)), np.repeat(new.keys, np.diff(new.row_starts))]
        actions, counts = (
            np.concatenate([getattr(table, name) for table in (old, new)]) for name in ("actions", "counts")
        )
        tables.append(sum_pairs(np.concatenate(rows), actions, counts))
    return SuffixCounts(tuple(tables), token_codes, model.is_action, model.strength)


def codes_of(used: IntArray, n_symbols: int, longest: int) -> IntArray:
    """The compact code of every token, shape (n_symbols,): 2, 3, ... for those ``used`` (ascending), 1 for the others."""
    if (len(used) + 2) ** longest >= 2**64:
        raise InputError(f"{len(used)} distinct tokens do not fit suffixes of {longest}; use a shorter longest suffix")
    codes = np.ones(n_symbols, dtype=np.int64)
    codes[used] = np.arange(2, len(used) + 2)
    return codes


def repack(keys: KeyArray, length: int, base_before: int, base: int, recoded: KeyArray) -> KeyArray:
    """Keys of suffixes of this length with every digit (in ``base_before``) replaced (``recoded``), in ``base``."""
    packed, rest = np.zeros_like(keys), keys.copy()
    for place in range(length):
        rest, digit = np.divmod(rest, np.uint64(base_before))
        packed += recoded[digit] * np.uint64(base**place)
    return packed


def count_suffixes(
    tokens: IntArray, starts: IntArray, chosen: BoolArray, token_codes: IntArray, longest: int
) -> tuple[SuffixTable, ...]:
    """The tables of all lengths of one flat corpus."""
    suffixes = suffixes_of(tokens, starts, longest)[chosen]
    codes = np.where(suffixes == BEFORE_START, 0, token_codes[suffixes]).astype(np.uint64)
    base, ones = int(token_codes.max(initial=1)) + 1, np.ones(int(chosen.sum()))
    return tuple(sum_pairs(keys, tokens[chosen], ones) for keys in pack(codes, longest, base))


def sum_pairs(keys: KeyArray, actions: IntArray, counts: FloatArray) -> SuffixTable:
    """The table of one length from (key, action) pairs and how often each was demonstrated; pairs may repeat."""
    order = np.lexsort((actions, keys))
    keys, actions, counts = keys[order], actions[order].astype(np.int64), counts[order]
    fresh = np.ones(len(keys), dtype=bool)
    fresh[1:] = (keys[1:] != keys[:-1]) | (actions[1:] != actions[:-1])
    first = np.flatnonzero(fresh)
    if not len(first):
        return SuffixTable(keys, np.zeros(1, dtype=np.int64), actions, counts, counts)
    summed = np.add.reduceat(counts, first)
    rows, row_first = np.unique(keys[first], return_index=True)
    totals = np.add.reduceat(summed, row_first)
    return SuffixTable(rows, np.append(row_first, len(first)).astype(np.int64), actions[first], summed, totals)
