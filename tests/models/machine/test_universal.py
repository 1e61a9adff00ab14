"""The mixture as a model: the contract, the table, single programs one by one, both rules of evidence, observations."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.bases.mixture import BayesMixture
from mightnt.bases.pessimistic import Pessimistic
from mightnt.errors import InputError
from mightnt.history import Chooser, Step, demonstrated
from mightnt.models.finite import ModelClass
from mightnt.models.machine.enumeration import Limits, enumerate_programs
from mightnt.models.machine.instructions import assemble, run_program
from mightnt.models.machine.universal import ProgramModel, UniversalMachine, sample_program
from mightnt.prediction import check_model, follow
from tests.strategies import histories, probability_of_actions

SMALL = UniversalMachine(2, 10, 60)


def by(chooser, *symbols):
    return tuple(Step(symbol, chooser) for symbol in symbols)


def all_programs(n_bits):
    """Every string of ``n_bits`` bits as a model, equally likely: the class that the machine is a mixture over."""
    strings = [f"{i:0{n_bits}b}" for i in range(2**n_bits)]
    return ModelClass.of([ProgramModel(bits, 2, 60) for bits in strings])


ALL = all_programs(7)


@given(st.lists(histories(max_rounds=3), min_size=1, max_size=3), st.sampled_from(["all", "demonstrated"]))
@settings(max_examples=25, deadline=None)
def test_it_keeps_the_contract(paths, evidence):
    check_model(UniversalMachine(2, 9, 60, evidence), paths)


@given(histories(max_rounds=3), st.sampled_from(["all", "demonstrated"]))
@settings(max_examples=20, deadline=None)
def test_it_is_the_bayes_mixture_over_all_programs_one_by_one(history, evidence):
    """Against the library's own mixture over 128 programs on the plain interpreter, under either rule of evidence."""
    machine, mixture = UniversalMachine(2, 7, 60, evidence), BayesMixture(ALL, evidence)
    for n in range(len(history) + 1):
        ours = machine.predict(follow(machine, history[:n]))
        theirs = mixture.predict(follow(mixture, history[:n]))
        np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-12)


@given(st.lists(st.integers(0, 1), max_size=4))
@settings(max_examples=30, deadline=None)
def test_it_is_the_table(symbols):
    table = enumerate_programs(Limits(2, 10, 60, 5))
    state = follow(SMALL, by(Chooser.DEMONSTRATOR, *symbols))
    assert state.mass == table.mass(symbols)
    assert SMALL.interval(state) == table.interval(symbols)
    assert SMALL.shortest_found_bits(state) == table.shortest_found_bits(symbols)
    programs = SMALL.programs(state)
    assert (programs[0].bits if programs else None) == table.program(symbols)
    if state.mass:
        assert np.array_equal(SMALL.predict(state).probabilities > 0, table.predict(symbols).probabilities > 0)
        np.testing.assert_allclose(SMALL.predict(state).probabilities, table.predict(symbols).probabilities, rtol=1e-12)


@given(histories(max_rounds=5), st.sampled_from(["all", "demonstrated"]))
@settings(max_examples=40, deadline=None)
def test_all_at_once_is_step_by_step(history, evidence):
    machine = UniversalMachine(2, 10, 60, evidence)
    one, other = follow(machine, history), machine.after(machine.start(), history)
    assert np.array_equal(machine.predict(one).log_probabilities, machine.predict(other).log_probabilities)
    assert machine.programs(one) == machine.programs(other)
    np.testing.assert_allclose(one.lost, other.lost)


@given(histories(max_rounds=3), st.integers(2, 3), st.sampled_from(["all", "demonstrated"]))
@settings(max_examples=30, deadline=None)
def test_a_semimeasure_and_a_conditional_one(history, n_symbols, evidence):
    machine = UniversalMachine(n_symbols, 9, 60, evidence)
    state = follow(machine, history)
    assert state.masses_ahead.sum() <= state.mass
    assert 0 <= machine.predict(state).missing <= 1
    low, high = machine.interval(state)
    assert low <= high <= 1


def test_what_is_missing_is_what_loops_and_what_the_limits_cut():
    state = SMALL.start()
    _, lost = state.ahead
    assert SMALL.predict(state).missing == pytest.approx(lost.sum())
    assert all(lost > 0)


def test_a_program_that_looks_follows_the_last_observation():
    machine = UniversalMachine(2, 9)
    state = machine.after(machine.start(), demonstrated([0, 0] * 5))
    before = machine.predict(state).probabilities
    after = machine.predict(machine.advance(state, Step(1, Chooser.WORLD))).probabilities
    assert before[1] == 0
    looking = [p for p in machine.programs(state) if p.bits in (assemble(".?]"), assemble("?.]"))]
    assert after[1] == pytest.approx(sum(math.exp(p.log_posterior) for p in looking))
    assert len(looking) == 2


def test_under_demonstrated_the_agents_own_steps_teach_nothing():
    for evidence, after_odd in (("all", 1.0), ("demonstrated", None)):
        machine = UniversalMachine(2, 10, 60, evidence)
        state = machine.after(machine.start(), by(Chooser.DEMONSTRATOR, 0))
        share = machine.predict(state).probabilities[1]
        state = machine.advance(state, Step(1, Chooser.AGENT))
        total = machine.predict(state).probabilities.sum() + 0.0
        ahead = state.masses_ahead.sum() / state.mass
        assert total == pytest.approx(ahead * (after_odd or share))


def test_programs_and_posterior_by_hand():
    machine = UniversalMachine(2, 6)
    state = machine.after(machine.start(), by(Chooser.DEMONSTRATOR, 0, 0))
    programs = machine.programs(state)
    mass = sum(Fraction(1, 2 ** len(p.bits)) for p in programs)
    assert {assemble(".."), assemble(".]")} == {p.bits for p in programs}
    assert [math.exp(p.log_posterior) for p in programs] == pytest.approx(
        [float(Fraction(1, 2 ** len(p.bits)) / mass) for p in programs]
    )
    assert machine.shortest_found_bits(state) == 6
    assert [p.bits for p in machine.top_programs(state, 0.5)] == [p.bits for p in programs]
    assert len(machine.top_programs(state, 1.0)) == 1


def test_after_a_history_nobody_wrote_nothing_is_predicted():
    machine = UniversalMachine(2, 3)
    state = machine.after(machine.start(), by(Chooser.DEMONSTRATOR, 1))
    assert (state.n_programs, state.mass, machine.predict(state).missing) == (0, 0.0, 1.0)
    assert machine.shortest_found_bits(state) == math.inf
    assert machine.programs(state) == machine.top_programs(state, 0.5) == []
    assert machine.predict(machine.advance(state, Step(0, Chooser.AGENT))).missing == 1
    with pytest.raises(InputError, match="no program"):
        machine.as_class(state)


def test_pessimism_over_programs_asks_where_two_believed_programs_differ():
    machine = UniversalMachine(2, 9)
    shown = demonstrated([0, 0] * 5)
    programs = machine.as_class(machine.after(machine.start(), shown))
    base = Pessimistic(programs, 0.05)
    usual = follow(base, shown)
    assert base.predict(usual).probabilities[0] == 1
    novel = follow(base, (*shown[:-1], Step(1, Chooser.WORLD)))
    assert base.predict(novel).missing == 1
    mixture = BayesMixture(programs, "demonstrated")
    assert mixture.predict(follow(mixture, (*shown[:-1], Step(1, Chooser.WORLD)))).probabilities[1] > 0.1


def test_a_program_as_a_model_is_certain_or_silent():
    model = ProgramModel(assemble(".+]"), 2, 100)
    check_model(model, [demonstrated([0, 0, 1, 0])])
    assert probability_of_actions(model, by(Chooser.AGENT, 0, 1, 0, 1)) == 1
    assert probability_of_actions(model, by(Chooser.AGENT, 0, 0)) == 0
    assert ProgramModel(assemble("+"), 2, 100).predict(((), (0,))).missing == 1


def test_sampled_programs_come_by_their_prior():
    """4000 programs: the share that writes 0 first lies within four standard errors of M(0), which is exact here."""
    rng, n = np.random.default_rng(0), 4000
    drawn = [sample_program(rng, 2, 10, 60, 1) for _ in range(n)]
    share = sum(written == [0] for _, written, _ in drawn) / n
    mass = enumerate_programs(Limits(2, 10, 60, 1)).mass((0,))
    assert abs(share - mass) < 4 * math.sqrt(mass * (1 - mass) / n)
    for bits, written, stopped in drawn[:200]:
        run, why = run_program(bits, 2, 60, 1)
        assert (run.written, why) == (written, stopped)


def test_larger_alphabets_write_larger_symbols():
    machine = UniversalMachine(5, 12)
    assert (machine.predict(machine.start()).probabilities > 0).sum() >= 3
    state = machine.after(machine.start(), by(Chooser.DEMONSTRATOR, 0, 1, 2, 3, 4, 0))
    assert machine.programs(state)[0].bits == assemble(".+]")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_symbols": 1}, "alphabet of 1"),
        ({"max_bits": 0}, "0 bits"),
        ({"max_silent_steps": 0}, "0 silent steps"),
        ({"evidence": "some"}, "no rule"),
        ({"max_programs": 0}, "at least 1"),
    ],
)
def test_machines_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        UniversalMachine(**arguments)


def test_symbols_and_crowds_that_cannot_be_are_refused():
    for step in (Step(2, Chooser.AGENT), Step(-1, Chooser.WORLD)):
        with pytest.raises(InputError, match=r"none of 0\.\.1"):
            SMALL.advance(SMALL.start(), step)
        with pytest.raises(InputError, match=r"none of 0\.\.1"):
            SMALL.after(SMALL.start(), [step])
    with pytest.raises(InputError, match="more than 3 programs"):
        UniversalMachine(2, 10, max_programs=3).predict(UniversalMachine(2, 10, max_programs=3).start())
