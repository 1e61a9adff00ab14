"""The compiled passes against the numpy passes."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.planners import kernels
from mightnt.planners.levels import random_levels
from mightnt.planners.soft import kl_at_price_nats, log_price_range
from tests.strategies import seeds

SHAPES = ((2, 2, 3), (3, 1, 2))


def with_zeros(levels, rng, share, lost):
    """The base without some actions and with mass missing; some observations never come."""
    rows, told = [], []
    for log_base, observations in zip(levels.log_base, levels.observations, strict=True):
        rows.append(np.where(rng.uniform(size=log_base.shape) < share, -inf, log_base + np.log(1 - lost)))
        never = rng.uniform(size=observations.shape) < share
        never[..., 0] = False
        kept = np.where(never, 0, observations)
        told.append(kept / kept.sum(axis=-1, keepdims=True))
    return replace(levels, log_base=tuple(rows), observations=tuple(told))


@given(seeds, st.sampled_from(SHAPES), st.sampled_from([0.0, 0.2, 0.6]), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_they_give_what_the_numpy_passes_give(seed, shape, share, where):
    rng = np.random.default_rng(seed)
    levels = random_levels(rng, *shape)
    if share:
        levels = with_zeros(levels, rng, share, 0.3)
    low, high = log_price_range(levels)
    price = float(np.exp(low + (high - low) * where))
    slow = kl_at_price_nats(levels, price)
    fast = kernels.kl_at_prices_nats(levels)(price)
    assert fast == pytest.approx(slow, rel=1e-9, abs=1e-9) if slow < inf else fast == inf


@pytest.mark.parametrize("block", [1, 3, 64])
def test_blocks_make_no_difference_and_calls_leave_nothing_behind(block, monkeypatch):
    levels = random_levels(np.random.default_rng(0), 2, 2, 4)
    whole = kernels.kl_at_prices_nats(levels)
    expected = [whole(price) for price in (0.1, 1.0, 0.1)]
    monkeypatch.setattr(kernels, "BLOCK_NODES", block)
    assert [kernels.kl_at_prices_nats(levels)(price) for price in (0.1, 1.0, 0.1)] == expected
    assert expected[0] == expected[2] != expected[1]
