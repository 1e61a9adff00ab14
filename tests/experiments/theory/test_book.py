"""The book: which chapters are meant, one record, one page, one table; nothing half written, nothing computed twice."""

import json
from dataclasses import dataclass

import pytest

from mightnt.audits.drawing import render
from mightnt.audits.figures import Panel
from mightnt.errors import InputError
from mightnt.experiments.theory import book
from mightnt.experiments.theory.theorem import Computed, Row, Theorem
from tests.watchers import Quiet


@dataclass(frozen=True)
class Config:
    n: int = 3


def compute(config, seed, report):
    report(1, 1)
    rows = (
        Row("a | b <i>", 0.25, "probability", "estimate", 0.2, 0.3, "by hand", holds=True),
        Row("no end", float("inf"), "nats", "exact", how="by definition", holds=False),
    )
    return Computed(rows, {"x": list(range(config.n)), "seed": seed})


def draw(curves):
    return [Panel("a <line>", render("toy", lambda axes: axes.plot(curves["x"], curves["x"]), 2.0), "a note")]


TOY = Theorem("P1", "a toy", "It says <nothing>.", {"quick": Config(), "default": Config(5)}, compute, draw)


@pytest.fixture
def record(monkeypatch):
    monkeypatch.setattr(book, "chapter", lambda name: TOY)
    value = book.compute("P1", "quick", 7, lambda done, of: None)
    return {"profile": "quick", "seed": 7, "chapters": {"P1": json.loads(json.dumps(value))}}


def test_names_in_any_case_and_order_and_all():
    assert book.named_chapters(["t3", "P1"]) == ["P1", "T3"]
    assert book.named_chapters(["all"]) == list(book.CHAPTERS)
    with pytest.raises(InputError, match="got T9; the chapters are all, P1"):
        book.named_chapters(["P1", "T9"])
    with pytest.raises(InputError, match="no name"):
        book.named_chapters([])


@pytest.mark.parametrize("name", book.CHAPTERS)
def test_every_chapter_is_there_under_its_name_with_both_profiles(name):
    theorem = book.chapter(name)
    assert theorem.name == name
    assert set(theorem.profiles) == set(book.PROFILES)


@pytest.mark.parametrize(
    ("profile", "seed", "words"), [("slow", 0, "'slow'; allowed are quick"), ("quick", -1, "seed -1")]
)
def test_what_is_refused_leaves_nothing(tmp_path, profile, seed, words):
    with pytest.raises(InputError, match=words):
        book.write_book(tmp_path / "new", ["P1"], profile, seed, Quiet(), False, 1)
    assert not (tmp_path / "new").exists()


def test_a_record_says_how_it_was_made(record):
    made = record["chapters"]["P1"]["provenance"]
    assert (made["seed"], made["config"]) == (7, {"n": 3})


def test_the_page_escapes_what_it_shows_and_marks_what_failed(record):
    page = book.book_html(record)
    assert page == book.book_html(record)
    assert "a | b &lt;i&gt;" in page
    assert "It says &lt;nothing&gt;." in page
    assert "2 numbers stand behind a claim; 1 did not come out" in page
    assert '<span class="outcome broken">does not hold</span>' in page
    assert page.count("<svg") == 1


def test_the_table_is_markdown_with_kind_and_interval(record):
    table = book.book_table(record)
    assert "| a \\| b <i> | 25% | estimate | 20% to 30% (by hand) | yes |" in table
    assert "| no end | ∞ nats | exact | by definition | **no** |" in table


def test_pages_are_drawn_from_the_record_alone(record, tmp_path, monkeypatch):
    monkeypatch.setattr(book, "compute", None)
    book.write_pages(record, tmp_path)
    assert (tmp_path / "theory.html").read_text() == book.book_html(record)
    assert (tmp_path / "theory.md").read_text() == book.book_table(record)


@pytest.mark.slow
def test_chapters_gather_in_one_folder_and_are_not_computed_twice(tmp_path):
    first = book.write_book(tmp_path, ["P1"], "quick", 0, Quiet(), False, 1)
    before = (tmp_path / "parts" / "P1.json").stat().st_mtime_ns
    with pytest.raises(InputError, match="--resume"):
        book.write_book(tmp_path, ["T2"], "quick", 0, Quiet(), False, 1)
    both = book.write_book(tmp_path, ["T2"], "quick", 0, Quiet(), True, 1)
    assert list(first["chapters"]) == ["P1"]
    assert list(both["chapters"]) == ["P1", "T2"]
    assert (tmp_path / "parts" / "P1.json").stat().st_mtime_ns == before
    assert {path.name for path in tmp_path.iterdir()} >= {"theory.json", "theory.html", "theory.md", "parts"}
