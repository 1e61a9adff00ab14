"""Simple policies: their code, what they intend and how often they slip."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.models.switching.atoms import (
    Atom,
    Rule,
    atoms_up_to,
    intention_column,
    intentions,
    log_hit_and_miss,
)
from mightnt.models.switching.events import Alphabets
from tests.models.switching.oracle import is_prefix_free


@given(st.integers(2, 5), st.integers(0, 12))
def test_codes_are_prefix_free_and_the_shortest_come_first(n_actions, max_bits):
    codes = [atom.code(n_actions) for atom in atoms_up_to(n_actions, max_bits)]
    assert len(set(codes)) == len(codes)
    assert is_prefix_free(codes)
    assert [len(code) for code in codes] == sorted(len(code) for code in codes)
    assert sum(2.0 ** -len(code) for code in codes) <= 1
    assert all(len(code) <= max_bits for code in codes)


def test_with_two_actions_no_code_word_is_wasted():
    assert sum(2.0 ** -len(atom.code(2)) for atom in atoms_up_to(2, 60)) == pytest.approx(1)


def test_codes_by_hand():
    assert Atom(Rule.UNIFORM).code(2) == "111"
    assert Atom(Rule.ALWAYS, 1).code(2) == "010"
    assert Atom(Rule.ALWAYS, 2, noise=3).code(4) == "0101110"
    assert Atom(Rule.COPY, noise=1).code(4) == "11010"


def test_what_the_rules_intend():
    rows = intentions(Alphabets(3, 5), np.array([0, 7]), np.array([0, 2]), np.array([0, 4]))
    assert rows.tolist() == [[0, 1, 2, 0, 0, 0], [0, 1, 2, 2, 1, 1]]
    columns = [intention_column(Atom(rule, 1), 3) for rule in Rule]
    assert columns == [1, 3, 4, 5, -1]


def test_slips_fall_on_the_other_actions_alike():
    atoms = (Atom(Rule.REPEAT, noise=1), Atom(Rule.REPEAT), Atom(Rule.UNIFORM))
    hit, miss = log_hit_and_miss(atoms, 3)
    assert np.exp(hit) == pytest.approx([3 / 4, 1, 1 / 3])
    assert np.exp(miss) == pytest.approx([1 / 8, 0, 1 / 3])
    assert np.exp(hit) + 2 * np.exp(miss) == pytest.approx(1)


def test_words():
    assert str(Atom(Rule.ALWAYS, 1, 2)) == "always 1 but for 1 in 16"
    assert str(Atom(Rule.UNIFORM)) == "uniform"
