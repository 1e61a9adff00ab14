"""The verb desk: the queue as JSON, a decision from the keyboard, an export; each wrong word is one sentence."""

import json
import os
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from mightnt import cli
from mightnt.desk.store import open_store
from mightnt.desk.tickets import State
from mightnt.dialogues import read_dialogues
from tests.desk.questions import answer, chat, inquiry


def desk(*words):
    return CliRunner().invoke(cli.app, ["desk", *map(str, words)])


@pytest.fixture(autouse=True)
def listed(monkeypatch):
    if "desk" not in cli.VERBS:
        monkeypatch.setattr(cli, "VERBS", (*cli.VERBS, "desk"))


@pytest.fixture
def run(tmp_path):
    """A folder with a desk at which one question waits and one was answered."""
    with open_store(tmp_path, undo_seconds=0) as store:
        store.decide(store.ask("a", inquiry(turn=0), "ann", time.time() + 600).number, answer())
        store.release()
        store.ask("b", inquiry(turn=1, begun="So"), "ann", time.time() + 600)
    return tmp_path


def test_the_queue_as_json_beside_a_server(run):
    with open_store(run):
        result = desk(run, "--json")
    value = json.loads(result.stdout)
    assert (value["kind"], value["version"], result.stderr) == ("mightnt desk", 1, "")
    (ticket,) = value["waiting"]
    assert (ticket["state"], ticket["person"], ticket["inquiry"]["limit_nats"]) == ("waiting", "ann", "inf")
    assert ticket["inquiry"]["proposals"][1] == {"model": "model 1", "text": "No.", "probability": 0.5}


def test_a_decision_from_the_keyboard(run):
    command = [sys.executable, "-c", "from mightnt.cli.desk import sit; from pathlib import Path; import sys; "
               f"sit(Path({str(run)!r}), 'zoe', False)"]  # fmt: skip
    typed = "\n1\n\ntake 2\n\nquit\n"
    done = subprocess.run(command, input=typed, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 question(s) wait:" in done.stdout
    assert "[2] model 1, probability 0.5: No." in done.stdout
    with open_store(run) as store:
        (ticket,) = [ticket for ticket in store.changes(0) if ticket.inquiry.turn == 1]
    assert (ticket.state, ticket.decision.person, ticket.decision.text) == (State.DECIDED, "zoe", "No.")


def test_answers_are_exported(run):
    out = run / "answers.jsonl"
    result = desk("export", run, "--out", out)
    assert (result.exit_code, result.stdout) == (0, f"1 answer(s) in 1 dialogue(s) written to {out}\n")
    assert read_dialogues(out) == [chat("May I? (0)", "Yes, you may.")]
    with open_store(run, undo_seconds=0) as store:
        store.decide(store.waiting()[0].number, answer(" be it.", key="k2"))
        store.release()
    assert desk("export", run, "--out", out).stdout.endswith(
        "1 of them go on from words of the agent, which are marked as no demonstration\n"
    )
    value = json.loads(desk("export", run, "--out", out, "--json").stdout)
    assert value == {
        "kind": "mightnt desk export", "version": 1, "dialogues": 2, "answers": 2, "begun_by_agent": 1, "out": str(out),
    }  # fmt: skip


def test_a_run_may_be_called_export(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    run.rename("export")
    assert len(json.loads(desk("export", "--json").stdout)["waiting"]) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "nowhere: holds no desk; `mightnt serve nowhere` opens one"),
        (["export", "nowhere", "--out", "x"], "nowhere: holds no desk"),
        (["export", "RUN"], "an export needs a file: mightnt desk export RUN --out FILE"),
        (["RUN", "--out", "x"], "--out belongs to the export: mightnt desk export RUN --out x"),
        (["export", "RUN", "more"], "got 'export RUN more'"),
        (["answer", "RUN"], "got 'answer RUN'"),
    ],
    ids=" ".join,
)
def test_wrong_words_are_one_sentence(run, words, says, monkeypatch):
    monkeypatch.chdir(run)
    before = sorted(os.listdir(run))
    result = desk(*(str(run) if word == "RUN" else word for word in words))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("mightnt: ")
    assert says in result.stderr.replace(str(run), "RUN")
    assert result.stderr.count("\n") == 1
    assert sorted(os.listdir(run)) == before


def test_no_answers_no_file(tmp_path):
    with open_store(tmp_path):
        pass
    result = desk("export", tmp_path, "--out", tmp_path / "x.jsonl")
    assert result.exit_code == 2
    assert "no answer can be written as a demonstration yet" in result.stderr
    assert not (tmp_path / "x.jsonl").exists()
