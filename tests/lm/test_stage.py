"""Every row's tokens form a dialogue of the right shape, whatever the other rows do, and every reply is scored once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.lm.stage import Stage
from tests.lm.toys import MARKS, N_TOKENS, ToyScene, worth
from tests.strategies import seeds

scenes = st.builds(
    ToyScene,
    n_turns=st.integers(1, 4),
    max_turn_tokens=st.integers(1, 4),
    max_reply_tokens=st.integers(1, 4),
    speaks=st.booleans(),
)


def drive(scene, rows, seed):
    """Let everybody say random tokens; ``(stage, what each row heard, who chose it: given, agent or user)``."""
    rng = np.random.default_rng(seed)
    stage = Stage(scene, MARKS, rows, np.random.default_rng(seed))
    heard, chooser = [[] for _ in range(rows)], [[] for _ in range(rows)]
    while not stage.done.all():
        acting, replying = stage.acting(), stage.replying()
        assert not set(acting) & set(replying)
        tokens = np.full(rows, MARKS.pad)
        stage.hear_given(tokens)
        assert (tokens[acting] == MARKS.pad).all()
        assert (tokens[replying] == MARKS.pad).all()
        who = np.full(rows, "given", dtype=object)
        for speakers, name in ((acting, "agent"), (replying, "user")):
            tokens[speakers] = rng.integers(MARKS.end, N_TOKENS, size=len(speakers))
            who[speakers] = name
        for row in np.flatnonzero(tokens != MARKS.pad):
            heard[row].append(int(tokens[row]))
            chooser[row].append(who[row])
        stage.speak(acting, tokens[acting])
        stage.reply(replying, tokens[replying])
    for row, rest in enumerate(stage.given):
        heard[row] += rest
        chooser[row] += ["given"] * len(rest)
    return stage, heard, chooser


def turns_of(tokens):
    """``[(role mark, content with its end)]`` of a dialogue that must consist of whole turns."""
    turns = []
    for token in tokens:
        if token in (MARKS.user, MARKS.assistant):
            assert not turns or turns[-1][1][-1] == MARKS.end, "a turn begins before the last one has ended"
            turns.append((token, []))
        else:
            assert MARKS.end not in turns[-1][1], "somebody speaks after the end of a turn"
            turns[-1][1].append(token)
    return turns


@given(scenes, st.integers(1, 5), seeds)
def test_every_row_is_a_dialogue_of_whole_turns(scene, rows, seed):
    stage, heard, chooser = drive(scene, rows, seed)
    for row in range(rows):
        turns = turns_of(heard[row])
        assert [role for role, _ in turns] == [MARKS.user] + [MARKS.assistant, MARKS.user] * scene.n_turns
        assert stage.n_turns[row] == scene.n_turns
        assert all(content[-1] == MARKS.end for _, content in turns)
        for role, content in turns[1:]:
            limit = scene.max_turn_tokens if role == MARKS.assistant else scene.max_reply_tokens
            if role == MARKS.assistant or not scene.speaks:
                assert len(content) <= limit + 1
        assert chooser[row].count("agent") == sum(
            min(len(content), scene.max_turn_tokens) for role, content in turns[1:] if role == MARKS.assistant
        )
        assert ("user" in chooser[row]) == (not scene.speaks)


@given(scenes, st.integers(1, 5), seeds)
def test_every_reply_is_scored_once_when_it_is_complete(scene, rows, seed):
    stage, heard, _ = drive(scene, rows, seed)
    for row in range(rows):
        replies = [content for role, content in turns_of(heard[row])[1:] if role == MARKS.user]
        scored = [
            reply
            for call, where, what in (entry for entry in scene.log if entry[0] == "score")
            for r, reply in zip(where, what, strict=True)
            if r == row
        ]
        limit = 99 if scene.speaks else scene.max_reply_tokens
        assert scored == [reply[:limit] for reply in replies]
        assert stage.reward[row] == pytest.approx(np.mean([worth(reply) for reply in scored]))
    np.testing.assert_allclose(stage.fresh_reward, stage.reward)


@given(scenes, st.integers(1, 5), seeds)
def test_the_scene_hears_every_token_of_the_agent_and_begins_every_turn_but_the_first(scene, rows, seed):
    _, heard, _ = drive(scene, rows, seed)
    for row in range(rows):
        own = [content for role, content in turns_of(heard[row])[1:] if role == MARKS.assistant]
        expected = []
        for n, content in enumerate(own):
            expected += [("begin_turn", None)] * (n > 0)
            expected += [("hear", token) for token in content[: scene.max_turn_tokens]]
        found = []
        for call in scene.log:
            if call[0] in ("hear", "begin_turn") and row in call[1]:
                found.append((call[0], call[2][call[1].index(row)] if call[0] == "hear" else None))
        assert found == expected


def test_a_turn_at_the_length_limit_is_given_its_end():
    scene = ToyScene(n_turns=1, max_turn_tokens=2, max_reply_tokens=2, speaks=False)
    stage = Stage(scene, MARKS, 1, np.random.default_rng(0))
    stage.given[0] = []
    row = np.array([0])
    stage.speak(row, np.array([4]))
    assert stage.acting().tolist() == [0]
    stage.speak(row, np.array([5]))
    assert stage.given[0] == [MARKS.end, MARKS.user]
    assert stage.acting().tolist() == stage.replying().tolist() == []
    tokens = np.full(1, MARKS.pad)
    for expected in (MARKS.end, MARKS.user):
        stage.hear_given(tokens)
        assert tokens.tolist() == [expected]
    assert stage.replying().tolist() == [0]
    stage.reply(row, np.array([5]))
    stage.reply(row, np.array([MARKS.end]))
    assert stage.given[0] == []
    assert stage.done.all()
    assert stage.reward.tolist() == [0.11]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1e-9, 1.0 + 1e-9])
def test_the_first_reward_outside_of_0_and_1_stops_everything(bad):
    class Odd(ToyScene):
        def score(self, rows, replies):
            return np.array([0.0, 1.0, bad])

    stage = Stage(Odd(n_turns=1), MARKS, 3, np.random.default_rng(0))
    stage.given = [[], [], []]
    with pytest.raises(InputError, match=r"rewarded with .*; a number in \[0, 1\] is needed"):
        stage.speak(np.arange(3), np.full(3, MARKS.end))
    assert stage.reward.tolist() == [0.0] * 3


def test_the_demonstrators_turn_is_over_with_its_end():
    scene = ToyScene(n_turns=2)
    stage = Stage(scene, MARKS, 2, np.random.default_rng(0))
    stage.given = [[], []]
    stage.answered[:] = True
    stage.speak(np.array([0, 1]), np.array([4, MARKS.end]))
    assert stage.answered.tolist() == [True, False]
    assert stage.given[1][-1] == MARKS.assistant
    assert stage.n_turns.tolist() == [0, 1]


def test_nobody_speaking_changes_nothing():
    scene = ToyScene()
    stage = Stage(scene, MARKS, 1, np.random.default_rng(0))
    before = [list(given) for given in stage.given]
    nobody = np.zeros(0, dtype=np.int64)
    stage.speak(nobody, nobody)
    stage.reply(nobody, nobody)
    assert stage.given == before
    assert scene.log == []
