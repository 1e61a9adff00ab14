"""An episode pays for every decision what it costs, never more than it has, and asks when it must."""

from math import inf, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.bases.pessimistic import Pessimistic
from mightnt.constraints.asking import charge_asking_nats, with_answers
from mightnt.constraints.budget import KLBudget
from mightnt.constraints.kl import kl_step_nats
from mightnt.desk.answer import Recorded
from mightnt.desk.play import play
from mightnt.errors import InputError, NoAnswer
from mightnt.history import Chooser
from mightnt.models.categorical import Categorical
from mightnt.models.finite import ModelClass
from mightnt.planners.plan import plan
from mightnt.prediction import Prediction, follow
from mightnt.worlds.tree import TreeWorld, random_tree
from tests.strategies import RandomModel, seeds

HORIZON = 4


def counting(horizon=HORIZON):
    """Nothing to observe; the utility counts the ones."""
    return TreeWorld(2, 1, horizon, lambda path: [1.0], lambda path: float(sum(path[::2])))


def decisions(record):
    return [step for step in record.steps if step.chooser is not Chooser.WORLD]


@given(seeds, st.sampled_from([0.0, 0.4, 2.0, inf]), st.sampled_from(["floor", "charged"]))
@settings(max_examples=60, deadline=None)
def test_every_decision_is_charged_what_it_costs_and_no_episode_overspends(seed, nats, asking):
    world = random_tree(np.random.default_rng(seed), 2, 2, HORIZON)
    mu = RandomModel(seed + 2, 2)
    base = RandomModel(seed + 1, 2, missing=0.3)
    policy = RandomModel(seed, 2, missing=0.5 if asking == "charged" else 0.0)
    record = play(
        policy, world, seed=seed, desk=Recorded(mu), base=base, budget=KLBudget(nats), asking=asking, demonstrator=mu
    )
    assert record.spent_nats <= nats + 1e-9
    for t, step in enumerate(record.steps):
        if step.chooser is Chooser.WORLD:
            assert (step.kl_base_nats, step.kl_demonstrator_nats, step.asking_probability) == (0, 0, 0)
            continue
        past = record.history[:t]
        beta, tau = (model.predict(follow(model, past)) for model in (base, mu))
        spent = sum(s.kl_base_nats for s in record.steps[: t + 1])
        assert step.left_nats == pytest.approx(max(0.0, nats - spent), abs=1e-9)
        if step.policy_log_probabilities is None:
            assert (step.kl_base_nats, step.kl_demonstrator_nats, step.asking_probability) == (0, 0, 1)
            assert step.chooser is Chooser.DEMONSTRATOR
            continue
        acting = Prediction(np.array(step.policy_log_probabilities))
        cost = kl_step_nats(acting, beta) if asking == "floor" else charge_asking_nats(acting, beta)
        assert step.kl_base_nats == pytest.approx(cost, abs=1e-12)
        assert step.kl_demonstrator_nats == pytest.approx(kl_step_nats(with_answers(acting, tau), tau), abs=1e-12)
        assert step.asking_probability == pytest.approx(acting.missing, abs=1e-9)
    assert record.utility == world.utility(tuple(step.symbol for step in record.steps))


def test_the_same_seed_is_the_same_episode_and_another_is_not():
    world, policy = random_tree(np.random.default_rng(0), 2, 2, HORIZON), RandomModel(1, 2)
    assert play(policy, world, seed=5).steps == play(policy, world, seed=5).steps
    assert len({play(policy, world, seed=seed).history for seed in range(10)}) > 1


def test_the_policy_that_is_scored_is_the_policy_that_acts():
    policy, n = Categorical.of([0.2, 0.8]), 4000
    records = [play(policy, counting(1), seed=seed, base=Categorical.of([0.5, 0.5])) for seed in range(n)]
    assert np.mean([r.utility for r in records]) == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / n))


def test_it_goes_back_to_the_base_when_the_policy_cannot_be_paid():
    """A step to (0, 1) from (.5, .5) costs log 2: one fits into 1 nat, then the base acts for nothing."""
    policy, base = Categorical.of([0, 1]), Categorical.of([0.5, 0.5])
    record = play(policy, counting(), seed=0, base=base, budget=KLBudget(1.0))
    charged = [step.kl_base_nats for step in decisions(record)]
    assert charged == pytest.approx([log(2), 0, 0, 0])
    assert record.n_asks == 0
    assert decisions(record)[-1].left_nats == pytest.approx(1 - log(2))


def test_with_an_charged_the_base_to_go_back_to_is_the_one_that_asks():
    """(0, 1) from (.5, .25) costs log 4 + log 1.25 > 1 nat; the base itself costs log 1.25 a decision: four fit, not five."""
    base = Categorical.of([0.5, 0.25])
    record = play(
        Categorical.of([0, 1]),
        counting(5),
        seed=0,
        base=base,
        budget=KLBudget(1.0),
        desk=Recorded([0] * 5),
        asking="charged",
    )
    assert [step.kl_base_nats for step in decisions(record)] == pytest.approx([*[log(1.25)] * 4, 0])
    assert [step.asking_probability for step in decisions(record)] == pytest.approx([*[0.25] * 4, 1])


def test_it_asks_when_even_the_floor_cannot_be_paid():
    """A base that misses half costs log 2 a step at least: with 1 nat the first step is paid and the others are asked."""
    base = Categorical.of([0.25, 0.25])
    record = play(
        Categorical.of([0.5, 0.5]), counting(), seed=0, base=base, budget=KLBudget(1.0), desk=Recorded([1, 0, 1])
    )
    assert [step.chooser for step in decisions(record)] == [Chooser.AGENT, *[Chooser.DEMONSTRATOR] * 3]
    assert [step.symbol for step in decisions(record)][1:] == [1, 0, 1]
    assert [step.asking_probability for step in decisions(record)] == [0, 1, 1, 1]
    assert record.spent_nats == pytest.approx(log(2))


def test_a_base_that_gives_nothing_is_asked_about():
    record = play(
        Categorical.of([0.5, 0.5]),
        counting(1),
        seed=0,
        base=Categorical.of([0, 0]),
        budget=KLBudget(9),
        desk=Recorded([1]),
    )
    assert [step.chooser for step in decisions(record)] == [Chooser.DEMONSTRATOR]


def test_without_a_limit_even_the_impossible_is_paid():
    record = play(Categorical.of([0, 1]), counting(2), seed=0, base=Categorical.of([1, 0]))
    assert [step.kl_base_nats for step in decisions(record)] == [inf, inf]
    assert record.steps[-1].left_nats == inf


def test_the_pessimistic_base_itself_asks_with_the_probability_it_misses():
    pair = ModelClass.of([Categorical.of([0.8, 0.2]), Categorical.of([0.3, 0.7])])
    base, n = Pessimistic(pair, 0.05), 3000
    desk = Recorded(Categorical.of([0.8, 0.2]))
    records = [play(base, counting(1), seed=seed, desk=desk, asking="charged") for seed in range(n)]
    first = [decisions(record)[0] for record in records]
    assert [step.asking_probability for step in first] == pytest.approx([0.5] * n)
    assert [step.kl_base_nats for step in first] == pytest.approx([log(1.5)] * n)
    assert np.mean([r.n_asks for r in records]) == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / n))


def test_an_answer_is_evidence_for_the_base_and_an_own_step_is_not():
    pair = ModelClass.of([Categorical.of([0.99, 0.01]), Categorical.of([0.01, 0.99])])
    base = Pessimistic(pair, 0.05)  # misses .98 until it has seen the demonstrator act once
    record = play(base, counting(3), seed=0, desk=Recorded([1] * 3), asking="charged")
    first, second, third = decisions(record)
    assert first.chooser is Chooser.DEMONSTRATOR
    assert first.asking_probability == pytest.approx(0.98)
    assert second.asking_probability == pytest.approx(0, abs=1e-9)
    assert third.chooser is Chooser.AGENT


def test_a_planned_policy_brings_its_base_and_budget():
    base = Categorical.of([0.9, 0.1])
    policy = plan(counting(2), base, KLBudget(0.5))
    record = play(policy, counting(2), seed=1)
    assert record.limit_nats == 0.5
    assert record.steps[0].kl_base_nats == pytest.approx(kl_step_nats(policy.predict(policy.start()), base.prediction))
    assert record.config == {"policy": "SoftPolicy", "base": "Categorical", "world": "TreeWorld"}


def test_without_a_base_the_policy_is_its_own():
    assert play(Categorical.of([0.9, 0.1]), counting(), seed=0).spent_nats == 0


def test_no_desk_no_answer_no_act():
    base, budget = Categorical.of([0.25, 0.25]), KLBudget(0)
    with pytest.raises(NoAnswer, match="there is no desk"):
        play(Categorical.of([0.5, 0.5]), counting(), seed=0, base=base, budget=budget)
    with pytest.raises(NoAnswer, match="question 1"):
        play(Categorical.of([0.5, 0.5]), counting(), seed=0, base=base, budget=budget, desk=Recorded([]))
    with pytest.raises(InputError, match=r"answered 2; allowed are 0\.\.1"):
        play(Categorical.of([0.5, 0.5]), counting(), seed=0, base=base, budget=budget, desk=Recorded([2]))


def test_a_policy_that_may_ask_needs_the_account_for_it():
    with pytest.raises(InputError, match="charged"):
        play(Categorical.of([0.5, 0.4]), counting(), seed=0, base=Categorical.of([0.5, 0.5]))
    with pytest.raises(InputError, match="the account of asking is 'free'"):
        play(Categorical.of([0.5, 0.5]), counting(), seed=0, asking="free")
