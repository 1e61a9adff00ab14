"""The routes of the desk: the live queue, decisions that count once, undo, and what they refuse."""

import contextlib
import json
import threading
import time

import httpx
import pytest

from mightnt.desk.server import page as page_module
from mightnt.desk.server.page import decision_in, summary, whole
from mightnt.desk.server.refusal import Refusal
from mightnt.desk.tickets import Inquiry, State, Ticket
from mightnt.dialogues import Message
from tests.desk.server.fakes import serving


@pytest.fixture
def served(tmp_path):
    with serving(tmp_path, undo_seconds=30.0) as server:
        yield server


@pytest.fixture
def number(served):
    return served.chat("ask").json()["mightnt"]["ticket"]


class Listener:
    """Hears the events of a desk in a thread."""

    def __init__(self, served):
        self.events = []
        self.thread = threading.Thread(target=self.listen, args=(served,), daemon=True)
        self.thread.start()
        self.until("queue")

    def listen(self, served):
        ends = contextlib.suppress(httpx.HTTPError)  # with the server
        with ends, served.http() as http, http.stream("GET", "/desk/events") as response:
            name = None
            for line in response.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    self.events.append((name, json.loads(line.removeprefix("data: "))))

    def until(self, name, **fields):
        end = time.monotonic() + 10
        while True:
            for event, value in self.events:
                if event == name and all(value.get(key) == wanted for key, wanted in fields.items()):
                    return value
            assert time.monotonic() < end, (name, fields, self.events)
            time.sleep(0.01)


def test_the_page_hears_the_queue_and_every_change(served):
    first = served.chat("ask").json()["mightnt"]["ticket"]
    listener = Listener(served)
    queue = listener.until("queue")
    assert [ticket["number"] for ticket in queue["tickets"]] == [first]
    second = served.chat("ask second").json()["mightnt"]["ticket"]
    assert listener.until("ticket", number=second, state="waiting")["excerpt"] == "ask second"
    served.decide(first, "refuse")
    assert listener.until("ticket", number=first, state="decided")["verdict"] == "refuse"


def test_it_hears_what_others_did_to_the_store(served, number):
    from mightnt.desk.store import open_store
    from mightnt.desk.tickets import Decision, Verdict

    listener = Listener(served)
    with open_store(served.folder, shared=True) as beside:
        beside.decide(number, Decision(Verdict.ANSWER, "bob", "from a terminal", " yes"))
    assert listener.until("ticket", number=number, state="decided")["decided_by"] == "bob"


def test_a_heartbeat(served, monkeypatch):
    monkeypatch.setattr(page_module, "HEARTBEAT_SECONDS", 0.05)
    Listener(served).until("beat")


def test_too_many_pages(served, monkeypatch):
    monkeypatch.setattr(page_module, "MOST_PAGES", 1)
    Listener(served)
    with served.http() as http:
        assert http.get("/desk/events").status_code == 429


def test_a_question_is_whole(served, number):
    with served.http() as http:
        value = http.get(f"/desk/tickets/{number}").json()
        assert http.get("/desk/tickets/other").status_code == 404
    assert value["inquiry"]["begun"] == "I would"
    assert value["inquiry"]["messages"] == [{"role": "user", "content": "ask"}]
    assert [proposal["text"] for proposal in value["inquiry"]["proposals"]] == [" not.", " go."]
    assert value["person"] == "ann"


def test_the_same_decision_again_counts_once(served, number):
    first, second = (served.decide(number, text=" yes", key="same-key-1").json() for _ in range(2))
    assert first == second
    assert served.decide(number, text=" no", key="same-key-1").status_code == 409
    assert served.decide(number, text=" no", key="other-key-1").status_code == 409
    assert served.store.ticket(number).decision.text == " yes"


def test_undo_by_who_decided(served, number):
    served.decide(number, text=" yes", person="bob")
    with served.http() as http:
        headers = {"X-Desk-Stamp": http.get("/desk/me").json()["stamp"]}
        assert http.post(f"/desk/tickets/{number}/undo", json={"person": "ann"}, headers=headers).status_code == 409
        undone = http.post(f"/desk/tickets/{number}/undo", json={"person": "bob"}, headers=headers)
    assert undone.json()["state"] == "waiting"
    assert served.store.ticket(number).state is State.WAITING


def test_passing_on(served, number):
    assert served.decide(number, "escalate", person="bob").status_code == 409
    assert served.decide(number, "escalate", key="another-key").json()["person"] == "bob"
    assert served.decide(number, "escalate", person="bob", key="a-third-key").status_code == 409


def test_an_answer_is_told_once_it_can_no_longer_be_undone(tmp_path):
    with serving(tmp_path, undo_seconds=0.5) as served:
        number = served.chat("ask", headers={"X-Conversation": "c"}).json()["mightnt"]["ticket"]
        started = time.monotonic()
        served.decide(number, text=" yes")
        body = served.chat("ask", headers={"X-Conversation": "c"}, wait=10).json()
        assert body["choices"][0]["message"]["content"] == "I would yes"
        assert time.monotonic() - started > 0.45


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"verdict": "answer", "key": "12345678"},
        {"verdict": "answer", "key": "12345678", "text": "  "},
        {"verdict": "refuse", "key": "12345678", "text": "words"},
        {"verdict": "approve", "key": "12345678"},
        {"verdict": ["answer"], "key": "12345678"},
        {"verdict": "refuse", "key": "short"},
        {"verdict": "refuse", "key": 12345678},
        {"verdict": "refuse"},
        {"verdict": "edit", "key": "12345678", "text": "x", "proposal": True},
        {"verdict": "answer", "key": "12345678", "text": ["x"]},
        {"verdict": "refuse", "key": "12345678", "also": 1},
    ],
)
def test_what_is_no_decision(value):
    with pytest.raises(Refusal) as caught:
        decision_in(value, "ann")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "more", [{"proposal": 7}, {"proposal": -1}, {"proposal": 10**30}, {"person": 3}, {"person": "<b>"}]
)
def test_what_no_question_allows(served, number, more):
    assert served.decide(number, text=" yes", **more).status_code == 400


def test_a_proposal_taken_must_say_what_it_said(served, number):
    assert served.decide(number, text=" other", proposal=0).status_code == 400
    assert served.decide(number, text=" not.", proposal=0, key="right-one").status_code == 200


def test_only_its_own_files(served):
    with served.http() as http:
        assert http.get("/desk/desk.html").headers["content-type"].startswith("text/html")
        for name in ("../page.py", "%2e%2e/page.py", "page.py", "desk.js%00"):
            assert http.get(f"/desk/{name}").status_code == 404
        assert http.get("/").headers["location"] == "/desk"


def test_summary_has_no_more_than_the_list_needs():
    inquiry = Inquiry("c", 0, (Message("user", "x" * 5000),), "", 0.0, True, float("inf"), float("inf"))
    ticket = Ticket("n", inquiry, State.WAITING, 1.0, 2.0, "ann", None, None, 1)
    assert len(json.dumps(summary(ticket))) < 700
    assert whole(ticket)["inquiry"]["limit_nats"] == "inf"  # JSON has no infinity
