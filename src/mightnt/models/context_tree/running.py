"""One context tree that moves along one sequence in place: predict, learn, step back, copy."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mightnt.errors import InputError
from mightnt.prediction import FloatArray, Prediction

LeafForm: TypeAlias = Literal["direct", "decomposed"]
"""How a leaf predicts a symbol: at once, or by one binary decision after another."""

MAX_DEPTH = 200
MAX_CONTEXTS = 256
MOST_BYTES = 4 * 2**30
MOST_STEPS = 2**31
UNDOABLE_STEPS = 4096
LOOK_AHEAD = 12
"""Contexts whose nodes are fetched together, while a known sequence is learned: waiting for memory overlaps."""


@dataclass(frozen=True, slots=True)
class TreeShape:
    """What a context tree is about.

    Args:
        n_symbols: size of the alphabet that is predicted, at least 2.
        depth: how many of the last steps a prediction may depend on, 0 to 200.
        n_observations: size of the alphabet of what is seen in between, 0 if nothing is.
        form: ``direct`` or ``decomposed``.

    ``n_symbols + n_observations`` may be 256 at most. Anything else is refused with
    :class:`~mightnt.errors.InputError`.
    """

    n_symbols: int
    depth: int
    n_observations: int = 0
    form: LeafForm = "direct"

    def __post_init__(self) -> None:
        if self.n_symbols < 2:
            raise InputError(f"an alphabet of {self.n_symbols} symbol(s); at least 2 are needed")
        if not 0 <= self.depth <= MAX_DEPTH:
            raise InputError(f"a context tree of depth {self.depth}; 0 to {MAX_DEPTH} is allowed")
        if self.n_observations < 0 or self.n_contexts > MAX_CONTEXTS:
            raise InputError(
                f"{self.n_symbols} symbols and {self.n_observations} observations; together {MAX_CONTEXTS} are allowed"
            )
        if self.form not in ("direct", "decomposed"):
            raise InputError(f"a leaf of form {self.form!r}; allowed are 'direct' and 'decomposed'")

    @property
    def n_contexts(self) -> int:
        """How many different steps a context may hold: symbol x is x, observation o is ``n_symbols`` + o."""
        return self.n_symbols + self.n_observations

    @property
    def n_branches(self) -> int:
        """How many ways one decision of a leaf can go."""
        return self.n_symbols if self.form == "direct" else 2

    def symbols(self, sequence: ArrayLike) -> NDArray[np.int64]:
        """``sequence`` as symbols of the alphabet; refused if it holds anything else."""
        found = np.asarray(sequence)
        if found.size == 0:
            return np.empty(0, dtype=np.int64)
        if found.ndim != 1 or found.dtype.kind not in "iub":
            raise InputError(f"a sequence of whole numbers is needed, got {found.dtype} of shape {found.shape}")
        if found.min() < 0 or found.max() >= self.n_symbols:
            wrong = found.min() if found.min() < 0 else found.max()
            raise InputError(f"the symbol {wrong} is none of 0..{self.n_symbols - 1}")
        return found.astype(np.int64)


@cache
def decisions(n_symbols: int, form: LeafForm) -> tuple[tuple[tuple[int, int], ...], ...]:
    """For each symbol the decisions that lead to it: pairs (which decision, which way).

    ``direct``: one decision among all symbols. ``decomposed``: the ceil(log2 m) binary digits of the symbol, the
    highest first, each decided given those before it; a digit that can only be 0 in this alphabet is no decision, so
    nothing is lost on symbols that do not exist.
    """
    if form == "direct":
        return tuple(((0, symbol),) for symbol in range(n_symbols))
    numbers: dict[tuple[int, int], int] = {}
    ways: list[tuple[tuple[int, int], ...]] = []
    for symbol in range(n_symbols):
        way = []
        for level in reversed(range((n_symbols - 1).bit_length())):
            prefix = symbol >> level + 1
            if (2 * prefix + 1) << level < n_symbols:
                number = numbers.setdefault((level, prefix), len(numbers))
                way.append((number, symbol >> level & 1))
        ways.append(tuple(way))
    return tuple(ways)


def compiled() -> Any:
    """The compiled kernels; without numba an :class:`~mightnt.errors.InputError` that says what to install."""
    try:
        from mightnt.models.context_tree import kernels
    except ModuleNotFoundError as error:
        raise InputError('context trees need numba: pip install "mightnt[theory]"') from error
    return kernels


class _Rows:
    """The table of one compact tree: it doubles when it is full. It begins at a multiple of 64 bytes.

    ``rows`` has shape ``(capacity, width)``; ``words`` and ``odds`` are the same memory, flat, as the kernels want it.
    """

    def __init__(self, shape: TreeShape) -> None:
        links = 4 + shape.n_branches
        width = (links + shape.n_contexts + 1) // 2 * 2
        self.form = (shape.n_branches, shape.depth, np.uint64(width), np.uint64(links))
        self.n_rows = 0
        self.rows = np.empty((0, width), dtype=np.int32)
        self._allocate(16)

    def _allocate(self, capacity: int) -> None:
        width = self.rows.shape[1]
        n_bytes = capacity * width * 4
        if n_bytes > MOST_BYTES:
            raise InputError(
                f"a context tree of {self.n_rows} nodes needs {n_bytes / 2**30:.1f} GiB to grow, at most "
                f"{MOST_BYTES / 2**30:.1f} are allowed; use a smaller depth or alphabet, or less data"
            )
        memory = np.empty(n_bytes + 64, dtype=np.uint8)
        memory = memory[-memory.ctypes.data % 64 :][:n_bytes]
        self.words, self.odds = memory.view(np.int32), memory.view(np.float64)
        rows = self.words.reshape(capacity, width)
        rows[: self.n_rows] = self.rows[: self.n_rows]
        self.rows = rows

    def make_room(self, n_more_steps: int = 1) -> None:
        """Room for the two nodes that a step may add; refused if that needs more than :data:`MOST_BYTES`.

        Room for ``n_more_steps`` is asked for at once where it is allowed (untouched memory costs nothing), else the
        table doubles.
        """
        if self.n_rows + 2 > len(self.rows):
            most = MOST_BYTES // (4 * self.rows.shape[1])
            wanted = max(2 * len(self.rows), self.n_rows + 2 * n_more_steps)
            self._allocate(wanted if wanted <= most else 2 * len(self.rows))

    def copy(self) -> _Rows:
        """The same tree in its own memory."""
        other = object.__new__(_Rows)
        other.form, other.n_rows, other.rows = self.form, self.n_rows, self.rows
        other._allocate(len(self.rows))
        return other


Changes: TypeAlias = list[tuple[int, int, NDArray[np.uint64], NDArray[np.int32]]]
"""What one step has changed: for each decision its number, the size of its table, the nodes of the path, their rows."""


class RunningContextTree:
    """The exact Bayes mixture over all tree sources, moving along one sequence in place.

    P(x | h) = sum_S 2^-cost(S) prod KT / sum_S 2^-cost(S) prod KT over the trees S of depth at most D, where
    KT(x) = (n_x + 1/2) / (n + m/2) at the leaf of S that the context is in; recursively, at every node above depth D,
    P_w = 1/2 P_kt + 1/2 prod over children P_w. Before the first step there were ``depth`` zeros.

    Every method changes the tree in place, which is why it is quick; the models of ``weighting.py`` wrap it into
    values. Not safe for several threads.

    Kind: exact (float64). Paper: Willems, Shtarkov, Tjalkens 1995; KT for m symbols: Krichevsky, Trofimov 1981.
    Cost: at most min(D, different contexts) + 1 nodes a step, 4 (4 + m + contexts) bytes a node, at most two nodes a
    learned step whatever the depth is.
    """

    def __init__(self, shape: TreeShape) -> None:
        self.shape = shape
        self._kernels = compiled()
        self._ways = decisions(shape.n_symbols, shape.form)
        n_decisions = 1 + max(number for way in self._ways for number, _ in way)
        self._trees = [_Rows(shape) for _ in range(n_decisions)]
        self._past = np.zeros(shape.depth + 64, dtype=np.uint8)
        self._end = shape.depth
        self._path = np.zeros(shape.depth + 2, dtype=np.uint64)
        self._undo: deque[Changes] = deque(maxlen=UNDOABLE_STEPS)

    def __len__(self) -> int:
        """How many steps there have been."""
        return self._end - self.shape.depth

    @property
    def n_undoable(self) -> int:
        """How many steps can be undone: the last 4096 at most, and none before a call of :meth:`learn_many`."""
        return len(self._undo)

    @property
    def n_nodes(self) -> int:
        """How many nodes are kept."""
        return sum(tree.n_rows for tree in self._trees)

    def predict(self) -> Prediction:
        """The prediction of the next symbol. Sums to one (up to rounding)."""
        branches = np.empty((len(self._trees), self.shape.n_branches))
        for tree, row in zip(self._trees, branches, strict=True):
            where = (tree.words, tree.odds, self._past, self._end, self._path)
            self._kernels.predict(*where, tree.n_rows, tree.form, row)
        return Prediction(np.array([sum(np.log(branches[pair]) for pair in way) for way in self._ways]))

    def update(self, symbol: int) -> None:
        """``symbol`` comes next and is evidence: it is counted in its context."""
        if not 0 <= symbol < self.shape.n_symbols:
            raise InputError(f"the symbol {symbol} is none of 0..{self.shape.n_symbols - 1}")
        self._make_past(1)
        pairs = [(number, self._trees[number], branch) for number, branch in self._ways[symbol]]
        for _, tree, _ in pairs:
            tree.make_room()
        changes = []
        for number, tree, branch in pairs:
            where = (tree.words, tree.odds, self._past, self._end, self._path)
            n, _ = self._kernels.descend(tree.words, *where[2:], tree.n_rows, tree.form)
            touched = self._path[:n].copy()
            changes.append((number, tree.n_rows, touched, tree.rows[touched]))
            _, tree.n_rows = self._kernels.learn(*where, branch, tree.n_rows, tree.form)
        self._append(symbol, changes)

    def watch(self, step: int) -> None:
        """``step`` comes next and is no evidence: only the context moves. Observation o is ``n_symbols`` + o."""
        if not 0 <= step < self.shape.n_contexts:
            raise InputError(f"the step {step} is none of 0..{self.shape.n_contexts - 1}")
        self._make_past(1)
        self._append(step, [])

    def _append(self, step: int, changes: Changes) -> None:
        self._past[self._end] = step
        self._end += 1
        self._undo.append(changes)

    def _make_past(self, n_more: int) -> None:
        if self._end + n_more >= MOST_STEPS:
            raise InputError(f"{self._end + n_more} steps; fewer than {MOST_STEPS} can be counted")
        if self._end + n_more > len(self._past):
            more = np.zeros(max(len(self._past), n_more), dtype=np.uint8)
            self._past = np.concatenate([self._past, more])

    def undo(self) -> None:
        """Take the last step back: everything is as it was before it, bit for bit."""
        if not self._undo:
            raise InputError(f"nothing can be undone; at most the last {UNDOABLE_STEPS} single steps can")
        for number, n_rows, touched, rows in reversed(self._undo.pop()):
            self._trees[number].rows[touched] = rows
            self._trees[number].n_rows = n_rows
        self._end -= 1

    def snapshot(self) -> RunningContextTree:
        """A copy that shares nothing. Cost: the memory of the tree once more."""
        other = object.__new__(RunningContextTree)
        other.shape, other._kernels, other._ways, other._end = self.shape, self._kernels, self._ways, self._end
        other._trees = [tree.copy() for tree in self._trees]
        other._past, other._path, other._undo = self._past.copy(), self._path.copy(), self._undo.copy()
        return other

    def learn_many(self, sequence: ArrayLike) -> FloatArray:
        """What each symbol of ``sequence`` had before it was seen, learning one after the other; shape ``(n,)``.

        The same as ``predict`` and ``update`` in turn, quicker; it cannot be undone. The sequence is known, so the nodes
        of the next few contexts are fetched while one is counted; the numbers do not depend on that. A refusal for
        memory in the middle leaves a tree that has counted a part: throw it away.
        """
        symbols = self.shape.symbols(sequence)
        self._undo.clear()
        self._make_past(len(symbols))
        self._past[self._end : self._end + len(symbols)] = symbols
        ends = np.arange(self._end, self._end + len(symbols))
        if len(self._trees) == 1:
            values = self._learn_decision(self._trees[0], ends, symbols)
        else:
            values = np.ones(len(symbols))
            for number, tree in enumerate(self._trees):
                ways = np.array([dict(way).get(number, -1) for way in self._ways])[symbols]
                values[ways >= 0] *= self._learn_decision(tree, ends[ways >= 0], ways[ways >= 0])
        self._end += len(symbols)
        return values

    def _learn_decision(self, tree: _Rows, ends: NDArray[np.int64], branches: NDArray[np.int64]) -> FloatArray:
        """What each branch had before it was learned, decision after decision."""
        values, done = np.empty(len(ends)), 0
        ahead = np.zeros(LOOK_AHEAD, dtype=np.uint64)
        while done < len(ends):
            tree.make_room(len(ends) - done)
            where = (tree.words, tree.odds, self._past, ends[done:], branches[done:], self._path)
            n_done, tree.n_rows = self._kernels.learn_many(*where, tree.n_rows, tree.form, ahead, values[done:])
            done += n_done
        return values
