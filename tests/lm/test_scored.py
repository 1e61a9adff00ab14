"""Bases scored where nobody optimizes: gaps by hand, held-out words against a slow replay, state that moves as in episodes."""

import math

import numpy as np
import pytest
import torch

from mightnt.lm.bases.capped import Capped
from mightnt.lm.bases.contract import log_kept
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.members import MemberStep
from mightnt.lm.scored import Replay, Scored, expected_ratio, on_demonstrator_histories, processor_seconds, replay
from mightnt.lm.tokens import EncodedDialogues
from tests.lm.toys import MARKS, N_TOKENS, ToyMembers, ToyScene

INF = math.inf


def logs(*rows):
    return torch.tensor(rows, dtype=torch.float64).log()


class Fixed:
    """A base that always says the same."""

    name = "fixed"

    def __init__(self, log_nu):
        self.log_nu = log_nu
        self.moves = []

    def start(self, rows):
        return torch.zeros(rows, 1, dtype=torch.float64)

    def predict(self, state, step):
        return self.log_nu.expand(len(state), -1) - 0 * state

    def advance(self, state, step, tokens, own):
        self.moves.append((tokens.tolist(), own.tolist()))
        return state + own[:, None]


def step_of(mu):
    return MemberStep(mu[None], None, None, mu, torch.zeros(len(mu), 1))


def test_gaps_and_floor_by_hand():
    """mu = (.5, .25, .25), nu = (.5, .125, 0): E_mu = -inf, E_nu = .125 log(.5), floor = -log .625."""
    scored = Scored(Fixed(logs([0.5, 0.125, 0.0])))
    state = scored.start(2)
    mu = logs([0.5, 0.25, 0.25])
    assert (scored.predict(state[[1]], step_of(mu)) == mu).all()
    assert scored.gap_demonstrator.tolist() == [0.0, -INF]
    assert scored.gap_base.tolist() == pytest.approx([0.0, 0.125 * math.log(0.5)])
    assert scored.floor.tolist() == pytest.approx([0.0, -math.log(0.625)])
    scored.predict(state[[1]], step_of(mu))
    assert scored.floor[1].item() == pytest.approx(-2 * math.log(0.625))


def test_a_base_above_the_demonstrator_has_a_positive_gap():
    scored = Scored(Fixed(logs([0.9, 0.1])))
    state = scored.start(1)
    scored.predict(state, step_of(logs([0.5, 0.5])))
    assert scored.gap_base.item() == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2))
    assert scored.gap_demonstrator.item() == pytest.approx(0.5 * math.log(1.8) + 0.5 * math.log(0.2))


def test_a_vetoed_word_is_the_demonstrators_own():
    inner = Fixed(logs([1.0, 0.0]))
    scored = Scored(inner)
    state = scored.start(2)
    scored.advance(state, step_of(logs([0.5, 0.5], [0.5, 0.5])), torch.tensor([0, 1]), torch.tensor([True, True]))
    assert inner.moves == [([0, 1], [True, False])]
    assert scored.inner_state[:, 0].tolist() == [1.0, 0.0]


def test_nothing_counts_where_the_weight_is_zero():
    assert expected_ratio(logs([0.0, 1.0]), logs([0.0, 0.5]), logs([0.0, 0.25])).tolist() == pytest.approx(
        [math.log(2)]
    )


def test_the_histories_are_the_demonstrators():
    """Whatever is scored, the same episodes are played; the minimum lies below the demonstrator's own table by its gap."""
    found = [
        on_demonstrator_histories(ToyMembers(), base, ToyScene(), MARKS, 5, 3) for base in (Minimum(), Capped(9.0))
    ]
    assert all(values["floor"].shape == (5,) for values in found)
    scenes = [ToyScene(), ToyScene()]
    for scene, base in zip(scenes, (Minimum(), Capped(9.0)), strict=True):
        on_demonstrator_histories(ToyMembers(), base, scene, MARKS, 5, 3)
    assert scenes[0].log, "the toy keeps what it heard"
    assert str(scenes[0].log) == str(scenes[1].log)
    assert (found[0]["gap_demonstrator"] <= 1e-9).all()


def corpus_of(rng, lengths):
    """Random dialogues over the toy's tokens: first token given, about half of the rest actions."""
    tokens = rng.integers(MARKS.end, N_TOKENS, sum(lengths)).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    is_action = rng.random(len(tokens)) < 0.6
    is_action[starts[:-1]] = False
    turn = np.concatenate([np.arange(n) // 3 for n in lengths]).astype(np.int32)
    return EncodedDialogues(tokens, starts, is_action, turn)


@pytest.mark.parametrize("seed", range(5))
def test_replay_is_one_dialogue_at_a_time(seed):
    """Dialogues of unequal length side by side say what each says alone, token by token, for a base that carries a state."""
    rng = np.random.default_rng(seed)
    corpus, base = corpus_of(rng, [7, 3, 9, 1]), Capped(0.3)
    said = replay(ToyMembers(seed), base, corpus, MARKS.pad)
    slow = {}
    for d in range(4):
        members = ToyMembers(seed)
        members.start(1)
        state = base.start(1)
        for place in range(corpus.starts[d], corpus.starts[d + 1]):
            token = torch.tensor([int(corpus.tokens[place])])
            if corpus.is_action[place]:
                step = members.predict(torch.tensor([0]))
                log_nu = base.predict(state, step)
                slow[place] = (d, float(log_nu[0, token]), float(-torch.expm1(log_kept(log_nu))))
                state = base.advance(state, step, token, log_nu[:, token[0]] > -INF)
            members.advance(token)
    found = np.stack([said.dialogue, said.log_probability, said.asking.round(9)], axis=1)
    expected = np.array([(d, log, round(theta, 9)) for d, log, theta in slow.values()])
    assert found[np.lexsort(found.T)] == pytest.approx(expected[np.lexsort(expected.T)])
    assert len(said.turn) == corpus.is_action.sum()


def test_shares_are_of_turns():
    said = Replay(np.array([-1.0, -INF, -INF, -1.0]), np.zeros(4), np.array([0, 0, 0, 1]), np.array([2, 2, 2, 2]))
    assert said.share_of_turns(said.log_probability == -INF) == 0.5
    assert said.share_of_turns(said.asking > 0.1) == 0.0


def test_no_action_is_no_turn():
    corpus = corpus_of(np.random.default_rng(0), [4])
    nothing = EncodedDialogues(corpus.tokens, corpus.starts, np.zeros(4, dtype=bool), corpus.turn)
    said = replay(ToyMembers(), Minimum(), nothing, MARKS.pad)
    assert said.share_of_turns(said.asking > 0) == 0.0


def test_time_is_taken_for_each():
    corpus = corpus_of(np.random.default_rng(0), [6, 6])
    seconds = processor_seconds([(ToyMembers(), Minimum()), (ToyMembers(), Capped(1.0))], corpus, MARKS.pad, 2)
    assert len(seconds) == 2
    assert all(0 <= each < INF for each in seconds)
