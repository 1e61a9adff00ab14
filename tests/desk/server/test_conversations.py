"""Turns at work, below the protocol: crashes between any two steps, names and seeds, room, letting go."""

import asyncio
import contextlib
import time
from dataclasses import replace

import pytest

from mightnt.desk.server import conversations as module
from mightnt.desk.server.conversations import Conversations, Outcome, Terms, Waiting, new_name, seed_of
from mightnt.desk.server.refusal import Refusal
from mightnt.desk.server.turns import Turns
from mightnt.desk.store import open_store
from mightnt.desk.tickets import Decision, State, Verdict
from mightnt.dialogues import Message
from tests.desk.server.fakes import ROTA, FakePupil, FakeSpeaker

QUICK = Terms(tick_seconds=0.01, seed=3)


def user(*contents):
    return tuple(Message("user", content) for content in contents)


@contextlib.asynccontextmanager
async def running(folder, speaker=None, terms=QUICK, refit=None):
    with open_store(folder, undo_seconds=0.0) as store:
        turns = Turns(folder)
        conversations = Conversations(speaker or FakeSpeaker(), store, turns, ROTA, terms, refit=refit)
        await conversations.start()
        try:
            yield conversations
        finally:
            await conversations.stop()
            turns.close()


async def heard(conversations, name, messages, wait_seconds=0.0, most_tokens=None):
    talk = await conversations.call(name, None, messages, most_tokens)
    return [event async for event in conversations.events(talk, wait_seconds)]


@pytest.mark.parametrize("content", ["hello", "ask"])
@pytest.mark.parametrize("step", ["open_conversation", "begin", "charge", "ask", "end"])
@pytest.mark.parametrize("after", [False, True])
def test_killed_between_any_two_steps_it_is_as_if_it_had_not_been(tmp_path, step, after, content, monkeypatch):
    """Kill the books just before or after each durable step; the retried call says and costs the same, and asks once."""

    async def first():
        async with running(tmp_path) as conversations:
            owner = conversations.turns if step in ("begin", "end") else conversations.store
            real = getattr(owner, step)

            def dies(*arguments):
                if after:
                    real(*arguments)
                raise RuntimeError("killed")

            setattr(owner, step, dies)
            monkeypatch.setattr(conversations.turns, "forget", lambda *arguments: None)  # the dead do not clean up
            with contextlib.suppress(RuntimeError):
                await heard(conversations, "c", user(content))

    async def second():
        speaker = FakeSpeaker()
        async with running(tmp_path, speaker) as conversations:
            events = await heard(conversations, "c", user(content))
            again = await heard(conversations, "c", user(content))
            assert events[-1] == again[-1]
            assert [begun[1:3] for begun in speaker.begun] in ([(0.0, 0)], [])  # as at the first time, or not at all
            return events, conversations.store.account("c"), conversations.store.waiting()

    async def undisturbed():
        (tmp_path / "other").mkdir()
        async with running(tmp_path / "other") as conversations:
            return await heard(conversations, "c", user(content))

    asyncio.run(first())
    events, account, waiting = asyncio.run(second())
    expected = asyncio.run(undisturbed())
    assert "".join(event for event in events if isinstance(event, str)) == "".join(
        event for event in expected if isinstance(event, str)
    )
    assert events[-1].spent_nats == expected[-1].spent_nats == account.spent_nats
    assert len(waiting) == (content == "ask")


def test_events_of_a_question(tmp_path):
    async def talk():
        async with running(tmp_path) as conversations:
            events = await heard(conversations, "c", user("ask"))
            assert events[:2] == ["I", " would"]
            assert isinstance(events[2], Waiting)
            assert isinstance(events[3], Outcome)
            assert (events[3].reason, events[3].text) == ("ask", "")
            number = events[2].ticket
            asyncio.get_running_loop().call_later(
                0.05, conversations.store.decide, number, Decision(Verdict.ANSWER, "ann", "k", " go.")
            )
            events = await heard(conversations, "c", user("ask"), 5.0)
            assert events[-2] == " go."
            assert (events[-1].reason, events[-1].text) == ("stop", "I would go.")
            assert conversations.waiters == {}
            assert conversations.open == {}
            assert conversations.parked == {}
            assert conversations.talks == {}

    asyncio.run(talk())


def test_waiting_calls_that_leave_are_forgotten(tmp_path):
    async def talk():
        async with running(tmp_path) as conversations:
            number = (await heard(conversations, "c", user("ask")))[2].ticket
            calls = [asyncio.create_task(conversations.settled(number, 60)) for _ in range(20)]
            await asyncio.sleep(0.05)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            assert conversations.waiters == {}

    asyncio.run(talk())


def test_parked_turns_are_few(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_PARKED", 3)

    async def talk():
        async with running(tmp_path) as conversations:
            numbers = [(await heard(conversations, f"c{i}", user("ask")))[2].ticket for i in range(5)]
            assert list(conversations.parked) == numbers[2:]
            assert list(conversations.open) == numbers

    asyncio.run(talk())


def test_another_call_for_the_turn_that_is_said_joins_it_and_other_words_do_not(tmp_path):
    async def talk():
        speaker = FakeSpeaker(piece_seconds=0.05)
        async with running(tmp_path, speaker) as conversations:
            first = await conversations.call("c", None, user("hello"), None)
            assert await conversations.call("c", None, user("hello"), None) is first
            with pytest.raises(Refusal) as caught:
                await conversations.call("c", None, user("other"), None)
            assert caught.value.status == 409
            events = [event async for event in conversations.events(first, 0.0)]
            assert len(events) == 4
            assert len(speaker.begun) == 1

    asyncio.run(talk())


def test_a_conversation_remembers_its_limit(tmp_path):
    async def spend(limit_nats):
        async with running(tmp_path, FakeSpeaker(limit_nats=limit_nats)) as conversations:
            return (await heard(conversations, "c", user("hello")))[-1].limit_nats

    assert asyncio.run(spend(4.0)) == 4.0
    assert asyncio.run(spend(400.0)) == 4.0


def test_an_answered_question_is_known_after_a_restart(tmp_path):
    async def ask():
        async with running(tmp_path) as conversations:
            return (await heard(conversations, "c", user("ask")))[2].ticket

    async def answered(number):
        async with running(tmp_path) as conversations:
            assert list(conversations.open) == [number]
            conversations.store.decide(number, Decision(Verdict.ANSWER, "ann", "k", " go."))
            assert (await conversations.settled(number, 5.0)).state is State.ANSWERED
            return await heard(conversations, "c", user("ask"))

    assert asyncio.run(answered(asyncio.run(ask())))[-1].text == "I would go."


# answers teach


async def answered(conversations, name, content="ask", text=" go."):
    """Ask in a conversation of this name and answer; the question."""
    events = await heard(conversations, name, user(content))
    number = next(event for event in events if isinstance(event, Waiting)).ticket
    conversations.store.decide(number, Decision(Verdict.ANSWER, "ann", f"k{number}", text))
    return await conversations.settled(number, 5.0)


def learned_total(conversations):
    return conversations.metrics.counters["mightnt_answers_learned_total", ()]


def test_each_answer_teaches_before_the_next_turn_and_after_three_it_is_not_asked(tmp_path):
    async def talk():
        speaker = FakePupil()
        async with running(tmp_path, speaker) as conversations:
            tickets = [await answered(conversations, f"c{i}") for i in range(3)]
            assert [ticket.inquiry.asking_probability for ticket in tickets] == [0.375, 0.375 / 2, 0.375 / 3]
            events = await heard(conversations, "c4", user("ask"))
            assert events[:3] == ["I", " would", " knows 3"]
            assert events[-1].reason == "stop"
            assert learned_total(conversations) == 3
            assert [said.n_learned for i in range(3) for said in conversations.turns.of(f"c{i}")] == [0, 1, 2]
            assert speaker.known == ()  # what was handed in is as it was

    asyncio.run(talk())


def test_a_lesson_holds_the_conversation_and_only_the_answer_is_demonstrated(tmp_path):
    async def talk():
        async with running(tmp_path, FakePupil()) as conversations:
            await answered(conversations, "c")
            (before,) = conversations.turns.of("c")
            history = (*user("ask"), Message("assistant", f"{before.text} go."), *user("hello"))
            said = (await heard(conversations, "c", history))[-1].text
            history += (Message("assistant", said), *user("ask again"))
            assert learned_total(conversations) == 1  # the agent's own turn taught nothing
            await heard(conversations, "c", history)
            (ticket,) = conversations.store.waiting()
            conversations.store.decide(ticket.number, Decision(Verdict.ANSWER, "ann", "k2", " stay."))
            await conversations.settled(ticket.number, 5.0)
            await heard(conversations, "other", user("hello"))  # a turn waits for the lesson
            first, second = conversations.speaker.known
            begun = "I would knows 0"
            assert first == (*user("ask"), Message("assistant", f"{begun} go.", begun))
            assert [message.demonstrates for message in second] == [False] * 5 + [True]
            assert [message.content for message in second[:-1]] == [message.content for message in history]
            assert second[-1] == Message("assistant", "I would knows 1 stay.", "I would knows 1")

    asyncio.run(talk())


@pytest.mark.parametrize("verdict", [Verdict.REFUSE, Verdict.STOP])
def test_what_is_no_answer_teaches_nothing(tmp_path, verdict):
    async def talk():
        async with running(tmp_path, FakePupil()) as conversations:
            number = (await heard(conversations, "c", user("ask")))[-2].ticket
            conversations.store.decide(number, Decision(verdict, "ann", "k"))
            await conversations.settled(number, 5.0)
            await heard(conversations, "other", user("hello"))
            assert (conversations.speaker.known, learned_total(conversations)) == ((), 0)

    asyncio.run(talk())


def test_after_a_restart_it_knows_what_it_knew_and_learns_each_answer_once(tmp_path):
    """Also an answer that became final while nobody served."""

    async def first():
        async with running(tmp_path, FakePupil()) as conversations:
            await answered(conversations, "c0")
            await answered(conversations, "c1", text=" unreadable")
            number = (await heard(conversations, "c2", user("ask")))[-2].ticket
            await answered(conversations, "c3")
            await heard(conversations, "c4", user("hello"))
            return number, conversations.pupil

    number, before = asyncio.run(first())
    assert (len(before[0].known), before[1]) == (2, 3)
    with open_store(tmp_path, undo_seconds=0.0) as store:
        store.decide(number, Decision(Verdict.ANSWER, "ann", "late", " late."))
        store.release()

    async def second():
        async with running(tmp_path, FakePupil()) as conversations:
            assert conversations.speaker.known[:2] == before[0].known
            assert (len(conversations.speaker.known), conversations.pupil[1]) == (3, 4)
            assert learned_total(conversations) == 3
            await answered(conversations, "c9", "forced")
            await heard(conversations, "c10", user("hello"))
            assert (len(conversations.speaker.known), conversations.pupil[1]) == (4, 5)

    asyncio.run(second())


@pytest.mark.parametrize("learns_then", [True, False])
def test_a_turn_that_had_begun_is_said_by_the_speaker_as_it_was_then(tmp_path, monkeypatch, learns_then):
    """The books die after the turn began, with one answer learnt; another is learnt before it is tried again."""

    async def first():
        async with running(tmp_path, FakePupil()) as conversations:
            await answered(conversations, "c0")

            def dies(*arguments):
                raise RuntimeError("killed")

            with monkeypatch.context() as patch:
                patch.setattr(conversations.turns, "end", dies)
                patch.setattr(conversations.turns, "forget", dies)
                with pytest.raises(RuntimeError):
                    await heard(conversations, "c", user("hello"))
            await answered(conversations, "c1")
            await heard(conversations, "c2", user("hello"))
            assert conversations.pupil[1] == 2

    async def second():
        async with running(tmp_path, FakePupil(), replace(QUICK, learn=learns_then)) as conversations:
            events = await heard(conversations, "c", user("hello"))
            assert events[-1].text.endswith(" knows 1")
            assert conversations.pupil[1] == 2 * learns_then
            assert (await heard(conversations, "c", user("hello")))[-1] == events[-1]

    asyncio.run(first())
    asyncio.run(second())


def test_without_learning_it_stays_as_it_was(tmp_path):
    async def talk(speaker, learn):
        async with running(tmp_path, speaker, replace(QUICK, learn=learn)) as conversations:
            await answered(conversations, f"c{learn}")
            await heard(conversations, f"other{learn}", user("hello"))
            assert conversations.speaker is speaker
            assert learned_total(conversations) == 0

    asyncio.run(talk(FakePupil(), False))
    asyncio.run(talk(FakeSpeaker(), True))  # it cannot be taught


def test_a_turn_that_is_being_said_is_not_disturbed(tmp_path):
    """The answer becomes final while another turn is said: that turn ends as it began, the next one knows."""

    async def talk():
        async with running(tmp_path, FakePupil(piece_seconds=0.05)) as conversations:
            number = (await heard(conversations, "c", user("ask")))[-2].ticket
            slow = await conversations.call("slow", None, user("hello"), None)
            await asyncio.sleep(0.02)
            conversations.store.decide(number, Decision(Verdict.ANSWER, "ann", "k", " go."))
            assert (await conversations.settled(number, 5.0)).state is State.ANSWERED
            assert not slow.over
            after = await conversations.call("after", None, user("hello"), None)
            said = ["".join([text async for text in talk.follow()]) for talk in (slow, after)]
            assert [words[-8:] for words in said] == [" knows 0", " knows 1"]

    asyncio.run(talk())


def test_what_others_changed_before_a_question_of_ours_is_heard(tmp_path):
    """Another process passes a question on while ours is put: both changes reach the page, each once."""

    async def talk():
        async with running(tmp_path, terms=replace(QUICK, tick_seconds=0.2)) as conversations:
            first = (await heard(conversations, "c0", user("ask")))[-2].ticket
            await asyncio.sleep(0.3)
            news = []
            conversations.listeners.append(lambda ticket: news.append((ticket.number, ticket.person)))
            with open_store(tmp_path, shared=True) as beside:
                beside.decide(first, Decision(Verdict.ESCALATE, "ann", "k"))
            second = (await heard(conversations, "c1", user("ask")))[-2].ticket
            await asyncio.sleep(0.3)
            assert sorted(news) == sorted([(second, "ann"), (first, "bob")])
            assert conversations.open[first].person == "bob"

    asyncio.run(talk())


def test_a_question_that_was_decided_at_once_does_not_stay_open(tmp_path, monkeypatch):
    """Refused by another process before the words of its turn are on record."""

    async def talk():
        async with running(tmp_path) as conversations:
            end = conversations.turns.end

            def late(said):
                (ticket,) = conversations.store.waiting()
                conversations.store.decide(ticket.number, Decision(Verdict.REFUSE, "ann", "k"))
                time.sleep(0.2)
                end(said)

            monkeypatch.setattr(conversations.turns, "end", late)
            assert (await heard(conversations, "c", user("ask"), 5.0))[-1].reason == "refused"
            assert (conversations.open, conversations.parked) == ({}, {})

    asyncio.run(talk())


def test_names_and_seeds():
    assert new_name(None, 0) != new_name(None, 0)
    assert new_name("k", 0) == new_name("k", 0) != new_name("k", 1)
    assert len({seed_of(f"c{i}", s) for i in range(50) for s in range(2)}) == 100
    assert all(0 <= seed_of(f"c{i}", 0) < 2**63 for i in range(100))
