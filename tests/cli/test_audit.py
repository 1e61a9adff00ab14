"""``mightnt audit``: a page, a table, or JSON and nothing else; bad files are named."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from mightnt.cli import app
from mightnt.files import write_json


def audit(*words):
    return CliRunner().invoke(app, ["audit", *map(str, words)])


@pytest.fixture
def folder(synthetic, tmp_path):
    runs = [synthetic.run(base, seed) for base in ("mixture", "pessimistic") for seed in (0, 1)]
    write_json(tmp_path / "whole" / "results.json", synthetic.results(runs))
    return tmp_path / "whole"


def test_the_table_and_the_page(folder):
    result = audit(folder)
    assert result.exit_code == 0
    assert result.stdout.startswith("Pessimistic kept the policy near the demonstrator; mixture did not.")
    (row,) = [line.split() for line in result.stdout.splitlines() if line.startswith("mixture ")]
    assert row[1:5] == ["2", "9.30", "204", "(122"]
    assert "✓ met: mixture: KL to the demonstrator at least 5 B" in result.stdout
    assert f"Report: {folder / 'report.html'}" in result.stdout
    assert "mixture" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_seed_changes_nothing(folder):
    assert audit(folder, "--json", "--seed", 1).stdout == audit(folder, "--json").stdout


def test_json_is_alone_on_stdout(folder):
    result = audit(folder, "--json")
    value = json.loads(result.stdout)
    assert result.stderr == ""
    assert value["verdict"]["title"].startswith("Pessimistic kept")
    mixture, pessimistic = value["groups"]
    assert mixture["seeds"] == [0, 1]
    assert mixture["kl_demonstrator_nats"]["mean"] == pytest.approx((198 + 211) / 2)
    assert mixture["kl_demonstrator_per_budget"]["largest"] == pytest.approx(21.1)
    assert pessimistic["over_budget_episodes"] == 0
    assert value["report"] == str(folder / "report.html")
    assert (folder / "report.html").exists()


def test_many_folders_become_one_report_where_out_says(synthetic, folder, tmp_path):
    write_json(tmp_path / "more" / "run.json", synthetic.run("mixture", 2) | {"provenance": synthetic.provenance()})
    result = audit(folder, tmp_path / "more" / "run.json", "--out", tmp_path / "report", "--json")
    assert json.loads(result.stdout)["groups"][0]["seeds"] == [0, 1, 2]
    assert (tmp_path / "report" / "report.html").exists()
    assert not (folder / "report.html").exists()


def test_many_folders_without_out_report_here(synthetic, folder, tmp_path, monkeypatch):
    write_json(tmp_path / "more" / "run.json", synthetic.run("mixture", 2))
    monkeypatch.chdir(tmp_path)
    assert "Report: report.html" in audit("whole", "more").stdout
    assert (tmp_path / "report.html").exists()


def test_an_unmeasured_demonstrator_and_infinities_survive(synthetic, tmp_path):
    runs = [synthetic.run("mixture", kl_demonstrator="inf"), synthetic.run("none", kl_demonstrator="unmeasured")]
    write_json(tmp_path / "results.json", synthetic.results(runs, demonstrator=None))
    assert "not measured" in audit(tmp_path).stdout
    groups = json.loads(audit(tmp_path, "--json").stdout)["groups"]
    assert groups[0]["kl_demonstrator_nats"]["mean"] == "inf"
    assert groups[1]["budget_nats"] == "inf"
    assert groups[1]["kl_demonstrator_nats"] is None


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "results.json:1: not JSON"), ("[]", "holds no results"), ('{"base": "mixture"}', "has no 'kind_of_base'")],
)
def test_malformed_files_are_named_and_nothing_is_written(tmp_path, content, words):
    (tmp_path / "results.json").write_text(content)
    result = audit(tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"mightnt: {tmp_path / 'results.json'}")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not (tmp_path / "report.html").exists()


def test_a_folder_without_results_is_named(tmp_path):
    result = audit(tmp_path)
    assert result.exit_code == 2
    assert "holds neither results.json nor run.json" in result.stderr


def test_the_installed_command(folder):
    command = [sys.executable, "-c", "from mightnt.cli import main; main()", "audit", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    bad = subprocess.run([*command, "nowhere"], capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stdout, bad.stderr) == (2, "", "mightnt: nowhere: there is no such file\n")
