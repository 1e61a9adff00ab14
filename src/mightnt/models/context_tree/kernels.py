"""Compact context trees, compiled: find the path of a context, predict along it, learn along it.

One row a node, in a table of 32-bit words ``rows``; ``odds`` is the same memory seen as float64. Both are flat: the row
of node i begins at word i * width, its odds lie at i * width / 2. A node stands for a *chain* of contexts, from the
depth behind its parent down to its ``reach``, that every visit so far has run through together: all of them have the
same counts, so they are kept once. Words of a row:

    0, 1   odds, a float64: the weight of "some leaf of this chain" over "split all the way", times 2^(-512 scale)
    2      at: a position of ``past`` whose context runs through the chain
    3      shape: reach + 256 scale
    4      total: how many symbols were counted here
    5 ...  counts of the symbols 0 .. k-2; the last symbol has what is left of the total (two symbols: a row is 32 bytes)
    ...    links: the row of the child for each context symbol; 0 where nothing has been

The chain of L contexts above the depth limit has (1 - 2^-L) K + 2^-L P as its weighted probability, K the KT estimate
of its counts and P the product of the children's weighted probabilities; so the odds are (2^L - 1) K / P, one symbol
multiplies them by its KT prediction over the child's prediction, and nothing here needs a logarithm. A chain that
reaches the depth limit has K all along and no odds.

Two things make it quick beside the algorithm: no references are counted (nothing here allocates), and rows are addressed
by unsigned numbers (no test for negative ones).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

AT, SHAPE, TOTAL, COUNTS = (np.uint64(word) for word in (2, 3, 4, 5))
TWO = np.uint64(2)
REACH_BITS = 8
REACH_MASK = 2**REACH_BITS - 1
PSEUDO_COUNT = 0.5
POWERS = 2.0 ** np.arange(REACH_MASK + 1)
LARGE, SMALL = 2.0**256, 2.0**-256
NEAR_WORDS = np.uint64(2**17)
"""A table of half a MiB stays in the second-level cache: nothing there is worth fetching early."""

FAST = {"cache": True, "error_model": "numpy", "_nrt": False}


@njit(**FAST, inline="always")
def descend(rows: Any, past: Any, end: int, path: Any, n_rows: int, form: Any) -> Any:
    """The nodes on the way of the context before ``past[end]``, into ``path``: how many, and how far the last one agrees.

    The last node agrees with the context in its whole reach, or in less of it: then it has to be split there.
    ``form`` is (ways a leaf can go, depth limit, words a row, first link); the last two unsigned, as is ``path``.
    """
    _, depth, width, links = form
    node, agreed, n = np.uint64(0), 0, 0
    while n_rows > 0:
        path[n] = node
        n += 1
        row = node * width
        at, reach = rows[row + AT], rows[row + SHAPE] & REACH_MASK
        while agreed < reach and past[end - 1 - agreed] == past[at - 1 - agreed]:
            agreed += 1
        if agreed < reach or reach == depth:
            break
        node = np.uint64(rows[row + links + past[end - 1 - agreed]])
        if node == 0:
            break
        agreed += 1
    return n, agreed


@njit(**FAST, inline="always")
def _counted(rows: Any, row: int, symbol: int, k: int) -> Any:
    """How often ``symbol`` was counted in the node whose row begins at word ``row``."""
    n = rows[row + COUNTS + np.uint64(min(symbol, k - 2))]
    if symbol == k - 1:
        n = rows[row + TOTAL] - n
        for other in range(k - 2):
            n -= rows[row + COUNTS + np.uint64(other)]
    return n


@njit(**FAST)
def _kt(n: int, total: int, k: int) -> float:
    """(n_x + 1/2) / (n + k/2)."""
    return (n + PSEUDO_COUNT) / (total + PSEUDO_COUNT * k)


@njit(**FAST)
def _mixed(odds: float, scale: int, here: float, below: float) -> float:
    """The mean of two predictions, weighted by odds * 2^(512 scale) : 1."""
    if scale == 0:
        share = 1.0 / (odds + 1.0)
        return odds * here * share + below * share
    return here if scale > 0 else below


@njit(**FAST)
def _scaled(odds: float, scale: int) -> Any:
    """The same odds with their mantissa within 2^-256 .. 2^256: scale is 0 wherever a mixture can tell."""
    if odds >= LARGE:
        return odds * SMALL * SMALL, scale + 1
    if odds < SMALL:
        return odds * LARGE * LARGE, scale - 1
    return odds, scale


@njit(**FAST)
def _split_odds(odds: float, shape: int, start: int, cut: int, depth: int) -> Any:
    """Odds (and scale) of the upper part, depths start .. cut, of a chain; and odds of the rest, at the scale it had."""
    reach, scale = shape & REACH_MASK, shape >> REACH_BITS
    above = POWERS[cut - start + 1] - 1.0
    if reach == depth:
        return above, 0, 0.0
    below = POWERS[reach - cut]
    ratio = odds / (POWERS[reach - start + 1] - 1.0)
    rest = (below - 1.0) * ratio
    if scale > 0:
        return above * below / (below - 1.0), 0, rest
    if scale < 0:
        return above * below * ratio, scale, rest
    return above * below * ratio / (rest + 1.0), 0, rest


@njit(**FAST, inline="always")
def _last_start(rows: Any, path: Any, n: int, width: int) -> Any:
    """The first depth of the chain of the last node of a path."""
    return (rows[path[n - 2] * width + SHAPE] & REACH_MASK) + 1 if n > 1 else 0


@njit(**FAST)
def _probability(rows: Any, odds: Any, path: Any, n: int, agreed: int, symbol: int, form: Any) -> Any:
    """The weighted probability of ``symbol`` along a path that :func:`descend` found."""
    k, depth, width, _ = form
    value = 1.0 / k
    for i in range(n - 1, -1, -1):
        row = path[i] * width
        shape = rows[row + SHAPE]
        own, scale = odds[row // TWO], shape >> REACH_BITS
        here = _kt(_counted(rows, row, symbol, k), rows[row + TOTAL], k)
        if i == n - 1 and agreed == depth:
            value = here
            continue
        if i == n - 1 and agreed < shape & REACH_MASK:
            own, scale, _ = _split_odds(own, shape, _last_start(rows, path, n, width), agreed, depth)
        value = _mixed(own, scale, here, value)
    return value


@njit(**FAST)
def predict(rows: Any, odds: Any, past: Any, end: int, path: Any, n_rows: int, form: Any, probabilities: Any) -> None:
    """Fill in the weighted probability of every symbol in the context before ``past[end]``. Changes nothing else."""
    n, agreed = descend(rows, past, end, path, n_rows, form)
    for symbol in range(form[0]):
        probabilities[symbol] = _probability(rows, odds, path, n, agreed, symbol, form)


@njit(**FAST, inline="always")
def _add_leaf(rows: Any, row: int, at: int, form: Any) -> None:
    """A chain down to the depth limit in which nothing is counted yet."""
    _, depth, width, _ = form
    for word in range(width):
        rows[row + word] = 0
    rows[row + AT], rows[row + SHAPE] = at, depth


@njit(**FAST, inline="always")
def _split(rows: Any, odds: Any, row: int, new: int, start: int, cut: int, form: Any) -> None:
    """The node at word ``row`` keeps the depths start .. cut, the one at ``new`` takes the rest and the children."""
    _, depth, width, links = form
    shape = rows[row + SHAPE]
    top, top_scale, rest = _split_odds(odds[row // TWO], shape, start, cut, depth)
    for word in range(width):
        rows[new + word] = rows[row + word]
    if shape & REACH_MASK < depth:
        odds[new // TWO], rest_scale = _scaled(rest, shape >> REACH_BITS)
        rows[new + SHAPE] = (shape & REACH_MASK) + (rest_scale << REACH_BITS)
    odds[row // TWO], top_scale = _scaled(top, top_scale)
    rows[row + SHAPE] = cut + (top_scale << REACH_BITS)
    for word in range(links, width):
        rows[row + word] = 0


@njit(**FAST, inline="always")
def _grow(rows: Any, odds: Any, past: Any, end: int, path: Any, n: int, agreed: int, n_rows: int, form: Any) -> Any:
    """Make the path end in a leaf of this context, splitting the chain that it leaves; its length and the rows after."""
    _, depth, width, links = form
    if n == 0 or agreed < depth:
        if n > 0:
            row = path[n - 1] * width
            if agreed < rows[row + SHAPE] & REACH_MASK:
                _split(rows, odds, row, np.uint64(n_rows) * width, _last_start(rows, path, n, width), agreed, form)
                rows[row + links + past[rows[row + AT] - 1 - agreed]] = n_rows
                n_rows += 1
            rows[row + links + past[end - 1 - agreed]] = n_rows
        _add_leaf(rows, np.uint64(n_rows) * width, end, form)
        path[n] = n_rows
        n, n_rows = n + 1, n_rows + 1
    return n, n_rows


@njit(**FAST, inline="always")
def _count(rows: Any, odds: Any, path: Any, n: int, symbol: int, form: Any) -> float:
    """Count ``symbol`` from the leaf of a path up to the root; the weighted probability it had before."""
    k, _, width, _ = form
    value = 1.0
    for i in range(n - 1, -1, -1):
        row = path[i] * width
        here = _kt(_counted(rows, row, symbol, k), rows[row + TOTAL], k)
        if i == n - 1:
            value = here
        else:
            own, shape = odds[row // TWO], rows[row + SHAPE]
            scale = shape >> REACH_BITS
            after, new_scale = _scaled(own * here / value, scale)
            value = _mixed(own, scale, here, value)
            odds[row // TWO] = after
            rows[row + SHAPE] = (shape & REACH_MASK) + (new_scale << REACH_BITS)
        rows[row + TOTAL] += 1
        if symbol < k - 1:
            rows[row + COUNTS + np.uint64(symbol)] += 1
    return value


@njit(**FAST)
def learn(rows: Any, odds: Any, past: Any, end: int, path: Any, symbol: int, n_rows: int, form: Any) -> Any:
    """Count ``symbol`` in the context before ``past[end]``: its probability before, and the number of rows after.

    Needs room for two more rows, and for depth + 2 nodes in ``path``.
    """
    n, agreed = descend(rows, past, end, path, n_rows, form)
    n, n_rows = _grow(rows, odds, past, end, path, n, agreed, n_rows, form)
    return _count(rows, odds, path, n, symbol, form), n_rows


@njit(**FAST, inline="always")
def _look_ahead(rows: Any, past: Any, ends: Any, first: int, last: int, form: Any, nodes: Any) -> None:
    """Touch the nodes of several contexts at once, so that waiting for memory overlaps. Changes nothing."""
    _, depth, width, links = form
    for i in range(last - first):
        nodes[i] = 0
    busy = last > first
    while busy:
        busy = False
        for i in range(last - first):
            row = nodes[i] * width
            reach = rows[row + SHAPE] & REACH_MASK
            if reach < depth:
                node = np.uint64(rows[row + links + past[ends[first + i] - 1 - reach]])
                if node > 0:
                    nodes[i], busy = node, True


@njit(**FAST)
def learn_many(
    rows: Any,
    odds: Any,
    past: Any,
    ends: Any,
    symbols: Any,
    path: Any,
    n_rows: int,
    form: Any,
    nodes: Any,
    probabilities: Any,
) -> Any:
    """Learn symbol after symbol while there is room: how many were learned, and the number of rows after.

    ``probabilities[i]`` is what ``symbols[i]`` had before it was seen. ``nodes`` is room for as many nodes as are looked
    up ahead.
    """
    ahead, width = len(nodes), form[2]
    room = len(rows) // np.int64(width)
    for i in range(len(symbols)):
        if n_rows + 2 > room:
            return i, n_rows
        if i % ahead == 0 and np.uint64(n_rows) * width > NEAR_WORDS:
            _look_ahead(rows, past, ends, i, min(i + ahead, len(symbols)), form, nodes)
        n, agreed = descend(rows, past, ends[i], path, n_rows, form)
        n, n_rows = _grow(rows, odds, past, ends[i], path, n, agreed, n_rows, form)
        probabilities[i] = _count(rows, odds, path, n, symbols[i], form)
    return len(symbols), n_rows
