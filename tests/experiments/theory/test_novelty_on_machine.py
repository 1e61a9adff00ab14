"""T1 on the machine: the four parts on small limits, against programs one by one; the chapter computes and draws."""

import functools
import json
import math
from dataclasses import replace
from itertools import product

import pytest

from mightnt.experiments.theory.novelty_on_machine import (
    BY_HAND,
    DEMONSTRATORS,
    NOTHING,
    THEOREM,
    Facing,
    NoveltyOnMachine,
    compute,
    good_paths,
    hand_bits,
    share_of_ones_world,
    surprise,
    time_curves,
    unprecedented,
)
from mightnt.experiments.theory.theorem import Computed
from mightnt.files import plain
from mightnt.history import Chooser, Step, demonstrated
from mightnt.models.machine.enumeration import Limits, enumerate_programs
from mightnt.models.machine.instructions import assemble, run_program
from mightnt.models.machine.universal import UniversalMachine
from mightnt.prediction import check_model

SMALL = NoveltyOnMachine(
    max_bits=12, max_silent_steps=100, rounds=(10, 40), n_actions_after=1, table_bits=15, table_horizon=8
)


@functools.cache
def computed():
    return compute(SMALL, 0, lambda done, of: None)


@functools.cache
def quick():
    return THEOREM.compute(THEOREM.profiles["quick"], 0, lambda done, of: None)


def shown(machine, k, actions=(0, 0)):
    return machine.after(machine.start(), demonstrated([x for a in actions for x in (a, 0)] * (k // 2)))


def test_it_holds_the_least_kl_is_below_the_length_of_a_program_and_flat_in_k():
    points = quick().curves["events"]["always 0"]
    assert len({point["event"] for point in points}) == 1
    for point in points:
        assert 0 < point["least_bits"] < point["program_bits"] <= 18
    assert max(p["least_bits"] for p in points) - min(p["least_bits"] for p in points) < 0.1


def test_it_is_tight_where_one_action_follows():
    """One action: the least KL for value v is that of a coin with P(1) = v; here by hand from the mixture's own numbers."""
    machine = UniversalMachine(2, 12, 100)
    state = shown(machine, 20)
    novel = machine.advance(state, Step(1, Chooser.WORLD))
    zero, one = machine.predict(novel).probabilities
    by_hand = 0.9 * math.log2(0.9 / one) + 0.1 * math.log2(0.1 / zero)
    assert surprise(SMALL, machine, state, (1,)).least_bits == pytest.approx(by_hand, abs=1e-6)
    assert surprise(SMALL, machine, state, (1,)).program_bits == 9  # .?] or ?.]


def test_it_needs_the_class_to_hold_programs_that_switch():
    """With 8 bits no program can look and go on: nothing that reacts to the event is in the class, and no KL buys it."""
    machine = UniversalMachine(2, 8, 100)
    assert surprise(SMALL, machine, shown(machine, 20), (1,)).least_bits == math.inf


def test_without_a_novelty_it_fails():
    """The neighbor: the same value at a time that nothing marks. It gets dearer with every round, and soon nobody counts."""
    machine = UniversalMachine(2, 15, 100)
    costs = [surprise(SMALL, machine, shown(machine, k), NOTHING).least_bits for k in (2, 4, 6, 8, 40)]
    assert costs == sorted(costs)
    assert costs[0] < costs[2] < math.inf
    assert costs[-1] == math.inf


def test_the_search_sees_every_word_and_the_world_shows_it():
    assert unprecedented(2) == [(1,), (0, 1), (1, 0), (1, 1)]
    machine = UniversalMachine(2, 10, 60)
    facing = Facing(machine, shown(machine, 4), (0, 1))
    check_model(facing, [(Step(0, Chooser.AGENT), Step(0, Chooser.WORLD), Step(1, Chooser.AGENT))])
    plain_state = machine.after(shown(machine, 4), demonstrated([0, 1]))
    told = facing.advance(facing.advance(facing.start(), Step(0, Chooser.DEMONSTRATOR)), Step(0, Chooser.WORLD))
    assert machine.programs(told[0]) == machine.programs(plain_state)
    world = share_of_ones_world((0, 1), 2)
    assert world.utility((0, 0, 1, 0, 1, 0)) == 1
    assert world.utility((1, 0, 0, 0, 1, 0)) == 0.5
    assert good_paths(replace(SMALL, n_actions_after=2), (0, 1)) == [(0, 1, 1), (1, 1, 1)]


def test_the_shortest_program_by_running_all_of_them():
    """Every string of 9 bits on the plain interpreter: ten zeros, then a 1 when the world says 1."""
    machine, k = UniversalMachine(2, 9, 100), 10
    seen = (*(0,) * k, 1)
    shortest = math.inf
    for coins in product("01", repeat=9):
        run, _ = run_program("".join(coins), 2, 100, k + 1, seen)
        if run.written == [0] * k + [1]:
            shortest = min(shortest, run.n_read)
    assert surprise(SMALL, machine, shown(machine, k), (1,)).program_bits == shortest == 9


@pytest.mark.parametrize("name", DEMONSTRATORS)
def test_the_programs_by_hand_do_it_for_any_k(name):
    for k in (2, 10, 40):
        bits = hand_bits(replace(SMALL, rounds=(k,), n_actions_after=6), name)
        assert bits == len(assemble(BY_HAND[name]))


def test_leaving_by_counting_from_the_table():
    table = enumerate_programs(Limits(2, 15, 100, 6))
    curve = time_curves(table)
    assert curve["k"] == [1, 2, 3, 4, 5]
    assert curve["break_bits"][1] == pytest.approx(math.log2(table.mass((0, 0)) / table.mass((0, 0, 1))))
    assert curve["program_bits"][0] == min(table.shortest_found_bits((*(0,) * t, 1)) for t in range(1, 6))


def test_the_quick_profile_computes_and_every_claim_comes_out():
    result = quick()
    assert [row.claim for row in result.rows if row.holds is False] == []
    assert sum(row.holds is True for row in result.rows) >= 8
    assert len({row.claim for row in result.rows}) == len(result.rows)
    assert all(panel.svg.startswith("<svg") for panel in THEOREM.draw(result.curves))


@pytest.mark.slow
def test_it_repeats_itself_and_a_record_draws_the_same():
    again = compute(SMALL, 1, lambda done, of: None)
    assert again == computed()
    read = Computed.from_json(json.loads(json.dumps(plain(again.as_json()))))
    assert [p.svg for p in THEOREM.draw(read.curves)] == [p.svg for p in THEOREM.draw(computed().curves)]
