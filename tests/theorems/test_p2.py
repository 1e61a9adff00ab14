"""P2: the simplest event that has not happened yet grows slower than every computable function without bound.

(a) With one more word for each slow function (the proof), and (b) in the fixed language, where it is at most
3 + 2 log2(log2 t + 2) because "the time is at least 2^j" is in it.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.experiments.theory.simplest_event import (
    CLOCK_BITS,
    all_words_seen_at,
    alternating,
    bound_in_language_bits,
    champernowne,
    clock_bits,
    coin,
    next_double_power_bits,
    next_power_bits,
    next_tower_bits,
    simplest,
    simplest_by_family,
    squares,
)

TIMES = np.unique(np.geomspace(1, 200_000, 60).astype(np.int64))
WORLDS = {
    "coin": coin(200_000, np.random.default_rng(0)),
    "squares": squares(200_000),
    "all numbers": champernowne(200_000),
    "alternating": alternating(200_000),
}


@given(st.lists(st.floats(0, 3), min_size=1, max_size=200))
def test_it_holds_for_every_function_that_grows_however_slowly(increments):
    """The clock made for g: from its first tick on the next tick has fewer than g / 2 bits, whatever g is."""
    growth = np.cumsum(increments)
    bits = clock_bits(growth)
    ticked = growth > 2 * (CLOCK_BITS + 3)  # h(0): the first tick, whose successor costs three bits of gamma
    assert (bits[ticked] < growth[ticked] / 2).all()
    assert (bits[~ticked] == CLOCK_BITS + 1).all()
    assert (np.diff(bits) >= 0).all()


@pytest.mark.parametrize("world", WORLDS)
def test_it_holds_in_the_fixed_language(world):
    found = simplest(simplest_by_family(WORLDS[world], TIMES))
    assert (found <= bound_in_language_bits(TIMES)).all()
    assert (np.diff(found) >= 0).all()  # what has happened has happened


@given(st.lists(st.integers(0, 1), min_size=1, max_size=300))
def test_the_bound_of_the_fixed_language_holds_in_every_world(symbols):
    times = np.arange(1, len(symbols) + 1)
    found = simplest(simplest_by_family(np.array(symbols, dtype=np.uint8), times))
    assert (found <= bound_in_language_bits(times)).all()


def test_it_is_tight():
    """No bounded function does: where every word comes, every event of at most so many bits has happened some day. And the
    bound of the fixed language is within four bits there, at every time."""
    for world in ("coin", "all numbers"):
        found = simplest(simplest_by_family(WORLDS[world], TIMES))
        assert found[-1] >= 10
        assert (bound_in_language_bits(TIMES) - found < 4).all()
        assert len(set(found.tolist())) > 5


def test_it_is_tight_for_the_made_clock_too():
    """Half of g and no less, to a bit: it costs more than g / 2 less the four bits between one price and the next."""
    growth = np.linspace(20, 60, 500)
    assert (clock_bits(growth) > growth / 2 - 4).all()


def test_it_needs_a_language_without_a_longest_word():
    """The premise: infinitely many events. If words end at three symbols, a coin has soon done everything there is."""
    seen = all_words_seen_at(WORLDS["coin"])
    assert seen[2] < 100
    assert len(seen) > 12  # and the same for any other length
    assert seen == sorted(seen)


def test_it_needs_a_function_without_bound():
    """Below a bounded g the clock never ticks, and novelty costs more than g / 2."""
    bits = clock_bits(np.full(50, 9.0))
    assert (bits == CLOCK_BITS + 1).all()
    assert (bits > 9 / 2).all()


def test_its_neighbor_fails_for_words_alone():
    """The simplest word that has not occurred is not slower than every computable function: in a world of coins it is above
    log2 t, always, and one more bit for each doubling."""
    late = TIMES >= 100
    for world in ("coin", "all numbers"):
        words = simplest_by_family(WORLDS[world], TIMES)["word"]
        assert (words[late] > np.log2(TIMES[late])).all()
        assert 0.9 < np.polyfit(np.log2(TIMES[late]), words[late], 1)[0] < 1.4
    for world in ("squares", "alternating"):
        assert simplest_by_family(WORLDS[world], TIMES)["word"][-1] == 8  # 1 1 never occurs: no growth at all


def test_its_neighbor_fails_for_one_clock():
    """No single clock is slower than all: powers of two lose to log log t, and a tower beats them both in the end."""
    x = np.linspace(20, 60, 200)  # log2 log2 t
    assert (next_power_bits(x) > x).all()
    assert (next_double_power_bits(x) < x).all()
    assert (next_tower_bits(x) <= next_double_power_bits(x)).all()
    assert next_power_bits(x)[-1] - next_power_bits(x)[0] == pytest.approx(2 * 40, abs=2)
