"""Compiled passes of soft value iteration over a tree of arrays: what the policy of a price costs.

The same sums as the numpy passes of ``soft.py``, which are their oracle. A pass reads each number once, in blocks that
stay in the cache between its parts: exponents and sums are compiled, once for each shape of a node so that their small
loops are unrolled; exp and log are numpy's, which use the vector unit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numba import njit

from mightnt.planners.levels import Levels, upwards

BLOCK_NODES = 16_384
"""Nodes a block: about 1 MB of work space for two actions."""

Kernel: TypeAlias = Callable[..., None]


def kl_at_prices_nats(levels: Levels) -> Callable[[float], float]:
    """A function from a price in (0, inf) to the expected KL of its policy.

    It gives ``evaluate(levels, log_policy_at_price(levels, price))[1]`` without writing the policy. Per node, from the
    last level up: value = lambda log Z with Z = sum_a beta exp(Q / lambda), and KL = sum_a pi (Q / lambda + E KL below) -
    log Z, with Q less its highest so that no digits are lost at low prices. Where the base gives zero to all that is left
    they are -inf and ``inf``.

    Kind: exact (float64). Cost: one pass a call, two to three times as long as copying the tree; 16 bytes a node of work
    space are kept from call to call.
    """
    n_actions, width = levels.n_actions, levels.n_actions * levels.n_observations
    zeros = any(bool(np.isneginf(rows).any()) for rows in levels.log_base)
    exponents, sums, ends = compiled(n_actions, levels.n_observations, zeros)
    by_action, by_node = np.empty((2, BLOCK_NODES, n_actions)), np.empty((4, BLOCK_NODES))
    results = [np.empty((2, rows.shape[0])) for rows in levels.log_base]

    def kl_nats(price: float) -> float:
        value, kl = levels.utilities, np.empty(0)
        for (log_base, observations), result in zip(upwards(levels), reversed(results), strict=True):
            for start in range(0, log_base.shape[0], BLOCK_NODES):
                here, below = slice(start, start + BLOCK_NODES), slice(start * width, (start + BLOCK_NODES) * width)
                gain, weight = by_action[:, : log_base.shape[0] - start]
                best, top, total, mean = by_node[:, : log_base.shape[0] - start]
                exponents(log_base[here], observations[here], value[below], kl[below], price, gain, weight, best, top)
                np.exp(weight, out=weight)
                sums(weight, gain, total, mean)
                np.log(total, out=total)
                ends(best, top, total, mean, price, result[0, here], result[1, here])
            value, kl = result
        return max(0.0, float(kl[0]))

    return kl_nats


@functools.cache
def compiled(n_actions: int, n_observations: int, zeros: bool) -> tuple[Kernel, Kernel, Kernel]:
    """The three compiled parts of a pass over nodes of this shape; ``zeros`` where the base gives zero to some action,
    so that infinities must be kept out of products with zero."""

    @njit(cache=True)
    def exponents(
        log_base: Any, observations: Any, value: Any, kl: Any, price: float, gain: Any, weight: Any, best: Any, top: Any
    ) -> None:
        """``gain`` = (Q - ``best``) / lambda + E KL below; ``weight`` = log beta + (Q - ``best``) / lambda - ``top``, where
        ``best`` is the highest Q that the base allows and ``top`` makes the largest weight 0."""
        per_price, costs = 1 / price, kl.size > 0
        for node in range(log_base.shape[0]):
            most, largest = -np.inf, -np.inf
            for action in range(n_actions):
                first, worth = (node * n_actions + action) * n_observations, 0.0
                for o in range(n_observations):
                    if not zeros or observations[node, action, o] > 0.0:
                        worth += observations[node, action, o] * value[first + o]
                gain[node, action] = worth
                if not zeros or log_base[node, action] > -np.inf:
                    most = max(most, worth)
            most = most if most > -np.inf else 0.0
            for action in range(n_actions):
                gain[node, action] = (gain[node, action] - most) * per_price
                weight[node, action] = log_base[node, action] + gain[node, action]
                largest = max(largest, weight[node, action])
                if costs:
                    first = (node * n_actions + action) * n_observations
                    for o in range(n_observations):
                        if not zeros or observations[node, action, o] > 0.0:
                            gain[node, action] += observations[node, action, o] * kl[first + o]
            best[node], top[node] = most, largest
            if not zeros or largest > -np.inf:
                for action in range(n_actions):
                    weight[node, action] -= largest

    @njit(cache=True)
    def sums(weight: Any, gain: Any, total: Any, mean: Any) -> None:
        """``total`` of the weights (1 where they are all zero) and the ``mean`` gain under them."""
        for node in range(weight.shape[0]):
            mass, gained = 0.0, 0.0
            for action in range(n_actions):
                mass += weight[node, action]
                if not zeros or weight[node, action] > 0.0:
                    gained += weight[node, action] * gain[node, action]
            mass = mass if mass > 0.0 else 1.0
            total[node], mean[node] = mass, gained / mass

    @njit(cache=True)
    def ends(best: Any, top: Any, log_total: Any, mean: Any, price: float, value: Any, kl: Any) -> None:
        """Value and KL of the nodes."""
        for node in range(value.shape[0]):
            log_sum = top[node] + log_total[node]
            value[node] = best[node] + price * log_sum
            kl[node] = mean[node] - log_sum if log_sum > -np.inf else np.inf

    return exponents, sums, ends
