"""Single tree sources: their number, their prior, their predictions, and that mixing all of them is context-tree weighting."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.bases.mixture import BayesMixture
from mightnt.errors import InputError
from mightnt.history import Chooser, Step, demonstrated
from mightnt.models.context_tree.running import TreeShape
from mightnt.models.context_tree.trees import (
    TreeSource,
    all_trees,
    leaf_depth,
    n_trees,
    step_code,
    tree_class,
    tree_cost_bits,
)
from mightnt.models.context_tree.weighting import DirectContextTree
from mightnt.prediction import check_model, follow
from tests.models.context_tree import reference
from tests.strategies import histories


@pytest.mark.parametrize(
    ("depth", "n_contexts", "n"), [(0, 2, 1), (1, 2, 2), (2, 2, 5), (3, 2, 26), (4, 2, 677), (2, 3, 9)]
)
def test_trees_are_counted_and_their_prior_sums_to_one(depth, n_contexts, n):
    trees = list(all_trees(depth, n_contexts))
    assert len(trees) == len(set(trees)) == n == n_trees(depth, n_contexts)
    assert trees == sorted(trees) == list(reference.all_trees(depth, n_contexts))
    assert sum(Fraction(1, 2 ** tree_cost_bits(tree, depth)) for tree in trees) == 1


def test_a_cost_by_hand():
    """Root split (1), one leaf above the limit (1), one split (1) into two leaves at the limit (0)."""
    assert tree_cost_bits(((), ((), ())), 2) == 3
    assert tree_cost_bits((), 2) == 1
    assert tree_cost_bits((), 0) == 0


def test_a_tree_source_by_hand():
    """Split on the last step only: contexts 0 (before the start) and the actions."""
    source = TreeSource(((), ()), TreeShape(2, 1))
    state = follow(source, [Step(x, Chooser.DEMONSTRATOR) for x in (1, 0, 1, 1)])  # after 0: 1, 1; after 1: 0, 1
    assert source.predict(state).probabilities.tolist() == pytest.approx([0.5, 0.5])
    state = source.advance(state, Step(0, Chooser.AGENT))  # context, no evidence
    assert source.predict(state).probabilities.tolist() == pytest.approx([1 / 6, 5 / 6])
    assert leaf_depth(((), ((), ())), (1, 0)) == 2


@given(histories(max_rounds=5), st.sampled_from(["all", "demonstrated"]))
@settings(max_examples=30)
def test_mixing_every_tree_is_context_tree_weighting(history, evidence):
    mixture = BayesMixture(tree_class(TreeShape(2, 2, 2), evidence), evidence)
    weighted = DirectContextTree(2, 2, 2, evidence)
    np.testing.assert_allclose(
        weighted.predict(follow(weighted, history)).probabilities,
        mixture.predict(follow(mixture, history)).probabilities,
        rtol=1e-10,
    )


def test_a_tree_source_obeys_the_contract():
    check_model(TreeSource(((), ((), ())), TreeShape(2, 2)), [[Step(x, Chooser.DEMONSTRATOR) for x in (0, 1, 1)]])


def test_what_is_not_possible_is_refused():
    with pytest.raises(InputError, match="more than 100000 trees of depth 5"):
        tree_class(TreeShape(2, 5))
    with pytest.raises(InputError, match="direct leaves"):
        tree_class(TreeShape(3, 1, form="decomposed"))
    source = TreeSource((), TreeShape(2, 1))
    with pytest.raises(InputError, match=r"action 2 is none of 0\.\.1"):
        source.advance(source.start(), Step(2, Chooser.AGENT))
    with pytest.raises(InputError, match="no observations were declared"):
        follow(source, demonstrated([0, 0]))
    assert step_code(Step(1, Chooser.WORLD), TreeShape(3, 1, 2)) == 4
