"""The verb reproduce: what it refuses, and that it hands everything on."""

import json

import pytest
from typer.testing import CliRunner

from mightnt import cli
from mightnt.experiments import chat
from mightnt.experiments.sweep import sweep
from mightnt.experiments.sweep.plan import planned
from tests.experiments.sweep.made import recorded


def invoke(*words):
    return CliRunner().invoke(cli.app, ["reproduce", *words])


def test_an_unknown_profile_is_one_sentence(tmp_path):
    result = invoke("--profile", "huge", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert result.stderr == "mightnt: unknown profile 'huge'; allowed are quick, default, full\n"
    assert not list(tmp_path.iterdir())


def test_an_earlier_run_is_not_overwritten(tmp_path):
    chat.open_folder(tmp_path, {"experiment": "something"}, resume=False)
    result = invoke("--out", str(tmp_path))
    assert result.exit_code == 2
    assert "--resume" in result.stderr


def test_everything_is_handed_on(tmp_path, monkeypatch):
    asked = {}

    def note(folder, profile, seed, watcher, resume, workers):
        asked.update(folder=folder, profile=profile, seed=seed, resume=resume, workers=workers)
        raise chat.InputError("enough seen")

    monkeypatch.setattr(chat, "reproduce", note)
    words = ["--profile", "quick", "--demonstrations", "77", "--seed", "3", "--workers", "1", "--resume"]
    assert invoke(*words, "--out", str(tmp_path)).exit_code == 2
    profile = asked.pop("profile")
    assert (profile.name, profile.n_demonstrations) == ("quick", (77,))
    assert asked == {"folder": tmp_path, "seed": 3, "resume": True, "workers": 1}


def test_what_belongs_to_the_full_profile_is_refused_elsewhere(tmp_path):
    for words in (["--part", "budgets"], ["--plan"], ["--engine", "ray"]):
        result = invoke(*words, "--out", str(tmp_path))
        assert result.exit_code == 2
        assert result.stderr == "mightnt: --part, --plan, --engine and --chats belong to --profile full\n"
    result = invoke("--profile", "full", "--bases", "known", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert "--part" in result.stderr


def test_the_plan_is_a_table_and_runs_nothing(tmp_path):
    result = invoke("--profile", "full", "--plan", "--out", str(tmp_path))
    assert result.exit_code == 0
    assert not list(tmp_path.iterdir())
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines if line.startswith((" bases", " budgets", " all"))] == [
        "bases",
        "budgets",
        "all",
    ]
    only = json.loads(
        invoke("--profile", "full", "--plan", "--part", "budgets", "--json", "--out", str(tmp_path)).stdout
    )
    assert [part["part"] for part in only["parts"]] == ["budgets"]
    assert only["parts"][0]["runs"] == only["parts"][0]["own_runs"] > 100
    assert only["parts"][0]["measured"] == 0


def test_unknown_parts_and_engines_are_one_sentence(tmp_path):
    for words, sentence in (
        (["--part", "budgtes"], "unknown part 'budgtes'"),
        (["--engine", "rye"], "unknown engine 'rye'"),
    ):
        result = invoke("--profile", "full", *words, "--out", str(tmp_path / "new"))
        assert result.exit_code == 2
        assert result.stderr.startswith(f"mightnt: {sentence}; allowed are ")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def swept(monkeypatch):
    """What the sweep was asked for; it measures all runs but the last."""
    asked = {}

    def note(folder, studies, seed, engine, watcher, resume):
        asked.update(folder=folder, parts=[one.name for one in studies], seed=seed, engine=engine, resume=resume)
        return recorded(planned(studies, seed)[: asked.get("most")])

    monkeypatch.setattr(sweep, "sweep", note)
    return asked


def test_the_full_profile_is_a_sweep(swept, tmp_path):
    words = ["--part", "lengths,bases", "--seed", "3", "--workers", "4", "--resume", "--out", str(tmp_path)]
    result = invoke("--profile", "full", *words)
    assert result.exit_code == 0, result.output
    assert swept["engine"].capacity == 4
    assert (swept["folder"], swept["parts"], swept["seed"], swept["resume"]) == (
        tmp_path,
        ["bases", "lengths"],
        3,
        True,
    )
    assert "met: situations: KL(π, μ) ≤ B on every seed" in result.stdout
    assert f"Report: {tmp_path / 'report.md'}" in result.stdout


def test_missing_runs_end_in_an_exit_code_and_a_sentence(swept, tmp_path):
    swept["most"] = -2
    result = invoke("--profile", "full", "--part", "bases", "--json", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert "2 of 57 runs are missing" in result.stderr
    found = json.loads(result.stdout)
    assert (found["runs"], found["missing"]) == (57, 2)
    assert {goal["verdict"] for goal in found["goals"]} >= {"met", "missing"}
