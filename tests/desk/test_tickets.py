"""What a question and a decision may hold."""

import math

import pytest

from mightnt.desk.tickets import Decision, Inquiry, State, Verdict, as_plain
from mightnt.dialogues import Message
from mightnt.errors import InputError
from tests.desk.questions import chat, inquiry


@pytest.mark.parametrize("verdict", Verdict)
def test_words_belong_to_answers_alone(verdict):
    speaks = verdict in (Verdict.ANSWER, Verdict.EDIT)
    right, wrong = ("words", " \n") if speaks else ("", "words")
    assert Decision(verdict, "p", "k", right).text == right
    with pytest.raises(InputError, match="needs words" if speaks else "takes no words"):
        Decision(verdict, "p", "k", wrong)


def test_half_a_character_and_nobody_are_refused():
    with pytest.raises(InputError, match="half a character"):
        Decision(Verdict.ANSWER, "p", "k", "\ud800")
    with pytest.raises(InputError, match="a person and a key"):
        Decision(Verdict.REFUSE, "", "k")


@pytest.mark.parametrize(("theta", "left"), [(1.5, 1.0), (-0.1, 1.0), (math.nan, 1.0), (0.5, math.nan)])
def test_a_question_holds_a_probability_and_an_account(theta, left):
    with pytest.raises(InputError):
        Inquiry("c", 0, (), "", theta, False, 1.0, left)


def test_what_is_final():
    assert [state for state in State if not state.final] == [State.WAITING, State.DECIDED]


def test_as_plain_data_a_message_says_begun_only_where_something_was():
    asked = inquiry(messages=(*chat("Hi"), Message("assistant", "ab", "a")))
    value = as_plain(asked)
    assert value["messages"] == (
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "ab", "begun": "a"},
    )
    assert value["begun"] == ""  # of the question itself it is always there
