"""The values of a turn, and that a speaker with no more than the protocol asks for is one."""

from math import inf, nan

import pytest

from mightnt.desk.speaking import Asked, Ended, LearningSpeaker, Piece, Speaker, Turn
from mightnt.dialogues import Message
from mightnt.errors import BudgetError
from tests.desk.server.fakes import FakePupil, FakeSpeaker


@pytest.mark.parametrize("nats", [nan, -0.1, -inf])
def test_a_piece_costs_something_or_nothing(nats):
    with pytest.raises(BudgetError, match="0 or more"):
        Piece("word", nats)
    assert Piece("word", 0.0).n_tokens == 1


def test_a_turn_as_the_module_describes_it():
    def spoken(speaker: Speaker, content: str) -> tuple[str, float, Asked | Ended]:
        turn: Turn = speaker.begin((Message("user", content),), spent_nats=0.0, turn=0, seed=7)
        text, nats = "", 0.0
        while isinstance(event := turn.next_piece(), Piece):
            text, nats = text + event.text, nats + event.nats
        assert nats == turn.spent_nats
        assert type(turn.next_piece()) is type(event)  # the same again
        return text, nats, event

    assert spoken(FakeSpeaker(), "hello") == ("turn 0 seed 7 heard 1", 0.75, Ended("stop"))
    text, nats, asked = spoken(FakeSpeaker(), "ask")
    assert (text, nats) == ("I would", 0.5)
    assert isinstance(asked, Asked)


def test_who_can_be_taught():
    assert isinstance(FakePupil(), LearningSpeaker)
    assert not isinstance(FakeSpeaker(), LearningSpeaker)
