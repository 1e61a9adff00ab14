"""The compiled compact tree against the dictionary of every context, on sequences that split, merge and reverse."""

import numpy as np
import pytest

from mightnt.models.context_tree import kernels
from mightnt.models.context_tree.running import RunningContextTree, TreeShape
from tests.models.context_tree.reference import slow_bits


def compact_bits(sequence, n_symbols, depth):
    return -np.log2(RunningContextTree(TreeShape(n_symbols, depth)).learn_many(sequence)).sum()


def markov(n, seed):
    rng, sequence = np.random.default_rng(seed), [0, 0, 0]
    chances = rng.random((2, 2, 2))
    for _ in range(n):
        sequence.append(int(rng.random() < chances[tuple(sequence[-3:])]))
    return sequence


SEQUENCES = {
    "random": np.random.default_rng(0).integers(0, 2, 600),
    "constant": np.zeros(600, dtype=int),
    "period": np.tile(np.random.default_rng(1).integers(0, 2, 37), 16),
    "repeated block": np.tile(np.random.default_rng(2).integers(0, 2, 200), 3),
    "markov": markov(600, 3),
    "squares": np.arange(600) ** 2 // 7 % 2,
}


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("depth", [0, 1, 3, 16, 40])
def test_total_bits_are_those_of_the_plain_tree(name, depth):
    sequence = SEQUENCES[name]
    assert compact_bits(sequence, 2, depth) == pytest.approx(slow_bits(sequence, 2, depth), abs=1e-9)


@pytest.mark.parametrize(("n_symbols", "depth"), [(3, 0), (3, 2), (3, 7), (5, 4)])
def test_larger_alphabets(n_symbols, depth):
    rng = np.random.default_rng(n_symbols)
    for sequence in (rng.integers(0, n_symbols, 300), np.tile(rng.integers(0, n_symbols, 23), 13)):
        assert compact_bits(sequence, n_symbols, depth) == pytest.approx(
            slow_bits(sequence, n_symbols, depth), abs=1e-9
        )


def test_odds_beyond_every_float_come_back():
    """2000 alternations put odds of 2^-2000 on the root; two long runs then turn both of its children's counts into even
    ones, and the root is as good as they are: odds that stopped at the smallest float would never come back."""
    turned = np.concatenate(
        [np.tile([0, 1], 1000), np.zeros(1000, dtype=int), np.ones(1000, dtype=int), [0, 0, 1, 1] * 50]
    )
    tree = RunningContextTree(TreeShape(2, 1))
    scales, bits = [], 0.0
    for part in (turned[:2000], turned[2000:]):
        bits -= np.log2(tree.learn_many(part)).sum()
        scales.append(int(tree._trees[0].rows[0, int(kernels.SHAPE)]) >> kernels.REACH_BITS)
    assert bits == pytest.approx(slow_bits(turned, 2, 1), abs=1e-8)
    assert scales[0] <= -3
    assert scales[1] == 0


def test_a_long_chain_is_split_anywhere():
    """Two sequences that agree for j steps back and differ then, for every j: one split at each depth."""
    rng = np.random.default_rng(5)
    block = rng.integers(0, 2, 60)
    for j in range(0, 60, 11):
        other = block.copy()
        other[59 - j] ^= 1
        sequence = np.concatenate([block, block, other, [1], block, [0], other, block])
        assert compact_bits(sequence, 2, 50) == pytest.approx(slow_bits(sequence, 2, 50), abs=1e-9)


def test_splitting_odds_by_hand():
    """A chain of 3 depths whose children are worth P = K / 4: odds (2^3 - 1) 4. Cut behind 1 depth: the rest is worth
    (3/4) K + (1/4) P = 13/16 K."""
    top, scale, rest = kernels._split_odds(28.0, 2, 0, 0, 9)
    assert (top, scale, rest) == (pytest.approx(16 / 13), 0, pytest.approx(12))
    assert kernels._split_odds(0.0, 9, 3, 5, 9) == (7.0, 0, 0.0)  # a chain to the limit: K / K at every depth


def test_scaling_keeps_the_value_and_is_undone_by_itself():
    for odds in (2.0**300, 2.0**256, 1.0, 2.0**-256, 2.0**-300):
        mantissa, scale = kernels._scaled(odds, 0)
        assert mantissa * 2.0 ** (512 * scale) == odds
        assert 2.0**-256 <= mantissa < 2.0**256
    assert kernels._mixed(1.0, 1, 0.25, 0.5) == 0.25
    assert kernels._mixed(1.0, -1, 0.25, 0.5) == 0.5
    assert kernels._mixed(3.0, 0, 0.25, 0.5) == 0.3125
