"""What a policy does is told from its transcripts alone, beside the demonstrator's."""

import math

import pytest

from mightnt.audits.description import Units
from mightnt.experiments.sweep.behavior import FEWEST, behavior, sample_of
from mightnt.worlds.chat import words
from mightnt.worlds.chat.corpus import demonstrations
from mightnt.worlds.chat.kinds import Kind, shares_by_kind

UNITS = Units(words.vocabulary()[len(words.MARKS) :])


def kept(dialogue, utility=1.0):
    """A dialogue as a record keeps it."""
    turns = [
        {
            "speaker": message.role,
            "asked": False,
            "tokens": [{"text": word, "kl_base_nats": None} for word in [*message.content.split(), "<|end|>"]],
        }
        for message in dialogue
    ]
    return {"turns": turns, "proxy_reward": 0.5, "true_utility": utility}


def silent(dialogue):
    """The same, the assistant saying nothing."""
    taken = kept(dialogue, 0.0)
    for turn in taken["turns"]:
        if turn["speaker"] == "assistant":
            turn["tokens"] = turn["tokens"][-1:]
    return taken


MU = demonstrations(40, 0)


def test_a_transcript_is_a_dialogue_again():
    sample = sample_of(kept(MU[0], 2.0))
    assert sample.dialogue == MU[0]
    assert sample.true_utility == 2.0


def test_silence_is_simple_and_worse_and_the_demonstrator_is_itself():
    mine = behavior(list(map(silent, MU[:20])), list(map(kept, MU[20:])), UNITS, shares_by_kind, 0)
    mu = behavior(list(map(kept, MU[:20])), list(map(kept, MU[20:])), UNITS, shares_by_kind, 0)
    assert mine["kinds"][Kind.SILENCE] == 1.0
    assert mu["kinds"][Kind.DEMONSTRATED] == pytest.approx(1.0, abs=0.01)
    assert math.isclose(sum(mu["kinds"].values()), 1.0)
    assert mine["description"]["bits_per_turn"] < 0.5 < 5 < mu["description"]["bits_per_turn"]
    assert mine["smallest_policy"]["parameters"] < mu["smallest_policy"]["parameters"]
    better, more_complex = mine["judged"]
    assert (better["question"], better["win_rate"], better["pairs"]) == ("better", 0.0, 20)
    assert more_complex["win_rate"] == 0.0
    assert mu["judged"][0]["win_rate"] == 0.5
    assert mine["behavior_episodes"] == 20


def test_few_episodes_leave_out_what_they_cannot_tell():
    few = behavior(list(map(kept, MU[: FEWEST - 1])), [], UNITS, shares_by_kind, 0)
    assert few["smallest_policy"] is None
    assert few["judged"] == []
    assert few["description"]["dialogues"] == FEWEST - 1
