"""Turns at work, below the protocol: crashes between any two steps, names and seeds, room, letting go."""

import asyncio
import contextlib

import pytest

from mightnt.desk.server import conversations as module
from mightnt.desk.server.conversations import Conversations, Outcome, Terms, Waiting, new_name, seed_of
from mightnt.desk.server.refusal import Refusal
from mightnt.desk.server.turns import Turns
from mightnt.desk.store import open_store
from mightnt.desk.tickets import Decision, State, Verdict
from mightnt.dialogues import Message
from tests.desk.server.fakes import ROTA, FakeSpeaker

QUICK = Terms(tick_seconds=0.01, seed=3)


def user(*contents):
    return tuple(Message("user", content) for content in contents)


@contextlib.asynccontextmanager
async def running(folder, speaker=None, terms=QUICK):
    with open_store(folder, undo_seconds=0.0) as store:
        turns = Turns(folder)
        conversations = Conversations(speaker or FakeSpeaker(), store, turns, ROTA, terms)
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


def test_names_and_seeds():
    assert new_name(None, 0) != new_name(None, 0)
    assert new_name("k", 0) == new_name("k", 0) != new_name("k", 1)
    assert len({seed_of(f"c{i}", s) for i in range(50) for s in range(2)}) == 100
    assert all(0 <= seed_of(f"c{i}", 0) < 2**63 for i in range(100))
