"""Every total variation distance against its definition, event by event and path by path."""

import itertools
from math import prod, sqrt

import numpy as np
import pytest
from hypothesis import given, settings

from mightnt.constraints.kl import kl_expected_nats, kl_max_observations_nats, kl_step_nats
from mightnt.constraints.tvd import tvd_expected, tvd_largest_step, tvd_max_observations, tvd_step
from mightnt.errors import InputError
from mightnt.history import Chooser, Step
from mightnt.models.categorical import Categorical
from mightnt.models.switch import Switch
from mightnt.prediction import Prediction, follow
from mightnt.worlds.tree import TreeWorld, random_tree
from tests.strategies import RandomModel, agent_paths, predictions, probability_of_actions, seeds

HORIZON = 3


def largest_difference(ours, theirs):
    """max over every event A of pi(A) - beta(A), by trying all of them."""
    events = itertools.product([0, 1], repeat=len(ours))
    return max(sum(e * (p - q) for e, p, q in zip(event, ours, theirs, strict=True)) for event in events)


@given(predictions(n_symbols=4, complete=True), predictions(n_symbols=4))
def test_one_step_is_the_largest_difference_over_events(policy, base):
    assert tvd_step(policy, base) == pytest.approx(
        largest_difference(policy.probabilities, base.probabilities), abs=1e-12
    )


@given(predictions(complete=True), predictions())
def test_missing_mass_is_an_outcome_that_the_policy_never_takes(policy, base):
    """Half the L1 distance, with what the base misses as one more symbol."""
    half = 0.5 * (np.abs(policy.probabilities - base.probabilities).sum() + base.missing)
    assert tvd_step(policy, base) == pytest.approx(half, abs=1e-12)
    assert base.missing - 1e-12 <= tvd_step(policy, base) <= 1 + 1e-12


def test_one_step_by_hand():
    half = Prediction.of([0.5, 0.5])
    assert tvd_step(half, Prediction.of([0.25, 0.75])) == 0.25
    assert tvd_step(Prediction.of([1, 0]), Prediction.of([0, 1])) == 1
    assert tvd_step(Prediction.of([0, 1]), Prediction.of([1, 0])) == 1  # KL would be infinite
    assert tvd_step(half, half) == 0
    assert tvd_step(half, Prediction.of([0.25, 0.25])) == 0.5


def test_what_has_no_distance_is_refused():
    with pytest.raises(InputError, match="misses probability"):
        tvd_step(Prediction.of([0.5, 0.4]), Prediction.of([0.5, 0.5]))
    with pytest.raises(InputError, match="predicts 1 symbols"):
        tvd_step(Prediction.of([1.0]), Prediction.of([0.5, 0.5]))
    leaky, half = Categorical.of([0.5, 0.4]), Categorical.of([0.5, 0.5])
    with pytest.raises(InputError, match="misses probability"):
        tvd_max_observations(leaky, half, 2, 2)
    with pytest.raises(InputError, match="misses probability"):
        tvd_expected(leaky, half, random_tree(np.random.default_rng(0), 2, 2, 2))


@given(predictions(complete=True), predictions())
def test_pinsker(policy, base):
    assert tvd_step(policy, base) <= sqrt(kl_step_nats(policy, base) / 2) + 1e-9


def models(seed):
    return RandomModel(seed, 2, zeros=0.2), RandomModel(seed + 1, 2, missing=0.3 * (seed % 2), zeros=0.1)


def observations(path):
    return tuple(step.symbol for step in path if step.chooser is Chooser.WORLD)


def fixed(policy, base, told):
    """The definition for one observation sequence: half the L1 distance over action sequences and the missing one."""
    paths = [path for path in agent_paths(2, 2, HORIZON) if observations(path)[:-1] == told and path[-1].symbol == 0]
    ours, theirs = ([probability_of_actions(m, path) for path in paths] for m in (policy, base))
    return 0.5 * (sum(abs(p - q) for p, q in zip(ours, theirs, strict=True)) + 1 - sum(theirs))


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_the_maximum_over_observations_is_its_definition(seed):
    policy, base = models(seed)
    most = max(fixed(policy, base, told) for told in itertools.product(range(2), repeat=HORIZON - 1))
    assert tvd_max_observations(policy, base, 2, HORIZON) == pytest.approx(most, abs=1e-12)


def probability_of_observations(world, path):
    return prod(
        float(world.predict(follow(world, path[:t])).probabilities[s.symbol])
        for t, s in enumerate(path)
        if s.chooser is Chooser.WORLD
    )


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_expected_is_the_distance_of_whole_episodes(seed):
    policy, base = models(seed)
    world = random_tree(np.random.default_rng(seed), 2, 2, HORIZON)
    total = 0.0
    for path in agent_paths(2, 2, HORIZON):
        apart = probability_of_actions(policy, path) - probability_of_actions(base, path)
        total += probability_of_observations(world, path) * max(0.0, apart)
    assert tvd_expected(policy, base, world) == pytest.approx(total, abs=1e-12)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_the_worst_step_is_the_worst_over_histories_that_the_policy_can_come_to(seed):
    policy, base = models(seed)
    starts = {path[: 2 * t] for path in agent_paths(2, 2, HORIZON - 1) for t in range(HORIZON)}
    steps = [
        tvd_step(policy.predict(follow(policy, h)), base.predict(follow(base, h)))
        for h in starts
        if probability_of_actions(policy, h) > 0
    ]
    assert tvd_largest_step(policy, base, 2, HORIZON) == pytest.approx(max(steps), abs=1e-12)


def without_actions(path):
    return tuple(symbol if i % 2 else 0 for i, symbol in enumerate(path))


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_the_order_between_them(seed):
    policy, base = models(seed)
    world = random_tree(np.random.default_rng(seed), 2, 2, HORIZON)
    deaf = TreeWorld(2, 2, HORIZON, lambda path: world.observe(without_actions(path)), lambda path: 0.0)
    maximal, step = (f(policy, base, 2, HORIZON) for f in (tvd_max_observations, tvd_largest_step))
    assert tvd_expected(policy, base, deaf) <= maximal + 1e-12
    assert maximal <= 1 - (1 - step) ** HORIZON + 1e-12
    assert maximal <= sqrt(kl_max_observations_nats(policy, base, 2, HORIZON) / 2) + 1e-9
    assert tvd_expected(policy, base, world) <= sqrt(kl_expected_nats(policy, base, world) / 2) + 1e-9


def test_a_zero_of_the_base_costs_what_it_gets():
    """Action 1, impossible for the base after a 0, is taken there a tenth of the time."""
    base = Switch(Categorical.of([0.5, 0.5]), lambda h: h[:1] == (Step(0, Chooser.AGENT),), Categorical.of([1, 0]))
    policy = Switch(
        Categorical.of([0.5, 0.5]), lambda h: h[:1] == (Step(0, Chooser.AGENT),), Categorical.of([0.9, 0.1])
    )
    world = TreeWorld(2, 1, 2, lambda path: [1.0], lambda path: 0.0)
    assert tvd_largest_step(policy, base, 1, 2) == pytest.approx(0.1)
    assert tvd_max_observations(policy, base, 1, 2) == pytest.approx(0.05)
    assert tvd_expected(policy, base, world) == pytest.approx(0.05)
    assert kl_expected_nats(policy, base, world) == np.inf
