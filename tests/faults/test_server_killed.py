"""A whole server under load that is killed at random points and started again: answers, questions and charges are there once.

Clients and people repeat what was cut off, as programs do; what they had been told before the kill still holds.
"""

import contextlib
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from mightnt.desk.store import open_store
from mightnt.desk.tickets import State

ROOT = Path(__file__).parents[2]
CLIENTS = 6
PROGRAM = """
import sys
from pathlib import Path
import uvicorn
from mightnt.cli.serve import listening
from mightnt.desk.rota import Rota, Shift
from mightnt.desk.server.app import build_app
from mightnt.desk.server.conversations import Terms
from mightnt.desk.server.safety import Guard, Rates
from mightnt.desk.store import open_store
from tests.desk.server.fakes import FakeSpeaker
folder = Path(sys.argv[1])
with open_store(folder, undo_seconds=0.0) as store, listening("127.0.0.1", 0) as found:
    rota, guard = Rota((Shift("ann", 1e5),)), Guard(calls=Rates(1e6, 1e6))
    terms = Terms(wait_seconds=0.0, tick_seconds=0.02)
    app = build_app(FakeSpeaker(piece_seconds=0.001), store, folder, rota, terms, guard)
    print(found.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=[found])
"""


@contextlib.contextmanager
def server(folder):
    """The address of a server of its own; it is killed at the end, wherever it is."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM, folder], stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


class Heard:
    """What clients and people were told: tickets by conversation, answers that were acknowledged, replies."""

    def __init__(self):
        self.begun, self.tickets, self.answered, self.told = set(), {}, set(), {}

    def talk(self, http, stamp, name):
        """One conversation: a question, its answer (twice, as a double click sends it), the reply."""
        self.begun.add(name)
        body = {"model": "fake", "messages": [{"role": "user", "content": "ask"}]}
        reply = http.post("/v1/chat/completions", json=body, headers={"X-Conversation": name})
        assert reply.status_code == 200, reply.text
        number = reply.json()["mightnt"]["ticket"]
        assert self.tickets.setdefault(name, number) == number
        decision = {"verdict": "answer", "key": f"key-{name}", "text": f" words of {name}", "person": "ann"}
        for _ in range(2):
            done = http.post(f"/desk/tickets/{number}/decide", json=decision, headers=stamp)
            assert done.status_code == 200, done.text
            self.answered.add(name)
        ticket = http.get(f"/v1/tickets/{number}", params={"wait_seconds": 20}).json()
        self.told[name] = ticket["completion"]["choices"][0]["message"]["content"]


def work(url, heard, names, places, client):
    """Talk until the server is gone; ``places[client]`` is where the next server finds this client."""
    with contextlib.suppress(httpx.TransportError), httpx.Client(base_url=url, timeout=60) as http:
        stamp = {"X-Desk-Stamp": http.get("/desk/me").json()["stamp"]}
        while True:
            heard.talk(http, stamp, names[client][places[client]])
            places[client] += 1


def kill_often(folder, n, seed):
    """Kill ``n`` servers under load, each after a random number of replies and a random moment more; what was heard."""
    rng, heard, places = np.random.default_rng(seed), Heard(), [0] * CLIENTS
    names = [[f"c{client}-{i}" for i in range(10_000)] for client in range(CLIENTS)]
    for i in range(n):
        with ThreadPoolExecutor(CLIENTS) as pool, server(folder) as url:
            clients = [pool.submit(work, url, heard, names, places, c) for c in range(CLIENTS)]
            enough, until = len(heard.told) + rng.integers(0, 30) * (i % 10 != 9), time.monotonic() + 60
            while len(heard.told) < enough:
                assert time.monotonic() < until, "the server stands still"
                assert not any(client.done() for client in clients), "a client gave up"
                time.sleep(0.001)
            time.sleep(rng.uniform(0.0, 0.05))
        for client in clients:
            client.result()
        check(folder, heard)
    return heard


def check(folder, heard):
    """Everything that was acknowledged is in the store, exactly once, and nothing is there twice."""
    with open_store(folder, shared=True) as store:
        tickets = store.changes(0)
        assert set(Counter(ticket.inquiry.conversation for ticket in tickets).values()) <= {1}, "a question was doubled"
        by_name = {ticket.inquiry.conversation: ticket for ticket in tickets}
        for name, number in heard.tickets.items():
            assert by_name[name].number == number
            account = store.account(name)
            assert (account.spent_nats, account.n_turns) == (0.5, 1)
        for name in heard.answered:
            assert by_name[name].state in (State.DECIDED, State.ANSWERED)
            assert by_name[name].decision.text == f" words of {name}"
            assert len(store.decisions(by_name[name].number)) == 1
    assert heard.told == {name: f"I would words of {name}" for name in heard.told}


def finished(folder, heard):
    """What was cut off, and some of what was not, is repeated to a last server; then nothing is open."""
    with server(folder) as url, httpx.Client(base_url=url, timeout=60) as http:
        stamp = {"X-Desk-Stamp": http.get("/desk/me").json()["stamp"]}
        for i, name in enumerate(sorted(heard.begun)):
            if name not in heard.told or i % 20 == 0:
                heard.talk(http, stamp, name)
    check(folder, heard)
    with open_store(folder, shared=True) as store:
        counts = store.counts()
    assert counts[State.ANSWERED] == sum(counts.values()) == len(heard.begun) == len(heard.told)
    return len(heard.told)


def test_killed_a_few_times_a_server_loses_and_doubles_nothing(tmp_path):
    assert finished(tmp_path, kill_often(tmp_path, 3, seed=0)) > 10


@pytest.mark.slow
def test_killed_at_fifty_random_points_under_load_a_server_loses_and_doubles_nothing(tmp_path):
    assert finished(tmp_path, kill_often(tmp_path, 50, seed=1)) > 300
