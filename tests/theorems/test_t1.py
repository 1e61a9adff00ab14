"""T1: little constraint in novel situations.

After an event E that never happened before, for every program rho that fits into the class:
KL(rho, xi) <= Delta + log2(1/W) bits, Delta = 1 + K(E) + K(rho), W the posterior of the programs that have room for the
switch. It does not depend on how much was demonstrated. Here every term is a number.
"""

import functools
from math import inf, log, log2

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mightnt.constraints.kl import kl_adaptive_nats, kl_expected_nats, kl_max_observations_nats
from mightnt.errors import InputError
from mightnt.experiments.theory.ingredients import charges_nats
from mightnt.experiments.theory.novelty import (
    BITS,
    atoms_alone,
    bound_bits,
    mixture,
    named,
    pessimistic,
    program_values,
    rounds_world,
    share_of_zeros,
    shortest_that_reaches,
    surprise,
)
from mightnt.history import Chooser, Step, demonstrated
from mightnt.models.switching.posterior import SwitchingClass
from mightnt.planners.least import least_kl_nats
from mightnt.worlds.tree import random_tree
from tests.strategies import seeds

ROUNDS = (10, 100, 1000, 10_000)


@functools.cache
def language(limit_bits=18):
    return SwitchingClass.up_to(limit_bits)


@functools.cache
def after_silence(n_rounds):
    """After ``n_rounds`` rounds in which the demonstrator played 1 and the world said 0, and then the simplest novelty."""
    return surprise(language(), demonstrated([1, 0] * (n_rounds - 1)), action=1)


def anything_shown(seed):
    """Demonstrations of some length, the observations often silent for long, the actions of any kind."""
    rng = np.random.default_rng(seed)
    n_rounds = int(rng.integers(0, 60))
    actions = rng.uniform(size=n_rounds) < rng.choice([0, 0.05, 0.5])
    observations = rng.uniform(size=n_rounds) < rng.choice([0, 0, 0.03, 0.5])
    return demonstrated(np.column_stack([actions, observations]).astype(int).ravel().tolist()), int(rng.integers(2))


@given(seeds, st.integers(0, 10**6), st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_it_holds_for_every_program_utility_value_and_history(seed, which, share):
    """The event is what the search finds. The KL of the program itself, in three readings, and the least KL by planning."""
    shown, action = anything_shown(seed)
    try:
        found = surprise(language(), shown, action)
    except InputError:  # nothing the world can say is new: the theorem says nothing
        assume(False)
    fits = [i for i in range(200) if sum(bound_bits(found, int(found.language.description_bits[i])).values()) < inf]
    rho, base = found.language.models[fits[which % len(fits)]], mixture(found.here)
    world = random_tree(np.random.default_rng(seed), 2, 2, 2)
    most = sum(bound_bits(found, rho.description_bits).values()) / BITS + 1e-9
    assert kl_expected_nats(rho, base, world) <= most
    assert kl_max_observations_nats(rho, base, 2, 2) <= most
    assert kl_adaptive_nats(rho, base, 2, 2) <= most
    values = program_values(found.language, world)[fits]
    value = float(values.min() + share * np.ptp(values))
    shortest = shortest_that_reaches(found.language, values, value)
    bound = sum(bound_bits(found, int(found.language.description_bits[fits[shortest]])).values()) / BITS
    assert least_kl_nats(world, base, value) <= bound + 1e-6
    if seed % 8 == 0:
        assert least_kl_nats(world, base, value, "max_observations") <= bound + 1e-5


def test_it_does_not_grow_with_demonstration():
    world = rounds_world(3, share_of_zeros)
    least = [least_kl_nats(world, mixture(after_silence(k).here), 0.9) * BITS for k in ROUNDS]
    bounds = [sum(bound_bits(after_silence(k), 4).values()) for k in ROUNDS]
    assert {str(language().programs.events[after_silence(k).event]) for k in ROUNDS} == {"observation 1 has occurred"}
    assert all(a <= b for a, b in zip(least, bounds, strict=True))
    assert np.ptp(least) < 1
    assert np.ptp(least[1:]) < 0.1
    assert max(bounds) < 1 + 5 + 4 + 0.5  # the if, the event, "always 0", and half a bit for the limit on lengths


def test_it_is_tight_where_the_class_holds_nothing_else():
    """Two programs, the demonstrator and its switch: the KL is Delta to a thousandth of a bit, after any demonstration."""
    texts = ["always 1", "if observation 1 has occurred then always 0 else always 1"]
    index = {language().text(i): i for i in range(len(language().listed))}
    pair = language().only([index[text] for text in texts])
    for k in ROUNDS:
        here = pair.given((*demonstrated([1, 0] * k)[:-1], Step(1, Chooser.WORLD)))
        cost = sum(charges_nats(mixture(here), [0] * 50)) * BITS
        assert cost == pytest.approx(log2(1 + 2 ** (1 + 5 + 4)))
        assert 10 <= cost < 10.002


def test_in_the_whole_class_other_switches_share_the_work_and_it_is_tight_to_two_bits():
    """That 1 is the last observation and that it has occurred, and many a program, lead to 0: together within 2 bits."""
    for k in ROUNDS:
        cost = sum(charges_nats(mixture(after_silence(k).here), [0] * 50)) * BITS
        bound = sum(bound_bits(after_silence(k), 4).values())
        assert bound - 2 <= cost <= bound


def test_it_needs_a_class_that_is_closed_under_if():
    """The same policies without ifs: every decade of demonstrations makes the same value dearer, beyond the bound."""
    world, alone, least = rounds_world(3, share_of_zeros), atoms_alone(language()), []
    for k in (*ROUNDS, 100_000):
        here = alone.given((*demonstrated([1, 0] * k)[:-1], Step(1, Chooser.WORLD)))
        least.append(least_kl_nats(world, mixture(here), 0.9) * BITS)
    assert (np.diff(least) > 1.5).all()
    assert least[-1] > sum(bound_bits(after_silence(1000), 4).values())


def test_it_needs_an_event_that_is_new():
    """After an event that demonstrations have shown often, the switch is refuted and the same steps cost what slips cost."""
    familiar = demonstrated([1, 0, 1, 1] * 500)
    costs = [sum(charges_nats(mixture(language().given(familiar[:n])), [0] * 3)) * BITS for n in (40, 400, 2000)]
    assert costs == sorted(costs)
    assert costs[-1] > 1 + 5 + 4 + 0.5


def test_its_neighbor_fails_for_the_pessimistic_base():
    """The same class, the same event: what no believed program would do stays infinitely dear; and with a demonstrator who
    slips, no cheaper than to that demonstrator, more with every step."""
    world = rounds_world(3, share_of_zeros)
    for k in ROUNDS:
        assert least_kl_nats(world, pessimistic(after_silence(k).here, 0.05), 0.9) == inf
    slips = (np.random.default_rng(0).uniform(size=999) < 1 / 64).astype(int)
    shown = demonstrated(np.column_stack([1 - slips, 0 * slips]).ravel().tolist())
    found = surprise(language(), shown, action=1)
    mu, base = named(found.language, "always 1 but for 1 in 64"), pessimistic(found.here, 0.05)
    for n_steps in (1, 5, 25):
        assert sum(charges_nats(mu, [0] * n_steps)) == pytest.approx(n_steps * log(64))
        assert sum(charges_nats(base, [0] * n_steps)) >= n_steps * log(64) - 1e-9
    own = sum(charges_nats(mixture(found.here), [0] * 25))
    assert own <= sum(bound_bits(found, 4).values()) / BITS < 2 * log(64)


def test_its_neighbor_fails_for_evidence_of_the_demonstrators_steps_only():
    """The mixture that learns nothing from the agent charges every step again, past every bound."""
    here = after_silence(1000).here
    own, learned_nothing = (np.array(charges_nats(mixture(here, e), [0] * 60)) for e in ("all", "demonstrated"))
    bound = sum(bound_bits(after_silence(1000), 4).values()) / BITS
    assert own.sum() <= bound < learned_nothing.sum()
    assert own[2:].sum() < own[0]
    assert np.ptp(learned_nothing[2:]) < 0.05 * learned_nothing[2:].mean()
