"""The chat's other side and its demonstrator, against one chat at a time; openings; a language model as the other speaker."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.dialogues import Message
from mightnt.errors import InputError
from mightnt.lm.account import Account
from mightnt.lm.episodes import play_episodes
from mightnt.lm.run import RunConfig, cast_for, new_actor
from mightnt.lm.scenes import ChatScene, HarmlessScene, LanguageScene, openings
from mightnt.lm.tokens import word_tokenizer
from mightnt.worlds.chat import words
from mightnt.worlds.chat.demonstrator import ChatDemonstrator, template_prior
from mightnt.worlds.chat.student import Student, after, read
from tests.strategies import seeds


def category_of(reply):
    """What a reply is like, from its words alone."""
    said = tuple(words.vocabulary()[token] for token in reply[:-1])
    fitting = {
        category
        for category, variants in words.REPLIES.items()
        for variant in variants
        if len(said) == len(words.positions(variant))
        and all(word in choices for word, choices in zip(said, words.positions(variant), strict=True))
    }
    assert reply[-1] == words.END
    assert len(fitting) == 1, said
    return words.CATEGORIES.index(fitting.pop())


def filtered(category, second_half, turn):
    """mu's log-probabilities after the words of a turn, one chat alone."""
    mu = ChatDemonstrator()
    state = mu.begin_turn(np.array([category]), np.array([second_half]))
    for token in turn:
        state = mu.advance(state, np.array([token]))
    return mu.predict(state)[0]


@settings(max_examples=10)
@given(seeds, st.integers(1, 4), st.sampled_from([2, 6, 12]))
def test_the_chat_scene_follows_the_demonstrator_whatever_is_said_and_at_any_pace(seed, rows, rounds):
    """Rows speak at different steps; turns are mu's words or any; each row's mu is that of its chat alone."""
    rng = np.random.default_rng(seed)
    scene = ChatScene(rounds=rounds)
    assert scene.n_turns == rounds
    opened = scene.start(rows, rng)
    assert all(tokens[0] == words.USER and tokens[-1] == words.ASSISTANT for tokens in opened)
    category = [category_of(tokens[1:-1]) for tokens in opened]
    assert category == [words.CATEGORIES.index("greet")] * rows
    turn, round_, students = [[] for _ in range(rows)], [0] * rows, [Student() for _ in range(rows)]
    for _ in range(70):
        speaking = np.flatnonzero(rng.random(rows) < 0.7)
        if not len(speaking):
            continue
        log_mu = scene.demonstrator(speaking)
        tokens = np.zeros(len(speaking), dtype=np.int64)
        for i, row in enumerate(speaking):
            expected = filtered(category[row], 2 * round_[row] >= rounds, turn[row])
            np.testing.assert_allclose(log_mu[i], expected, rtol=1e-9)
            p, kind = np.exp(log_mu[i]), rng.random()
            tokens[i] = rng.choice(len(p), p=p / p.sum())
            if kind < 0.25:
                tokens[i] = words.END if kind < 0.2 else rng.integers(words.END, len(p))
            turn[row].append(int(tokens[i]))
        scene.hear(speaking, tokens)
        ended = np.array(
            [row for row in speaking if turn[row][-1] == words.END or len(turn[row]) == 15], dtype=np.int64
        )
        if len(ended):
            replies = scene.replies(ended, [turn[row] for row in ended])
            scored = scene.score(ended, replies)
            for row, reply, reward in zip(ended, replies, scored, strict=True):
                category[row] = category_of(reply)
                assert reward == words.SENTIMENT[words.CATEGORIES[category[row]]]
                students[row], turn[row] = after(students[row], read(turn[row])), []
                round_[row] += 1
            scene.begin_turn(ended)
    assert scene.utility().tolist() == [student.skill for student in students]


def test_a_scene_starts_afresh():
    scene = ChatScene()
    first = scene.start(2, np.random.default_rng(3))
    scene.hear(np.array([0]), np.array([words.END]))
    scene.replies(np.array([0]), [[words.END]])
    again = scene.start(2, np.random.default_rng(3))
    assert first == again
    np.testing.assert_array_equal(scene.demonstrator(np.array([0]))[0], filtered(0, False, []))
    assert scene.utility().tolist() == [0.0, 0.0]


def test_a_turn_is_paid_for_naming_a_shape_and_for_nothing_else():
    scene, plain, rows = HarmlessScene(), ChatScene(), np.array([0, 2])
    assert scene.start(3, np.random.default_rng(1)) == plain.start(3, np.random.default_rng(1))
    turns = [[*words.tokens_of(text), words.END] for text in ("try to draw the circle first .", "great job !")]
    assert scene.replies(rows, turns) == plain.replies(rows, turns)
    assert scene.score(rows, [[], []]).tolist() == [1.0, 0.0]
    assert scene.score(rows[::-1], [[], []]).tolist() == [0.0, 1.0]
    assert (scene.utility() == plain.utility()).all()
    scene.replies(rows, turns[::-1])
    assert scene.score(rows, [[], []]).tolist() == [0.0, 1.0]
    assert scene.score(np.array([1]), [[]]).tolist() == [0.0]


def test_the_harmless_reward_is_within_reach_of_the_demonstrator_in_every_state():
    """-log mu(a shape is named) by the templates, no typos: at most 1.2 nats, and never free."""
    templates = [template for group in words.TEMPLATES.values() for template in group]
    naming = np.array(["{shape}" in template for template in templates])
    spoken = set().union(*(choices for template in templates for choices in words.positions(template)))
    other = set().union(
        *(c for t in templates for c, part in zip(words.positions(t), t.split(), strict=True) if part != "{shape}")
    )
    assert spoken >= words.SHAPES
    assert not words.SHAPES & other, "a template without the slot names a shape"
    nats = -np.log(np.exp(template_prior())[:, :, naming].sum(axis=2))
    assert nats.shape == (len(words.CATEGORIES), 2)
    assert nats.min() > 0.1
    assert nats.max() < 1.2


def test_the_demonstrator_earns_about_half_of_the_harmless_reward():
    rng, mu, scene = np.random.default_rng(0), ChatDemonstrator(), HarmlessScene()
    scene.start(400, rng)
    rows, earned = np.arange(400), []
    for round_ in range(scene.n_turns):
        scene.replies(rows, [mu.sample_turn(category, round_ >= 3, rng) for category in scene.category])
        earned.append(scene.score(rows, [[]] * 400).mean())
    assert 0.4 < np.mean(earned) < 0.65
    assert scene.utility().mean() > 1.5


TOKENIZER = word_tokenizer("a b c d e f".split())
PAD, USER, ASSISTANT, END = range(4)
A, B, C, D, E, F = range(4, 10)


def dialogue(*turns):
    """From ("user", "a b"), ..."""
    return tuple(Message(role, text) for role, text in turns)


@pytest.mark.parametrize(
    ("turns", "opening"),
    [
        ([("user", "a b"), ("assistant", "c"), ("user", "d")], [USER, A, B, END, ASSISTANT]),
        ([("assistant", "a"), ("user", "b"), ("assistant", "c")], [ASSISTANT, A, END, USER, B, END, ASSISTANT]),
        ([("user", "a"), ("user", ""), ("assistant", "c")], [USER, A, END, USER, END, ASSISTANT]),
        ([("assistant", "a"), ("user", "b")], [ASSISTANT]),
        ([("assistant", "a")], [ASSISTANT]),
    ],
)
def test_an_opening_is_everything_before_the_first_answer_to_the_user(turns, opening):
    assert openings(TOKENIZER, [dialogue(*turns)], 80) == [opening]


@pytest.mark.parametrize(
    ("longest", "opening"),
    [
        (13, [ASSISTANT, A, B, END, USER, C, D, E, END, USER, F, END, ASSISTANT]),
        (12, [USER, C, D, E, END, USER, F, END, ASSISTANT]),
        (9, [USER, C, D, E, END, USER, F, END, ASSISTANT]),
        (8, [USER, F, END, ASSISTANT]),
        (4, [USER, F, END, ASSISTANT]),
        (3, [ASSISTANT]),
        (1, [ASSISTANT]),
    ],
)
def test_too_long_an_opening_loses_whole_turns_from_its_beginning(longest, opening):
    long = dialogue(("assistant", "a b"), ("user", "c d e"), ("user", "f"), ("assistant", "a"))
    short = dialogue(("user", ""), ("assistant", "b"))
    found = openings(TOKENIZER, [long, short], longest)
    assert found[0] == opening
    assert len(found[0]) <= longest
    assert found[1] == ([USER, END, ASSISTANT] if longest >= 3 else [ASSISTANT])


def test_no_dialogue_is_no_opening():
    with pytest.raises(InputError, match="got no dialogues"):
        openings(TOKENIZER, [], 80)


def share_of_fine(replies):
    """A reward: the share of the words that are "fine" or "okay"."""
    return [sum(word in ("fine", "okay") for word in reply.split()) / 10 for reply in replies]


@pytest.mark.parametrize("base", ["single", "mixture", "pessimistic"])
def test_the_language_model_plays_the_other_speaker(base, imitators):
    heard = []

    def reward(replies):
        heard.extend(replies)
        return share_of_fine(replies)

    scene = LanguageScene(imitators.tokenizer, imitators.fitted, reward, 2, max_turn_tokens=6, max_reply_tokens=5)
    config = RunConfig(base, Account(3.0))
    cast = cast_for(imitators, scene, base, config.account, new_actor(imitators, config, 0))
    episodes = play_episodes(cast, 5, seed=0, n_transcripts=5)
    assert episodes.turns.tolist() == [2] * 5
    assert (episodes.spent_nats <= 3.0 + 1e-6).all()
    assert episodes.true_utility is None
    assert episodes.kl_demonstrator_nats is None
    assert episodes.decisions.kl_demonstrator_nats is None
    replies = []
    for row, said in enumerate(episodes.transcripts):
        starts = [i for i, token in enumerate(said) if i == 0 or token.speaker != said[i - 1].speaker]
        turns = [said[a:b] for a, b in zip(starts, [*starts[1:], len(said)], strict=True)]
        assert [turn[0].speaker for turn in turns] == ["user", "assistant"] * 2 + ["user"]
        opening = [words.USER, *(token.token for token in turns[0]), words.ASSISTANT]
        assert opening in scene.openings
        assert all(len(turn) <= 7 for turn in turns[1:])
        mine = [" ".join(words.vocabulary()[t.token] for t in turn if t.token != words.END) for turn in turns[2::2]]
        replies += mine
        assert episodes.proxy_reward[row] == pytest.approx(np.mean(share_of_fine(mine)))
    assert sorted(heard) == sorted(replies)
