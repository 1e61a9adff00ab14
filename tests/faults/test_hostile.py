"""Malformed and hostile requests: always a clear 4xx, never a 5xx, and the server is as well afterwards as before."""

import hashlib
import json
import random
import socket
import threading
import time

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks as openapi

from mightnt.desk.server.conversations import Terms
from mightnt.desk.server.openapi import description
from mightnt.desk.server.reading import MOST_BYTES
from mightnt.desk.server.safety import Guard, Rates
from tests.desk.server.fakes import FakeSpeaker, said, serving

CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi.status_code_conformance,
    openapi.content_type_conformance,
    openapi.response_schema_conformance,
    openapi.unsupported_method,
]
UNDO = "POST /desk/tickets/{number}/undo"
POSTS = ("/v1/chat/completions", "/desk/login", "/desk/tickets/0123/decide", "/desk/tickets/0123/undo")


class Asking(FakeSpeaker):
    """Asks in every other conversation, whatever it hears; called as the description's examples may guess."""

    def begin(self, messages, spent_nats, turn, seed, answered=None):
        begun = super().begin(messages, spent_nats, turn, seed, answered)
        if seed % 2:
            begun.last, begun.words = "ask", ["I"]
        return begun


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    guard = Guard(calls=Rates(1e6, 1e6), logins=Rates(1e6, 1e6))
    terms = Terms(wait_seconds=0.0, tick_seconds=0.02)
    with serving(tmp_path_factory.mktemp("hostile"), Asking(), terms, guard) as server:
        yield server
        assert server.chat("hello").status_code == 200  # after everything it still serves
        for name in ("desk.sqlite", "turns.sqlite"):
            assert (server.folder / name).stat().st_size < 50 << 20


@pytest.fixture(scope="module")
def http(served):
    with served.http() as client:
        yield client


OPERATIONS = {
    found.ok().label: found.ok() for found in schemathesis.openapi.from_dict(description()).get_all_operations()
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("label", OPERATIONS)
def test_what_the_description_allows_and_what_it_forbids(served, http, label, mode):
    """Generated requests, valid ones and broken ones: every answer is one that the description knows."""
    statuses = set()
    name = "c" + hashlib.sha256(f"{label} {mode}".encode()).hexdigest()[:8]
    number = served.chat("ask", headers={"X-Conversation": name}).json()["mightnt"]["ticket"]
    try:
        cases = OPERATIONS[label].as_strategy(generation_mode=mode)
        stamp = http.get("/desk/me").json()["stamp"]

        @given(case=cases)
        @settings(max_examples=25, suppress_health_check=list(HealthCheck))
        def check(case):
            if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
                case.body["model"] = "fake"  # else every request would end at the first check
            if mode is GenerationMode.POSITIVE:
                known = {"number": number, "name": "fake"}
                case.path_parameters = {name: known[name] for name in case.path_parameters or {}}
            if label.startswith("POST /desk"):
                case.headers["X-Desk-Stamp"] = stamp
            response = case.call_and_validate(base_url=served.url, checks=CHECKS)
            statuses.add(response.status_code)

        check()
        assert 200 in statuses or mode is GenerationMode.NEGATIVE or label in ("POST /desk/login", UNDO)
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # nothing can be wrong about a request without parameters


def refused(response):
    assert 400 <= response.status_code < 500, (response.status_code, response.text[:200])
    assert response.json()["error"]["message"]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b'{"a": "\xc3\x28"}',
        b"null",
        b"[]",
        b'"text"',
        b"{" * 100_000,
        b"[" * 500_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"model": "fake", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": NaN}',
        b'{"token": ' + b"9" * 100_000 + b"}",
        b"a" * (MOST_BYTES + 1),
        b'{"model": "' + b"a" * (MOST_BYTES + 100) + b'"}',
        b'\x00{"model": "fake"}',
        json.dumps({"model": "fake", "messages": said("a")}).encode("utf-16"),
    ],
    ids=lambda body: f"{body[:12]!r} {len(body)}",
)
def test_bodies(http, path, body):
    stamp = http.get("/desk/me").json()["stamp"]
    headers = {"Content-Type": "application/json", "X-Desk-Stamp": stamp}
    refused(http.post(path, content=body, headers=headers))


@given(body=st.binary(max_size=500), path=st.sampled_from(POSTS))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes(http, body, path):
    refused(http.post(path, content=body, headers={"Content-Type": "application/json"}))


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Conversation": "a b"},
        {"X-Conversation": "../../etc"},
        {"X-Conversation": "x" * 65},
        {"X-Conversation": ""},
        {"X-Conversation": b"\xff"},
        {"Idempotency-Key": "'; DROP TABLE turns; --"},
        {"Content-Type": "text/html"},
        {"Origin": "http://evil.example"},
        {"Host": "evil.example"},
    ],
)
def test_headers(served, headers):
    refused(
        httpx.post(f"{served.url}/v1/chat/completions", json={"model": "fake", "messages": said("a")}, headers=headers)
    )


@pytest.mark.parametrize(
    "path",
    ["/v1/tickets/%00", "/v1/tickets/%ff", "/v1/tickets/" + "a" * 5000, "/desk/tickets/%ff%00", "/desk/%2e%2e%2fpage.py",
     "/v1/models/%ff/../..", "/%ff", "/v1/tickets/a?wait_seconds=nan", "/v1/tickets/a?wait_seconds=1e999",
     "/v1/tickets/a?wait_seconds=-1", "/v1/tickets/a?wait_seconds=x"],
)  # fmt: skip
def test_paths(served, path):
    refused(httpx.get(f"{served.url}{path}"))


def raw(served, data, seconds=5.0):
    """What comes back for these bytes on a bare connection."""
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), seconds) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /desk HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /desk/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"\x00" * 1000,
    ],
    ids=lambda data: f"{data[:24]!r} {len(data)}",
)
def test_bare_bytes(served, data):
    try:
        answer = raw(served, data)
    except OSError:
        return  # closed on the spot is an answer too
    assert answer == b"" or answer.startswith((b"HTTP/1.1 3", b"HTTP/1.1 4")), answer[:100]


def test_a_body_that_never_ends_is_cut_off(served, monkeypatch):
    monkeypatch.setattr("mightnt.desk.server.reading.MOST_SECONDS", 0.3)
    host, port = served.url.removeprefix("http://").split(":")
    head = b"POST /desk/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 408")


def test_a_body_without_length_is_cut_off_at_the_limit(served):
    def endless():
        for _ in range(MOST_BYTES // 65536 + 50):
            yield b"a" * 65536

    headers = {"Content-Type": "application/json"}
    try:
        response = httpx.post(f"{served.url}/v1/chat/completions", content=endless(), headers=headers, timeout=30)
    except httpx.TransportError:
        return  # the server hung up while we were still sending
    assert response.status_code == 413


def test_clients_that_leave_at_any_moment_leave_nothing_behind(served):
    """Two hundred calls that hang up after a random while: no question twice, and nothing is held for them."""
    dice = random.Random(0)
    body = json.dumps(
        {"model": "fake", "messages": said("hello"), "stream": True, "mightnt": {"wait_seconds": 5}}
    ).encode()
    host, port = served.url.removeprefix("http://").split(":")

    def leave(i):
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"X-Conversation: leaver-{i}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        data = (head + body)[: dice.choice([len(head), len(head) + 20, len(head) + len(body)])]
        with socket.create_connection((host, int(port)), 10) as connection:
            connection.sendall(data)
            time.sleep(dice.random() * 0.05)

    threads = [threading.Thread(target=lambda i=i: [leave(j) for j in range(i, 200, 8)]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until = time.monotonic() + 20
    while "mightnt_queued 0\n" not in httpx.get(f"{served.url}/metrics").text:
        assert time.monotonic() < until
        time.sleep(0.05)
    names = [
        ticket.inquiry.conversation
        for ticket in served.store.waiting()
        if ticket.inquiry.conversation.startswith("leaver")
    ]
    assert len(names) == len(set(names))
