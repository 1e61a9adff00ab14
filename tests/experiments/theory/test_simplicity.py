"""The shortest near-optimal program against going through all strings; the chapter computes, repeats itself and draws."""

import functools
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.experiments.theory.simplicity import (
    SIMPLE,
    THEOREM,
    Simplicity,
    all_strings,
    compute,
    description_bits,
    shortest_by_value,
    shortest_worth,
)
from mightnt.experiments.theory.theorem import Computed
from mightnt.files import plain
from mightnt.models.machine.enumeration import Limits, enumerate_programs

SMALL = Simplicity(n_output=6, max_bits=15, max_silent_steps=200, n_random=40, n_points=12)
lengths = st.lists(st.sampled_from([3.0, 6.0, 9.0, math.inf]), min_size=8, max_size=8)
values = st.lists(st.integers(0, 4), min_size=8, max_size=8)


@functools.cache
def computed(seed):
    return compute(SMALL, seed, lambda done, of: None)


@given(values, lengths)
def test_the_shortest_that_is_worth_enough_by_going_through_all(worth, bits):
    worth, bits = np.array(worth, dtype=float), np.array(bits)
    for rank in (1 / 8, 0.3, 0.5, 1.0):
        threshold = sorted(worth, reverse=True)[math.ceil(rank * 8) - 1]
        expected = min(b for v, b in zip(worth, bits, strict=True) if v >= threshold)
        assert shortest_worth(worth, bits, np.array([rank]))[0] == expected
    for share in (0.0, 0.5, 1.0):
        threshold = worth.min() + share * (worth.max() - worth.min())
        expected = min(b for v, b in zip(worth, bits, strict=True) if v >= threshold - 1e-9)
        assert shortest_by_value(worth, bits, np.array([share]))[0] == expected


def test_descriptions_stand_in_the_order_of_the_strings():
    table = enumerate_programs(Limits(2, 12, 100, 4))
    bits, strings = description_bits(table), all_strings(4)
    assert strings.shape == (16, 4)
    for row, length in zip(strings, bits, strict=True):
        assert length == table.shortest_found_bits([int(symbol) for symbol in row])
    assert np.isinf(bits).any()
    assert bits[0] == 6


def test_simple_utilities_by_hand():
    strings = np.array([[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0], [0, 1, 0, 1]], dtype=float)
    expected = {
        "many ones": [0.5, 1, 0.5, 0.5],
        "many changes": [1 / 3, 0, 2 / 3, 1],
        "zeros, then ones": [1, 0.5, 0.5, 0.5],
        "large as a number": [3 / 15, 1, 6 / 15, 5 / 15],
        "mirrored, not constant": [0, 0.5, 1, 0],
    }
    assert set(expected) == set(SIMPLE)
    for name, rule in SIMPLE.items():
        assert rule(strings).tolist() == pytest.approx(expected[name])


def test_the_quick_profile_computes_and_every_claim_comes_out():
    result = THEOREM.compute(THEOREM.profiles["quick"], 0, lambda done, of: None)
    assert [row.claim for row in result.rows if row.holds is False] == []
    assert sum(row.holds is True for row in result.rows) >= 6
    assert len({row.claim for row in result.rows}) == len(result.rows)
    assert all(panel.svg.startswith("<svg") for panel in THEOREM.draw(result.curves))


def test_asking_for_less_is_never_harder():
    curves = computed(0).curves
    for row in curves["random"]:
        assert all(a >= b for a, b in itertools.pairwise(row))
    for row in curves["simple"].values():
        assert all(a <= b for a, b in itertools.pairwise(row))
    assert sum(curves["lengths"].values()) + curves["not_found"] == 2**6


def test_the_same_seed_gives_the_same_numbers_and_a_record_draws_the_same():
    again = compute(SMALL, 0, lambda done, of: None)
    assert again == computed(0)
    read = Computed.from_json(json.loads(json.dumps(plain(again.as_json()))))
    assert [p.svg for p in THEOREM.draw(read.curves)] == [p.svg for p in THEOREM.draw(computed(0).curves)]
    assert computed(1) != computed(0)
