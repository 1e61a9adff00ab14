"""What the documents say is what the records hold."""

from dataclasses import asdict
from pathlib import Path

import pytest

from mightnt.experiments import learning_table
from mightnt.experiments.frontier_table import markdown
from mightnt.experiments.learning import PROFILES
from mightnt.experiments.theory.book import CHAPTERS, book_table
from mightnt.experiments.theory.theorem import Computed
from mightnt.files import plain, read_json

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- theory: begin -->\n", "<!-- theory: end -->"


def test_the_theory_in_the_results_is_that_of_the_record():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    shown = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    record = read_json(ROOT / "results" / "theory.json")
    assert list(record["chapters"]) == list(CHAPTERS)
    assert shown == book_table(record)


def test_the_record_of_the_theory_is_clean_and_of_the_default_profile():
    record = read_json(ROOT / "results" / "theory.json")
    assert (record["profile"], record["seed"]) == ("default", 0)
    for name, value in record["chapters"].items():
        commit = value["provenance"]["commit"]
        assert commit, name
        assert "+" not in commit, f"{name} was computed from changed files"
        assert all(row.holds is not False for row in Computed.from_json(value).rows)


def test_what_asking_taught_is_that_of_the_record():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    begin, end = learning_table.BEGIN, learning_table.END
    shown = text[text.index(begin) + len(begin) : text.index(end)]
    assert shown == learning_table.learning_table(read_json(ROOT / "results" / "learning.json"))


def test_the_record_of_learning_is_clean_and_of_the_default_profile():
    record = read_json(ROOT / "results" / "learning.json")
    assert record["config"] == plain(asdict(PROFILES["default"]))
    assert record["provenance"]["seed"] == 0
    commit = record["provenance"]["commit"]
    assert commit
    assert "+" not in commit


@pytest.mark.parametrize("name", ["frontier", "frontier-text"])
def test_the_frontier_in_the_results_is_that_of_the_record(name):
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    shown = text[text.index(begin) + len(begin) : text.index(end)]
    assert shown == markdown(read_json(ROOT / "results" / f"{name}.json"))


@pytest.mark.parametrize("name", ["frontier", "frontier-text"])
def test_the_record_of_the_frontier_is_clean(name):
    record = read_json(ROOT / "results" / f"{name}.json")
    assert not record["failed"]
    assert all("+" not in commit for commit in record["commits"]), "parts were computed from changed files"
