"""A speaker whose words, costs and time are known, and a server of it in a thread."""

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field, replace

import httpx
import uvicorn

from mightnt.desk.rota import Rota, Shift
from mightnt.desk.server.app import build_app
from mightnt.desk.server.conversations import Terms
from mightnt.desk.server.safety import Guard, Rates
from mightnt.desk.speaking import Asked, Ended, Piece
from mightnt.desk.store import open_store
from mightnt.desk.tickets import Inquiry, Proposal
from mightnt.errors import InputError

ROTA = Rota((Shift("ann", 30.0), Shift("bob", 30.0)))
PROPOSALS = (Proposal("network 1", " not.", 0.5), Proposal("counts", " go.", 0.25))
CLIENT, DEMONSTRATOR = "client-token-0123456789", "demonstrator-token-0123456789"


@dataclass
class FakeSpeaker:
    """Says ``turn T seed S heard N`` in pieces of 0.25 nats, where the last message decides:

    ``ask ...``: says ``I would`` for 0.5 nats and asks; ``forced``: asks at once; ``fail``: fails after a word;
    ``long``: ends for its length; ``spend``: charges more than there is.
    """

    name: str = "fake"
    limit_nats: float = 4.0
    piece_seconds: float = 0.0
    begun: list = field(default_factory=list)
    """The arguments of every turn that was begun."""
    heard_answers: list = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    def begin(self, messages, spent_nats, turn, seed, answered=None):
        if messages[-1].content == "unreadable":
            raise InputError("the last message cannot be read")
        self.begun.append((messages, spent_nats, turn, seed, dict(answered or {})))
        return FakeTurn(self, messages, spent_nats, turn, seed)


@dataclass
class FakePupil(FakeSpeaker):
    """Says what a fake speaker says and then what it was taught; ``ask`` is asked with a theta of 0.375 over 1 + the answers
    that it knows, and from three on not at all. ``unreadable`` in an answer cannot be learnt."""

    known: tuple = ()
    """The answers, as they were handed in."""

    def taught(self, answers):
        if any("unreadable" in message.content for dialogue in answers for message in dialogue):
            raise InputError("the answer cannot be read")
        return replace(self, known=(*self.known, *answers))

    def begin(self, messages, spent_nats, turn, seed, answered=None):
        begun = super().begin(messages, spent_nats, turn, seed, answered)
        begun.theta = 0.375 / (1 + len(self.known))
        begun.asks = begun.asks and (len(self.known) < 3 or begun.last == "forced")
        begun.words.append(f" knows {len(self.known)}")
        return begun


class FakeTurn:
    theta = 0.375

    def __init__(self, speaker, messages, spent_nats, turn, seed):
        self.speaker, self.messages, self.turn = speaker, messages, turn
        self.spent_nats = 0.0
        self.left_nats = speaker.limit_nats - spent_nats
        self.last = messages[-1].content
        words = ["I", " would"] if self.last.startswith("ask") else [] if self.last == "forced" else None
        self.words = [f"turn {turn}", f" seed {seed}", f" heard {len(messages)}"] if words is None else words
        self.done = None
        self.asks = self.last.startswith("ask") or self.last == "forced"

    def next_piece(self):
        self.speaker.at_once += 1
        self.speaker.most_at_once = max(self.speaker.most_at_once, self.speaker.at_once)
        try:
            return self.event()
        finally:
            self.speaker.at_once -= 1

    def event(self):
        if self.speaker.piece_seconds:
            time.sleep(self.speaker.piece_seconds)
        if self.last == "fail" and len(self.words) < 3:
            raise RuntimeError("the secret reason")
        if self.last == "spend":
            self.spent_nats = self.left_nats + 0.1
        if self.words and not (self.left_nats - self.spent_nats < 0.25 and self.last != "spend"):
            self.spent_nats += 0.25
            return Piece(self.words.pop(0), 0.25)
        if self.asks or self.words:
            return Asked(
                Inquiry("", self.turn, self.messages, "", self.theta, self.last == "forced", self.speaker.limit_nats,
                        self.left_nats, PROPOSALS, "network 1 and counts differ")
            )  # fmt: skip
        return Ended("length" if self.last == "long" else "stop")

    def continue_with(self, text):
        self.speaker.heard_answers.append(text)


@dataclass
class Served:
    """A server that runs: where, and what it is made of."""

    url: str
    speaker: FakeSpeaker
    store: object
    folder: object

    def http(self, **more):
        return httpx.Client(base_url=self.url, timeout=30, **more)

    def chat(self, *contents, **more):
        """POST a chat of these messages (the user's and the assistant's in turn); the response."""
        headers = more.pop("headers", {})
        body = {"model": "fake", "messages": said(*contents), "mightnt": {"wait_seconds": more.pop("wait", 0)}}
        with self.http() as http:
            return http.post("/v1/chat/completions", json=body | more, headers=headers)

    def waiting(self, n=1, seconds=10.0):
        """The questions at the desk, once there are ``n``."""
        until = time.monotonic() + seconds
        while len(tickets := self.store.waiting()) < n:
            assert time.monotonic() < until, f"{len(tickets)} questions wait, {n} were expected"
            time.sleep(0.01)
        return tickets

    def heard_answers(self, n, seconds=10.0):
        """What parked turns were told to go on with, once there are ``n``: they hear it after the caller does."""
        until = time.monotonic() + seconds
        while len(self.speaker.heard_answers) < n and time.monotonic() < until:
            time.sleep(0.01)
        return self.speaker.heard_answers

    def decide(self, number, verdict="answer", text="", headers=None, key=None, **more):
        """Decide a question as the page does."""
        with self.http(headers=headers or {}) as http:
            stamp = http.get("/desk/me").json().get("stamp", "")
            body = {"verdict": verdict, "key": key or f"key-{number}-{verdict}", "text": text} | more
            return http.post(f"/desk/tickets/{number}/decide", json=body, headers={"X-Desk-Stamp": stamp})


def said(*contents):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def serving(folder, speaker=None, terms=None, guard=None, rota=ROTA, undo_seconds=0.0):
    """A server in a thread, with a quick clerk and no undo time unless told otherwise."""
    speaker, port = speaker or FakeSpeaker(), free_port()
    terms = terms or Terms(wait_seconds=10.0, tick_seconds=0.02)
    guard = guard or Guard(calls=Rates(1e6, 1e6))
    with open_store(folder, undo_seconds) as store:
        app = build_app(speaker, store, folder, rota, terms, guard)
        config = uvicorn.Config(app, port=port, log_level="critical", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                time.sleep(0.005)
            yield Served(f"http://127.0.0.1:{port}", speaker, store, folder)
        finally:
            server.should_exit = True
            thread.join(15)
            assert not thread.is_alive(), "the server did not stop"
