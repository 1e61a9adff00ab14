"""T1 computed: the quick profile is the same every time, every claim comes out, it draws; and the parts it is made of."""

import functools
import itertools
import json
from math import inf

import numpy as np
import pytest

from mightnt.constraints.budget import KLBudget
from mightnt.errors import InputError
from mightnt.experiments.theory.novelty import (
    THEOREM,
    Novelty,
    atoms_alone,
    best_values,
    bound_bits,
    compute,
    named,
    program_values,
    rounds_world,
    share_of_zeros,
    shortest_that_reaches,
    simplest_novelty,
    surprise,
)
from mightnt.experiments.theory.theorem import Computed
from mightnt.files import plain
from mightnt.history import Chooser, demonstrated
from mightnt.models.categorical import Categorical
from mightnt.models.switching.posterior import SwitchingClass
from mightnt.planners.plan import plan
from mightnt.prediction import follow
from mightnt.worlds.tree import random_tree
from tests.models.switching.oracle import happened, split
from tests.strategies import agent_paths, probability_of_actions

SMALL = Novelty(
    limit_bits=17,
    demonstrated_rounds=(10, 100),
    horizon=2,
    noisy_rounds=300,
    n_steps=8,
    n_utilities=2,
    aim_bits=6,
    noise=3,
)


@functools.cache
def language():
    return SwitchingClass.up_to(17)


@functools.cache
def computed(seed):
    return compute(SMALL, seed, lambda done, of: None)


def test_the_quick_profile_computes_and_every_claim_comes_out():
    result = THEOREM.compute(THEOREM.profiles["quick"], 0, lambda done, of: None)
    assert {type(row.holds) for row in result.rows} == {bool, type(None)}
    assert [row.claim for row in result.rows if row.holds is False] == []
    assert sum(row.holds is True for row in result.rows) > 12
    panels = THEOREM.draw(result.curves)
    assert len(panels) == 3
    assert all(panel.svg.startswith("<svg") for panel in panels)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_and_a_record_draws_the_same():
    again = compute(SMALL, 0, lambda done, of: None)
    assert again.rows == computed(0).rows
    read = Computed.from_json(json.loads(json.dumps(plain(again.as_json()))))
    assert THEOREM.draw(read.curves)[0].svg == THEOREM.draw(computed(0).curves)[0].svg
    assert computed(1).rows != computed(0).rows


def test_no_two_rows_say_the_same():
    claims = [row.claim for row in computed(0).rows]
    assert len(set(claims)) == len(claims)


@pytest.mark.parametrize("symbols", [[0, 0] * 7, [0, 0, 1, 0] * 3, [0, 0, 0, 1, 1, 0]])
def test_the_search_finds_the_shortest_event_by_trying_all(symbols):
    """Two rounds of the agent's own ahead, every event of the language asked of the whole history."""
    shown, programs = demonstrated(symbols), language().programs
    moves = [path[:n] for path in agent_paths(2, 2, 2) for n in (2, 4)]
    event, move = simplest_novelty(language().given(shown), moves)
    possible = {
        (len(e.code(programs.alphabets)), i)
        for i, e in enumerate(programs.events)
        if e.is_for_ever and not happened(e, *split(shown))
        for m in moves
        if happened(e, *split(shown + m))
    }
    assert programs.event_bits[event] == min(possible)[0]
    assert not happened(programs.events[event], *split(shown))
    assert happened(programs.events[event], *split(shown + move))


def test_where_nothing_can_be_new_there_is_no_surprise():
    with pytest.raises(InputError, match="brings about anything new"):
        simplest_novelty(language(), [()])


def test_the_surprise_leaves_the_class_after_the_event():
    found = surprise(language(), demonstrated([1, 0] * 20), action=1)
    assert str(language().programs.events[found.event]) == "observation 1 has occurred"
    assert found.event_bits == 5
    history = (*demonstrated([1, 0] * 20), *demonstrated([1, 1]))
    np.testing.assert_allclose(found.here.log_prior, language().given(history).log_prior)
    assert len(found.language.listed) == len(language().listed) > len(found.here.listed)


def test_the_terms_of_the_bound():
    found = surprise(language(), demonstrated([1, 0] * 200), action=1)
    terms = bound_bits(found, 4)
    assert list(terms.values())[:3] == [1, 5, 4]
    posterior = np.exp(found.here.log_prior)
    assert terms["the limit on lengths"] == pytest.approx(-np.log2(posterior[found.here.description_bits <= 7].sum()))
    assert bound_bits(found, 8)["the limit on lengths"] == inf  # 17 - 14 bits: there is no program to switch from


def test_values_of_programs_are_sums_over_paths():
    world = random_tree(np.random.default_rng(0), 2, 2, 2)
    here = language().given(demonstrated([0, 0, 1, 1]))
    values = program_values(here, world)
    for index in (0, 7, 100, len(values) - 1):
        model = here.models[index]
        expected = sum(
            probability_of_actions(model, path) * probability_of_observations(world, path) * utility(world, path)
            for path in agent_paths(2, 2, 2)
        )
        assert values[index] == pytest.approx(expected)
    several = program_values(here, world, lambda path: np.array([world.utility(path), 1.0]))
    np.testing.assert_allclose(several[:, 0], values)
    np.testing.assert_allclose(several[:, 1], 1)


def probability_of_observations(world, path):
    states = itertools.accumulate(path, world.advance, initial=world.start())
    pairs = zip(states, path, strict=False)
    return np.prod([world.predict(s).probabilities[step.symbol] for s, step in pairs if step.chooser is Chooser.WORLD])


def utility(world, path):
    return world.utility(follow(world, path))


def test_the_best_values_are_those_of_the_planner():
    world = random_tree(np.random.default_rng(1), 2, 2, 2)
    best = best_values(world, lambda path: np.array([world.utility(path), -world.utility(path)]))
    assert best[0] == pytest.approx(plan(world, Categorical.of([0.5, 0.5]), KLBudget(inf)).value)
    assert best[1] < 0


def test_the_shortest_program_that_reaches_a_value():
    found = surprise(language(), demonstrated([1, 0] * 20), action=1)
    values = program_values(found.language, rounds_world(2, share_of_zeros))
    assert found.language.text(shortest_that_reaches(found.language, values, 1.0)) == "always 0"
    assert found.language.text(shortest_that_reaches(found.language, values, 0.5)) in ("uniform", "always 0")
    assert shortest_that_reaches(found.language, values, 1.1) is None


def test_simple_policies_and_names():
    alone = atoms_alone(language())
    assert all(not alone.text(i).startswith("if") for i in range(len(alone.listed)))
    assert str(named(language(), "cycle")) == "cycle"
    assert named(language(), "always 1").predict(language().first).probabilities.tolist() == [0, 1]
