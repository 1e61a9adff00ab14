"""The table of programs against the grammar: every program once, no code the beginning of another, closed under if."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.models.switching.atoms import atoms_up_to
from mightnt.models.switching.events import Alphabets, events_up_to
from mightnt.models.switching.programs import MEMORY_LIMIT_BYTES, NONE, n_programs_by_bits, programs_up_to
from tests.models.switching.oracle import all_codes, is_prefix_free

TWO = Alphabets(2, 2)


@pytest.mark.parametrize(("alphabets", "limit"), [(TWO, 16), (Alphabets(3, 1), 17), (Alphabets(2, 3), 16), (TWO, 4)])
def test_the_table_holds_every_program_of_the_grammar_once(alphabets, limit):
    programs = programs_up_to(alphabets, limit)
    codes = [programs.code(index) for index in range(len(programs))]
    atoms = [atom.code(alphabets.n_actions) for atom in atoms_up_to(alphabets.n_actions, limit)]
    events = [event.code(alphabets) for event in events_up_to(alphabets, limit)]
    assert sorted(codes) == sorted(all_codes(atoms, events, limit))
    assert [len(code) for code in codes] == programs.bits.tolist() == sorted(programs.bits)
    assert is_prefix_free(codes)


@pytest.mark.parametrize("limit", [12, 18, 22])
def test_programs_are_counted_before_they_are_written_out(limit):
    counts = n_programs_by_bits(TWO, limit)
    assert np.bincount(programs_up_to(TWO, limit).bits, minlength=limit + 1).tolist() == counts


@given(st.integers(2, 4), st.integers(1, 4), st.integers(4, 70))
def test_kraft(n_actions, n_observations, limit):
    counts = n_programs_by_bits(Alphabets(n_actions, n_observations), limit)
    assert sum(n * 2.0**-bits for bits, n in enumerate(counts)) <= 1


def test_closed_under_if_at_the_price_of_the_switch():
    """For every nu, rho and E that fit: the program is there, and is 1 + |E| + |rho| bits longer than nu."""
    programs = programs_up_to(TWO, 20)
    place = {
        entry: i
        for i, entry in enumerate(zip(programs.event, programs.then, programs.otherwise, strict=True))
        if entry[0] >= 0
    }
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(20_000):
        event = int(rng.integers(len(programs.events)))
        rho, nu = (int(i) for i in rng.integers(40, size=2))
        bits = 1 + programs.event_bits[event] + programs.bits[rho] + programs.bits[nu]
        assert ((event, rho, nu) in place) == (bits <= 20)
        if bits <= 20:
            found += 1
            assert programs.bits[place[event, rho, nu]] == bits
    assert found > 100


def test_parts_stand_before_their_whole_and_a_smaller_table_says_the_same():
    programs = programs_up_to(TWO, 21)
    inside = programs.atom == NONE
    assert (programs.then[inside] < np.flatnonzero(inside)).all()
    assert len(programs.levels) == 2
    chosen = np.array([5, 3000, len(programs) - 1])
    rows = programs.parts(chosen)
    assert set(chosen) <= set(rows)
    assert len(rows) < 20
    smaller = programs.only(rows)
    assert [smaller.code(i) for i in np.searchsorted(rows, chosen)] == [programs.code(i) for i in chosen]
    truth = np.random.default_rng(1).uniform(size=len(programs.events)) < 0.5
    assert smaller.in_force(truth).tolist() == programs.in_force(truth)[rows].tolist()


def test_words():
    programs = programs_up_to(TWO, 12)
    assert programs.text(len(programs) - 1).startswith("if time >= 2^0 then ")


@pytest.mark.parametrize("limit", [-1, 3, 201])
def test_a_limit_without_programs_is_refused(limit):
    with pytest.raises(InputError, match="shortest program has 4"):
        programs_up_to(TWO, limit)


def test_a_limit_too_large_for_memory_is_refused_at_once():
    began = time.perf_counter()
    with pytest.raises(InputError, match=r"GiB; at most \d+ bits fit") as refused:
        programs_up_to(TWO, 60)
    assert time.perf_counter() - began < 2
    fits = int(str(refused.value).split("at most ")[2].split()[0])
    for bits, within in ((fits, True), (fits + 1, False)):
        assert (sum(n_programs_by_bits(TWO, bits)) * 120 <= MEMORY_LIMIT_BYTES) == within
