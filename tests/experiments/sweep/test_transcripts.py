"""A transcript as a figure: every word in its place, on a ground for what it cost."""

from dataclasses import replace

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mightnt.experiments.sweep.cells import headline
from mightnt.experiments.sweep.records import Records
from mightnt.experiments.sweep.transcripts import (
    COLUMNS,
    SHOWN,
    SILENCE,
    desk_transcripts,
    laid_out,
    spoken,
    transcripts,
)
from tests.experiments.sweep.made import recorded, transcript

FIELD = "kl_demonstrator_nats"


def test_words_carry_their_nats_and_the_end_is_the_last_word_s():
    turns = transcript()["turns"]
    assert spoken(turns[1], FIELD) == [("well", 0.001), ("done", 13.5)]
    assert spoken(turns[3], FIELD) == [(SILENCE, 13.7)]
    assert spoken(turns[0], FIELD) == [("hi", None), ("there", None)]
    marked = {"tokens": [{"text": "hi", FIELD: 1.0}, {"text": "<|end|>", FIELD: 2.0}]}
    assert spoken(marked, FIELD) == [("hi", 3.0)]
    assert spoken({"tokens": []}, FIELD) == [(SILENCE, None)]


def test_no_two_words_overlap_and_lines_break():
    long = {"speaker": "assistant", "tokens": [{"text": "word" * (1 + i % 3), FIELD: 1.0} for i in range(60)]}
    words = laid_out({"turns": [*transcript()["turns"], long]}, FIELD, 5)
    assert all(word.column + len(word.text) <= COLUMNS for word in words)
    assert min(word.line for word in words) == 5
    by_line = {}
    for word in words:
        assert word.column >= by_line.get(word.line, 0)
        by_line[word.line] = word.column + len(word.text) + 1
    assert len(by_line) > 5
    assert [word.nats for word in words if word.text in ("hi", "okay")] == [None, None]


def test_dear_words_have_a_ground_and_cheap_ones_none(tmp_path):
    picture = transcripts(recorded([(headline(base), 0) for base in SHOWN]), 0)
    figure = Figure()
    picture.draw(figure)
    grounds = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert len(grounds) == 2 * len(SHOWN)
    assert "Missing" not in picture.caption
    picture.write(tmp_path)
    assert b"silence" in (tmp_path / "transcripts.svg").read_bytes()


def test_a_base_without_a_transcript_is_named():
    picture = transcripts(recorded([(headline("mixture"), 0)]), 0)
    assert picture.caption.endswith("Missing: single, situations, known.")
    picture.draw(Figure())
    transcripts(Records({}), 0).draw(Figure())


def test_the_desk_shows_its_own_runs(tmp_path):
    """Runs of the chat are none of the desk's."""
    desk = [(replace(headline(base), setting="tools"), 0) for base in SHOWN]
    assert desk_transcripts(recorded([(headline(base), 0) for base in SHOWN]), 0).caption.count("Missing") == 1
    picture = desk_transcripts(recorded(desk), 0)
    assert "Missing" not in picture.caption
    picture.write(tmp_path)
    assert (tmp_path / "transcripts-desk.svg").exists()
