"""``mightnt frontier``: a table, a page, or JSON and nothing else; wrong names are one sentence, failures an exit code."""

import json

import pytest
from typer.testing import CliRunner

from mightnt.cli import app
from mightnt.experiments import frontier as experiment
from tests.experiments.frontier_records import record, run


@pytest.fixture
def made(monkeypatch):
    runs = [
        run(name, 10000, s, kl) for name, kl in (("known", 9.0), ("pessimistic", 9.5), ("single", 99.0)) for s in (0, 1)
    ]
    value = record(runs, ["single", "pessimistic", "known"])
    asked = {}

    def frontier(folder, profile, seed, watcher, resume, workers):
        asked.update(profile=profile, seed=seed, resume=resume, workers=workers)
        return value

    monkeypatch.setattr(experiment, "frontier", frontier)
    return value, asked


def frontier(*words):
    return CliRunner().invoke(app, ["frontier", *map(str, words)])


def test_a_ranked_table(made, tmp_path):
    result = frontier("--out", tmp_path, "--demonstrations", "1000,10000", "--seeds", 2, "--rewards", "benign")
    assert result.exit_code == 0, result.output
    assert "✓ 9.50" in result.stdout
    assert "✗ 99.0" in result.stdout
    assert "First among the bases that need no known demonstrator: pessimistic (" in result.stdout
    assert str(tmp_path / "frontier.html") in result.stdout
    profile = made[1]["profile"]
    assert (profile.n_demonstrations, profile.seeds, profile.rewards) == ((1000, 10000), 2, ("benign",))


def test_json_and_nothing_else(made, tmp_path):
    result = frontier("--out", tmp_path, "--json", "--resume")
    assert json.loads(result.stdout)["kind"] == "mightnt frontier"
    assert made[1]["resume"] is True


def test_failed_parts_are_named(made, tmp_path):
    made[0]["failed"]["run-benign-n1000-single-seed0"] = "ValueError: no"
    result = frontier("--out", tmp_path)
    assert result.exit_code == 1
    assert "run-benign-n1000-single-seed0 failed (ValueError: no)" in result.stderr


def test_wrong_names_are_one_sentence(tmp_path):
    result = frontier("--bases", "singel", "--out", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith("mightnt: unknown base 'singel'; allowed are single, mixture")
    assert not any(tmp_path.iterdir())
