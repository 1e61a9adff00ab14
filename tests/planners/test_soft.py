"""The expected-KL planner against enumeration, a general optimizer and random rivals."""

import sys
from math import inf, log, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from mightnt.bases.pessimistic import Pessimistic
from mightnt.constraints.asking import floor_nats
from mightnt.constraints.budget import KLBudget
from mightnt.constraints.kl import kl_expected_nats
from mightnt.errors import BudgetError, InputError
from mightnt.history import Chooser, Step
from mightnt.models.categorical import Categorical
from mightnt.models.finite import ModelClass
from mightnt.models.switch import Switch
from mightnt.planners.levels import evaluate, lay_out, random_levels
from mightnt.planners.soft import best_within_expected_kl, log_policy_at_price, plan_expected_kl
from mightnt.prediction import check_model, follow
from mightnt.worlds.tree import TreeWorld, random_tree
from tests.strategies import RandomModel, agent_paths, probability_of_actions, seeds

budgets = st.floats(0, 3)


def world_of(seed, horizon=2):
    return random_tree(np.random.default_rng(seed), 2, 2, horizon)


def expected_utility(policy, world):
    """Path by path."""
    total = 0.0
    for path in agent_paths(world.n_actions, world.n_observations, world.horizon):
        weight = probability_of_actions(policy, path)
        for t, step in enumerate(path):
            if step.chooser is Chooser.WORLD:
                weight *= float(world.predict(follow(world, path[:t])).probabilities[step.symbol])
        total += weight * world.utility(follow(world, path))
    return total


@given(seeds, budgets)
@settings(max_examples=30, deadline=None)
def test_it_keeps_its_budget_and_its_promises(seed, nats):
    world, base = world_of(seed), RandomModel(seed, 2, zeros=0.1)
    policy = plan_expected_kl(world, base, KLBudget(nats))
    check_model(policy, list(agent_paths(2, 2, 2))[:4])
    assert kl_expected_nats(policy, base, world) == pytest.approx(policy.kl_expected_nats, abs=1e-9)
    assert policy.kl_expected_nats <= nats + 1e-9
    assert expected_utility(policy, world) == pytest.approx(policy.value, abs=1e-9)


@given(seeds, st.floats(0.001, 2))
@settings(max_examples=20, deadline=None)
def test_what_is_not_spent_buys_nothing(seed, nats):
    """Either the whole budget is spent, or the best policy within the support of the base is affordable."""
    world, base = world_of(seed), RandomModel(seed, 2)
    policy = plan_expected_kl(world, base, KLBudget(nats))
    if policy.kl_expected_nats < nats - 1e-7:
        assert policy.value == pytest.approx(plan_expected_kl(world, base, KLBudget(inf)).value, abs=1e-9)


def log_sigmoids(numbers):
    """Numbers to policies over two actions, laid out level by level for two rounds of two observations."""
    logs = -np.logaddexp(0, -np.stack([numbers, -numbers], axis=1))
    return [logs[:1], logs[1:5]]


@pytest.mark.parametrize("seed", range(6))
def test_a_general_optimizer_finds_nothing_better_and_no_less(seed):
    world, base, nats = world_of(seed), RandomModel(seed, 2), 0.3
    levels = lay_out(world, base, world.start(), base.start())
    found = [
        minimize(
            lambda x: -evaluate(levels, log_sigmoids(x))[0],
            start,
            bounds=[(-30, 30)] * 5,
            constraints={"type": "ineq", "fun": lambda x: nats - evaluate(levels, log_sigmoids(x))[1]},
            options={"maxiter": 300, "ftol": 1e-12},
        )
        for start in np.random.default_rng(seed).normal(size=(4, 5))
    ]
    kept = [r for r in found if evaluate(levels, log_sigmoids(r.x))[1] <= nats + 1e-7]
    best = max(-r.fun for r in kept)
    assert plan_expected_kl(world, base, KLBudget(nats)).value == pytest.approx(best, abs=1e-5)


@given(seeds, seeds)
@settings(max_examples=30, deadline=None)
def test_no_random_rival_of_the_same_cost_is_better(seed, rival):
    world, base = world_of(seed), RandomModel(seed, 2)
    levels = lay_out(world, base, world.start(), base.start())
    rng = np.random.default_rng(rival)
    value, kl = evaluate(levels, log_sigmoids(rng.normal(0, 2, size=5)))
    assert plan_expected_kl(world, base, KLBudget(kl)).value >= value - 1e-9


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_the_value_is_nondecreasing_and_concave_in_the_budget(seed):
    world, base = world_of(seed), RandomModel(seed, 2, zeros=0.1)
    values = np.array([plan_expected_kl(world, base, KLBudget(b)).value for b in np.linspace(0, 2, 9)])
    assert (np.diff(values) >= -1e-9).all()
    assert (np.diff(values, 2) <= 1e-8).all()


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_nothing_to_spend_is_the_base(seed):
    world, base = world_of(seed), RandomModel(seed, 2)
    policy = plan_expected_kl(world, base, KLBudget(0))
    for path in agent_paths(2, 2, 1):
        for history in ((), path):
            here = policy.predict(follow(policy, history)).probabilities
            np.testing.assert_allclose(here, base.predict(follow(base, history)).probabilities, atol=1e-12)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_without_a_limit_it_is_the_optimum_even_where_the_base_gives_nothing(seed):
    world, base = world_of(seed), RandomModel(seed, 2, zeros=0.5)

    def optimum(path):
        if world.turn(path) is None:
            return world.utility(path)
        if world.turn(path) is Chooser.AGENT:
            return max(optimum((*path, a)) for a in range(2))
        return sum(p * optimum((*path, o)) for o, p in enumerate(world.predict(path).probabilities))

    free = plan_expected_kl(world, base, KLBudget(inf))
    assert free.value == pytest.approx(optimum(()), rel=1e-9)
    held = plan_expected_kl(world, base, KLBudget(1e6))
    assert held.value <= free.value + 1e-9
    assert held.kl_expected_nats < inf
    assert held.price_per_nat == 0


def one_choice(utilities):
    return TreeWorld(len(utilities), 1, 1, lambda path: [1.0], lambda path: utilities[path[0]])


def test_one_choice_by_hand():
    """At price 1 the odds of the better action double from e^0 to e: KL(p, 1/2) is the budget that buys it."""
    p = np.e / (1 + np.e)
    nats = p * log(2 * p) + (1 - p) * log(2 * (1 - p))
    policy = plan_expected_kl(one_choice([1.0, 0.0]), Categorical.of([0.5, 0.5]), KLBudget(nats))
    assert policy.price_per_nat == pytest.approx(1, rel=1e-6)
    assert policy.predict(policy.start()).probabilities.tolist() == pytest.approx([p, 1 - p])


def test_among_equally_good_actions_the_base_decides():
    policy = plan_expected_kl(one_choice([1.0, 1.0, 0.0]), Categorical.of([0.1, 0.3, 0.6]), KLBudget(inf))
    assert policy.predict(policy.start()).probabilities.tolist() == pytest.approx([0.25, 0.75, 0])
    assert policy.kl_expected_nats == pytest.approx(-log(0.4))


def test_among_equally_good_actions_what_they_lead_to_is_paid_for_too():
    """The second round asks for action 1, which the base gives .1 after a 0 and .9 after a 1: odds of 1 to 9."""
    base = Switch(
        Switch(Categorical.of([0.5, 0.5]), lambda h: bool(h) and h[0].symbol == 0, Categorical.of([0.9, 0.1])),
        lambda h: bool(h) and h[0].symbol == 1,
        Categorical.of([0.1, 0.9]),
    )
    world = TreeWorld(2, 1, 2, lambda path: [1.0], lambda path: float(path[2]))
    policy = plan_expected_kl(world, base, KLBudget(inf))
    assert policy.predict(policy.start()).probabilities.tolist() == pytest.approx([0.1, 0.9])
    assert policy.kl_expected_nats == pytest.approx(-log(0.5 * 0.1 + 0.5 * 0.9))


def test_a_world_where_nothing_matters_leaves_the_base_alone():
    policy = plan_expected_kl(one_choice([2.0, 2.0]), Categorical.of([0.2, 0.8]), KLBudget(1.0))
    assert policy.predict(policy.start()).probabilities.tolist() == pytest.approx([0.2, 0.8])


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_a_base_that_misses_mass_has_a_floor_that_must_be_paid(seed):
    world, base = world_of(seed), RandomModel(seed, 2, missing=0.9)
    cheapest = plan_expected_kl(world, base, KLBudget(50)).kl_expected_nats  # some policy; the floor lies below
    floor = floor_nats(base.predict(()))
    with pytest.raises(BudgetError, match="the cheapest policy costs"):
        plan_expected_kl(world, base, KLBudget(floor / 2))
    assert floor <= cheapest + 1e-12


@given(seeds, seeds)
@settings(max_examples=20, deadline=None)
def test_no_policy_is_cheaper_than_the_floor_that_the_planner_names(seed, rival):
    world, base = world_of(seed), RandomModel(seed, 2, missing=0.9)
    levels = lay_out(world, base, world.start(), base.start())
    kl = evaluate(levels, log_sigmoids(np.random.default_rng(rival).normal(0, 2, size=5)))[1]
    assert plan_expected_kl(world, base, KLBudget(kl)).kl_expected_nats <= kl + 1e-9


def test_the_floor_by_hand():
    """One step with theta = .5 costs log 2; two steps twice that."""
    base = Categorical.of([0.25, 0.25])
    two_rounds = TreeWorld(2, 1, 2, lambda path: [1.0], lambda path: float(path[0]))
    policy = plan_expected_kl(two_rounds, base, KLBudget(2 * log(2)))
    assert policy.kl_expected_nats == pytest.approx(2 * log(2))
    assert policy.predict(policy.start()).probabilities.tolist() == pytest.approx([0.5, 0.5])
    with pytest.raises(BudgetError, match=r"costs 1\.386"):
        plan_expected_kl(two_rounds, base, KLBudget(1.38))


def test_a_base_that_gives_nothing_cannot_be_planned_on():
    with pytest.raises(BudgetError, match="costs inf"):
        plan_expected_kl(one_choice([1.0, 0.0]), Categorical.of([0, 0]), KLBudget(1e9))


def test_it_steers_around_a_place_where_the_base_gives_nothing():
    """Action 1 is worth more but leads where every action is off the base: no finite budget goes there."""

    class Dead(RandomModel):
        def predict(self, state):
            return Categorical.of([0, 0] if state[:1] == (1,) else [0.5, 0.5]).prediction

    world = TreeWorld(2, 1, 2, lambda path: [1.0], lambda path: float(path[0]))
    policy = plan_expected_kl(world, Dead(0, 2), KLBudget(100))
    assert policy.value == 0
    assert policy.kl_expected_nats == pytest.approx(log(2))


def test_after_an_answer_it_plans_on_what_the_base_has_learned():
    pair = ModelClass.of([Categorical.of([0.99, 0.01]), Categorical.of([0.01, 0.99])])
    world = TreeWorld(2, 1, 2, lambda path: [1.0], lambda path: 0.0)
    policy = plan_expected_kl(world, Pessimistic(pair, 0.1), KLBudget(20))
    tail = (Step(0, Chooser.WORLD),)
    by_itself = policy.predict(follow(policy, (Step(1, Chooser.AGENT), *tail))).probabilities
    answered = policy.predict(follow(policy, (Step(1, Chooser.DEMONSTRATOR), *tail))).probabilities
    assert by_itself.tolist() == pytest.approx([0.5, 0.5])
    assert answered.tolist() == pytest.approx([0.01, 0.99])


def test_where_no_action_is_due_it_has_none():
    policy = plan_expected_kl(one_choice([1.0, 0.0]), Categorical.of([0.5, 0.5]), KLBudget(1))
    assert policy.predict(follow(policy, (Step(0, Chooser.AGENT),))).missing == 1
    with pytest.raises(InputError, match="the world has 2"):
        plan_expected_kl(one_choice([1.0, 0.0]), Categorical.of([1.0]), KLBudget(1))


@pytest.mark.parametrize("nats", [0.0, 0.01, 0.5, 3.0, inf])
def test_compiled_passes_find_the_same_plan(nats):
    levels = random_levels(np.random.default_rng(0), 2, 2, 5)
    slow, fast = (best_within_expected_kl(levels, nats, compiled) for compiled in (False, True))
    assert fast.price_per_nat == pytest.approx(slow.price_per_nat, rel=1e-9)
    assert (fast.value, fast.kl_expected_nats) == pytest.approx((slow.value, slow.kl_expected_nats), abs=1e-12)
    assert fast.kl_expected_nats <= nats + 1e-9


def test_without_the_extra_compiled_passes_are_refused_and_others_go_on(monkeypatch):
    levels = random_levels(np.random.default_rng(0), 2, 2, 2)
    monkeypatch.setitem(sys.modules, "mightnt.planners.kernels", None)
    with pytest.raises(InputError, match=r'pip install "mightnt\[theory\]"'):
        best_within_expected_kl(levels, 0.1, compiled=True)
    assert best_within_expected_kl(levels, 0.1).kl_expected_nats == pytest.approx(0.1)


def test_a_budget_that_is_none_is_refused_for_arrays_too():
    levels = random_levels(np.random.default_rng(0), 2, 2, 2)
    for nats in (-1.0, nan):
        with pytest.raises(BudgetError, match="the budget is"):
            best_within_expected_kl(levels, nats)


@pytest.mark.slow
def test_a_million_leaves():
    """4 ** 10 of them: the budget is spent, and the value lies between the base's and the best."""
    levels = random_levels(np.random.default_rng(0), 2, 2, 10)
    plan = best_within_expected_kl(levels, 1.0, compiled=True)
    assert plan.kl_expected_nats == pytest.approx(1.0, abs=1e-9)
    base, best = (evaluate(levels, log_policy_at_price(levels, price))[0] for price in (inf, 0.0))
    assert base < plan.value < best


def test_a_small_gain_at_a_low_price_keeps_its_digits():
    """Utilities 1 and 1 + 2^-30 at price 2^-30: the odds change by a factor e, to the last digits."""
    levels = lay_out(one_choice([1.0, 1.0 + 2.0**-30]), Categorical.of([0.3, 0.7]), (), None)
    log_row = log_policy_at_price(levels, 2.0**-30)[0][0]
    assert log_row[1] - log_row[0] == pytest.approx(1 + log(7 / 3), abs=1e-12)
