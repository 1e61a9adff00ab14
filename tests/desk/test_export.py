"""Exported demonstrations hold people's words, all of them, each once; the agent's are there and demonstrate nothing."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.desk.export import demonstrations, export, lesson
from mightnt.desk.store import open_store
from mightnt.desk.tickets import Decision, State, Ticket, Verdict
from mightnt.dialogues import Message, read_dialogues
from mightnt.errors import InputError
from tests.desk.questions import Clock, answer, chat, inquiry, verdict


def ticket(messages, text, turn=0, begun="", conversation="c", state=State.ANSWERED):
    decision = answer(text) if state in (State.ANSWERED, State.DECIDED) else None
    asked = inquiry(conversation, turn, messages, begun)
    return Ticket("n", asked, state, 0.0, 1.0, "ann", decision, None, 1)


def test_a_first_turn_is_the_whole_dialogue():
    found = demonstrations([ticket(chat("Hi"), "Hello.")])
    assert found.dialogues == (chat("Hi", "Hello."),)
    assert (found.n_answers, found.n_begun_by_agent) == (1, 0)


def test_answers_that_follow_one_another_share_a_dialogue_and_count_once():
    tickets = [ticket(chat("Hi"), "Hello."), ticket(chat("Hi", "Hello.", "Why?"), "So.", turn=1)]
    found = demonstrations(tickets)
    assert found.dialogues == (chat("Hi", "Hello.", "Why?", "So."),)
    assert found.n_answers == 2


def agents(content):
    """A turn that the agent said from beginning to end."""
    return Message("assistant", content, content)


def test_words_of_the_agent_are_kept_and_marked():
    tickets = [
        ticket(chat("Hi"), "Hello."),
        ticket(chat("Hi", "Hello.", "Why?", "Agent's.", "And?"), "So.", turn=2),
        ticket(chat("Hi", "Hello.", "Why?", "Agent's.", "And?", "So.", "Well?"), "Yes.", turn=3),
    ]
    found = demonstrations(tickets)
    whole = (*chat("Hi", "Hello.", "Why?"), agents("Agent's."), *chat("And?", "So.", "Well?", "Yes."))
    assert found.dialogues == (whole,)
    assert (found.n_answers, found.n_begun_by_agent) == (3, 0)


def test_the_agent_saying_what_a_person_said_elsewhere_is_still_the_agent():
    tickets = [ticket(chat("Hi"), "Same."), ticket(chat("Hi", "Same.", "Why?", "Same.", "And?"), "So.", turn=2)]
    assert demonstrations(tickets).dialogues == ((*chat("Hi", "Same.", "Why?"), agents("Same."), *chat("And?", "So.")),)


def test_half_a_turn_is_a_demonstration_of_its_other_half():
    tickets = [
        ticket(chat("Hi"), " I said.", begun="As"),
        ticket(chat("Hi", "As I said.", "Why?"), "So.", turn=1),
    ]
    found = demonstrations(tickets)
    half = Message("assistant", "As I said.", "As")
    assert found.dialogues == ((*chat("Hi"), half, *chat("Why?", "So.")),)
    assert (found.n_answers, found.n_begun_by_agent) == (2, 1)


def test_a_silence_of_the_agent_is_cut_off_with_what_came_before():
    assert demonstrations([ticket(chat("Hi", "", "Why?"), "So.", turn=1)]).dialogues == (chat("Why?", "So."),)


def test_a_lesson_is_one_answer_and_no_other():
    """What earlier answers of the conversation said is not taught twice."""
    later = ticket(chat("Hi", "Hello.", "Why?"), " is.", turn=1, begun="So it")
    found = lesson(later)
    assert found == (*chat("Hi"), agents("Hello."), *chat("Why?"), Message("assistant", "So it is.", "So it"))
    assert [message.demonstrates for message in found] == [False, False, False, True]
    with pytest.raises(InputError, match="only an answered"):
        lesson(ticket(chat("Hi"), "Hello.", state=State.DECIDED))


@pytest.mark.parametrize("state", [state for state in State if state is not State.ANSWERED])
def test_what_is_not_answered_for_good_demonstrates_nothing(state):
    assert demonstrations([ticket(chat("Hi"), "Hello.", state=state)]).dialogues == ()


def test_conversations_do_not_mix():
    tickets = [ticket(chat("Hi"), "Hello.", conversation=c) for c in "ab"]
    tickets.append(ticket(chat("Hi", "Hello.", "Why?"), "So.", turn=1, conversation="b"))
    assert demonstrations(tickets).dialogues == (chat("Hi", "Hello."), chat("Hi", "Hello.", "Why?", "So."))


@given(st.lists(st.sampled_from(["person", "agent", "refused", "begun"]), max_size=7), st.sampled_from(["same", "own"]))
def test_every_answer_is_there_once_and_no_other_word_of_the_assistant(speakers, wording):
    messages, tickets, said = (), [], itertools.count()
    for turn, speaker in enumerate(speakers):
        messages += (Message("user", f"{turn}?"),)
        text = f"by {speaker} {next(said)}" if wording == "own" else "same"
        if speaker == "person":
            tickets.append(ticket(messages, text, turn))
        elif speaker == "begun":
            tickets.append(ticket(messages, text[2:], turn, begun=text[:2]))
        if speaker == "refused":
            tickets.append(ticket(messages, "", turn, state=State.REFUSED))
        else:
            messages += (Message("assistant", text),)
    found = demonstrations(tickets)
    demonstrated = [m.content[len(m.begun) :] for d in found.dialogues for m in d if m.demonstrates]
    expected = [t.decision.text for t in tickets if t.decision]
    assert demonstrated == expected
    assert found.n_answers == len(expected)
    assert found.n_begun_by_agent == speakers.count("begun")
    assert len(found.dialogues) == bool(expected)  # one conversation, whole, up to the last answer
    assert not expected or plain(found.dialogues[0]) == plain(messages)[: len(found.dialogues[0])]


def plain(messages):
    return [(message.role, message.content) for message in messages]


def test_a_file_that_imitate_reads(tmp_path):
    clock, path = Clock(), tmp_path / "answers.jsonl"
    with open_store(tmp_path, clock=clock) as store:
        with pytest.raises(InputError, match=r"desk\.sqlite: no answer can be written"):
            export(store, path)
        for i, decision in enumerate((answer(key="0"), verdict("refuse", key="1"), answer("Ü\n", key="2"))):
            store.decide(store.ask(f"{i}", inquiry(f"{i}"), "ann", 2000.0).number, decision)
        with pytest.raises(InputError, match="no answer can be written"):
            export(store, path)
        assert not path.exists()
        clock.now += 5
        store.release()
        number = store.ask("3", inquiry("3", begun="So"), "ann", 2000.0).number
        store.decide(number, Decision(Verdict.ANSWER, "ann", "3", " yes"))
        clock.now += 5
        store.release()
        found = export(store, path)
    half = (*chat("May I? (0)"), Message("assistant", "So yes", "So"))
    assert read_dialogues(path) == [chat("May I? (0)", "Yes, you may."), chat("May I? (0)", "Ü\n"), half]
    assert (found.n_answers, found.n_begun_by_agent) == (3, 1)
