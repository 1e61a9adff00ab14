"""Figures are vector files of every run there is; what is missing is said, and looks hollow."""

import math
from itertools import combinations

import pytest
from matplotlib.figure import Figure

from mightnt.audits.drawing import PAPER
from mightnt.experiments.sweep.cells import Cell, headline
from mightnt.experiments.sweep.pictures import (
    along_episode,
    asking,
    both,
    decades,
    fit_to_runs,
    how_held,
    lengths,
    look,
    over_optimization,
    promise_and_truth,
    series,
    spread_ticks,
)
from mightnt.experiments.sweep.plan import planned
from mightnt.experiments.sweep.records import Records
from mightnt.experiments.sweep.studies import COMPARED, STUDIES
from mightnt.experiments.sweep.tables import gathered, mean_of
from tests.experiments.sweep.made import mean, recorded

ALL = (over_optimization, promise_and_truth, along_episode, asking, how_held, lengths)
RUNS = planned(STUDIES.values())


@pytest.mark.parametrize("make", ALL)
def test_a_vector_file_in_two_formats_the_same_for_the_same_records(make, tmp_path):
    records = recorded(RUNS)
    picture = make(records, 0)
    for folder in ("one", "two"):
        picture.write(tmp_path / folder)
    for kind, start in (("svg", b"<?xml"), ("pdf", b"%PDF")):
        one, two = ((tmp_path / folder / f"{picture.name}.{kind}").read_bytes() for folder in ("one", "two"))
        assert one.startswith(start)
        assert one == two
        assert b"<image" not in one
    assert "Missing" not in picture.caption


@pytest.mark.parametrize("make", ALL)
def test_without_records_a_figure_says_what_is_missing(make, tmp_path):
    picture = make(Records({}), 0)
    picture.write(tmp_path)
    assert "Missing runs: " in picture.caption
    assert "situations" in picture.caption


def test_missing_runs_are_counted_in_the_caption_and_hollow():
    cell = Cell(base="mixture", strength=20.0)
    records = recorded([run for run in RUNS if run != (cell, 1)])
    assert "Missing runs: mixture, budget 20 (1 of 3)." in over_optimization(records, 0).caption
    axes = Figure().subplots()
    whole = gathered(Cell(base="mixture", strength=5.0), records)
    series(axes, "mixture", [(5.0, whole), (20.0, gathered(cell, records))], mean_of("true_utility"))
    faces = [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == look("mixture").marker]
    assert PAPER in faces
    assert look("mixture").color in faces


def test_every_run_is_a_dot():
    records = recorded(RUNS)
    figure = Figure()
    promise_and_truth(records, 0).draw(figure)
    dots = sum(len(line.get_xdata()) for line in figure.axes[0].lines if line.get_linestyle() == "None")
    assert dots == sum(not cell.alone for cell, _ in planned([STUDIES["budgets"]]))


def test_every_run_that_is_held_in_some_way_is_a_dot_in_both_panels():
    figure = Figure()
    how_held(recorded(RUNS), 0).draw(figure)
    held = planned([STUDIES["constraints"], STUDIES["budgets"]])
    wanted = sum(not cell.alone and cell.base in ("mixture", "situations", "known") for cell, _ in held)
    for axes in figure.axes[:2]:
        assert sum(len(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "None") == wanted


def test_lengths_have_one_scale_in_both_panels():
    far = recorded(planned([STUDIES["repeats"]]), kl_demonstrator_nats=mean(900.0)).by_run
    near = recorded(planned([STUDIES["lengths"]]), kl_demonstrator_nats=mean(2.0)).by_run
    figure = Figure()
    lengths(Records({**far, **near}), 0).draw(figure)
    chat, desk = figure.axes
    assert chat.get_ylim() == desk.get_ylim()
    assert chat.get_ylim()[0] < 2
    assert desk.get_ylim()[1] > 900


def test_what_has_no_place_on_a_logarithmic_axis_is_left_out():
    cell = headline()
    for kl, n in ((mean(0.0), 0), ({"mean": "inf", "max": "inf"}, 0), (None, 0), (mean(3.0), 1)):
        assert len(both(gathered(cell, recorded([(cell, 0)], kl_demonstrator_nats=kl)))) == n


def test_bases_are_told_apart_without_color():
    for one, other in combinations(map(look, COMPARED), 2):
        assert one.marker != other.marker
        assert one.color != other.color
        assert one.dash != other.dash


def test_an_interval_that_leaves_does_not_flatten_the_runs():
    cell = Cell(base="mixture", strength=20.0)
    runs = [(cell, seed) for seed in range(3)]
    far_apart = [recorded([run], true_utility=mean(value)) for run, value in zip(runs, (0.5, 0.5, 2.0), strict=True)]
    one = gathered(cell, Records({run: records.by_run[run] for run, records in zip(runs, far_apart, strict=True)}))
    for fit in (fit_to_runs, spread_ticks):
        axes = Figure().subplots()
        series(axes, "mixture", [(20.0, one)], mean_of("true_utility"))
        axes.axhline(3.0)
        assert axes.get_ylim()[0] < 0  # the interval of these three reaches below 0
        fit(axes)
        low, high = axes.get_ylim()
        assert 0.3 < low < 0.5
        assert 3.0 < high < 4.5


def test_a_panel_without_anything_keeps_its_axis():
    for fit in (fit_to_runs, spread_ticks):
        axes = Figure().subplots()
        fit(axes)
        assert axes.get_ylim() == (0.0, 1.0)


def test_ticks():
    assert decades(0.5, 40) == [1, 3, 10, 30]
    assert all(math.isfinite(tick) for tick in decades(1e-3, 1e3))
