"""Every divergence against its definition, path by path, and the order between them."""

import itertools
from math import inf, log, prod

import numpy as np
import pytest
from hypothesis import given, settings

from mightnt.constraints.kl import (
    kl_adaptive_nats,
    kl_expected_nats,
    kl_max_observations_nats,
    kl_pathwise_nats,
    kl_step_nats,
)
from mightnt.errors import InputError
from mightnt.history import Chooser, Step
from mightnt.models.categorical import Categorical
from mightnt.models.switch import Switch
from mightnt.prediction import Prediction, follow
from mightnt.worlds.tree import TreeWorld, random_tree
from tests.strategies import RandomModel, agent_paths, predictions, probability_of_actions, seeds

HORIZON = 3


@given(predictions(complete=True), predictions())
def test_one_step_is_the_sum_of_its_terms(policy, base):
    terms = [
        0.0 if p == 0 else inf if q == 0 else p * log(p / q)
        for p, q in zip(policy.probabilities, base.probabilities, strict=True)
    ]
    assert kl_step_nats(policy, base) == pytest.approx(max(0.0, sum(terms)), abs=1e-12)


@given(predictions(complete=True), predictions())
def test_missing_mass_costs_its_floor_and_is_not_given_back(policy, base):
    total = 1 - base.missing
    whole = Prediction.of(base.probabilities / base.probabilities.sum())
    assert kl_step_nats(policy, base) == pytest.approx(kl_step_nats(policy, whole) - log(total), abs=1e-9)
    assert kl_step_nats(policy, base) >= -log(total) - 1e-12


def test_one_step_by_hand():
    half = Prediction.of([0.5, 0.5])
    assert kl_step_nats(half, Prediction.of([0.25, 0.75])) == pytest.approx(0.5 * log(2) + 0.5 * log(2 / 3))
    assert kl_step_nats(Prediction.of([1, 0]), half) == pytest.approx(log(2))
    assert kl_step_nats(half, Prediction.of([1, 0])) == inf
    assert kl_step_nats(half, half) == 0
    assert kl_step_nats(half, Prediction.of([0.25, 0.25])) == pytest.approx(log(2))


def test_a_zero_of_the_base_is_infinite_however_small_the_policy_is_there():
    tiny = Prediction(np.array([0.0, -2000.0]))  # underflows to probability zero, but is not -inf
    assert kl_step_nats(tiny, Prediction.of([1, 0])) == inf


def test_what_has_no_distance_is_refused():
    with pytest.raises(InputError, match="misses probability"):
        kl_step_nats(Prediction.of([0.5, 0.4]), Prediction.of([0.5, 0.5]))
    with pytest.raises(InputError, match="predicts 1 symbols"):
        kl_step_nats(Prediction.of([1.0]), Prediction.of([0.5, 0.5]))


def log_ratio(policy, base, path):
    p, q = probability_of_actions(policy, path), probability_of_actions(base, path)
    return 0.0 if p == 0 else inf if q == 0 else log(p / q)


def probability_of_observations(world, path):
    return prod(
        float(world.predict(follow(world, path[:t])).probabilities[s.symbol])
        for t, s in enumerate(path)
        if s.chooser is Chooser.WORLD
    )


def observations(path):
    return tuple(step.symbol for step in path if step.chooser is Chooser.WORLD)


def models(seed):
    return RandomModel(seed, 2, zeros=0.1), RandomModel(seed + 1, 2, missing=0.3, zeros=0.05 * (seed % 2))


def fixed(policy, base, told):
    """The definition for one observation sequence: sum over actions of prod pi log (prod pi / prod beta)."""
    paths = [path for path in agent_paths(2, 2, HORIZON) if observations(path)[:-1] == told and path[-1].symbol == 0]
    weights = [probability_of_actions(policy, path) for path in paths]
    return sum(w * log_ratio(policy, base, path) for w, path in zip(weights, paths, strict=True) if w)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_expected_is_the_mean_log_ratio_over_all_paths(seed):
    policy, base = models(seed)
    world = random_tree(np.random.default_rng(seed), 2, 2, HORIZON)
    total = 0.0
    for path in agent_paths(2, 2, HORIZON):
        weight = probability_of_actions(policy, path) * probability_of_observations(world, path)
        total += weight * log_ratio(policy, base, path) if weight else 0.0
    assert kl_expected_nats(policy, base, world) == pytest.approx(total, rel=1e-9)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_the_maximum_over_observations_is_its_definition(seed):
    policy, base = models(seed)
    most = max(fixed(policy, base, told) for told in itertools.product(range(2), repeat=HORIZON - 1))
    assert kl_max_observations_nats(policy, base, 2, HORIZON) == pytest.approx(most, rel=1e-9)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_adaptive_is_the_worst_world_that_answers_actions(seed):
    """Two rounds: every map from the first action to the first observation is a world."""
    policy, base = models(seed)
    worlds = [
        TreeWorld(2, 2, 2, lambda path, answers=answers: np.eye(2)[answers[path[0]]], lambda path: 0.0)
        for answers in itertools.product(range(2), repeat=2)
    ]
    most = max(kl_expected_nats(policy, base, world) for world in worlds)
    assert kl_adaptive_nats(policy, base, 2, 2) == pytest.approx(most, rel=1e-9)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_pathwise_is_the_most_that_a_possible_path_is_charged(seed):
    policy, base = models(seed)

    def charged(path):
        starts = [path[: 2 * t] for t in range(HORIZON)]
        return sum(kl_step_nats(*(model.predict(follow(model, h)) for model in (policy, base))) for h in starts)

    paths = [path for path in agent_paths(2, 2, HORIZON) if probability_of_actions(policy, path[:-2]) > 0]
    assert kl_pathwise_nats(policy, base, 2, HORIZON) == pytest.approx(max(map(charged, paths)), rel=1e-9)


def without_actions(path):
    return tuple(symbol if i % 2 else 0 for i, symbol in enumerate(path))


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_the_order_from_expected_to_pathwise(seed):
    policy, base = models(seed)
    world = random_tree(np.random.default_rng(seed), 2, 2, HORIZON)
    deaf = TreeWorld(2, 2, HORIZON, lambda path: world.observe(without_actions(path)), lambda path: 0.0)
    expected, heedless = kl_expected_nats(policy, base, world), kl_expected_nats(policy, base, deaf)
    maximal, adaptive = (f(policy, base, 2, HORIZON) for f in (kl_max_observations_nats, kl_adaptive_nats))
    pathwise = kl_pathwise_nats(policy, base, 2, HORIZON)
    slack = 1 + 1e-9
    assert expected <= adaptive * slack
    assert heedless <= maximal * slack
    assert maximal <= adaptive * slack
    assert adaptive <= pathwise * slack


def test_in_a_world_that_reacts_the_expected_may_exceed_the_maximum_over_fixed_observations():
    """The second step is dear only where the observation repeats the action; one fixed observation fits half of them."""
    base = Categorical.of([0.5, 0.5])
    policy = Switch(base, lambda h: len(h) == 2 and h[0].symbol == h[1].symbol, Categorical.of([1, 0]))
    world = TreeWorld(2, 2, 2, lambda path: np.eye(2)[path[-1]], lambda path: 0.0)
    assert kl_expected_nats(policy, base, world) == pytest.approx(log(2))
    assert kl_max_observations_nats(policy, base, 2, 2) == pytest.approx(log(2) / 2)
    assert kl_adaptive_nats(policy, base, 2, 2) == pytest.approx(log(2))


def test_an_impossible_action_of_the_policy_is_not_followed():
    """Off the policy's path the base gives nothing; that costs nothing."""
    policy = Categorical.of([1, 0])
    base = Switch(Categorical.of([0.5, 0.5]), lambda h: Step(1, Chooser.AGENT) in h, Categorical.of([0, 1]))
    world = TreeWorld(2, 1, 2, lambda path: [1.0], lambda path: 0.0)
    assert kl_expected_nats(policy, base, world) == pytest.approx(2 * log(2))
    for divergence in (kl_max_observations_nats, kl_adaptive_nats, kl_pathwise_nats):
        assert divergence(policy, base, 1, 2) == pytest.approx(2 * log(2))
