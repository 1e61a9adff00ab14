"""A protected environment: what is charged, what becomes a question, and that the charges bound the distance."""

import itertools
from math import inf, log

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.bases.pessimistic import Pessimistic
from mightnt.constraints.budget import KLBudget
from mightnt.desk.answer import Recorded
from mightnt.desk.gymnasium import ProtectedEnv, demonstrate
from mightnt.errors import InputError, NoAnswer
from mightnt.history import Chooser, Step
from mightnt.models.after import After
from mightnt.models.categorical import Categorical
from mightnt.models.finite import ModelClass
from mightnt.models.tabular import ByObservation, PessimisticTable, demonstrated_pairs
from mightnt.worlds.grid import ACTIONS, START, ShortcutGrid, safe_demonstrator

ASK = 2
HORIZON = 2


class Paths(gymnasium.Env):
    """Two actions, ``HORIZON`` rounds; the observation numbers the actions so far. It remembers what was done."""

    action_space = gymnasium.spaces.Discrete(2)
    observation_space = gymnasium.spaces.Discrete(2 ** (HORIZON + 1) - 1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.done = ()
        return 0, {}

    def step(self, action):
        self.done = (*self.done, action)
        here = 2 ** len(self.done) - 1 + sum(a * 2**i for i, a in enumerate(self.done))
        return here, 1.0, len(self.done) == HORIZON, False, {}


def protected(base, limit_nats, answers=(0,) * HORIZON, **more):
    return ProtectedEnv(Paths(), base, KLBudget(limit_nats), Recorded(answers), **more)


def test_an_action_costs_minus_its_log_probability_and_asking_is_free():
    env = protected(Categorical.of([0.5, 0.25]), 3.0, answers=(1,), reward_per_ask=-0.25)
    assert env.action_space == gymnasium.spaces.Discrete(3)
    assert env.reset()[1] == {"left_nats": 3.0}
    assert [env.price_nats(a) for a in range(3)] == pytest.approx([log(2), log(4), 0.0])
    _, reward, _, _, info = env.step(np.int64(1))
    assert reward == 1.0
    assert info == {"asked": False, "action": 1, "charged_nats": log(4), "left_nats": 3.0 - log(4)}
    _, reward, _, _, info = env.step(ASK)
    assert reward == 0.75
    assert info == {"asked": True, "action": 1, "charged_nats": 0.0, "left_nats": 3.0 - log(4)}


@pytest.mark.parametrize("limit", [10.0, inf])
def test_what_the_base_excludes_becomes_a_question_whatever_the_budget(limit):
    env = protected(Categorical.of([0.5, 0.0]), limit)
    env.reset()
    info = env.step(1)[4]
    assert (info["asked"], info["action"], info["charged_nats"], info["left_nats"]) == (True, 0, 0.0, limit)


def test_what_cannot_be_paid_becomes_a_question_and_a_new_episode_has_a_full_budget():
    env = protected(Categorical.of([0.5, 0.5]), 1.0, answers=(1, 1))
    for _ in range(2):
        env.reset()
        assert env.step(0)[4]["asked"] is False
        info = env.step(0)[4]
        assert (info["asked"], info["action"], info["left_nats"]) == (True, 1, pytest.approx(1.0 - log(2)))


def test_no_answer_no_act():
    env = protected(Categorical.of([0.5, 0.0]), 5.0, answers=())
    env.reset()
    with pytest.raises(NoAnswer):
        env.step(1)
    assert env.unwrapped.done == ()
    assert env.step(0)[4]["left_nats"] == pytest.approx(5.0 - log(2))


def test_the_question_shows_the_episode_and_is_numbered():
    questions = []

    class Listening:
        def answer(self, question):
            questions.append(question)
            return 0

    env = ProtectedEnv(Paths(), Categorical.of([0.9, 0.0]), KLBudget(1.0), Listening())
    env.reset(seed=7)
    env.step(0)
    env.step(ASK)
    env.reset()
    env.step(1)
    env.step(1)
    world, agent, demonstrator = Chooser.WORLD, Chooser.AGENT, Chooser.DEMONSTRATOR
    assert [(q.n_symbols, q.number, q.seed) for q in questions] == [(2, 0, 7), (2, 0, 8), (2, 1, 8)]
    assert questions[0].history == (Step(0, world), Step(0, agent), Step(1, world))
    assert questions[2].history == (Step(0, world), Step(0, demonstrator), Step(1, world))


def test_answers_are_evidence_in_later_episodes_too():
    """A learner that always asks first: the price of the demonstrated action falls with every answer."""
    table, prices = PessimisticTable(Paths.observation_space.n, 2, 0.01), []
    env = protected(table, 3.0, answers=(1, 1))
    for _ in range(6):
        env.reset()
        prices.append(env.price_nats(1))
        env.step(ASK)
    assert prices == pytest.approx([inf, *(log(100) / n for n in range(1, 6))])
    assert env.price_nats(0) == inf


def test_its_own_actions_are_no_evidence():
    env = protected(After(PessimisticTable(7, 2, 0.1), (Step(0, Chooser.WORLD), Step(1, Chooser.DEMONSTRATOR))), 9.0)
    for _ in range(3):
        env.reset()
        assert env.step(1)[4]["charged_nats"] == pytest.approx(log(10))


# the account bounds the distance

rows = st.lists(st.integers(0, 10), min_size=2, max_size=2).filter(any)


def everything(env_of, pi, mu):
    """Distribution of what is done, and the expected charges, by playing every choice and every answer."""
    system, expected, most = {}, 0.0, 0.0
    for choices in itertools.product(range(3), repeat=HORIZON):
        for answers in itertools.product(range(2), repeat=HORIZON):
            env = env_of(Listed(answers))
            here, _ = env.reset()
            probability, charged = 1.0, 0.0
            for t, choice in enumerate(choices):
                at = here
                probability *= pi[at][choice]
                here, _, _, _, info = env.step(choice)
                probability *= mu[at][answers[t]] if info["asked"] else 0.5
                charged += info["charged_nats"]
            done = env.unwrapped.done
            system[done] = system.get(done, 0.0) + probability
            expected += probability * charged
            most = max(most, charged)
    return system, expected, most


class Listed:
    """Answers by the round, not by the number of the question."""

    def __init__(self, answers):
        self.answers = answers

    def answer(self, question):
        return self.answers[len(question.history) // 2]


def kl(system, mu):
    total = 0.0
    for done, p in system.items():
        at, q = 0, 1.0
        for t, action in enumerate(done):
            q *= mu[at][action]
            at = 2 ** (t + 1) - 1 + sum(a * 2**i for i, a in enumerate(done[: t + 1]))
        total += p * (log(p) - log(q) if q > 0 else inf) if p > 0 else 0.0
    return total


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([0.0, 0.4, 1.5, inf]))
def test_the_charges_bound_the_distance_and_the_budget_bounds_the_charges(data, limit):
    """Exactly, over every choice of the learner and every answer, where the base lies below the demonstrator."""
    places = range(2**HORIZON - 1)
    mu = [np.array(data.draw(rows)) for _ in places]
    mu = [row / row.sum() for row in mu]
    nu = [row * np.array(data.draw(st.tuples(*[st.sampled_from([0.0, 0.3, 1.0])] * 2))) for row in mu]
    pi = [np.array(data.draw(st.tuples(*[st.integers(0, 4)] * 3).filter(any)), float) for _ in places]
    pi = [row / row.sum() for row in pi]
    base = ByObservation.of([*nu, *[[0.0, 0.0]] * 4])
    system, expected, most = everything(lambda d: ProtectedEnv(Paths(), base, KLBudget(limit), d), pi, mu)
    assert sum(system.values()) == pytest.approx(1.0)
    assert kl(system, mu) <= expected + 1e-9
    assert most <= limit + 1e-9


def test_the_bound_is_tight_for_a_learner_without_dice():
    mu, pi = [np.array([0.2, 0.8])] * 3, [np.array([1.0, 0.0, 0.0])] * 3
    base = Categorical.of(mu[0])
    system, expected, _ = everything(lambda d: ProtectedEnv(Paths(), base, KLBudget(9.0), d), pi, mu)
    assert kl(system, mu) == pytest.approx(expected) == pytest.approx(2 * log(5))


def test_the_bound_needs_a_base_below_the_demonstrator():
    mu, pi = [np.array([0.2, 0.8])] * 3, [np.array([1.0, 0.0, 0.0])] * 3
    base = Categorical.of([0.9, 0.1])
    system, expected, _ = everything(lambda d: ProtectedEnv(Paths(), base, KLBudget(9.0), d), pi, mu)
    assert kl(system, mu) > expected + 1


# in the gridworld


def test_the_shortcut_cannot_be_bought_and_the_safe_way_can():
    demonstrator = safe_demonstrator()
    shown = demonstrate(ShortcutGrid(), demonstrator, n_episodes=40, seed=1)
    base = After(PessimisticTable(15, 4, 0.01), shown)
    env = ProtectedEnv(ShortcutGrid(slip=0.0), base, KLBudget(5.0), Recorded(demonstrator))
    for answer_seed in range(5):
        here, _ = env.reset(seed=answer_seed)
        assert here == START
        info = env.step(ACTIONS.index(">"))[4]
        assert info["asked"]
        assert info["action"] != ACTIONS.index(">")
    env.reset()
    steps = [env.step(ACTIONS.index(arrow)) for arrow in "^^>>>>vv"]
    assert not any(step[4]["asked"] for step in steps)
    assert steps[-1][2]
    assert steps[-1][4]["left_nats"] == pytest.approx(5.0 - sum(step[4]["charged_nats"] for step in steps))


def test_a_random_learner_asks_less_and_less_and_never_enters_the_trap():
    """With the same dice in every episode of a block only the answers can make the difference."""
    demonstrator, rng = safe_demonstrator(), np.random.default_rng(0)
    env = ProtectedEnv(ShortcutGrid(), PessimisticTable(15, 4, 0.01), KLBudget(6.0), Recorded(demonstrator))
    asks = []
    for episode in range(200):
        here, over, n_asks = env.reset(seed=episode)[0], False, 0
        while not over:
            action = (
                int(np.argmax(demonstrator.rows[here].probabilities)) if rng.random() < 0.9 else int(rng.integers(4))
            )
            here, _, terminated, truncated, info = env.step(action)
            over, n_asks = terminated or truncated, n_asks + info["asked"]
            assert not info["trapped"]
        asks.append(n_asks)
    assert np.mean(asks[:20]) > 3 * np.mean(asks[-20:])


def test_any_base_can_be_put_beneath():
    members = [ByObservation.of(np.tile(row, (7, 1))) for row in ([0.5, 0.5], [0.9, 0.1])]
    env = protected(Pessimistic(ModelClass.of(members), 0.01), 3.0)
    env.reset()
    assert env.price_nats(1) == pytest.approx(-log(0.1))
    assert env.price_nats(0) == pytest.approx(log(2))


def test_demonstrations_are_those_of_the_demonstrator():
    demonstrator = ByObservation.of(np.tile([0.25, 0.75], (7, 1)))
    shown = demonstrate(Paths(), demonstrator, n_episodes=2000, seed=4)
    assert shown == demonstrate(Paths(), demonstrator, n_episodes=2000, seed=4)
    assert len(shown) == 2000 * (2 * HORIZON + 1)
    actions = demonstrated_pairs(shown)[1]
    assert abs(actions.mean() - 0.75) < 5 * np.sqrt(0.25 * 0.75 / len(actions))
    with pytest.raises(InputError, match="does not say"):
        demonstrate(Paths(), Categorical.of([0.0, 0.0]), 1, seed=0)


def test_refusals():
    with pytest.raises(InputError, match="3 actions"):
        protected(Categorical.of([0.2, 0.3, 0.5]), 1.0)
    env = protected(Categorical.of([0.5, 0.5]), 1.0)
    env.reset()
    for action in (3, -1):
        with pytest.raises(InputError, match="allowed"):
            env.step(action)
    boxed = Paths()
    boxed.observation_space = gymnasium.spaces.Box(0, 1)
    with pytest.raises(InputError, match="observation space"):
        ProtectedEnv(boxed, Categorical.of([0.5, 0.5]), KLBudget(1.0), Recorded([0]))
