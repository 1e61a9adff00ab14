"""Whoever is asked for words answers with words of their own, or not at all."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mightnt.desk.demonstrators import LARGEST_REPLY_BYTES, AtDesk, Endpoint, Function, Transcripts
from mightnt.desk.rota import read_rota
from mightnt.desk.store import key_of, open_store
from mightnt.desk.tickets import Verdict
from mightnt.errors import InputError, NoAnswer
from tests.desk.questions import Clock, answer, chat, inquiry, verdict


def test_a_function_answers_or_refuses():
    polite = Function(lambda question: f"{len(question.messages)} words, thanks.", "polite")
    assert polite.answer(inquiry()).text == "1 words, thanks."
    assert (polite.answer(inquiry()).person, polite.answer(inquiry()).key) == ("polite", key_of(inquiry()))
    assert Function(lambda question: " \n").answer(inquiry()).verdict is Verdict.REFUSE


def test_transcripts_answer_what_was_said_in_this_place():
    desk = Transcripts([chat("Hi", "Hello there.", "Why?", "So."), chat("Hi"), chat("Hello", "Hi.")])
    assert desk.answer(inquiry(messages=chat("Hi"))).text == "Hello there."
    assert desk.answer(inquiry(messages=chat("Hi"), begun="Hello")).text == " there."
    assert desk.answer(inquiry(messages=chat("Hi", "Hello there.", "Why?"))).text == "So."


@pytest.mark.parametrize(
    "question",
    [
        {"messages": chat("Hi", "Else.", "Why?")},
        {"messages": chat("Hi"), "begun": "Hullo"},
        {"messages": chat("Hi"), "begun": "Hello there."},
        {"messages": chat("Hi", "Hello there.")},
        {"messages": chat("Hi", "Hello there.", "Why?", "So.", "And?")},
    ],
)
def test_transcripts_know_no_other_place(question):
    with pytest.raises(NoAnswer, match="none of 1 dialogues"):
        Transcripts([chat("Hi", "Hello there.", "Why?", "So.")]).answer(inquiry(**question))


def test_transcripts_answer_as_often_as_it_was_said_and_the_same_question_the_same():
    dialogues = [chat("Hi", "A"), chat("Hi", "B"), chat("Hi", "B"), chat("Hi", " ")]
    questions = [inquiry(f"{i}", messages=chat("Hi")) for i in range(600)]
    said = Counter(Transcripts(dialogues).answer(question).text for question in questions)
    assert set(said) == {"A", "B"}
    assert said["B"] / 600 == pytest.approx(2 / 3, abs=4 * (2 / 9 / 600) ** 0.5)
    again = [Transcripts(dialogues).answer(question).text for question in questions]
    other = [Transcripts(dialogues, seed=1).answer(question).text for question in questions]
    assert Counter(again) == said
    assert again != other


@pytest.fixture
def endpoint():
    """A little server that keeps what it got and sends back what it was told to: ``server.reply`` is (status, bytes)."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.got.append((self.path, dict(self.headers), json.loads(body)))
            self.server.released.wait(5)
            status, content = self.server.reply
            self.send_response(status)
            if status in (301, 302, 307):
                self.send_header("Location", content.decode())
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.got, server.released = [], threading.Event()
    server.released.set()
    server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


def completion(content, reason="stop"):
    return 200, json.dumps({"choices": [{"message": {"content": content}, "finish_reason": reason}]}).encode()


def test_an_endpoint_is_asked_the_usual_way(endpoint):
    endpoint.reply = completion("Certainly.")
    desk = Endpoint(endpoint.url, "elder", "s3cret", options=(("temperature", 0.5),))
    decision = desk.answer(inquiry(messages=chat("Hi", "Hello.", "Why?")))
    assert (decision.verdict, decision.person, decision.text) == (Verdict.ANSWER, "elder", "Certainly.")
    ((path, headers, body),) = endpoint.got
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer s3cret"
    assert body == {
        "model": "elder",
        "temperature": 0.5,
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Why?"},
        ],
    }
    assert "s3cret" not in repr(desk)


def test_an_endpoint_goes_on_from_words_that_were_begun(endpoint):
    endpoint.reply = completion("So be it.")
    assert Endpoint(endpoint.url, "elder").answer(inquiry(begun="So")).text == " be it."
    ((_, headers, body),) = endpoint.got
    assert body["messages"][-1] == {"role": "assistant", "content": "So"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert "Authorization" not in headers


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((500, b"s3cret"), "HTTP 500"),
        ((302, b"http://127.0.0.1:1/v1"), "HTTP 302"),
        ((307, b"http://127.0.0.1:1/v1"), "HTTP 307"),
        ((200, b"{"), "JSONDecodeError"),
        ((200, b"\xff"), "UnicodeDecodeError"),
        ((200, b"[" * 100_000), "RecursionError"),
        ((200, b'"' + b"x" * LARGEST_REPLY_BYTES + b'"'), "ValueError"),
        ((200, b"[]"), "not a chat completion"),
        ((200, b'{"choices": []}'), "not a chat completion"),
        ((200, b'{"choices": [{"message": {}}]}'), "not a chat completion"),
        (completion("Half an", "length"), "did not finish its answer .'length'."),
        (completion(None), "without words"),
        (completion(["x"]), "without words"),
        (completion(" "), "without words"),
        (completion("\ud800"), "half a character"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_whatever_is_no_answer_is_none(endpoint, reply, words):
    endpoint.reply = reply
    with pytest.raises(NoAnswer, match=words) as caught:
        Endpoint(endpoint.url, "elder", "s3cret").answer(inquiry())
    assert "s3cret" not in str(caught.value)
    assert len(endpoint.got) == 1, "no redirect is followed"


def test_silence_and_nobody_there_are_no_answer(endpoint):
    endpoint.reply = completion("Late.")
    endpoint.released.clear()
    with pytest.raises(NoAnswer, match="it timed out"):
        Endpoint(endpoint.url, "elder", timeout_seconds=0.1).answer(inquiry())
    with pytest.raises(NoAnswer, match="ConnectionRefusedError"):
        Endpoint("http://127.0.0.1:1/v1", "elder").answer(inquiry())
    with pytest.raises(InputError, match="http"):
        Endpoint("file:///etc/hostname", "elder")


@pytest.fixture
def at_desk(tmp_path):
    """A desk where ``happens[i]`` happens when it is looked at for the i-th time; each look takes a second."""
    clock, happens = Clock(), {}

    def sleep(seconds):
        clock.now += seconds
        happens.get(clock.now - 1000.0, lambda: None)()

    with open_store(tmp_path, undo_seconds=5, clock=clock) as store:
        yield AtDesk(store, read_rota("ann:60,bob:30"), 1.0, sleep), store, happens, clock


@pytest.mark.parametrize("decision", [answer(), verdict("refuse"), verdict("stop")], ids=lambda d: d.verdict)
def test_a_person_at_the_desk_decides(at_desk, decision):
    desk, store, happens, clock = at_desk
    happens[20.0] = lambda: store.decide(store.waiting("ann")[0].number, decision)
    assert desk.answer(inquiry()) == decision
    assert clock.now == 1025.0, "not before it can no longer be undone"
    assert desk.answer(inquiry()) == decision, "the same question is the same ticket"


def test_what_was_taken_back_is_not_the_answer(at_desk):
    desk, store, happens, _ = at_desk
    happens[1.0] = lambda: store.decide(store.waiting()[0].number, answer("Rash."))
    happens[3.0] = lambda: store.undo(store.changes(0)[0].number, "ann")
    happens[70.0] = lambda: store.decide(store.waiting("bob")[0].number, answer("Wise.", "bob", "k2"))
    assert desk.answer(inquiry()).text == "Wise."


def test_silence_at_the_desk_is_no_answer(at_desk):
    desk, _, _, clock = at_desk
    with pytest.raises(NoAnswer, match="nobody decided within 90 s"):
        desk.answer(inquiry())
    assert clock.now == 1090.0
