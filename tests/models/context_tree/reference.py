"""Context trees written the obvious way: a dictionary of contexts in logs, and the sum over every tree in fractions."""

import itertools
from fractions import Fraction
from math import exp, log, prod

import numpy as np


def context_before(past, t, length):
    """The last ``length`` steps before position ``t``, the nearest first; before the start there were zeros."""
    return tuple(past[t - 1 - j] if t - 1 - j >= 0 else 0 for j in range(length))


class SlowTree:
    """Every context of every depth is a key: counts, log P_kt, log P_w (nats)."""

    def __init__(self, n_branches, depth, n_contexts):
        self.k, self.depth, self.n_contexts = n_branches, depth, n_contexts
        self.nodes = {}

    def log_weighted(self, context):
        return self.nodes[context][2] if context in self.nodes else 0.0

    def path(self, context, symbol):
        """The nodes from the bottom up as they would be after ``symbol``."""
        below, changed = 0.0, None
        for d in range(self.depth, -1, -1):
            counts, log_kt, _ = self.nodes.get(context[:d], ((0,) * self.k, 0.0, 0.0))
            log_kt += log((counts[symbol] + 0.5) / (sum(counts) + 0.5 * self.k))
            if d == self.depth:
                log_weighted = log_kt
            else:
                children = [(*context[:d], c) for c in range(self.n_contexts)]
                split = below + sum(self.log_weighted(child) for child in children if child != changed)
                log_weighted = log(0.5) + float(np.logaddexp(log_kt, split))
            counts = (*counts[:symbol], counts[symbol] + 1, *counts[symbol + 1 :])
            yield context[:d], (counts, log_kt, log_weighted)
            below, changed = log_weighted, context[:d]

    def log_total(self):
        return self.log_weighted(())

    def predict(self, context):
        after = [list(self.path(context, symbol))[-1][1][2] for symbol in range(self.k)]
        return np.array([exp(value - self.log_total()) for value in after])

    def update(self, context, symbol):
        self.nodes.update(list(self.path(context, symbol)))


def slow_bits(sequence, n_symbols, depth):
    """-log2 of the mixture's probability of a whole sequence, direct leaves."""
    tree = SlowTree(n_symbols, depth, n_symbols)
    for t, symbol in enumerate(sequence):
        tree.update(context_before(sequence, t, depth), symbol)
    return -tree.log_total() / log(2)


def all_trees(depth, n_contexts):
    """Every tree of at most this depth: () is a leaf, a split is the tuple of its children; leaf first."""
    yield ()
    if depth:
        yield from itertools.product(tuple(all_trees(depth - 1, n_contexts)), repeat=n_contexts)


def cost_bits(tree, depth):
    """One bit for every node above the depth limit."""
    return 0 if depth == 0 else 1 + sum(cost_bits(child, depth - 1) for child in tree)


def leaf_of(tree, context):
    """The context of the leaf that ``context`` ends in."""
    d = 0
    while tree:
        tree, d = tree[context[d]], d + 1
    return context[:d]


def kt_fraction(counts):
    """Krichevsky and Trofimov's probability of any one sequence with these counts."""
    k, past = len(counts), 0
    value = Fraction(1)
    for n in counts:
        for i in range(n):
            value *= Fraction(2 * i + 1, 2 * past + k)
            past += 1
    return value


def leaf_counts(tree, visits, k):
    """Counts in each leaf of ``tree`` after ``visits``, pairs (context, symbol)."""
    counts = {}
    for context, symbol in visits:
        counts.setdefault(leaf_of(tree, context), [0] * k)[symbol] += 1
    return counts


def tree_weights(visits, k, depth, n_contexts):
    """Prior times probability of the visits for every tree, in exact fractions, in the order of :func:`all_trees`."""
    return {
        tree: Fraction(1, 2 ** cost_bits(tree, depth))
        * prod((kt_fraction(c) for c in leaf_counts(tree, visits, k).values()), start=Fraction(1))
        for tree in all_trees(depth, n_contexts)
    }


def exact_probability(visits, k, depth, n_contexts):
    """The mixture over every tree, summed one by one."""
    return sum(tree_weights(visits, k, depth, n_contexts).values())
