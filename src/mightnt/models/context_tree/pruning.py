"""What I might do, over every tree source: the least that any believed tree allows, without listing them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import isqrt, log, log2
from typing import TypeAlias

import numpy as np

from mightnt.errors import InputError
from mightnt.history import Evidence, Step, is_evidence
from mightnt.models.context_tree.running import TreeShape
from mightnt.models.context_tree.trees import Tree, leaf_depth, step_code
from mightnt.models.finite import top_set
from mightnt.prediction import FloatArray, Prediction

Ranked: TypeAlias = "tuple[tuple[int, Tree], ...]"
"""Trees with -log2 of prior times KT in units of 2^-40 bits, the least first; equal ones in the order of the trees."""

UNIT_BITS = 2**-40
MOST_MODELS = 4096
MOST_ENTRIES = 10_000_000


@cache
def whole_log2(n: int) -> int:
    """log2 n in units of 2^-40 bits, rounded at the primes only: equal products have equal sums."""
    for prime in range(2, isqrt(n) + 1):
        if n % prime == 0:
            return whole_log2(prime) + whole_log2(n // prime)
    return round(log2(n) / UNIT_BITS)


def best_pairs(left: Sequence[tuple[int, Tree]], right: Sequence[tuple[int, Tree]], n: int) -> Ranked:
    """The ``n`` cheapest pairs, each ``left`` tuple with a ``right`` tree appended; both sides sorted.

    Entry i of the one with entry j of the other has (i + 1)(j + 1) - 1 pairs before it, so few need a look.
    """
    pairs = [
        (cost + own, (*trees, tree)) for i, (cost, trees) in enumerate(left[:n]) for own, tree in right[: n // (i + 1)]
    ]
    return tuple(sorted(pairs)[:n])


def rank(log_kt: int, children: Sequence[Ranked], n: int) -> Ranked:
    """The ``n`` best subtrees of a node above the depth limit: the leaf, or a split with the best of its children."""
    coin = round(1 / UNIT_BITS)
    splits: Ranked = ((coin, ()),)
    for child in children:
        splits = best_pairs(splits, child, n)
    return tuple(sorted([(coin - log_kt, ()), *splits])[:n])


@cache
def unvisited(levels: int, n_contexts: int, n: int) -> Ranked:
    """The ``n`` best subtrees where nothing was counted, ``levels`` above the depth limit: by their prior alone."""
    if levels == 0:
        return ((0, ()),)
    return rank(0, [unvisited(levels - 1, n_contexts, n)] * n_contexts, n)


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A context in which evidence was seen: its counts, log2 of their KT probability, its children, its best subtrees."""

    counts: tuple[int, ...]
    log_kt: int
    children: Mapping[int, Node]
    ranked: Ranked


@dataclass(frozen=True, slots=True, eq=False)
class PruningState:
    """The last steps, nearest first, and the tree of contexts seen. A value: parts that did not change are shared."""

    context: tuple[int, ...]
    root: Node | None
    n_nodes: int


@dataclass(frozen=True, slots=True, eq=False)
class PessimisticContextTree:
    """The pessimistic imitator over every tree source: the least probability that a tree of the top set gives.

    nu_alpha(x | h) = min over S in the top set of (n_x + 1/2) / (n + m/2), counted in the leaf of S. The class is every
    tree S of depth at most D with prior 2^-cost(S) and KT leaves (``tree_class``), its posterior prior times the KT of
    its leaves; the top set is that of single trees, as for any class: sorted, keep S_n while
    w(S_n | h) >= alpha sum_{j <= n} w(S_j | h). Trees of equal posterior go in the order of tuples, a leaf first.

    How: the top set has at most 1/alpha members, because each of n kept weights is at least alpha n times itself. A
    node's weight is the product of its children's, so the best 1/alpha subtrees of a node come from the best 1/alpha
    of its children, and only the nodes of the current context change in a step. Contexts without evidence have one
    ranking for each depth. The trees of the top set differ for the next symbol in one thing only, how deep the leaf of
    this context lies: at most D + 1 different predictions, over which the minimum goes.

    Args:
        n_symbols, depth, n_observations: as for ``DirectContextTree``.
        top_set_level: alpha, in [1/4096, 1]; smaller levels are refused.
        evidence: which actions are counted, and move the posterior.

    Weights are whole numbers of 2^-40 bits, rounded at the logarithms of primes, so ties are ties. What is missing is
    the asking probability. The minimum over trajectories: ``Pessimistic(tree_class(...), granularity="trajectory")``.

    Errors: :class:`~mightnt.errors.InputError` for what is not allowed, and when nodes times 1/alpha exceed ten million.

    Kind: exact. Paper: nu_alpha; over context trees it is this project's. Cost: a counted step O(D c/alpha log 1/alpha),
    c the steps a context may hold; memory O(contexts seen / alpha).
    """

    n_symbols: int
    depth: int
    top_set_level: float
    n_observations: int = 0
    evidence: Evidence = "demonstrated"

    def __post_init__(self) -> None:
        _ = self.shape
        top_set(np.zeros(1), self.top_set_level)
        if self.top_set_level < 1 / MOST_MODELS:
            raise InputError(
                f"the top-set level {self.top_set_level:.3g} lets more than {MOST_MODELS} trees in; "
                f"at least 1/{MOST_MODELS} is allowed here"
            )

    @property
    def shape(self) -> TreeShape:
        """Alphabets and depth."""
        return TreeShape(self.n_symbols, self.depth, self.n_observations)

    @property
    def _most(self) -> int:
        """How many trees the top set can hold."""
        return int(1 / self.top_set_level * (1 + 1e-9))

    def start(self) -> PruningState:
        """Nothing has happened."""
        return PruningState((0,) * self.depth, None, 0)

    def top_trees(self, state: PruningState) -> tuple[list[Tree], FloatArray]:
        """The trees of the top set, most believed first, and the log of prior times evidence of each, in nats."""
        ranked = self._ranked(state.root, 0)
        log_joint = np.array([-cost * UNIT_BITS * log(2) for cost, _ in ranked])
        behind = np.array([-(cost - ranked[0][0]) * UNIT_BITS * log(2) for cost, _ in ranked])
        kept = top_set(behind, self.top_set_level)
        return [ranked[i][1] for i in kept], log_joint[kept]

    def predict(self, state: PruningState) -> Prediction:
        """nu_alpha( . | h), never renormalized."""
        depths = {leaf_depth(tree, state.context) for tree in self.top_trees(state)[0]}
        counts = [(0,) * self.n_symbols] * (self.depth + 1)
        node, d = state.root, 0
        while node is not None:
            counts[d] = node.counts
            node = node.children.get(state.context[d]) if d < self.depth else None
            d += 1
        rows = np.array([counts[d] for d in sorted(depths)])
        return Prediction.of(((rows + 0.5) / (rows.sum(axis=1, keepdims=True) + 0.5 * self.n_symbols)).min(axis=0))

    def advance(self, state: PruningState, step: Step) -> PruningState:
        """``step`` joins the context; if it is evidence it is counted and the ranking moves."""
        code, root, n_nodes = step_code(step, self.shape), state.root, state.n_nodes
        if is_evidence(step, self.evidence):
            root, n_new = self._counted(root, state.context, 0, code)
            n_nodes += n_new
            if n_nodes * self._most > MOST_ENTRIES:
                raise InputError(
                    f"{n_nodes} contexts with {self._most} trees each; at most {MOST_ENTRIES} entries are allowed: use a "
                    "smaller depth or a larger top-set level"
                )
        return PruningState((code, *state.context)[: self.depth], root, n_nodes)

    def _ranked(self, node: Node | None, depth: int) -> Ranked:
        return node.ranked if node else unvisited(self.depth - depth, self.shape.n_contexts, self._most)

    def _counted(self, node: Node | None, context: tuple[int, ...], depth: int, symbol: int) -> tuple[Node, int]:
        """The node with one more ``symbol``, and so on down the context; how many nodes are new."""
        old = node or Node((0,) * self.n_symbols, 0, {}, ())
        log_kt = old.log_kt + whole_log2(2 * old.counts[symbol] + 1) - whole_log2(2 * sum(old.counts) + self.n_symbols)
        counts = tuple(n + (x == symbol) for x, n in enumerate(old.counts))
        if depth == self.depth:
            return Node(counts, log_kt, {}, ((-log_kt, ()),)), int(node is None)
        way = context[depth]
        child, n_new = self._counted(old.children.get(way), context, depth + 1, symbol)
        children = {**old.children, way: child}
        options = [self._ranked(children.get(c), depth + 1) for c in range(self.shape.n_contexts)]
        return Node(counts, log_kt, children, rank(log_kt, options, self._most)), n_new + int(node is None)
