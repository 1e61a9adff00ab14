"""The verb finetune: a run folder that audit reads; resumable; everything wrong is one sentence."""

import json

import pytest
from typer.testing import CliRunner

from mightnt import cli

SMALL = ["--iterations", "2", "--episodes", "4", "--evaluation-episodes", "4", "--turns", "2", "--turn-tokens", "8"]


def invoke(folder, out, *words):
    return CliRunner().invoke(cli.app, ["finetune", str(folder), "--out", str(out), *SMALL, *words])


@pytest.fixture(scope="module")
def run_folder(imitators_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    result = invoke(imitators_folder, out, "--base", "pessimistic", "--kl-budget", "3")
    assert result.exit_code == 0, result.output
    return out


def test_the_record_says_what_was_promised_and_measured(run_folder):
    record = json.loads((run_folder / "run.json").read_text())
    assert record["budget_nats"] == 3.0
    assert record["kl_base_nats"]["max"] <= 3.0 + 1e-6
    assert record["kl_demonstrator_nats"] is None
    assert "stand-in" in record["answered_by"]
    assert record["provenance"]["config"]["reward"] == "sentiment"


def test_audit_reads_it_and_does_not_pretend(run_folder):
    result = CliRunner().invoke(cli.app, ["audit", str(run_folder)])
    assert result.exit_code == 0, result.output
    assert "not measured" in result.stdout
    assert (run_folder / "report.html").is_file()


def test_what_calibration_warned_of_is_said_again_by_the_audit(run_folder, imitators_folder):
    warned = json.loads((imitators_folder / "imitators.json").read_text())["summary"]["warnings"]
    assert "only" in warned[0]
    assert json.loads((run_folder / "run.json").read_text())["warnings"] == warned
    result = CliRunner().invoke(cli.app, ["audit", str(run_folder)])
    assert warned[0] in " ".join(result.stdout.split())
    assert warned[0] in (run_folder / "report.html").read_text().replace("&#39;", "'")


def test_a_base_without_caps_is_not_warned_of_them(imitators_folder, tmp_path):
    assert invoke(imitators_folder, tmp_path / "run", "--base", "single").exit_code == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["warnings"] == []


def test_a_run_is_not_overwritten_and_resume_finds_it(run_folder, imitators_folder):
    before = (run_folder / "run.json").read_bytes()
    words = ["--base", "pessimistic", "--kl-budget", "3"]
    assert "--resume" in invoke(imitators_folder, run_folder, *words).stderr
    assert invoke(imitators_folder, run_folder, *words, "--resume").exit_code == 0
    assert "another configuration" in invoke(imitators_folder, run_folder, "--resume").stderr
    assert (run_folder / "run.json").read_bytes() == before


def test_a_killed_run_goes_on_to_the_same_result(run_folder, imitators_folder, tmp_path, monkeypatch):
    from mightnt.lm import finetune

    keep = finetune.save_training

    def keep_once_then_die(training, path, config):
        keep(training, path, config)
        raise KeyboardInterrupt

    words = ["--base", "pessimistic", "--kl-budget", "3"]
    monkeypatch.setattr(finetune, "save_training", keep_once_then_die)
    stopped = invoke(imitators_folder, tmp_path / "again", *words)
    assert (stopped.exit_code, stopped.stderr.splitlines()[-1]) == (130, "mightnt: stopped; continue with --resume")
    monkeypatch.setattr(finetune, "save_training", keep)
    assert invoke(imitators_folder, tmp_path / "again", *words, "--resume").exit_code == 0
    before, after = (json.loads((folder / "run.json").read_text()) for folder in (run_folder, tmp_path / "again"))
    assert after["curve"] == before["curve"]
    assert after["proxy_reward"] == before["proxy_reward"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--base", "known"], "unknown base 'known'"),
        (["--reward", "happiness"], "unknown reward 'happiness'"),
        (["--reward", "json:loads_nothing"], "json"),
        (["--kl-budget", "-1"], "KL budget of -1.0 nats"),
        (["--kl-budget", "nan"], "KL budget of nan nats"),
        (["--asking", "sometimes"], "unknown asking 'sometimes'"),
        (["--device", "abacus"], "no device 'abacus' here"),
    ],
)
def test_bad_options_are_one_sentence_and_leave_nothing(imitators_folder, tmp_path, words, expected):
    result = invoke(imitators_folder, tmp_path / "out", *words)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_reward_that_is_not_a_number_stops_the_run(imitators_folder, tmp_path, monkeypatch):
    (tmp_path / "bad_reward.py").write_text("def score(replies):\n    return [float('nan')] * len(replies)\n")
    monkeypatch.chdir(tmp_path)
    result = invoke(imitators_folder, tmp_path / "out", "--reward", "bad_reward:score")
    assert result.exit_code == 2
    assert "bad_reward:score" in result.stderr
    assert "nan" in result.stderr
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_folder_without_imitators_is_one_sentence(tmp_path):
    result = invoke(tmp_path, tmp_path / "out")
    assert result.exit_code == 2
    assert "holds no finished set of imitators" in result.stderr


def test_budget_zero_stays_at_the_base(imitators_folder, tmp_path):
    result = invoke(imitators_folder, tmp_path / "out", "--base", "single", "--kl-budget", "0", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["kl_base_nats"]["max"] <= 1e-6
