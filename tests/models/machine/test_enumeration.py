"""The table of all programs against running every bit string by itself; Kraft, conservation, monotonicity; files; refusals."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.models.machine import enumeration
from mightnt.models.machine.enumeration import CUT_BITS, CUT_STEPS, LOOPS, WROTE, Limits, enumerate_programs
from mightnt.models.machine.instructions import Run, run_program

SMALL = Limits(2, 10, 60, 3)


def outputs(limits):
    for n in range(limits.horizon + 1):
        yield from itertools.product(range(limits.n_symbols), repeat=n)


def naive(limits):
    """Every string of ``max_bits`` bits has mass 2^-max_bits: what it writes, why it stops, and its shortest beginnings."""
    masses = {x: np.zeros(3) for x in outputs(limits)}
    shortest = dict.fromkeys(masses, (math.inf, ""))
    for coins in itertools.product("01", repeat=limits.max_bits):
        bits = "".join(coins)
        run, stopped = run_program(bits, limits.n_symbols, limits.max_silent_steps, limits.horizon)
        for n in range(len(run.written) + 1):
            x = tuple(run.written[:n])
            masses[x][0] += 0.5**limits.max_bits
            read = run_program(bits, limits.n_symbols, limits.max_silent_steps, n)[0].n_read
            shortest[x] = min(shortest[x], (read, bits[:read]))
        if stopped != "symbols":
            masses[tuple(run.written)][1 if stopped == "bits" else 2] += 0.5**limits.max_bits
    return masses, shortest


@pytest.mark.parametrize(
    "limits", [SMALL, Limits(3, 9, 40, 2), Limits(2, 7, 1, 2), Limits(2, 11, 60, 2), Limits(5, 4, 9, 1)]
)
def test_the_table_is_what_all_bit_strings_write(limits):
    table, (masses, shortest) = enumerate_programs(limits), naive(limits)
    for x in outputs(limits):
        found = table.masses[:, table.index(x)]
        assert found[WROTE] == masses[x][0]
        assert found[CUT_BITS] == masses[x][1]
        assert found[CUT_STEPS] + found[LOOPS] == masses[x][2]
        assert (table.shortest_found_bits(x), table.program(x) or "") == shortest[x]


limits_to_try = st.builds(
    Limits, st.integers(2, 4), st.integers(1, 14), st.sampled_from([1, 10, 100, 1000]), st.integers(1, 4)
)


@given(limits_to_try)
@settings(max_examples=25, deadline=None)
def test_nothing_is_lost_and_nothing_is_counted_twice(limits):
    """Exactly, in float64: M(x) = sum_a M(xa) + what ended at x; so M is a semimeasure, and Kraft's sum is 1."""
    table, size = enumerate_programs(limits), limits.n_symbols
    assert table.mass(()) == 1
    for x in outputs(limits):
        if len(x) < limits.horizon:
            ahead = sum(table.mass((*x, a)) for a in range(size))
            assert table.mass(x) == ahead + table.masses[1:, table.index(x)].sum()
            assert table.predict(x).missing == pytest.approx(1 - ahead / table.mass(x) if table.mass(x) else 1)
        low, high = table.interval(x)
        assert 0 <= low <= high <= 1
        if math.isfinite(bits := table.shortest_found_bits(x)):
            assert low >= 2.0**-bits


@given(limits_to_try, st.integers(0, 3), st.sampled_from([1, 7]))
@settings(max_examples=25, deadline=None)
def test_more_bits_and_more_steps_only_narrow_the_interval(limits, bits, factor):
    wider = Limits(limits.n_symbols, limits.max_bits + bits, limits.max_silent_steps * factor, limits.horizon)
    before, after = enumerate_programs(limits), enumerate_programs(wider)
    for x in outputs(limits):
        assert before.interval(x)[0] <= after.interval(x)[0]
        assert after.interval(x)[1] <= before.interval(x)[1]
        assert after.shortest_found_bits(x) <= before.shortest_found_bits(x)


def test_every_witness_is_the_program_it_is_said_to_be():
    limits = Limits(2, 16, 200, 6)
    table = enumerate_programs(limits)
    n_found = 0
    for x in outputs(limits):
        if (bits := table.program(x)) and x:
            run = Run(bits, 2)
            for _ in run.steps():
                if len(run.written) == len(x):
                    break
            assert (tuple(run.written), run.n_read) == (x, len(bits))
            assert len(bits) == table.shortest_found_bits(x)
            n_found += 1
    assert n_found > 100


def same(one, other):
    pairs = [(one.masses, other.masses), (one.shortest_bits, other.shortest_bits), (one.witness, other.witness)]
    counts = (one.n_programs, one.n_steps) == (other.n_programs, other.n_steps)
    return counts and all(np.array_equal(a, b) for a, b in pairs)


LONGER = Limits(2, 15, 100, 5)


def test_workers_change_nothing_and_the_parts_add_up_to_the_whole(monkeypatch):
    table = enumerate_programs(LONGER)
    assert same(enumerate_programs(LONGER, n_workers=3), table)
    monkeypatch.setattr(enumeration, "SPLIT_BITS", 20)
    whole = enumerate_programs(LONGER)
    assert np.array_equal(whole.masses, table.masses)
    assert np.array_equal(whole.witness, table.witness)
    assert whole.n_programs == table.n_programs


def test_a_run_that_was_broken_off_is_taken_up_again(tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop(done, of):
        assert of > 30
        if done == 10:
            raise Stop

    with pytest.raises(Stop):
        enumerate_programs(LONGER, folder=tmp_path, report=stop)
    kept = len(list(tmp_path.glob("*.part*.npz")))
    assert kept >= 10
    computed = []
    piece = enumeration._piece
    monkeypatch.setattr(enumeration, "_piece", lambda *given: computed.append(1) or piece(*given))
    resumed = enumerate_programs(LONGER, folder=tmp_path)
    assert same(resumed, enumerate_programs(LONGER))
    assert 0 < len(computed) - enumeration.N_PARTS <= enumeration.N_PARTS - kept
    assert [path.name for path in tmp_path.iterdir()] == [f"{LONGER.name}.npz"]


def test_a_kept_table_is_used_and_a_damaged_one_is_computed_again(tmp_path, monkeypatch):
    table = enumerate_programs(SMALL, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    with monkeypatch.context() as patched:
        patched.setattr(enumeration, "_begin", lambda limits: pytest.fail("computed again"))
        assert same(enumerate_programs(SMALL, folder=tmp_path), table)
    path.write_bytes(path.read_bytes()[:100])
    assert same(enumerate_programs(SMALL, folder=tmp_path), table)
    other = Limits(2, 10, 61, 3)
    assert other.name != SMALL.name


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((1, 10, 60, 3), "alphabet of 1"),
        ((257, 10, 60, 1), "2 to 256"),
        ((2, 0, 60, 3), "0 bits"),
        ((2, 61, 60, 3), "61 bits"),
        ((2, 10, 0, 3), "0 silent steps"),
        ((2, 10, 2**41, 3), "silent steps"),
        ((2, 10, 60, 0), "horizon is 0"),
        ((2, 10, 60, 40), "more than 2 GiB"),
        ((256, 10, 60, 5), "more than 2 GiB"),
    ],
)
def test_limits_that_cannot_be_are_refused_before_anything_is_allocated(numbers, words):
    with pytest.raises(InputError, match=words):
        Limits(*numbers)


def test_workers_and_outputs_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="0 workers"):
        enumerate_programs(SMALL, n_workers=0)
    with pytest.raises(InputError, match="take fewer workers"):
        enumerate_programs(Limits(2, 10, 60, 24), n_workers=4)
    table = enumerate_programs(SMALL)
    with pytest.raises(InputError, match="symbol 2"):
        table.mass((2,))
    with pytest.raises(InputError, match="4 symbols"):
        table.mass((0, 0, 0, 0))


def test_an_output_nobody_writes_has_no_program_and_predicts_nothing():
    table = enumerate_programs(Limits(2, 3, 60, 3))
    assert table.shortest_found_bits((1,)) == math.inf
    assert table.program((1,)) is None
    assert table.predict((1,)).missing == 1


def test_without_numba_it_says_what_to_install(monkeypatch):
    import builtins
    import sys

    real = builtins.__import__

    def missing(name, *rest):
        if name == "mightnt.models.machine" and rest[2] and "kernels" in rest[2]:
            raise ModuleNotFoundError("No module named 'numba'", name="numba")
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "mightnt.models.machine.kernels", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r'numba; pip install "mightnt\[theory\]"'):
        enumeration.compiled_machine()
