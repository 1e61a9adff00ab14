"""The adversarial reward: the surprise of a turn, capped, whoever spoke it, each episode on its own."""

import numpy as np
import pytest

from mightnt.lm.adversary import FULL_REWARD_NATS, AdversarialScene
from mightnt.lm.scenes import ChatScene
from mightnt.worlds.chat import words
from mightnt.worlds.chat.demonstrator import ChatDemonstrator

ROW = np.array([0])
GREET = words.CATEGORIES.index("greet")


def say(scene, rows, *turns):
    """Turns of equal length, one a row, token by token."""
    for tokens in zip(*turns, strict=True):
        scene.hear(np.array(rows), np.array(tokens))


def test_words_that_nobody_says_there_cost_the_typo_each():
    """A word that begins no template is a typo, mu = e / n; with four more of them the turn earns everything."""
    scene = AdversarialScene()
    scene.start(1, np.random.default_rng(0))
    mu = ChatDemonstrator()
    typo = -np.log(mu.typo_probability / mu.n_actions)
    assert typo == pytest.approx(np.log(1e4 * mu.n_actions))
    said = scene.demonstrator(ROW)[0, words.N_GIVEN_MARKS :]
    never = words.N_GIVEN_MARKS + int(np.flatnonzero(said < -13.0)[0])
    say(scene, [0], [never])
    assert scene.score(ROW, [[]])[0] == pytest.approx(typo / FULL_REWARD_NATS)
    say(scene, [0], [never] * 4)
    assert scene.surprise_nats[0] > FULL_REWARD_NATS
    assert scene.score(ROW, [[]]) == [1.0]


def test_the_reward_is_the_surprise_of_the_turn_alone():
    """By the demonstrator's own filter, computed apart; the next turn begins at nothing."""
    rng, mu, scene = np.random.default_rng(1), ChatDemonstrator(), AdversarialScene()
    scene.start(2, rng)
    turns = [mu.sample_turn(GREET, False, rng) for _ in range(40)]
    one, other = next((a, b) for a in turns for b in turns if a != b and len(a) == len(b))
    say(scene, [0, 1], one, other)
    expected = []
    for turn in (one, other):
        state, surprise = mu.begin_turn(np.array([GREET]), np.array([False])), 0.0
        for token in turn:
            surprise -= mu.predict(state)[0, token]
            state = mu.advance(state, np.array([token]))
        expected.append(surprise / 50.0)
    rows = np.array([0, 1])
    assert min(expected) > 0
    assert scene.score(rows, [[], []]) == pytest.approx(expected)
    assert scene.score(rows[::-1], [[], []]) == pytest.approx(expected[::-1])
    scene.replies(ROW, [one])
    scene.begin_turn(ROW)
    assert scene.surprise_nats[0] == 0.0
    assert scene.surprise_nats[1] == pytest.approx(50 * expected[1])


@pytest.mark.parametrize("rounds", [6, 12])
def test_everything_else_is_the_chat(rounds):
    plain, hostile = ChatScene(rounds=rounds), AdversarialScene(rounds=rounds)
    assert hostile.n_turns == rounds
    assert plain.start(3, np.random.default_rng(5)) == hostile.start(3, np.random.default_rng(5))
    rows = np.array([0, 2])
    turn = ChatDemonstrator().sample_turn(GREET, False, np.random.default_rng(2))
    for token in turn:
        for scene in (plain, hostile):
            scene.hear(rows, np.array([token, token]))
        assert (plain.demonstrator(rows) == hostile.demonstrator(rows)).all()
    assert plain.replies(rows, [turn, turn]) == hostile.replies(rows, [turn, turn])
    assert (plain.utility() == hostile.utility()).all()
