"""Pictures of the frontier: every candidate a marker and a name, nothing infinite, nothing not run; a page that stands alone."""

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from mightnt.experiments import frontier_pictures as pictures
from mightnt.experiments.frontier_pictures import (
    Point,
    distance_axis,
    label,
    overlap,
    panels,
    points,
    style_of,
    write_page,
)
from tests.experiments.frontier_records import record, run

NAMES = ["single", "new", "newer", "known"]


@pytest.fixture
def made():
    runs = [run(name, 10000, s, 5.0 + i + s, asks=0.01 * i) for i, name in enumerate(NAMES) for s in (0, 1)]
    return record([*runs, run("new", 10000, 0, 30.0, kind="adversarial")], [*NAMES, "unrun"])


def test_a_point_is_the_mean_of_its_seeds(made):
    found, absent = points(made, 10000, "benign")
    assert absent == ["unrun"]
    assert found[1] == Point("new", 0.01, 6.5, ((0.01, 6.0), (0.01, 7.0)))


def test_infinite_distances_are_not_drawn(made):
    for each in made["runs"]:
        if each["candidate"] == "new":
            each["reported"]["kl_demonstrator_nats"]["mean"] = "inf"
    found, absent = points(made, 10000, "benign")
    assert absent == ["new", "unrun"]
    assert [point.name for point in found] == ["single", "newer", "known"]


def test_one_picture_for_each_cell_that_was_run(made):
    drawn = panels(made)
    assert [panel.title for panel in drawn] == ["n = 10,000, benign reward", "n = 10,000, adversarial reward"]
    assert all(f">{name}<" in drawn[0].svg for name in NAMES)
    assert "unrun" in drawn[0].note
    assert "for lack of runs: single, newer, known, unrun" in drawn[1].note
    assert panels(made)[0].svg == drawn[0].svg


def test_labels_cover_neither_markers_nor_each_other():
    axes = Figure(figsize=(6.4, 4.4)).add_subplot()
    distance_axis(axes, [5.0, 200.0], 10.0)
    axes.set_xlim(0, 1)
    crowd = [Point(f"candidate-{i}", 0.5 + 0.01 * i, 10.0 + 0.3 * i, ()) for i in range(8)]
    label(axes, crowd, lines=(10.0, 20.0))
    axes.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the leading line
    corners = [(box.x0, box.y0, box.x1, box.y1) for box in boxes]
    assert not any(overlap(a, b) for i, a in enumerate(corners) for b in corners[:i])
    for x, y in [axes.transData.transform((point.asks, point.kl_nats)) for point in crowd]:
        assert not any(overlap(box, (x - 1, y - 1, x + 1, y + 1)) for box in corners)


def test_the_axis_holds_the_budget_and_everything_drawn():
    axes = Figure().add_subplot()
    distance_axis(axes, [0.0, 0.5, 300.0], 10.0)
    low, high = axes.get_ylim()
    assert 0 < low < 0.5 < 300 < high
    assert {10, 30, 100, 300} <= {float(f"{tick:g}") for tick in axes.get_yticks()}


def test_new_names_look_unlike_each_other():
    looks = [style_of(name, NAMES) for name in NAMES]
    assert len({(look.color, look.marker) for look in looks}) == len(NAMES)
    assert looks[0] == pictures.STYLES["single"]


def test_a_page_that_stands_alone(made, tmp_path):
    made["failed"] = {"run-benign-n10000-unrun-seed0": "ValueError: <none>"}
    write_page(made, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("<svg") == 2
    assert "&lt;none&gt;" in text
    assert "new &lt;promises&gt;" in text
    assert "<script" not in text
    assert "src=" not in text
    assert 'class="absent">– missing' in text
    assert "First among the bases that need no known demonstrator: <b>" in text


def test_a_page_of_nothing_says_so(tmp_path):
    write_page(record([], []), tmp_path / "page.html")
    assert "No run is whole yet" in (tmp_path / "page.html").read_text(encoding="utf-8")
