"""The minimum over believed trees against every tree in exact fractions, one by one."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.bases.pessimistic import Pessimistic
from mightnt.errors import InputError
from mightnt.history import Chooser, Step, demonstrated
from mightnt.models.context_tree import pruning
from mightnt.models.context_tree.pruning import PessimisticContextTree, best_pairs, unvisited, whole_log2
from mightnt.models.context_tree.running import TreeShape
from mightnt.models.context_tree.trees import tree_class, tree_cost_bits
from mightnt.prediction import check_model, follow
from tests.models.context_tree.reference import all_trees, context_before, leaf_counts, leaf_of, tree_weights
from tests.strategies import histories


def exact_top_set(weights, level):
    """By definition: sorted by weight, equal ones in the order of the trees."""
    kept, total = [], Fraction(0)
    for tree in sorted(weights, key=lambda tree: (-weights[tree], tree)):
        total += weights[tree]
        if weights[tree] < level * total:
            break
        kept.append(tree)
    return kept


def exact_minimum(kept, visits, context, k):
    rows = []
    for tree in kept:
        counts = leaf_counts(tree, visits, k).get(leaf_of(tree, context), [0] * k)
        rows.append([Fraction(2 * n + 1, 2 * sum(counts) + k) for n in counts])
    return [min(column) for column in zip(*rows, strict=True)]


LEVELS = [Fraction(1), Fraction(1, 2), Fraction(1, 5), Fraction(3, 50), Fraction(1, 100)]


@given(st.sampled_from([(2, 3), (3, 2), (2, 1), (2, 0)]), st.sampled_from(LEVELS), st.data())
@settings(max_examples=60)
def test_the_top_set_and_its_minimum_are_those_of_every_tree_in_fractions(alphabets, level, data):
    k, depth = alphabets
    steps = data.draw(st.lists(st.tuples(st.integers(0, k - 1), st.booleans()), max_size=25))
    history = [Step(x, Chooser.DEMONSTRATOR if shown else Chooser.AGENT) for x, shown in steps]
    past = [x for x, _ in steps]
    visits = [(context_before(past, t, depth), x) for t, (x, shown) in enumerate(steps) if shown]
    model = PessimisticContextTree(k, depth, float(level))
    state = follow(model, history)
    kept = exact_top_set(tree_weights(visits, k, depth, k), level)
    assert model.top_trees(state)[0] == kept
    expected = exact_minimum(kept, visits, context_before(past, len(past), depth), k)
    np.testing.assert_allclose(model.predict(state).probabilities, [float(p) for p in expected], rtol=1e-12)


@given(histories(max_rounds=6), st.sampled_from([0.31, 0.07, 0.013]), st.sampled_from(["all", "demonstrated"]))
@settings(max_examples=40)
def test_it_is_the_pessimistic_base_over_the_class_of_all_trees(history, level, evidence):
    """83 trees here, by another way; where equal trees meet the level, either choice of them bounds the same."""
    shape = TreeShape(2, 2, 1)
    history = tuple(Step(0, s.chooser) if not s.is_action else s for s in history)
    listed = Pessimistic(tree_class(shape, evidence), level, evidence=evidence)
    model = PessimisticContextTree(2, 2, level, 1, evidence)
    state = follow(model, history)
    weights = np.sort(follow(listed, history).of_class.log_posterior)[::-1]
    n = len(model.top_trees(state)[0])
    if n < len(weights) and weights[n - 1] - weights[n] > 1e-9:  # the cut is between unequal trees
        np.testing.assert_allclose(
            model.predict(state).probabilities, listed.predict(follow(listed, history)).probabilities, rtol=1e-9
        )


def test_the_level_by_hand():
    """Depth 1, binary, nothing seen: the leaf and the split have 1/2 each. Level 1 keeps the first, the leaf."""
    assert PessimisticContextTree(2, 1, 1.0).top_trees(PessimisticContextTree(2, 1, 1.0).start())[0] == [()]
    model = PessimisticContextTree(2, 1, 0.5)
    trees, log_joint = model.top_trees(model.start())
    assert trees == [(), ((), ())]
    assert log_joint.tolist() == pytest.approx(np.log([0.5, 0.5]))


def test_pessimism_by_hand():
    """1 0 1 0 1 0 1 0 shown, the last step is 0: without memory 1/2, with it 1 has (4 + 1/2) / 5; both believed."""
    model = PessimisticContextTree(2, 1, 0.01)
    state = follow(model, [Step(x, Chooser.DEMONSTRATOR) for x in (1, 0) * 4])
    assert len(model.top_trees(state)[0]) == 2
    assert model.predict(state).probabilities.tolist() == pytest.approx([0.5 / 5, 0.5])
    assert model.predict(state).missing == pytest.approx(0.4)


def test_a_deep_tree_asks_where_nothing_was_shown_and_less_where_much_was():
    model = PessimisticContextTree(2, 12, 0.05)
    asked = [model.predict(follow(model, [Step(1, Chooser.DEMONSTRATOR)] * n)).missing for n in (2, 20, 120)]
    assert asked[0] > asked[1] > asked[2]
    turned = [*[Step(1, Chooser.DEMONSTRATOR)] * 120, Step(0, Chooser.AGENT)]
    assert model.predict(follow(model, turned)).missing > 10 * asked[2]


def test_it_obeys_the_contract():
    shown = demonstrated([0, 1, 1, 0, 1, 1, 0, 0])
    check_model(PessimisticContextTree(2, 4, 0.05, 2), [shown, shown[::-1]])


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_logarithms_in_whole_units_add_up_exactly(a, b):
    assert whole_log2(a * b) == whole_log2(a) + whole_log2(b)
    assert whole_log2(a) * pruning.UNIT_BITS == pytest.approx(np.log2(a), abs=1e-10)


@pytest.mark.parametrize("n", [1, 3, 20, 1000])
def test_the_best_unvisited_trees_are_the_best_of_all(n):
    everything = sorted((round(tree_cost_bits(tree, 3) / pruning.UNIT_BITS), tree) for tree in all_trees(3, 2))
    assert list(unvisited(3, 2, n)) == everything[:n]


@given(st.lists(st.integers(0, 5), max_size=8), st.lists(st.integers(0, 5), max_size=8), st.integers(1, 12))
def test_the_best_pairs_are_the_best_of_all_pairs(left, right, n):
    a = sorted((cost, ((),) * i) for i, cost in enumerate(left))
    b = sorted((cost, ((),) * i) for i, cost in enumerate(right))
    a = sorted((cost, (tree,)) for cost, tree in a)
    everything = sorted((x + y, (*s, t)) for x, s in a for y, t in b)
    assert list(best_pairs(a, b, n)) == everything[:n]


def test_what_is_not_computable_is_refused(monkeypatch):
    for level in (0, -1, 1.5, float("nan")):
        with pytest.raises(InputError, match="top-set level"):
            PessimisticContextTree(2, 2, level)
    with pytest.raises(InputError, match="lets more than 4096 trees in"):
        PessimisticContextTree(2, 2, 1e-5)
    monkeypatch.setattr(pruning, "MOST_ENTRIES", 100)
    model = PessimisticContextTree(2, 8, 0.05)
    with pytest.raises(InputError, match="use a smaller depth or a larger top-set level"):
        follow(model, [Step(x, Chooser.DEMONSTRATOR) for x in (0, 1, 1, 0)])
