"""The verb ``serve``: what it refuses before anything is loaded, and one server from the command to an answer."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from types import SimpleNamespace

import httpx
import pytest
from typer.testing import CliRunner

from mightnt.cli import load, serve
from mightnt.cli.serve import guard_for, listening
from mightnt.errors import InputError
from tests.desk.server.fakes import CLIENT, DEMONSTRATOR

PROGRAM = """
import sys
from pathlib import Path
import mightnt.lm.speaker
from tests.desk.server.fakes import FakeSpeaker
mightnt.lm.speaker.load_speaker = lambda run, imitators=None: FakeSpeaker()
from mightnt.cli.serve import serve
serve(Path(sys.argv[1]), "127.0.0.1", 0, "ann:60", None, 30.0, 0.0, None)
"""


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"client app {CLIENT}\ndemonstrator ann {DEMONSTRATOR}\n")
    return path


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org"])
def test_another_address_needs_tokens_and_says_so(host, tokens):
    with pytest.raises(InputError, match="--tokens"):
        guard_for(host, None)
    guard = guard_for(host, tokens)
    assert len(guard.holders) == 2
    assert not guard.own_machine


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_the_own_machine_needs_none(host, tokens):
    assert guard_for(host, None).own_machine
    assert guard_for(host, tokens).holders


def test_an_address_that_is_taken():
    with listening("127.0.0.1", 0) as taken, pytest.raises(InputError, match="--port"):
        listening("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InputError, match="cannot be listened on"):
        listening("203.0.113.1", 0)


def test_without_the_extra_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"mightnt\[desk\]"):
        serve.serve(tmp_path)


def test_help_is_there_and_light():
    result = CliRunner().invoke(typer_app(), ["--help"])
    assert result.exit_code == 0
    heavy = "{'torch', 'starlette', 'uvicorn'}"
    code = f"import sys; from mightnt.cli import load; load('serve'); assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def typer_app():
    import typer

    app = typer.Typer()
    app.command()(serve.serve)
    return app


@pytest.mark.parametrize(("words", "learns"), [([], True), (["--no-learn"], False), (["--learn"], True)])
def test_it_learns_unless_told_not_to(words, learns, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    found = []

    def stop(speaker, store, folder, people, terms, guard, refit):
        found.append(terms.learn)
        raise InputError("enough")

    monkeypatch.setattr("mightnt.lm.speaker.load_speaker", lambda run, imitators=None: None)
    monkeypatch.setattr("mightnt.desk.server.app.build_app", stop)
    CliRunner().invoke(typer_app(), [str(tmp_path), "--port", "0", *words])
    assert found == [learns]


def test_networks_learn_in_a_process_beside_it(tmp_path, monkeypatch):
    """The commands are verbs that exist, run after everybody else and not longer than the server."""
    monkeypatch.setattr("mightnt.lm.speaker.imitators_of", lambda run, given: tmp_path / "imitators")
    known = SimpleNamespace(known=Counter(["a", "b", "b"]))
    refit = serve.refit_of(tmp_path, None, 7, known)
    assert (refit.every, refit.n_learned, len(refit.commands)) == (7, 3, 2)
    for command, sentence in zip(refit.commands, ("holds no desk", "no finished set"), strict=True):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr
    code = serve.BESIDE.replace(
        "from mightnt.cli import main\nmain()", "print(os.nice(0), os.environ['OMP_NUM_THREADS'])"
    )
    nicer = subprocess.run([sys.executable, "-c", code, str(os.getpid())], capture_output=True, text=True, check=True)
    assert int(nicer.stdout.split()[0]) >= min(19, os.nice(0) + 10)


def test_networks_cannot_learn_where_nothing_may(tmp_path):
    with pytest.raises(InputError, match="--no-learn"):
        serve.serve(tmp_path, learn=False, update_every=5)


def test_the_verb_can_be_loaded():
    assert load("serve").name == "serve"


def test_a_folder_without_a_run(tmp_path):
    pytest.importorskip("torch")
    with pytest.raises(InputError, match="finetune"):
        serve.serve(tmp_path)


def test_served_asked_answered_stopped(tmp_path):
    """From the command: a call that waits, a person who answers, Ctrl-C."""
    pytest.importorskip("torch")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        line = process.stdout.readline()
        assert "is served at" in line
        url = line.split(" is served at ")[1].split("/v1")[0]
        replies = []
        body = {"model": "fake", "messages": [{"role": "user", "content": "ask"}]}
        ask = threading.Thread(
            target=lambda: replies.append(httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30))
        )
        ask.start()
        with httpx.Client(base_url=url) as http:
            until = time.monotonic() + 20
            while "mightnt_waiting 1" not in http.get("/metrics").text:
                assert time.monotonic() < until
                time.sleep(0.05)
            stamp = {"X-Desk-Stamp": http.get("/desk/me").json()["stamp"]}
            with http.stream("GET", "/desk/events") as events:
                number = next(line for line in events.iter_lines() if '"number"' in line).split('"number": "')[1][:16]
            decision = {"verdict": "answer", "key": "key-number-1", "text": " stay."}
            assert http.post(f"/desk/tickets/{number}/decide", json=decision, headers=stamp).status_code == 200
        ask.join(20)
        assert replies[0].json()["choices"][0]["message"]["content"] == "I would stay."
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), 2)
