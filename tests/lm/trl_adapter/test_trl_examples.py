"""The examples with TRL run and keep their word, and what the document shows of them is what the record holds."""

import runpy
import sys
from pathlib import Path

import pytest

from mightnt.files import read_json

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("trl_*.py"))
ARGUMENTS = {"trl_before_after.py": ["--seeds", "1", "--steps", "40"]}
SLOW = {"trl_before_after.py"}
"""Longer than the default suite allows."""


def run(path, monkeypatch, *arguments):
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setattr(sys, "argv", [path.name, *arguments])
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize(
    "path", [pytest.param(p, marks=pytest.mark.slow if p.name in SLOW else (), id=p.name) for p in EXAMPLES]
)
def test_it_runs(path, capsys, monkeypatch):
    pytest.importorskip("trl")
    run(path, monkeypatch, *ARGUMENTS.get(path.name, ()))
    assert capsys.readouterr().out


def test_there_are_examples():
    assert len(EXAMPLES) == 6


def test_the_document_shows_what_the_record_holds(tmp_path, capsys, monkeypatch):
    record = ROOT / "results" / "trl.json"
    run(ROOT / "examples" / "trl_draw.py", monkeypatch, str(record), str(tmp_path / "trl.png"))
    assert capsys.readouterr().out in (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
    assert (tmp_path / "trl.png").stat().st_size > 1000


def test_the_record_is_whole():
    record = read_json(ROOT / "results" / "trl.json")
    config = record["provenance"]["config"]
    for found in record["runs"].values():
        assert len(found) == config["seeds"] >= 5
        assert {len(steps) for steps in found} == {config["steps"] + 1}
