"""``mightnt learning``: a page, lines, or JSON and nothing else."""

import json

import pytest
from typer.testing import CliRunner

from mightnt.cli import app
from mightnt.experiments import learning as experiment

BATCH = {
    name: [1.0, 2.0]
    for name in ("asked_turns", "theta_cubed", "kl_demonstrator_nats", "charged_nats", "proxy_reward", "true_utility")
} | {"turns": [6, 6], "episodes": [2, 2]}


@pytest.fixture
def record(monkeypatch):
    runs = [
        {"policy": policy, "source": source, "by_batch": BATCH, "seed": seed}
        for policy, sources in experiment.SOURCES_OF.items()
        for source in sources
        for seed in (0, 1)
    ]
    config = experiment.asdict(experiment.PROFILES["quick"])
    value = {"config": config, "runs": runs, "summary": experiment.summarize(runs), "provenance": {"seed": "<0>"}}
    monkeypatch.setattr(experiment, "learning", lambda *arguments: value)
    return value


def learning(*words):
    return CliRunner().invoke(app, ["learning", *map(str, words)])


def test_lines_and_a_page(record, tmp_path):
    result = learning("--profile", "quick", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "the base as it is, counts and network learn: asks per 100 turns 16.7 -> 33.3" in result.stdout
    page = (tmp_path / "learning.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 4
    assert "&lt;0&gt;" in page
    assert "<0>" not in page


def test_json_is_alone_on_stdout(record, tmp_path):
    assert json.loads(learning("--out", tmp_path, "--json").stdout)["summary"] == record["summary"]


def test_a_wrong_profile_is_one_sentence(tmp_path):
    result = learning("--profile", "slow", "--out", tmp_path)
    assert result.exit_code == 2
    assert result.stderr == "mightnt: profile 'slow'; allowed are quick, default\n"
