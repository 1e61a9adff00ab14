"""What the documents say is what the records hold."""

from pathlib import Path

from mightnt.experiments.theory.book import CHAPTERS, book_table
from mightnt.experiments.theory.theorem import Computed
from mightnt.files import read_json

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
