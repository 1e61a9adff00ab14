"""T2: what a limit on total variation permits.

The only actions that become likelier than under the base are the best ones, and an action to which the base gives zero
can gain. Exact for one decision and for a limit on every step; false for a limit on trajectories of several rounds.
"""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.constraints.budget import KLBudget, TVDBudget
from mightnt.constraints.kl import kl_max_observations_nats
from mightnt.constraints.tvd import tvd_max_observations
from mightnt.experiments.theory.variation import fork, timid_share
from mightnt.models.categorical import Categorical
from mightnt.planners.conic import best_within_trajectories
from mightnt.planners.plan import plan
from mightnt.worlds.tree import TreeWorld, random_tree
from tests.strategies import RandomModel, seeds

budgets = st.floats(0.01, 0.99)


def one_choice(utilities):
    return TreeWorld(len(utilities), 1, 1, lambda path: [1.0], lambda path: float(utilities[path[0]]))


def own_value(policy, world, path):
    """What a history is worth when the policy goes on from it."""
    if len(path) == 2 * world.horizon:
        return world.utility(path)
    ahead = (policy if len(path) % 2 == 0 else world).predict(path).probabilities
    return sum(p * own_value(policy, world, (*path, x)) for x, p in enumerate(ahead.tolist()) if p > 0)


def gains(policy, base, world, path):
    """Of the actions at ``path``: how far the plan lifts each, and what each is worth when the plan goes on."""
    rise = policy.predict(path).probabilities - base.predict(path).probabilities
    return rise, np.array([own_value(policy, world, (*path, a)) for a in range(world.n_actions)])


def reachable(policy, world, path=()):
    if len(path) == 2 * world.horizon:
        return
    yield path
    for a, p in enumerate(policy.predict(path).probabilities.tolist()):
        if p > 0:
            for o in range(world.n_observations):
                yield from reachable(policy, world, (*path, a, o))


@given(seeds, budgets)
@settings(max_examples=30, deadline=None)
def test_it_holds_for_one_decision(seed, budget):
    """The linear program over trajectories, which knows nothing of the theorem."""
    rng = np.random.default_rng(seed)
    utilities, base = rng.integers(0, 4, size=5) / 4, RandomModel(seed, 5, zeros=0.3)
    world = one_choice(utilities)
    rise, worth = gains(plan(world, base, TVDBudget(budget)), base, world, ())
    assert (rise[worth < worth.max()] <= 1e-9).all()


@given(seeds, budgets)
@settings(max_examples=30, deadline=None)
def test_it_holds_at_every_step(seed, budget):
    world, base = random_tree(np.random.default_rng(seed), 3, 2, 2), RandomModel(seed, 3, zeros=0.2)
    policy = plan(world, base, TVDBudget(budget, over="step"))
    for path in reachable(policy, world):
        rise, worth = gains(policy, base, world, path)
        assert (rise[worth < worth.max() - 1e-9] <= 1e-12).all()


@given(seeds, budgets)
@settings(max_examples=30, deadline=None)
def test_it_is_tight(seed, budget):
    """The best action gains the whole budget or all that it lacks, whatever the base gives it; no more caution than that."""
    rng = np.random.default_rng(seed)
    utilities, base = rng.uniform(size=5), RandomModel(seed, 5, zeros=0.5)
    best = int(np.argmax(utilities))
    had = float(base.predict(()).probabilities[best])
    for over in ("max_observations", "step"):
        policy = plan(one_choice(utilities), base, TVDBudget(budget, over=over))
        assert policy.predict(()).probabilities[best] - had == pytest.approx(min(budget, 1 - had), abs=1e-9)


def test_the_impossible_becomes_possible():
    """The base gives the best action zero at every step; TVD pays for it, no finite KL does."""
    world = TreeWorld(2, 2, 2, lambda path: [0.5, 0.5], lambda path: sum(path[::2]) / 2)
    base = Categorical.of([1, 0])
    for over in ("max_observations", "step"):
        policy = plan(world, base, TVDBudget(0.1, over=over))
        assert policy.value == pytest.approx(0.1)
        assert kl_max_observations_nats(policy, base, 2, 2) == inf
    for over in ("expected", "max_observations"):
        assert plan(world, base, KLBudget(1e6, over=over)).value == 0


def test_it_needs_one_decision_or_a_limit_on_every_step():
    """The counterexample by hand: 1/8 empties the bold action's worse end, and 2/3 of what is left is timid."""
    levels = fork()
    policy = best_within_trajectories(levels, 1 / 8)
    for told in range(2):
        bold, timid = np.exp(policy[1][told])[[told, 1 - told]]
        assert timid == pytest.approx(2 / 3)
        assert bold == pytest.approx(1 / 3)
    assert np.exp(policy[0][0]).tolist() == pytest.approx([3 / 8, 5 / 8])
    assert timid_share(best_within_trajectories(levels, 0)) == pytest.approx(1 / 2)


def test_the_counterexample_is_no_accident_of_ties():
    """Whichever way its utilities are shifted a little it stands: no choice among equally good plans makes it."""
    levels, rng = fork(), np.random.default_rng(0)
    for _ in range(20):
        shifted = replace(levels, utilities=levels.utilities + rng.normal(0, 1e-3, size=64))
        assert timid_share(best_within_trajectories(shifted, 1 / 8)) == pytest.approx(2 / 3, abs=1e-6)


def test_the_counterexample_is_within_its_budget_by_the_definition():
    """Not by the planner's own arrays: as a world and a policy, path by path."""
    utilities = fork().utilities.reshape((2,) * 6)
    world = TreeWorld(2, 2, 3, lambda path: [0.5, 0.5], lambda path: float(utilities[path]))
    base = Categorical.of([0.5, 0.5])
    policy = plan(world, base, TVDBudget(1 / 8))
    assert tvd_max_observations(policy, base, 2, 3) == pytest.approx(1 / 8)
    rise, worth = gains(policy, base, world, (0, 0))
    assert rise[1] == pytest.approx(1 / 6)
    assert worth.tolist() == pytest.approx([0.8, 0.5])


def test_its_neighbor_fails_for_kl():
    """The same sentence about KL: an action that is not the best gains at any budget, if it is better than the average."""
    base = Categorical.of([0.4, 0.3, 0.3])
    for nats in (0.001, 0.05):
        for over in ("expected", "max_observations"):
            policy = plan(one_choice([0.0, 0.9, 1.0]), base, KLBudget(nats, over=over))
            assert policy.predict(policy.start()).probabilities[1] > 0.3
    assert plan(one_choice([0.0, 0.9, 1.0]), base, TVDBudget(0.1)).predict(()).probabilities[1] == pytest.approx(0.3)


@given(seeds, st.floats(0.01, 2))
@settings(max_examples=20, deadline=None)
def test_under_kl_what_the_base_gives_zero_stays_zero(seed, nats):
    rng = np.random.default_rng(seed)
    base = RandomModel(seed, 5, zeros=0.5)
    policy = plan(one_choice(rng.uniform(size=5)), base, KLBudget(nats, over="max_observations"))
    assert (policy.predict(()).probabilities[base.predict(()).probabilities == 0] == 0).all()
