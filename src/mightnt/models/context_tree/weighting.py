"""Context-tree weighting as models: the exact Bayes mixture over every tree source, with states that are values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from mightnt.history import Chooser, Evidence, Step, is_evidence
from mightnt.models.context_tree.running import LeafForm, RunningContextTree, TreeShape
from mightnt.models.context_tree.trees import step_code
from mightnt.prediction import Prediction


@dataclass(frozen=True, slots=True, eq=False)
class ContextTreeState:
    """A place in the tree of histories: the step that led here and the place before it.

    A step is kept as a context holds it (observation o is ``n_symbols`` + o), with whether it was evidence. All states
    of one ``start`` share one running tree, which undoes and redoes steps to stand where it is asked.
    """

    walk: _Walk
    before: ContextTreeState | None
    step: int
    learned: bool
    n_steps: int


class _Walk:
    """The one thing that moves: a running tree and the state it stands at."""

    def __init__(self, shape: TreeShape) -> None:
        self.tree = RunningContextTree(shape)
        self.first = self.at = ContextTreeState(self, None, 0, False, 0)

    def stand_at(self, state: ContextTreeState) -> RunningContextTree:
        """The tree as it is in ``state``: back to the last state that both places have in common, and on from there."""
        here: ContextTreeState | None = self.at
        there: ContextTreeState | None = state
        n_back, forward = 0, []
        while here and there and here is not there:
            if here.n_steps >= there.n_steps:
                here, n_back = here.before, n_back + 1
            else:
                forward.append(there)
                there = there.before
        if n_back > self.tree.n_undoable:
            self.tree, self.at = RunningContextTree(self.tree.shape), self.first
            return self.stand_at(state)
        for _ in range(n_back):
            self.tree.undo()
            self.at = self.at.before or self.first
        for passed in reversed(forward):
            (self.tree.update if passed.learned else self.tree.watch)(passed.step)
            self.at = passed
        return self.tree


FIRST_STEP = Step(0, Chooser.WORLD)


@dataclass(frozen=True, slots=True, eq=False)
class _ContextTree:
    """The mixture over all tree sources as a model. Its two kinds differ in how a leaf predicts."""

    n_symbols: int
    depth: int
    n_observations: int = 0
    evidence: Evidence = "all"

    form: ClassVar[LeafForm]

    def __post_init__(self) -> None:
        is_evidence(FIRST_STEP, self.evidence)
        _ = self.shape

    @property
    def shape(self) -> TreeShape:
        """Alphabets, depth and form."""
        return TreeShape(self.n_symbols, self.depth, self.n_observations, self.form)

    def start(self) -> ContextTreeState:
        """Nothing has happened. A new running tree: what begins here shares no memory with other starts."""
        return _Walk(self.shape).first

    def predict(self, state: ContextTreeState) -> Prediction:
        """The mixture's prediction; sums to one (up to rounding)."""
        return state.walk.stand_at(state).predict()

    def advance(self, state: ContextTreeState, step: Step) -> ContextTreeState:
        """``step`` joins the context; it is counted if it is evidence."""
        code = step_code(step, self.shape)
        return ContextTreeState(state.walk, state, code, is_evidence(step, self.evidence), state.n_steps + 1)

    def code_length_bits(self, sequence: ArrayLike) -> float:
        """-log2 of the probability of a whole sequence of symbols, from the start, each counted: a complexity in bits.

        0 for the empty sequence. Cost: about a microsecond a symbol.
        """
        return float(-np.log2(RunningContextTree(self.shape).learn_many(sequence)).sum())


class DirectContextTree(_ContextTree):
    """Context-tree weighting where a leaf predicts a symbol at once, with half a count for each.

    xi(x | h) = sum_S w(S | h) KT_S(x | h) over all tree sources S of depth at most D, with prior w(S) = 2^-cost(S), one
    bit for every node of S above depth D, and KT_S(x | h) = (n_x + 1/2) / (n + m/2), counted in the leaf of S that the
    last steps lead to. What counts is the evidence alone; the context is everything that happened, observations too.
    Before the first step there were zeros (the action 0).

    Args:
        n_symbols: size m of the alphabet of actions, at least 2.
        depth: the most steps a prediction looks back, D: 0 to 200.
        n_observations: size of the alphabet of observations; 0 where the world says nothing.
        evidence: ``all`` actions are counted, or the ``demonstrated`` ones only.

    A state is a value; states of one ``start`` share one tree, which goes back and forth between them: predicting costs
    one undo or update for every step between the state asked last and this one (depth-first planners ask neighbors; a
    state more than 4096 steps back is rebuilt from the start). Not safe for several threads.

    Errors: :class:`~mightnt.errors.InputError` for alphabets, depths, symbols and memory that are not allowed, and
    where numba is missing.

    Kind: exact (float64). Paper: Willems, Shtarkov, Tjalkens 1995. Cost: at most D + 1 nodes a step, at most two new
    nodes a counted step.
    """

    __slots__ = ()
    form = "direct"


class DecomposedContextTree(_ContextTree):
    """Context-tree weighting where a leaf predicts a symbol digit by digit, each digit with a tree of its own.

    The symbol is ceil(log2 m) binary decisions; every decision node j is a binary context tree over the same contexts,
    xi(x | h) = prod over the digits of x of xi_j(digit | h), with KT (n_digit + 1/2) / (n + 1). For two symbols it is
    :class:`DirectContextTree`. Fewer half-counts are spent on symbols that never come, so large alphabets are learned
    sooner; but the numbering of the symbols matters.

    Arguments, states, errors and cost as there, times the number of digits. A digit that the alphabet forces is no
    decision, so nothing is missing for any m.

    Kind: exact (float64). Paper: Tjalkens, Willems, Shtarkov 1994 (multi-alphabet by binary decomposition).
    """

    __slots__ = ()
    form = "decomposed"
