"""Exported demonstrations hold people's words, all of them that the format can hold, each once, and none of the agent's."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.desk.export import demonstrations, export
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


def test_words_of_the_agent_are_cut_off_with_what_came_before():
    tickets = [
        ticket(chat("Hi"), "Hello."),
        ticket(chat("Hi", "Hello.", "Why?", "Agent's.", "And?"), "So.", turn=2),
        ticket(chat("Hi", "Hello.", "Why?", "Agent's.", "And?", "So.", "Well?"), "Yes.", turn=3),
    ]
    found = demonstrations(tickets)
    assert found.dialogues == (chat("Hi", "Hello."), chat("And?", "So.", "Well?", "Yes."))
    assert found.n_answers == 3


def test_the_agent_saying_what_a_person_said_elsewhere_is_still_the_agent():
    tickets = [ticket(chat("Hi"), "Same."), ticket(chat("Hi", "Same.", "Why?", "Same.", "And?"), "So.", turn=2)]
    assert demonstrations(tickets).dialogues == (chat("Hi", "Same."), chat("And?", "So."))


def test_half_a_turn_is_left_out_and_counted():
    tickets = [
        ticket(chat("Hi"), " I said.", begun="As"),
        ticket(chat("Hi", "As I said.", "Why?"), "So.", turn=1),
    ]
    found = demonstrations(tickets)
    assert found.dialogues == (chat("Why?", "So."),)
    assert (found.n_answers, found.n_begun_by_agent) == (1, 1)


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
    demonstrated = [m.content for d in found.dialogues for m in d if m.role == "assistant"]
    expected = [t.decision.text for t in tickets if t.decision and not t.inquiry.begun]
    assert demonstrated == expected
    assert found.n_answers == len(expected)
    assert found.n_begun_by_agent == speakers.count("begun")
    for dialogue in found.dialogues:  # each is a piece of the conversation as it was
        n = len(dialogue)
        assert any(messages[i : i + n] == dialogue for i in range(len(messages)))


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
    assert read_dialogues(path) == [chat("May I? (0)", "Yes, you may."), chat("May I? (0)", "Ü\n")]
    assert (found.n_answers, found.n_begun_by_agent) == (2, 1)
