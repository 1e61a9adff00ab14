"""``mightnt theory``: a page, a table, or JSON and nothing else; a wrong name is one sentence and exit code 2."""

import json

from typer.testing import CliRunner

from mightnt.cli import app


def theory(*words):
    return CliRunner().invoke(app, ["theory", *map(str, words)])


def test_a_chapter_as_table_and_page_then_again_as_json(tmp_path):
    result = theory("p1", "--profile", "quick", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "P1." in result.stdout
    assert "exact" in result.stdout
    assert (tmp_path / "theory.html").read_text(encoding="utf-8").count("<section") == 1
    again = theory("P1", "--profile", "quick", "--out", tmp_path, "--resume", "--json")
    assert json.loads(again.stdout) == json.loads((tmp_path / "theory.json").read_text(encoding="utf-8"))


def test_a_wrong_name_is_one_sentence(tmp_path):
    result = theory("T9", "--out", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith("mightnt: got T9; the chapters are all, P1")
    assert not any(tmp_path.iterdir())
