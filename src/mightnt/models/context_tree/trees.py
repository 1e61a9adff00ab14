"""Single tree sources with KT leaves: what context-tree weighting is a mixture of, and small classes of all of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log
from typing import TypeAlias

import numpy as np

from mightnt.errors import InputError
from mightnt.history import Evidence, Step, is_evidence
from mightnt.models.context_tree.running import TreeShape
from mightnt.models.finite import ModelClass
from mightnt.prediction import Prediction

Tree: TypeAlias = "tuple[Tree, ...]"
"""``()`` is a leaf; a split is the tuple of its children, one for each step that a context may hold."""

MOST_TREES = 100_000


def tree_cost_bits(tree: Tree, depth: int) -> int:
    """How many bits describe ``tree`` among those of at most this depth: one for every node above the limit.

    Sums of 2^-cost over all trees are 1. Kind: exact. Paper: Willems, Shtarkov, Tjalkens 1995. Cost: O(nodes).
    """
    return 0 if depth == 0 else 1 + sum(tree_cost_bits(child, depth - 1) for child in tree)


def n_trees(depth: int, n_contexts: int) -> int:
    """How many trees there are: T(0) = 1, T(d) = 1 + T(d - 1)^n_contexts. Above 100 000 it stops and says 100 001."""
    n = 1
    for _ in range(depth):
        n = min(1 + n**n_contexts, MOST_TREES + 1)
    return n


def all_trees(depth: int, n_contexts: int) -> Iterator[Tree]:
    """Every tree of at most this depth; at every node the leaf comes first, so the order is that of tuples."""
    yield ()
    if depth > 0:
        yield from itertools.product(tuple(all_trees(depth - 1, n_contexts)), repeat=n_contexts)


def leaf_depth(tree: Tree, context: tuple[int, ...]) -> int:
    """How far back ``tree`` looks in ``context`` (nearest step first)."""
    depth = 0
    while tree:
        tree, depth = tree[context[depth]], depth + 1
    return depth


def step_code(step: Step, shape: TreeShape) -> int:
    """``step`` as a context holds it: action x is x, observation o is ``n_symbols`` + o; refused outside the alphabets."""
    size = shape.n_symbols if step.is_action else shape.n_observations
    if not 0 <= step.symbol < size:
        kind = "action" if step.is_action else "observation"
        raise InputError(f"the {kind} {step.symbol} is none of 0..{size - 1}" if size else f"no {kind}s were declared")
    return step.symbol if step.is_action else shape.n_symbols + step.symbol


@dataclass(frozen=True, slots=True, eq=False)
class TreeSourceState:
    """The last steps, nearest first, and the counts of every leaf that evidence was seen in."""

    context: tuple[int, ...]
    counts: Mapping[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class TreeSource:
    """One tree with a KT leaf at each end: nu_S(x | h) = (n_x + 1/2) / (n + m/2), counted in the leaf that h ends in.

    The counts are those of the evidence; the context is everything that happened. Before the first step: zeros.

    Args:
        tree: no deeper than ``shape.depth``, every split with ``shape.n_contexts`` children.
        shape: alphabets and depth; leaves are direct.
        evidence: which actions are counted.

    Kind: exact. Paper: tree sources in Willems, Shtarkov, Tjalkens 1995. Cost: O(depth) to predict; a counted step
    copies the counts of the leaves seen.
    """

    tree: Tree
    shape: TreeShape
    evidence: Evidence = "demonstrated"

    @property
    def n_symbols(self) -> int:
        """Size of the alphabet."""
        return self.shape.n_symbols

    def start(self) -> TreeSourceState:
        """Nothing has happened."""
        return TreeSourceState((0,) * self.shape.depth, {})

    def predict(self, state: TreeSourceState) -> Prediction:
        """The KT estimate of the leaf."""
        counts = np.array(self._leaf(state)[1])
        return Prediction.of((counts + 0.5) / (counts.sum() + 0.5 * self.n_symbols))

    def advance(self, state: TreeSourceState, step: Step) -> TreeSourceState:
        """``step`` joins the context; it is counted if it is evidence."""
        code, counts = step_code(step, self.shape), state.counts
        if is_evidence(step, self.evidence):
            leaf, old = self._leaf(state)
            counts = {**counts, leaf: tuple(n + (x == code) for x, n in enumerate(old))}
        return TreeSourceState((code, *state.context)[: self.shape.depth], counts)

    def _leaf(self, state: TreeSourceState) -> tuple[tuple[int, ...], tuple[int, ...]]:
        leaf = state.context[: leaf_depth(self.tree, state.context)]
        return leaf, state.counts.get(leaf, (0,) * self.n_symbols)


def tree_class(shape: TreeShape, evidence: Evidence = "demonstrated") -> ModelClass:
    """Every tree source of this shape with its prior 2^-cost: the class that context-tree weighting mixes, one by one.

    For small shapes: more than 100 000 trees are refused with :class:`~mightnt.errors.InputError` (binary: depth 4 at
    most). For larger ones the mixture is ``DirectContextTree`` and the minimum ``PessimisticContextTree``.

    Kind: exact. Paper: w(nu). Cost: a step costs a prediction of every tree.
    """
    if shape.form != "direct":
        raise InputError("tree sources have direct leaves; a decomposed context tree has one tree for every digit")
    if n_trees(shape.depth, shape.n_contexts) > MOST_TREES:
        raise InputError(
            f"more than {MOST_TREES} trees of depth {shape.depth} over {shape.n_contexts} steps; use a smaller depth, "
            "DirectContextTree or PessimisticContextTree"
        )
    trees = tuple(all_trees(shape.depth, shape.n_contexts))
    log_prior = np.array([-tree_cost_bits(tree, shape.depth) * log(2) for tree in trees])
    return ModelClass(tuple(TreeSource(tree, shape, evidence) for tree in trees), log_prior)
