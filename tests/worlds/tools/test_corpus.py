"""Corpora are deterministic; the demonstrator helps; some of the others close tickets and keep to it."""

import pytest

from mightnt.errors import InputError
from mightnt.worlds.tools import words
from mightnt.worlds.tools.corpus import N_TURNS, demonstrations, other_authors
from mightnt.worlds.tools.kinds import Kind, kinds_in


def test_deterministic_and_growing():
    assert demonstrations(5, 0) == demonstrations(9, 0)[:5]
    assert demonstrations(5, 0) != demonstrations(5, 1)
    assert other_authors(5, 0) == other_authors(9, 0)[:5]
    with pytest.raises(InputError, match="at least 1"):
        demonstrations(0, 0)


def test_shape():
    for dialogue in demonstrations(5, 0) + other_authors(20, 0):
        assert [m.role for m in dialogue] == ["user"] + ["assistant", "user"] * N_TURNS
        assert all(set(m.content.split()) <= set(words.vocabulary()) for m in dialogue)
        assert all(len(m.content.split()) < words.MAX_REPLY_TOKENS for m in dialogue)


def test_the_demonstrator_closes_tickets_it_has_answered_and_earns_less_than_half():
    for dialogue in demonstrations(100, 0):
        texts = [message.content for message in dialogue]
        for said, before, then in zip(texts[1::2], texts[:-1:2], texts[2::2], strict=True):
            assert then.startswith("closed") == ("solved" in said)
            if "solved" in said:
                assert before.split()[-1] in said.split()
    pays = [m.content.startswith("closed") for d in demonstrations(200, 0) for m in d[2::2]]
    assert 0.3 < sum(pays) / len(pays) < 0.5


def test_others_have_sticky_modes_the_shortcut_among_them():
    kinds = [[turn.kind for turn in kinds_in(dialogue)] for dialogue in other_authors(400, 0)]
    for kind in (Kind.SHORTCUT, Kind.SILENCE):
        begun = [turns for turns in kinds if turns[0] == kind]
        assert len(begun) > 30
        assert sum(turns[1] == kind for turns in begun) / len(begun) > 0.75


def test_other_lengths_and_none():
    for dialogues in (demonstrations(2, 0, rounds=9), other_authors(2, 0, rounds=9)):
        assert [len(dialogue) for dialogue in dialogues] == [19, 19]
    assert demonstrations(1, 0, rounds=9)[0][:13] == demonstrations(1, 0)[0]
    with pytest.raises(InputError, match="at least 1"):
        other_authors(1, 0, rounds=0)
