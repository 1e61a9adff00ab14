"""The arrays of a tree against the same numbers path by path."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings

from mightnt.constraints.kl import kl_expected_nats, kl_max_observations_nats
from mightnt.constraints.tvd import tvd_max_observations
from mightnt.errors import InputError
from mightnt.history import Chooser
from mightnt.models.categorical import Categorical
from mightnt.planners.levels import (
    by_sequence,
    check_levels,
    evaluate,
    kl_of_sequences_nats,
    lay_out,
    log_best,
    log_conditionals,
    log_trajectories,
    pulled,
    realize,
    tvd_of_sequences,
    world_probabilities,
)
from mightnt.prediction import follow
from mightnt.worlds.tree import TreeWorld, random_tree
from tests.strategies import RandomModel, agent_paths, probability_of_actions, seeds

ACTIONS, OBSERVATIONS, HORIZON = 2, 3, 2


def laid_out(seed, model):
    world = random_tree(np.random.default_rng(seed), ACTIONS, OBSERVATIONS, HORIZON)
    return world, lay_out(world, model, world.start(), model.start())


def models(seed):
    return RandomModel(seed, ACTIONS, zeros=0.2), RandomModel(seed + 1, ACTIONS, missing=0.4, zeros=0.1)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_a_policy_on_arrays_is_worth_and_costs_what_it_does_path_by_path(seed):
    policy, base = models(seed)
    world, levels = laid_out(seed, base)
    log_policy = list(laid_out(seed, policy)[1].log_base)
    total, sizes = 0.0, (OBSERVATIONS, HORIZON)
    for path in agent_paths(ACTIONS, *sizes):
        weight = probability_of_actions(policy, path)
        for t, step in enumerate(path):
            if step.chooser is Chooser.WORLD:
                weight *= float(world.predict(follow(world, path[:t])).probabilities[step.symbol])
        total += weight * world.utility(follow(world, path))
    value, kl = evaluate(levels, log_policy)
    assert value == pytest.approx(total, abs=1e-12)
    assert kl == pytest.approx(kl_expected_nats(policy, base, world), abs=1e-12)
    most = kl_max_observations_nats(policy, base, *sizes)
    assert kl_of_sequences_nats(levels, log_policy).max() == pytest.approx(most, abs=1e-12)
    most = tvd_max_observations(policy, base, *sizes)
    assert tvd_of_sequences(levels, log_policy).max() == pytest.approx(most, abs=1e-12)


def test_leaves_are_sorted_by_what_was_observed_before_them():
    _, levels = laid_out(0, Categorical.of([0.5, 0.5]))
    told = [(a1, o1, a2) for a1 in range(2) for o1 in range(3) for a2 in range(2)]
    sorted_leaves = by_sequence(levels, np.arange(12).reshape(6, 2))
    assert [[told[i] for i in row] for row in sorted_leaves] == [
        [(a1, o1, a2) for a1 in range(2) for a2 in range(2)] for o1 in range(3)
    ]


def test_trajectories_by_hand():
    _, levels = laid_out(0, Categorical.of([0.25, 0.75]))
    np.testing.assert_allclose(
        np.exp(log_trajectories(levels, levels.log_base)),
        [[1 / 16, 3 / 16]] * 3 + [[3 / 16, 9 / 16]] * 3,
    )
    assert [p.sum() for p in world_probabilities(levels)] == pytest.approx([1, ACTIONS, ACTIONS**2])


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_a_realization_plan_gives_its_policy_back(seed):
    _, levels = laid_out(seed, RandomModel(seed, ACTIONS, zeros=0.2))
    log_policy, other = list(levels.log_base), [np.full_like(rows, np.log(1 / ACTIONS)) for rows in levels.log_base]
    plan = realize(levels, log_policy)
    assert by_sequence(levels, plan[-1]).sum(axis=1) == pytest.approx(1)
    above = 1.0
    for rows, ours, back in zip(plan, log_policy, log_conditionals(plan, other), strict=True):
        reached = rows.sum(axis=1) > 1e-9
        assert rows.sum(axis=1) == pytest.approx(above)
        np.testing.assert_allclose(np.exp(back[reached]), np.exp(ours[reached]), atol=1e-12)
        np.testing.assert_allclose(np.exp(back[~reached]), 1 / ACTIONS)
        above = np.repeat(rows.ravel(), OBSERVATIONS)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_pulling_back_stops_where_the_limit_is_kept(seed):
    _, levels = laid_out(seed, RandomModel(seed, ACTIONS))
    base, best = list(levels.log_base), log_best(levels, free=False)
    most = float(kl_of_sequences_nats(levels, best).max())
    for limit in (most / 3, 2 * most):
        kept = pulled(levels, best, base, lambda p, b=limit: float(kl_of_sequences_nats(levels, p).max()) - b, base)
        spent = float(kl_of_sequences_nats(levels, kept).max())
        assert spent <= limit
        assert spent == pytest.approx(min(limit, most), rel=1e-6)


def test_arrays_that_are_no_tree_are_refused():
    _, good = laid_out(0, Categorical.of([0.5, 0.5]))
    check_levels(good)
    nothing = good.utilities * np.nan
    for bad, words in (
        (replace(good, utilities=good.utilities[1:]), "36 finite numbers"),
        (replace(good, utilities=nothing), "36 finite numbers"),
        (replace(good, log_base=good.log_base[:1]), "1 levels of the base"),
        (replace(good, log_base=(good.log_base[0] + 0.1, good.log_base[1])), "sum to 1.1"),
        (replace(good, log_base=(good.log_base[0] * np.nan, good.log_base[1])), "NaN"),
        (replace(good, log_base=good.log_base[::-1]), "level 0 has shapes"),
        (replace(good, observations=(good.observations[0] * 0.9, good.observations[1])), "sum to 1"),
    ):
        with pytest.raises(InputError, match=words):
            check_levels(bad)


def test_a_tree_too_large_is_refused_before_it_is_laid_out():
    world = TreeWorld(4, 4, 12, lambda path: np.full(4, 0.25), lambda path: 0.0)
    with pytest.raises(InputError, match=r"2\.81e\+14 leaves; at most 2e\+06 fit"):
        lay_out(world, Categorical.of([0.25] * 4), world.start(), None)


def test_among_equally_good_actions_the_base_decides_and_freedom_ignores_it():
    world = TreeWorld(3, 1, 1, lambda path: [1.0], lambda path: [1.0, 1.0, 2.0][path[0]])
    base = Categorical.of([0.2, 0.8, 0])
    levels = lay_out(world, base, (), None)
    np.testing.assert_allclose(np.exp(log_best(levels, free=False)[0]), [[0.2, 0.8, 0]])
    assert log_best(levels, free=True)[0].tolist() == [[-inf, -inf, 0]]
