"""The running tree against every tree source summed in fractions, and that going back leaves no trace."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.models.context_tree import running
from mightnt.models.context_tree.running import RunningContextTree, TreeShape, decisions
from tests.models.context_tree.reference import SlowTree, context_before, exact_probability

SMALL = [(2, 0), (2, 1), (2, 2), (2, 3), (3, 0), (3, 1), (3, 2)]


def visits_of(past, counted, depth, code=None):
    """Pairs (context, branch) of the counted positions; ``code`` maps a symbol to a branch or to None."""
    pairs = [(context_before(past, t, depth), past[t]) for t in range(len(past)) if counted[t]]
    return pairs if code is None else [(c, code(x)) for c, x in pairs if code(x) is not None]


def exact_total(past, counted, shape):
    """The probability of the counted steps given the contexts, a product over the decisions, in fractions."""
    ways = decisions(shape.n_symbols, shape.form)
    value = Fraction(1)
    for number in {number for way in ways for number, _ in way}:
        visits = visits_of(past, counted, shape.depth, lambda x, number=number: dict(ways[x]).get(number))
        value *= exact_probability(visits, shape.n_branches, shape.depth, shape.n_contexts)
    return value


def walked(shape, past, counted):
    tree = RunningContextTree(shape)
    for step, count in zip(past, counted, strict=True):
        (tree.update if count else tree.watch)(step)
    return tree


@given(st.sampled_from(SMALL), st.sampled_from(["direct", "decomposed"]), st.data())
@settings(max_examples=40)
def test_predictions_are_ratios_of_the_sum_over_every_tree(small, form, data):
    shape = TreeShape(*small, form=form)
    past = data.draw(st.lists(st.integers(0, shape.n_symbols - 1), max_size=14))
    counted = [data.draw(st.booleans()) for _ in past]
    predicted = walked(shape, past, counted).predict().probabilities
    total = exact_total(past, counted, shape)
    for symbol in range(shape.n_symbols):
        exact = exact_total([*past, symbol], [*counted, True], shape) / total
        assert predicted[symbol] == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("form", ["direct", "decomposed"])
def test_observations_are_context_and_nothing_else(form):
    shape = TreeShape(2, 2, n_observations=1, form=form)
    past, counted = [0, 2, 1, 2, 1, 2, 0, 2], [True, False] * 4
    exact = exact_total([*past, 1], [*counted, True], shape) / exact_total(past, counted, shape)
    assert walked(shape, past, counted).predict().probabilities[1] == pytest.approx(float(exact), rel=1e-12)


def test_krichevsky_and_trofimov_by_hand():
    """Depth 0 is KT: 1/2, (1/2)/2, (3/2)/3 for 0 1 1; three symbols begin with 1/3 and go on with (1/2)/(5/2)."""
    assert RunningContextTree(TreeShape(2, 0)).learn_many([0, 1, 1]).tolist() == [0.5, 0.25, 0.5]
    assert RunningContextTree(TreeShape(3, 0)).learn_many([2, 0]).tolist() == pytest.approx([1 / 3, 1 / 5])


def test_weighting_by_hand():
    """Depth 1, zeros before: 1 in context 0, then 1 in context 1. Root KT 3/8, children 1/2 each: (3/8 + 1/4) / 2."""
    assert RunningContextTree(TreeShape(2, 1)).learn_many([1, 1]).prod() == pytest.approx(5 / 16)


@given(st.sampled_from([(2, 5, 0), (3, 4, 2), (5, 3, 1)]), st.sampled_from(["direct", "decomposed"]), st.data())
@settings(max_examples=40)
def test_predictions_sum_to_one_and_are_those_of_the_plain_tree(alphabets, form, data):
    shape = TreeShape(*alphabets, form=form)
    past = data.draw(st.lists(st.integers(0, shape.n_contexts - 1), max_size=40))
    counted = [step < shape.n_symbols for step in past]
    predicted = walked(shape, past, counted).predict().probabilities
    assert predicted.sum() == pytest.approx(1, abs=1e-12)
    ways = decisions(shape.n_symbols, form)
    expected = np.ones(shape.n_symbols)
    for number in {number for way in ways for number, _ in way}:
        slow = SlowTree(shape.n_branches, shape.depth, shape.n_contexts)
        for context, branch in visits_of(
            past, counted, shape.depth, lambda x, number=number: dict(ways[x]).get(number)
        ):
            slow.update(context, branch)
        branches = slow.predict(context_before(past, len(past), shape.depth))
        for symbol, way in enumerate(ways):
            expected[symbol] *= branches[dict(way)[number]] if number in dict(way) else 1
    np.testing.assert_allclose(predicted, expected, rtol=1e-10)


def test_two_symbols_decomposed_are_direct():
    sequence = np.random.default_rng(0).integers(0, 2, 300)
    one, other = (RunningContextTree(TreeShape(2, 9, form=form)) for form in ("direct", "decomposed"))
    np.testing.assert_array_equal(one.learn_many(sequence), other.learn_many(sequence))


def test_decisions_are_the_binary_digits_without_the_forced_ones():
    assert decisions(3, "direct") == (((0, 0),), ((0, 1),), ((0, 2),))
    assert decisions(4, "decomposed") == (((0, 0), (1, 0)), ((0, 0), (1, 1)), ((0, 1), (2, 0)), ((0, 1), (2, 1)))
    assert decisions(3, "decomposed") == (((0, 0), (1, 0)), ((0, 0), (1, 1)), ((0, 1),))
    for n_symbols in range(2, 40):
        ways = decisions(n_symbols, "decomposed")
        assert len(set(ways)) == n_symbols
        assert max(map(len, ways)) == (n_symbols - 1).bit_length()
        assert len({number for way in ways for number, _ in way}) == n_symbols - 1  # a full binary tree with m leaves


def bytes_of(tree):
    tables = [(rows.n_rows, rows.rows[: rows.n_rows].tobytes()) for rows in tree._trees]
    return len(tree), tree._past[: tree._end].tobytes(), tables, tree.predict().log_probabilities.tobytes()


@given(st.sampled_from([(2, 30, 0), (3, 6, 1)]), st.sampled_from(["direct", "decomposed"]), st.data())
@settings(max_examples=40)
def test_undo_restores_every_bit(alphabets, form, data):
    shape = TreeShape(*alphabets, form=form)
    steps = st.lists(st.tuples(st.integers(0, shape.n_symbols - 1), st.booleans()), max_size=60)
    before, after = data.draw(steps), data.draw(steps)
    tree = walked(shape, *zip(*before, strict=True)) if before else RunningContextTree(shape)
    expected = bytes_of(tree)
    for step, count in after:
        (tree.update if count else tree.watch)(step)
    for _ in after:
        tree.undo()
    assert bytes_of(tree) == expected
    for step, count in after:  # and going the same way again leads to the same place
        (tree.update if count else tree.watch)(step)
    assert bytes_of(tree) == bytes_of(walked(shape, *zip(*before, *after, strict=True)) if before or after else tree)


def test_a_snapshot_shares_nothing():
    tree = RunningContextTree(TreeShape(3, 4))
    for symbol in (0, 1, 2, 1):
        tree.update(symbol)
    copy, expected = tree.snapshot(), bytes_of(tree)
    copy.update(2)
    copy.update(2)
    assert bytes_of(tree) == expected
    copy.undo()
    copy.undo()
    copy.undo()
    tree.undo()
    assert bytes_of(copy) == bytes_of(tree)
    assert len(copy) == 3


@pytest.mark.parametrize("form", ["direct", "decomposed"])
def test_learning_many_is_learning_one_by_one(form):
    sequence = np.random.default_rng(0).integers(0, 3, 200)
    one, many = (RunningContextTree(TreeShape(3, 6, form=form)) for _ in range(2))
    values = []
    for symbol in sequence:
        values.append(one.predict().probabilities[symbol])
        one.update(int(symbol))
    together = np.concatenate([many.learn_many(sequence[:77]), many.learn_many(sequence[77:])])
    np.testing.assert_allclose(together, values, rtol=1e-12)
    assert bytes_of(one)[:3] == bytes_of(many)[:3]
    assert many.n_undoable == 0
    with pytest.raises(InputError, match="nothing can be undone"):
        many.undo()


def test_memory_grows_with_contexts_not_with_depth():
    sequence = np.random.default_rng(0).integers(0, 2, 3000)
    for depth in (48, 200):
        tree = RunningContextTree(TreeShape(2, depth))
        tree.learn_many(sequence)
        assert tree.n_nodes <= 2 * len(sequence)
    constant = RunningContextTree(TreeShape(2, 200))
    constant.learn_many(np.ones(3000, dtype=int))
    assert constant.n_nodes <= 2 * 201 + 1


def test_too_much_memory_is_refused_before_it_is_taken(monkeypatch):
    tree = RunningContextTree(TreeShape(2, 40))
    monkeypatch.setattr(running, "MOST_BYTES", 32 * 64)
    with pytest.raises(InputError, match=r"needs .* GiB to grow"):
        tree.learn_many(np.random.default_rng(0).integers(0, 2, 1000))


def test_more_steps_than_can_be_counted_are_refused(monkeypatch):
    tree = RunningContextTree(TreeShape(2, 3))
    monkeypatch.setattr(running, "MOST_STEPS", 10)
    tree.learn_many([0] * 6)
    expected = bytes_of(tree)
    for act in (tree.update, tree.watch, lambda symbol: tree.learn_many([symbol])):
        with pytest.raises(InputError, match="fewer than 10 can be counted"):
            act(0)
    assert bytes_of(tree) == expected


def test_a_step_that_is_refused_for_memory_has_changed_nothing(monkeypatch):
    """Four symbols digit by digit: room is made in every tree before anything is counted in one."""
    tree, rng = RunningContextTree(TreeShape(4, 30, form="decomposed")), np.random.default_rng(0)
    monkeypatch.setattr(running, "MOST_BYTES", 10 * 4 * 64)
    before = []

    def count_until_refused():
        for symbol in rng.integers(0, 4, 500):
            before.append(bytes_of(tree))
            tree.update(int(symbol))

    with pytest.raises(InputError, match="GiB to grow"):
        count_until_refused()
    assert bytes_of(tree) == before[-1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"n_symbols": 1, "depth": 2}, "at least 2 are needed"),
        ({"n_symbols": 2, "depth": -1}, "0 to 200 is allowed"),
        ({"n_symbols": 2, "depth": 201}, "0 to 200 is allowed"),
        ({"n_symbols": 200, "depth": 2, "n_observations": 57}, "together 256"),
        ({"n_symbols": 2, "depth": 2, "n_observations": -1}, "together 256"),
        ({"n_symbols": 2, "depth": 2, "form": "other"}, "allowed are 'direct' and 'decomposed'"),
    ],
)
def test_shapes_that_are_none_are_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        TreeShape(**arguments)


def test_symbols_outside_the_alphabet_are_refused_and_nothing_has_changed():
    tree = RunningContextTree(TreeShape(2, 3, n_observations=1))
    for act in (
        lambda: tree.update(2),
        lambda: tree.update(-1),
        lambda: tree.watch(3),
        lambda: tree.learn_many([0, 2]),
    ):
        with pytest.raises(InputError, match="is none of 0"):
            act()
    for wrong in ([0.5, 1.0], [[0, 1]], ["a"]):
        with pytest.raises(InputError, match="whole numbers"):
            tree.learn_many(wrong)
    assert len(tree) == 0
    assert tree.learn_many([]).size == 0


def test_every_sequence_of_a_length_shares_a_probability_of_one():
    for form, (n_symbols, depth, length) in product(["direct", "decomposed"], [(2, 3, 6), (3, 2, 4)]):
        shape = TreeShape(n_symbols, depth, form=form)
        sequences = product(range(n_symbols), repeat=length)
        total = sum(RunningContextTree(shape).learn_many(list(x)).prod() for x in sequences)
        assert total == pytest.approx(1, abs=1e-12)
