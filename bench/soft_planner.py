"""Soft value iteration on a tree of a million leaves: one pass against memory bandwidth and against the numpy passes.

Floor of a pass: each number of the tree is read once (base, observations, utilities), and value and KL of each node are
written once and, but for the root, read once; the bytes of that over the bandwidth of a plain copy. Pass and copy are
measured in turn, and the shortest processor time of each is taken: what the core does when nobody disturbs it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.lines import Line, best_seconds, median_seconds
from mightnt.planners.kernels import kl_at_prices_nats
from mightnt.planners.levels import Levels, random_levels
from mightnt.planners.soft import best_within_expected_kl, kl_at_price_nats

SHAPES = ((2, 2, 10), (4, 2, 7), (8, 4, 4))
"""Actions, observations, rounds: 1.0, 2.1 and 1.0 million leaves."""

PRICE = 0.1


def bytes_of_a_pass(levels: Levels) -> int:
    """What a pass must read and write."""
    tree = sum(array.nbytes for array in (*levels.log_base, *levels.observations, levels.utilities))
    results = sum(rows.shape[0] for rows in levels.log_base) * 2 * 8
    return tree + 2 * results - 2 * 8


def copying(n_bytes: int) -> Callable[[], object]:
    """What reads and writes ``n_bytes`` in all: numpy's copy."""
    source = np.random.default_rng(0).random(n_bytes // 16)
    target = np.empty_like(source)
    return lambda: np.copyto(target, source)


def lines() -> list[Line]:
    """Passes of three shapes, and a whole plan of the first."""
    found = []
    for shape in SHAPES:
        levels = random_levels(np.random.default_rng(0), *shape)
        kl_nats = kl_at_prices_nats(levels)
        difference = abs(kl_nats(PRICE) - kl_at_price_nats(levels, PRICE))
        assert difference < 1e-9, f"the two disagree by {difference}"
        seconds = best_seconds(lambda kl=kl_nats: kl(PRICE), copying(bytes_of_a_pass(levels)), repetitions=31)
        ours, floor = (1e3 * one for one in seconds)
        slow = median_seconds(lambda tree=levels: kl_at_price_nats(tree, PRICE), 3) * 1e3
        name = f"soft pass, {shape[0]} actions, {shape[1]} observations, {levels.utilities.size:.1e} leaves"
        found += [
            Line(name, ours, floor, "ms", "floor: bytes of a pass / measured copy bandwidth (goal 3)"),
            Line(name, ours, slow, "ms", "numpy passes"),
        ]
    levels = random_levels(np.random.default_rng(0), *SHAPES[0])
    plans = [median_seconds(lambda c=c: best_within_expected_kl(levels, 1.0, compiled=c), 1) for c in (True, False)]
    return [*found, Line("soft plan at a budget, 1.0e+06 leaves", *plans, "s", "numpy passes")]


if __name__ == "__main__":
    for line in lines():
        print(f"{line.what}: {line.ours:.4g} {line.unit}, {line.ratio:.3g} times {line.other_is} ({line.other:.4g})")
