"""What a new user does, for real: imitate, finetune, serve, be asked, answer on the page in a browser, be asked less."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time

import httpx
import pytest
from openai import OpenAI
from typer.testing import CliRunner

from mightnt import cli
from mightnt.desk.server.turns import FILE, Turns
from mightnt.dialogues import write_dialogues
from mightnt.worlds.chat.corpus import demonstrations
from tests.desk.server.browser import CHROMIUM, browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]

QUESTION = "Tell me a joke"
ANSWERS = ("hello ! today we work on the sum of a line .", "hello , what is the sum of this line ?")
EVERY = 12


def mightnt(*words):
    done = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run of the verbs in docs/serving.md, with dice that are the same every time."""
    folder = tmp_path_factory.mktemp("walk")
    write_dialogues(folder / "demos.jsonl", demonstrations(300, seed=0))
    mightnt("imitate", folder / "demos.jsonl", "--networks", 1, "--width", 64, "--out", folder / "imitators")
    small = ("--iterations", 1, "--episodes", 8, "--evaluation-episodes", 8)
    mightnt("finetune", folder / "imitators", *small, "--out", folder / "tutor")
    Turns(folder / "tutor").close()
    with contextlib.closing(sqlite3.connect(folder / "tutor" / FILE)) as db, db:
        db.execute("UPDATE dice SET seed = 7")
    return folder / "tutor"


@pytest.fixture
def url(run):
    command = [sys.executable, "-c", "from mightnt.cli import main; main()", "serve", str(run), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    options = ["--undo", "0", "--rota", "ann:300", "--update-every", str(EVERY)]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield process.stdout.readline().split(" is served at ")[1].split("/v1")[0]
    finally:
        process.terminate()
        process.wait(30)


class Client:
    """Asks the same thing again and again, each time in a new conversation, with the usual library."""

    def __init__(self, url):
        self.openai = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        self.model = self.openai.models.list().data[0].id
        self.n = 0

    def ask(self, wait_seconds):
        """``(words, finish reason, whether a person was asked)``."""
        self.n += 1
        reply = self.openai.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": QUESTION}],
            extra_body={"mightnt": {"wait_seconds": wait_seconds}},
            extra_headers={"X-Conversation": f"walk-{self.n}"},
        )
        choice = reply.choices[0]
        return choice.message.content, choice.finish_reason, reply.model_extra["mightnt"]["asked"]


def answer_on_the_page(tab, client, n):
    """Call until a person has answered ``n`` times, on the page; how often the agent was called for that."""
    n_calls = n_asked = 0
    while n_asked < n:
        heard, n_calls = [], n_calls + 1
        call = threading.Thread(target=lambda heard=heard: heard.append(client.ask(60)))
        call.start()
        written = None
        while call.is_alive():
            if written is None and tab.js("Boolean(state.open && editable() && !state.sending)"):
                begun = tab.js("state.open.inquiry.begun")
                fitting = [text for text in ANSWERS if text.startswith(begun)]
                if fitting:
                    written = fitting[n_asked % len(fitting)][len(begun) :]
                    tab.press("w")
                    tab.write(written)
                else:  # what the first network would say
                    written = tab.js("state.open.inquiry.proposals[0].text")
                    tab.press("1")
                tab.press("Enter", ctrl=True)
            call.join(0.02)
        ((text, reason, asked),) = heard
        assert reason == "stop"
        assert asked == (written is not None)
        if asked:
            n_asked += 1
            assert text == begun + written
            tab.until("!state.open")
    return n_calls


def refits(url):
    """How often networks were fitted on, by what became of it."""
    lines = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith("mightnt_refits_total")]
    return {line.split('"')[1]: int(line.split()[1]) for line in lines}


def test_served_asked_answered_in_a_browser_and_asked_less(url):
    with browser() as tab:
        tab.size(1280, 800)
        tab.go(f"{url}/desk")
        tab.until(
            "document.readyState === 'complete' && document.getElementById('connection').dataset.state === 'live'"
        )
        client = Client(url)
        n_asked = n_calls = 0
        while "passed" not in refits(url):  # a set that does not pass its check is tried again with more answers
            n_calls += answer_on_the_page(tab, client, EVERY)
            n_asked += EVERY
            assert n_asked <= 5 * EVERY, "no new networks passed"
            until = time.monotonic() + 900
            while sum(refits(url).values()) < n_asked // EVERY:
                assert time.monotonic() < until, "the networks were never fitted on"
                time.sleep(0.2)
        assert "failed" not in refits(url)
        after = [client.ask(0)[2] for _ in range(24)]
        assert tab.problems == []
    print(f"asked in {n_asked} of {n_calls} calls before, {sum(after)} of {len(after)} after, {refits(url)}")
    assert sum(after) / len(after) < 0.85 * n_asked / n_calls
