"""A store under load whose process is killed at random points, whose disk is full, whose clock is set back.

Whatever was acknowledged is there exactly once afterwards; whatever was refused changed nothing. (A kill loses what was in
the process, not what the system holds: that every commit is flushed to the disk itself is asked of SQLite in
tests/desk/test_database.py.)
"""

import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mightnt.desk.database import StoreError
from mightnt.desk.store import FILE, Conflict, open_store
from mightnt.desk.tickets import State
from mightnt.errors import InputError
from tests.desk.questions import Clock, answer, inquiry

ROOT = Path(__file__).parents[2]
WORKER = (sys.executable, "-m", "tests.faults.store_worker")
THREADS = 8
MOST_LINES = 150
"""A process says at most so many lines, three a turn, before it is killed; some die before the first."""


def killed(folder, n_lines, seconds):
    """What a working process said before it was killed: so long after it had said ``n_lines``, while others were being said."""
    command = [*WORKER, "work", str(folder), f"{THREADS}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as child:
        lines = [child.stdout.readline() for _ in range(n_lines)]
        time.sleep(seconds)
        child.kill()
        lines += child.stdout.readlines()
        assert child.wait() == -signal.SIGKILL, child.stderr.read().decode()
    return [line.decode().split() for line in lines if line.endswith(b"\n")]  # what was cut off was not heard


def check(folder, heard):
    """Everything heard is in the store, exactly once, and nothing stands there twice."""
    n_killed = len([line for line in heard if line == ["open"]])
    """Each can have charged one turn a thread without being heard."""
    with open_store(folder, undo_seconds=0.01) as store:
        store.release(time.time() + 1)
        tickets = store.changes(0)
        answers = {ticket.number: ticket for ticket in store.answers()}
        assert len(answers) == sum(ticket.state is State.ANSWERED for ticket in tickets)
        keys = Counter(f"{ticket.inquiry.conversation}-{ticket.inquiry.turn}" for ticket in tickets)
        assert set(keys.values()) <= {1}, "a question was doubled"
        words = Counter(ticket.decision.text for ticket in answers.values())
        assert set(words.values()) <= {1}, "an answer was doubled"
        for _, key, number in (line for line in heard if line[0] == "answered"):
            assert answers[number].decision.text == f"words of {key}"
            assert len(store.decisions(number)) == 1
        asked = {number for line in heard if line[0] == "asked" for number in line[2:]}
        assert asked <= {ticket.number for ticket in tickets}
        assert len(asked) == len({line[1] for line in heard if line[0] == "asked"}), "a key had two tickets"
        for thread in range(THREADS):
            charged = {line[1] for line in heard if line[0] == "charged" and line[1].startswith(f"{thread}-")}
            account = store.account(f"{thread}")
            n_turns = account.n_turns if account else 0
            assert len(charged) <= n_turns <= len(charged) + n_killed, "a charge was lost or doubled"
            if account:
                assert account.spent_nats == 0.25 * account.n_turns
    with sqlite3.connect(folder / FILE) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []


def kill_often(folder, n, seed):
    """Kill ``n`` processes, most of them under load, every tenth while it starts; check after each; how many answers."""
    rng = np.random.default_rng(seed)
    heard = []
    for i in range(n):
        n_lines = 0 if i % 10 == 9 else int(rng.integers(1, MOST_LINES))
        heard += killed(folder, n_lines, rng.uniform(0.0, 0.01 if n_lines else 0.5))
        check(folder, heard)
    return sum(line[0] == "answered" for line in heard)


def test_killed_a_few_times_it_loses_and_doubles_nothing(tmp_path):
    assert kill_often(tmp_path, 3, seed=0) > 3 * THREADS


@pytest.mark.slow
def test_killed_at_fifty_random_points_under_load_it_loses_and_doubles_nothing(tmp_path):
    assert kill_often(tmp_path, 50, seed=1) > 50 * THREADS


def full_disk(store, limit_pages):
    """Let the file of a store grow no further; how SQLite says that the disk is full."""
    store._db.execute(f"PRAGMA max_page_count = {limit_pages}")


def test_on_a_full_disk_nothing_is_acknowledged_and_nothing_lost(tmp_path):
    with open_store(tmp_path, undo_seconds=0) as store:
        waits = [store.ask(f"{i}", inquiry(f"{i}"), "ann", time.time() + 3600).number for i in range(30)]
        store.open_conversation("c", 10.0)
        full_disk(store, 1)  # it becomes as many as there are
        acknowledged, refusals, before = [], [], store.sequence()
        for i, number in enumerate(waits):
            try:
                store.decide(number, answer("x" * 3000, key=f"k{i}"))
                acknowledged.append(number)
            except StoreError as error:
                refusals.append(str(error))
                assert store.ticket(number).state is State.WAITING
        assert len(refusals) > 10
        assert all("disk is full" in refusal for refusal in refusals)
        assert store.sequence() - before == len(acknowledged)
        with pytest.raises(StoreError, match="nothing was changed"):
            store.ask("more", inquiry("x" * 10_000), "ann", time.time() + 3600)
        full_disk(store, 1_000_000)
        for i, number in enumerate(waits):
            assert store.decide(number, answer("x" * 3000, key=f"k{i}")).state is State.DECIDED
        store.release()
    with open_store(tmp_path) as store:
        assert {ticket.number for ticket in store.answers()} == set(waits)


def test_where_a_file_cannot_grow_nothing_is_acknowledged_and_nothing_lost(tmp_path):
    command = [*WORKER, "limited", str(tmp_path), str(1_000_000)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    answered = {line[1]: line[2] for line in lines if line[0] == "answered"}
    assert len(answered) > 5
    assert sum(line[0] == "refused" for line in lines) == 5
    with open_store(tmp_path, undo_seconds=0) as store:
        store.release(time.time() + 1)
        found = {ticket.number: ticket.decision.text for ticket in store.answers()}
        assert answered.items() <= found.items()
        assert set(Counter(found.values()).values()) == {1}
        store.ask("again", inquiry("again"), "ann", time.time() + 3600)


def test_a_clock_set_back_between_two_processes_reopens_nothing_and_orders_by_sequence(tmp_path):
    clock = Clock(1e9)
    with open_store(tmp_path, undo_seconds=5, clock=clock) as store:
        expired, decided, waits = (
            store.ask(f"{i}", inquiry(f"{i}"), "ann", clock.now + [10, 100, 100][i]).number for i in range(3)
        )
        clock.now += 10
        store.expire()
        store.decide(decided, answer(key="k"))
    clock.now -= 5e8
    with open_store(tmp_path, undo_seconds=5, clock=clock) as store:
        seen = store.sequence()
        with pytest.raises(Conflict, match="expired"):
            store.decide(expired, answer(key="late"))
        later = store.ask("later", inquiry("later"), "ann", clock.now + 100)
        assert later.sequence > seen
        assert store.changes(0)[-1].number == later.number
        clock.now += 5
        assert [ticket.number for ticket in store.release()] == [decided]
        clock.now += 85
        assert [ticket.number for ticket in store.expire()] == [waits], "with the time it had left"


def test_two_servers_on_one_store_are_refused_until_the_first_is_dead(tmp_path):
    command = [*WORKER, "work", str(tmp_path), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as first:
        assert first.stdout.readline() == b"open\n"
        second = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert second.returncode != 0
        assert "another server keeps this desk" in second.stderr
        assert second.stdout == ""
        with pytest.raises(InputError, match="another server"), open_store(tmp_path):
            pass
        with open_store(tmp_path, shared=True) as beside:
            assert beside.sequence() >= 0
        first.kill()
    with open_store(tmp_path) as third:
        assert third.counts()[State.EXPIRED] == 0


def test_killed_between_two_versions_a_store_has_one_of_them(tmp_path):
    """A migration that never comes to its end leaves the old version, whole."""
    with open_store(tmp_path) as store:
        number = store.ask("q", inquiry(), "ann", time.time() + 3600).number
    code = """
import os, signal, sys
from pathlib import Path
from mightnt.desk import store
slow = "UPDATE tickets SET person = 'nobody'; CREATE TABLE more (x); SELECT die()"
connect = store.durable.__globals__["_connect"]
def dying(path, timeout):
    db = connect(path, timeout)
    db.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
    return db
store.durable.__globals__["_connect"] = dying
store.MIGRATIONS += (slow,)
store.open_store(Path(sys.argv[1])).__enter__()
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    with open_store(tmp_path) as store:
        assert store.ticket(number).person == "ann"
