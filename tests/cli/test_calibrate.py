"""The verb calibrate: imitators in; a table, a record and a page out; what is wrong is one sentence."""

import json

import pytest
from typer.testing import CliRunner

from mightnt import cli
from mightnt.dialogues import write_dialogues
from mightnt.worlds.chat.corpus import demonstrations


def invoke(*words):
    return CliRunner().invoke(cli.app, ["calibrate", *map(str, words)])


def test_the_verdict_and_a_row_for_each_bin_are_printed(imitators_folder, tmp_path):
    result = invoke(imitators_folder, "--base", "single", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert result.stdout.startswith("single. ")
    assert record["kind"] == "mightnt calibration"
    for part in record["reliability"]["bins"]:
        assert f"{part['edge_low']:g} to {part['edge_high']:g}" in result.stdout
    assert "18 held-out turns are too few to promise 1%" in " ".join(result.stdout.split())
    assert (tmp_path / "out" / "calibration.html").read_text().startswith("<!doctype html>")


def test_json_is_json_and_nothing_is_written_without_out(imitators_folder, tmp_path):
    before = sorted(imitators_folder.iterdir())
    write_dialogues(tmp_path / "fresh.jsonl", [dialogue[:2] for dialogue in demonstrations(2, 7)])
    result = invoke(imitators_folder, "--on", tmp_path / "fresh.jsonl", "--rate", 0.2, "--confidence", 0.5, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["base"] == "situations"
    assert record["reliability"]["confidence"] == 0.5
    assert record["reliability"]["n_dialogues"] == 2
    assert record["thresholds"]["log_cap_nats"]["rate"] == 0.2
    assert not any("very dialogues" in note for note in record["notes"])
    assert sorted(imitators_folder.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--base", "nonsense"], "unknown base 'nonsense'"),
        (["--base", "known"], "needs the demonstrator itself"),
        (["--rate", "0"], "cannot be promised"),
        (["--rate", "1.5"], "cannot be promised"),
        (["--confidence", "1"], "between 0 and 1"),
        (["--on", "nowhere.jsonl"], "there is no such file"),
    ],
)
def test_bad_input_is_one_sentence(words, expected, imitators_folder):
    result = invoke(imitators_folder, *words)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_folder_without_imitators_is_one_sentence(tmp_path):
    result = invoke(tmp_path)
    assert result.exit_code == 2
    assert "holds no finished set of imitators" in result.stderr
