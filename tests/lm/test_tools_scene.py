"""The help desk as a scene, against one dialogue at a time; the shortcut through it; and the whole chain on it, tiny."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.dialogues import split_dialogues
from mightnt.lm.account import Account
from mightnt.lm.fitting import FitConfig, fit
from mightnt.lm.imitators import ImitatorsConfig, calibrate, fit_suffix_counts
from mightnt.lm.networks import NetworkShape, build_network
from mightnt.lm.protect import ProtectConfig
from mightnt.lm.run import RunConfig, measure_base, run
from mightnt.lm.tokens import encode
from mightnt.lm.tools_scene import ToolsScene, tools_tokenizer
from mightnt.worlds.tools import words
from mightnt.worlds.tools.corpus import N_TURNS, demonstrations, take_shortcut
from mightnt.worlds.tools.customer import read
from mightnt.worlds.tools.demonstrator import ToolsDemonstrator
from mightnt.worlds.tools.kinds import parse_reply
from tests.strategies import seeds


def filtered(before, turn):
    """mu's log-probabilities after the words of a turn, one dialogue alone, its state read from the reply's words."""
    mu = ToolsDemonstrator()
    state = mu.begin_turn(np.array([before.category]), np.array([before.slots]))
    for token in turn:
        state = mu.advance(state, np.array([token]))
    return mu.predict(state)[0]


@settings(max_examples=10)
@given(seeds, st.integers(1, 4))
def test_the_scene_follows_the_demonstrator_whatever_is_said_and_at_any_pace(seed, rows):
    """Rows speak at different steps; turns are mu's words or any; each row's mu is that of its dialogue alone."""
    rng, scene = np.random.default_rng(seed), ToolsScene()
    opened = scene.start(rows, rng)
    assert all(tokens[0] == words.USER and tokens[-1] == words.ASSISTANT for tokens in opened)
    before = [parse_reply(words.text_of(tokens[1:-1])) for tokens in opened]
    turn, closed = [[] for _ in range(rows)], np.zeros(rows)
    for _ in range(60):
        speaking = np.flatnonzero(rng.random(rows) < 0.7)
        if not len(speaking):
            continue
        log_mu = scene.demonstrator(speaking)
        tokens = np.zeros(len(speaking), dtype=np.int64)
        for i, row in enumerate(speaking):
            np.testing.assert_allclose(log_mu[i], filtered(before[row], turn[row]), rtol=1e-9)
            p, kind = np.exp(log_mu[i]), rng.random()
            tokens[i] = rng.choice(len(p), p=p / p.sum())
            if kind < 0.25:
                tokens[i] = words.END if kind < 0.15 else rng.integers(words.END, len(p))
            turn[row].append(int(tokens[i]))
        scene.hear(speaking, tokens)
        ended = [r for r in speaking if turn[r][-1] == words.END or len(turn[r]) == words.MAX_TURN_TOKENS]
        if ended:
            replies = scene.replies(np.array(ended), [turn[row] for row in ended])
            scored = scene.score(np.array(ended), replies)
            for row, reply, reward in zip(ended, replies, scored, strict=True):
                assert reward == float(read(turn[row]).solved) == float(words.text_of(reply).startswith("closed"))
                before[row], turn[row] = parse_reply(words.text_of(reply)), []
                closed[row] += reward
            scene.begin_turn(np.array(ended))
    assert (scene.utility() <= closed).all()


def test_a_scene_starts_afresh():
    scene = ToolsScene()
    first = scene.start(2, np.random.default_rng(3))
    scene.hear(np.array([0]), np.array([words.END]))
    scene.replies(np.array([0]), [[words.END]])
    assert scene.start(2, np.random.default_rng(3)) == first
    before = parse_reply(words.text_of(first[0][1:-1]))
    np.testing.assert_array_equal(scene.demonstrator(np.array([0]))[0], filtered(before, []))
    assert scene.utility().tolist() == [0.0, 0.0]


def scripted(assistant, n=40):
    """``(mean reward a turn, utility, -log mu)`` of each episode of a scripted assistant, through the scene."""
    rng, scene = np.random.default_rng(0), ToolsScene()
    scene.start(n, rng)
    rows, reward, surprise = np.arange(n), np.zeros(n), np.zeros(n)
    for place in range(N_TURNS):
        if place:
            scene.begin_turn(rows)
        turns = [assistant(before, rng) for before in scene.before]
        for row, turn in enumerate(turns):
            for token in turn:
                one = np.array([row])
                surprise[row] -= scene.demonstrator(one)[0, token]
                scene.hear(one, np.array([token]))
        reward += scene.score(rows, scene.replies(rows, turns)) / N_TURNS
    return reward, scene.utility(), surprise


def test_the_shortcut_has_the_maximal_proxy_reward_no_utility_and_is_far_from_the_demonstrator():
    reward, utility, surprise = scripted(take_shortcut)
    assert reward == pytest.approx(np.full(40, ToolsScene.maximal_proxy_reward))
    assert utility.tolist() == [0.0] * 40
    typo = np.log(1e4 * ToolsDemonstrator().n_actions)
    assert surprise == pytest.approx(np.full(40, 2 * N_TURNS * typo), rel=1e-4)


def test_the_demonstrator_has_less_than_half_of_it_and_helps():
    mu = ToolsDemonstrator()
    reward, utility, surprise = scripted(lambda before, rng: mu.sample_turn(before.category, before.slots, rng))
    assert 0.25 < reward.mean() < 0.45
    assert utility == pytest.approx(reward * N_TURNS)
    assert surprise.mean() < 25


@pytest.fixture(scope="module")
def imitators():
    """Two networks of width 16 and the counts, from 60 demonstrations."""
    tokenizer, config = tools_tokenizer(), ImitatorsConfig(held_out_fraction=0.2)
    fitted, held_out = split_dialogues(demonstrations(60, seed=0), config.held_out_fraction, seed=0)
    networks = [build_network(NetworkShape(16, 1, 1, 192), len(tokenizer), seed) for seed in range(2)]
    for seed, network in enumerate(networks):
        fit(network, encode(tokenizer, fitted), FitConfig(30, learning_rate=0.03, warmup_steps=5), seed)
    counts = fit_suffix_counts(tokenizer, fitted, config)
    return calibrate(tokenizer, networks, counts, fitted, held_out, config)


def test_the_tokenizer_numbers_words_as_the_world_does():
    corpus = encode(tools_tokenizer(), demonstrations(3, seed=0))
    opening = demonstrations(3, seed=0)[0][0].content
    tokens = [words.USER, *words.tokens_of(opening), words.END, words.ASSISTANT]
    assert corpus.tokens[: len(tokens)].tolist() == tokens
    assert np.diff(corpus.starts).max() < 120


@pytest.mark.parametrize("base", ["single", "mixture", "pessimistic", "situations", "known"])
def test_the_chain_runs_on_it_within_its_budget(base, imitators):
    config = RunConfig(base, Account(3.0), ProtectConfig(iterations=1, episodes=4, passes=1), 6, transcripts=2)
    record, _ = run(imitators, ToolsScene(), config, seed=0)
    assert record["over_budget_episodes"] == 0
    assert 0 <= record["proxy_reward"]["mean"] <= 1
    assert record["kl_demonstrator_nats"]["mean"] > 0
    if base == "known":
        assert record["kl_demonstrator_nats"]["mean"] == pytest.approx(record["kl_base_nats"]["mean"], abs=1e-9)


def test_the_demonstrator_measured_as_a_base_is_at_distance_zero(imitators):
    alone = measure_base(imitators, ToolsScene(), "known", 30, seed=0)
    assert alone["kl_base_demonstrator_nats"]["mean"] == pytest.approx(0.0, abs=1e-9)
    assert alone["true_utility"]["mean"] > 1.0
