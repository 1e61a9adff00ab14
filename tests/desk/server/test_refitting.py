"""Networks that learn beside a server: the old set serves meanwhile, fails cost nothing, the new one knows every answer."""

import asyncio
import os
import signal
import sys
import threading
import time
from dataclasses import replace

import pytest

from mightnt.desk.server import conversations as module
from mightnt.desk.server.refitting import Refit, RefitError, refitted
from mightnt.desk.store import open_store
from mightnt.desk.tickets import Decision, Verdict
from mightnt.dialogues import Message
from mightnt.errors import InputError
from tests.desk.server.fakes import FakePupil
from tests.desk.server.test_conversations import QUICK, answered, heard, running, user

PASSED = '{"passed": true, "why": ""}'


def python(code, *words):
    return (sys.executable, "-c", code, *map(str, words))


def printing(text):
    return python("import sys; print(sys.argv[1])", text)


def waiting_for(path, then=PASSED):
    """A process that writes its number, waits until ``path`` is there, and says ``then``."""
    code = (
        "import os, sys, time; from pathlib import Path\n"
        "Path(sys.argv[1] + '.pid').write_text(str(os.getpid()))\n"
        "while not Path(sys.argv[1]).exists(): time.sleep(0.01)\n"
        "print(sys.argv[2])"
    )
    return python(code, path, then)


class Better(FakePupil):
    """The speaker with the new networks: known by its words."""

    def begin(self, *arguments, **more):
        turn = super().begin(*arguments, **more)
        turn.words.append(" better")
        return turn


# the process


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (python("import sys; sys.exit('no disk')"), "left with 1: no disk"),
        (python("import os; os.kill(os.getpid(), 9)"), "killed by signal 9: silently"),
        (printing("done"), "did not say"),
        (printing("[]"), "did not say"),
        (printing('{"passed": true}'), "did not say"),
        (("/nowhere/python",), "cannot be run"),
    ],
)
def test_what_fails_is_said(command, complaint):
    with pytest.raises(RefitError, match=complaint):
        asyncio.run(refitted([command]))
    with pytest.raises(RefitError, match="left with 3"):
        asyncio.run(refitted([python("import sys; sys.exit(3)"), printing(PASSED)]))


def test_what_became_of_it():
    assert asyncio.run(refitted([printing("first"), printing(PASSED)])) == ""
    assert asyncio.run(refitted([printing('{"passed": false, "why": "worse"}')])) == "worse"
    assert asyncio.run(refitted([printing('{"passed": "yes", "why": ""}')])) == "no reason was given"


def test_cancelled_it_ends_the_process(tmp_path):
    async def cancel():
        task = asyncio.create_task(refitted([waiting_for(tmp_path / "go")]))
        number = int(await appears(tmp_path / "go.pid"))
        task.cancel()
        await asyncio.wait([task])
        return number

    number = asyncio.run(cancel())
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_nonsense_is_refused():
    for every, commands in ((0, (("true",),)), (1, ())):
        with pytest.raises(InputError):
            Refit(every, commands, FakePupil)


# beside a server


async def appears(path, seconds=10.0):
    async with asyncio.timeout(seconds):
        while not path.exists() or not path.read_text():
            await asyncio.sleep(0.01)
    return path.read_text()


def outcomes(conversations):
    counters = conversations.metrics.counters
    return {dict(labels)["outcome"]: n for (name, labels), n in counters.items() if name == "mightnt_refits_total"}


async def until(condition, seconds=10.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def says(conversations, name):
    return (await heard(conversations, name, user("hello")))[-1].text


def test_the_old_set_serves_until_the_new_one_is_there_and_no_answer_is_lost(tmp_path):
    """Two answers before, one while networks are fitted: the new set knows three, a turn in progress stays with the old."""

    async def talk():
        refit = Refit(2, (waiting_for(tmp_path / "go"),), Better)
        (tmp_path / "run").mkdir()
        async with running(tmp_path / "run", FakePupil(piece_seconds=0.05), refit=refit) as conversations:
            await answered(conversations, "c0")
            assert not (tmp_path / "go.pid").exists()
            await answered(conversations, "c1")
            await appears(tmp_path / "go.pid")
            assert (await says(conversations, "meanwhile")).endswith(" knows 2")
            await answered(conversations, "c2")
            slow = await conversations.call("slow", None, user("hello"), None)
            await asyncio.sleep(0.06)
            (tmp_path / "go").touch()
            await until(lambda: outcomes(conversations) == {"passed": 1})
            assert (await says(conversations, "after")).endswith(" knows 3 better")
            assert "".join([text async for text in slow.follow()]).endswith(" knows 3")
            assert len(conversations.speaker.known) == conversations.pupil[1] == 3
            # a conversation that was begun with the old set goes on with the new one, on the same account
            first = await says(conversations, "meanwhile")
            spent = conversations.store.account("meanwhile").spent_nats
            history = (*user("hello"), *said_by(first), *user("again"))
            event = (await heard(conversations, "meanwhile", history))[-1]
            assert event.text.endswith(" better")
            assert event.spent_nats > spent
            await answered(conversations, "c3", "forced")
            await until(lambda: len(conversations.speaker.known) == 4)

    asyncio.run(talk())


def said_by(text):
    return (Message("assistant", text),)


@pytest.mark.parametrize(
    ("commands", "load", "outcome", "logged"),
    [
        ((python("import sys; sys.exit('no disk')"),), Better, "failed", "no disk"),
        ((printing('{"passed": false, "why": "2% worse"}'),), Better, "kept", "2% worse"),
        ((printing(PASSED),), lambda: 1 / 0, "failed", "division"),
    ],
)
def test_where_nothing_came_of_it_the_old_set_serves_and_it_is_tried_again(
    tmp_path, commands, load, outcome, logged, caplog
):
    async def talk():
        async with running(tmp_path, FakePupil(), refit=Refit(2, commands, load)) as conversations:
            for i in range(2):
                await answered(conversations, f"c{i}", "forced")
            await until(lambda: outcomes(conversations) == {outcome: 1})
            assert (await says(conversations, "after")).endswith(" knows 2")
            await answered(conversations, "c2", "forced")
            await asyncio.sleep(0.1)
            assert outcomes(conversations) == {outcome: 1}
            await answered(conversations, "c3", "forced")
            await until(lambda: outcomes(conversations) == {outcome: 2})
            assert (await says(conversations, "again")).endswith(" knows 4")

    asyncio.run(talk())
    assert logged in caplog.text


def test_one_goes_on_at_a_time(tmp_path, monkeypatch):
    async def talk():
        begun, go = [], asyncio.Event()

        async def fitting(commands):
            begun.append(commands)
            await go.wait()
            return ""

        monkeypatch.setattr(module, "refitted", fitting)
        async with running(tmp_path, FakePupil(), refit=Refit(1, (("fit",),), Better)) as conversations:
            for i in range(3):
                await answered(conversations, f"c{i}", "forced")
                await until(lambda: begun)
            assert len(begun) == 1
            go.set()
            await until(lambda: outcomes(conversations) == {"passed": 2})  # for the two that came meanwhile
            assert begun == [(("fit",),)] * 2

    asyncio.run(talk())


class Slow(Better):
    """Learns one answer, and more once it may."""

    may = None

    def taught(self, answers):
        while self.known and not self.may.is_set():
            time.sleep(0.01)
        return super().taught(answers)


def test_what_is_answered_while_the_new_set_learns_is_learnt_too(tmp_path, monkeypatch):
    async def talk():
        monkeypatch.setattr(Slow, "may", threading.Event())
        async with running(tmp_path, FakePupil()) as conversations:
            for i in range(2):
                await answered(conversations, f"c{i}", "forced")
            await until(lambda: conversations.pupil[1] == 2)
            taking_over = asyncio.create_task(conversations._take_over(Slow()))
            await answered(conversations, "c2", "forced")
            await until(lambda: conversations.pupil[1] == 3)
            assert not taking_over.done()
            Slow.may.set()
            await taking_over
            assert len(conversations.speaker.known) == conversations.pupil[1] == 3
            assert (await says(conversations, "after")).endswith(" knows 3 better")

    asyncio.run(talk())


def test_an_answer_that_the_old_set_has_yet_to_learn_is_learnt_once(tmp_path):
    """It became final by another process, and the clerk has not looked since."""

    async def talk():
        async with running(tmp_path, FakePupil(), replace(QUICK, tick_seconds=60.0)) as conversations:
            number = (await heard(conversations, "c", user("forced")))[-2].ticket
            with open_store(tmp_path, undo_seconds=0.0, shared=True) as beside:
                beside.decide(number, Decision(Verdict.ANSWER, "ann", "k", " go."))
                beside.release()
            await conversations._take_over(Better())
            assert (conversations.speaker.known, conversations.pupil[1]) == ((), 0)
            conversations.kick()
            await until(lambda: conversations.pupil[1] == 1)
            assert len(conversations.speaker.known) == 1

    asyncio.run(talk())


def test_killed_it_costs_nothing(tmp_path):
    async def talk():
        refit = Refit(1, (waiting_for(tmp_path / "go"),), Better)
        (tmp_path / "run").mkdir()
        async with running(tmp_path / "run", FakePupil(), refit=refit) as conversations:
            await answered(conversations, "c0", "forced")
            number = await appears(tmp_path / "go.pid")
            await answered(conversations, "c1", "forced")
            (tmp_path / "go.pid").unlink()
            os.kill(int(number), signal.SIGKILL)
            await until(lambda: outcomes(conversations) == {"failed": 1})
            assert (await says(conversations, "after")).endswith(" knows 2")
            await appears(tmp_path / "go.pid")  # for the answer that came meanwhile
            (tmp_path / "go").touch()
            await until(lambda: outcomes(conversations) == {"failed": 1, "passed": 1})
            assert (await says(conversations, "last")).endswith(" knows 2 better")

    asyncio.run(talk())


def test_a_server_that_stops_ends_it(tmp_path):
    async def talk():
        refit = Refit(1, (waiting_for(tmp_path / "go"),), Better)
        (tmp_path / "run").mkdir()
        async with running(tmp_path / "run", FakePupil(), refit=refit) as conversations:
            await answered(conversations, "c0", "forced")
            return int(await appears(tmp_path / "go.pid"))

    with pytest.raises(ProcessLookupError):
        os.kill(asyncio.run(talk()), 0)


@pytest.mark.parametrize(("n_learned", "begins"), [(0, True), (1, False)])
def test_answers_of_before_count_unless_the_networks_know_them(tmp_path, n_learned, begins):
    async def talk():
        async with running(tmp_path, FakePupil()) as conversations:
            await answered(conversations, "c0", "forced")
            await answered(conversations, "c1", "forced")
        refit = Refit(2, (printing(PASSED),), Better, n_learned)
        async with running(tmp_path, FakePupil(), refit=refit) as conversations:
            await asyncio.sleep(0.3)
            if begins:
                await until(lambda: outcomes(conversations))
            assert outcomes(conversations) == ({"passed": 1} if begins else {})
            if begins:
                assert (await says(conversations, "after")).endswith(" knows 2 better")

    asyncio.run(talk())


def test_without_learning_nothing_is_fitted(tmp_path):
    async def talk():
        refit = Refit(1, (printing(PASSED),), Better)
        async with running(tmp_path, FakePupil(), replace(QUICK, learn=False), refit) as conversations:
            await answered(conversations, "c0", "forced")
            await asyncio.sleep(0.2)
            assert outcomes(conversations) == {}

    asyncio.run(talk())
