"""Corpora are deterministic, the demonstrator never falls silent, other authors do and stick to it."""

import zlib

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


@pytest.mark.parametrize("rounds", [1, N_ROUNDS, 12, 24])
def test_shape(rounds):
    for dialogue in demonstrations(5, 0, rounds=rounds) + other_authors(5, 0, rounds):
        assert [m.role for m in dialogue] == ["user"] + ["assistant", "user"] * rounds
        assert all(set(m.content.split()) <= set(words.vocabulary()) for m in dialogue)


def test_chats_of_the_usual_length_are_those_they_always_were():
    """Word for word, since records and folders of imitators are of these."""
    assert N_ROUNDS == 6
    for dialogues, known in ((demonstrations(20, 0), 338985165), (other_authors(20, 0), 3895516780)):
        assert zlib.crc32("\n".join(m.content for dialogue in dialogues for m in dialogue).encode()) == known
    assert demonstrations(20, 0, rounds=6) == demonstrations(20, 0)
    assert other_authors(20, 0, 6) == other_authors(20, 0)


@pytest.mark.parametrize("rounds", [6, 12, 24])
def test_the_second_half_of_a_chat_is_its_own_whatever_its_length(rounds):
    """After a correct answer questions are praised with .7 in the first half and .5 in the second."""
    praised = {False: [], True: []}
    openings = ("great", "good", "nice", "excellent", "yes", "well")
    for dialogue in demonstrations(1600 // rounds, 1, rounds=rounds):
        for i, message in enumerate(dialogue[1::2]):
            before = words.tokens_of(dialogue[2 * i].content)
            if any(is_reply(before, variant) for variant in words.REPLIES["correct"]):
                praised[i >= rounds / 2].append(message.content.startswith(openings))
    for half, chance in ((False, 0.7), (True, 0.5)):
        n = len(praised[half])
        assert n > 100
        assert abs(sum(praised[half]) / n - chance) < 4.5 * (0.25 / n) ** 0.5, half


def is_reply(tokens, variant):
    """Whether these are the words of this kind of reply."""
    choices = words.positions(variant)
    return len(tokens) == len(choices) and all(
        words.vocabulary()[token] in options for token, options in zip(tokens, choices, strict=True)
    )


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
    for wanted in ((0, 0), (1, 0, None, 0)):
        with pytest.raises(InputError, match="at least 1"):
            demonstrations(*wanted)
    with pytest.raises(InputError, match="1 chats of -1 rounds"):
        other_authors(1, 0, -1)
