"""Corpora are deterministic, the demonstrator never falls silent, other authors do and stick to it."""

import pytest

from mightnt.errors import InputError
from mightnt.worlds.chat import words
from mightnt.worlds.chat.corpus import N_ROUNDS, demonstrations, other_authors


def teacher_turns(dialogues):
    return [[m.content for m in dialogue if m.role == "assistant"] for dialogue in dialogues]


def test_deterministic_and_growing():
    assert demonstrations(5, 0) == demonstrations(9, 0)[:5]
    assert demonstrations(5, 0) != demonstrations(5, 1)
    assert other_authors(5, 0) == other_authors(9, 0)[:5]


def test_shape():
    for dialogue in demonstrations(5, 0) + other_authors(5, 0):
        assert [m.role for m in dialogue] == ["user"] + ["assistant", "user"] * N_ROUNDS
        assert all(set(m.content.split()) <= set(words.vocabulary()) for m in dialogue)


def test_the_demonstrator_works_and_others_have_sticky_modes():
    own = teacher_turns(demonstrations(200, 0))
    others = teacher_turns(other_authors(400, 0))
    assert sum(turn == "" for turns in own for turn in turns) <= 1
    blank = [turns for turns in others if turns[0] == ""]
    assert len(blank) > 20
    again = sum(turns[1] == "" for turns in blank) / len(blank)
    assert again > 0.7, "a silent author should mostly stay silent"
    repeated = sum(turns[0] == turns[1] != "" for turns in others)
    assert repeated > 80, "a phrase should mostly be repeated"


def test_richness_few_turns_repeat_among_300():
    turns = [turn for chat in teacher_turns(demonstrations(300, 0)) for turn in chat]
    assert len(set(turns)) > 0.7 * len(turns)


def test_nothing_asked_is_refused():
    with pytest.raises(InputError, match="at least 1"):
        demonstrations(0, 0)
