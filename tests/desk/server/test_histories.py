"""Which turn a call is about, against a definition by hand: conversations are made up, then changed in one place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.desk.server.histories import Told, find_place
from mightnt.desk.server.refusal import Refusal
from mightnt.dialogues import Message

words = st.text("ab", min_size=1, max_size=2)
turns = st.lists(
    st.tuples(st.lists(words, min_size=1, max_size=2), st.one_of(words, st.just("")), st.booleans()), max_size=4
)


def user(text):
    return Message("user", text)


def agent(text):
    return Message("assistant", text)


def told(made):
    return [Told(tuple(map(user, heard)), "begun" if asked or not reply else reply, reply, asked=asked or not reply)
            for heard, reply, asked in made]  # fmt: skip


def history(conversation):
    """Everything that was said in it."""
    messages = ()
    for turn in conversation:
        messages += turn.heard + ((agent(turn.reply),) if turn.reply else ())
    return messages


@given(turns, st.lists(words, min_size=1, max_size=2))
def test_the_next_turn(made, new):
    conversation = told(made)
    messages = history(conversation) + tuple(map(user, new))
    place = find_place(conversation, messages)
    assert place.number == len(made)
    assert place.heard == tuple(map(user, new))
    assert place.before == messages
    answered = [messages[i].content for i in place.answered]
    assert answered == [turn.reply for turn in conversation if turn.reply and turn.asked]
    assert set(place.answered.values()) <= {"begun"}


@given(turns.filter(bool), st.data())
def test_a_turn_of_before(made, data):
    conversation = told(made)
    number = data.draw(st.integers(0, len(made) - 1))
    messages = history(conversation[:number]) + conversation[number].heard
    place = find_place(conversation, messages)
    assert (place.number, place.heard, place.before) == (number, conversation[number].heard, messages)


@given(turns.filter(bool), words, st.data())
def test_anything_else_is_refused(made, new, data):
    """Change one message of the history: never is another turn begun after it."""
    conversation = told(made)
    before = history(conversation)
    i = data.draw(st.integers(0, len(before) - 1))
    changed = (*before[:i], Message(before[i].role, before[i].content + "!"), *before[i + 1 :], user(new))
    with pytest.raises(Refusal) as caught:
        find_place(conversation, changed)
    assert caught.value.status == 409


@given(turns.filter(bool), words, st.data())
def test_nothing_can_be_left_out(made, new, data):
    conversation = told(made)
    before = history(conversation)
    i = data.draw(st.integers(0, len(before) - 1))
    shorter = (*before[:i], *before[i + 1 :], user(new))
    try:
        place = find_place(conversation, shorter)
    except Refusal:
        return
    # the only way in: what is left is, word for word, the history of a turn that was there before
    earlier = (
        history(conversation[: place.number]) + conversation[place.number].heard if place.number < len(made) else None
    )
    assert place.before == (earlier or history(conversation) + place.heard)
    assert place.number < len(made) or place.before == shorter


@pytest.mark.parametrize("repeated", [(), (agent("begun"),)])
def test_a_void_turn_may_be_repeated_or_not_and_is_not_history(repeated):
    conversation = [Told((user("a"),), "begun", "")]
    place = find_place(conversation, (user("a"), *repeated, user("b")))
    assert place.before == (user("a"), user("b"))
    with pytest.raises(Refusal):
        find_place(conversation, (user("a"), agent("begun and more"), user("b")))


def test_an_open_turn_comes_first():
    conversation = [Told((user("a"),), "", "", open=True)]
    assert find_place(conversation, (user("a"),)).number == 0
    with pytest.raises(Refusal, match="still open"):
        find_place(conversation, (user("a"), user("b")))


def test_a_new_conversation_begins_with_the_user():
    with pytest.raises(Refusal, match="not said"):
        find_place([], (user("a"), agent("b"), user("c")))
