"""Every value is drawn, colors follow the page, text stays text, and matplotlib's settings are left alone."""

import re

import matplotlib
import pytest
from matplotlib.figure import Figure

from mightnt.audits.drawing import STYLES, VARIABLES, lines, log_axis, render, strip, whiskers
from mightnt.audits.results import BASES
from mightnt.audits.summary import over_seeds


@pytest.fixture
def axes():
    return Figure().add_subplot()


def test_every_base_has_a_look_of_its_own_in_the_fixed_order():
    assert tuple(STYLES) == BASES
    for part in ("color", "marker", "dash"):
        assert len({getattr(style, part) for style in STYLES.values()}) == len(BASES)


def test_a_strip_has_a_dot_for_every_value_and_its_mean_and_interval(axes):
    strip(axes, 2.0, [1.0, 2.0, 6.0], "mixture")
    assert sorted(axes.collections[0].get_offsets()[:, 0].tolist()) == [1.0, 2.0, 6.0]
    band, bar = axes.lines
    spread = over_seeds([1.0, 2.0, 6.0])
    assert list(band.get_xdata()) == [spread.low, spread.high]
    assert list(bar.get_xdata()) == [3.0]
    assert axes.texts[0].get_text() == "3.00"


def test_one_value_has_no_band_no_value_draws_nothing_and_infinity_is_an_arrow(axes):
    strip(axes, 0.0, [], "mixture")
    assert not axes.lines
    assert not axes.collections
    strip(axes, 0.0, [4.0], "mixture")
    assert len(axes.lines) == 1
    strip(axes, 1.0, [4.0, float("inf")], "single")
    assert axes.lines[-1].get_marker() == ">"
    assert axes.texts[-1].get_text() == "∞"


def test_lines_are_one_thin_for_each_run_and_one_thick_for_the_mean(axes):
    import numpy as np

    lines(axes, "known", np.arange(3), np.array([[0.0, 1.0, 2.0], [2.0, 3.0, 6.0]]))
    assert len(axes.lines) == 3
    assert list(axes.lines[-1].get_ydata()) == [1.0, 2.0, 4.0]


def test_whiskers_reach_the_interval():
    spread = over_seeds([1.0, 2.0, 6.0])
    (below,), (above,) = whiskers(spread)
    assert spread.mean - below == pytest.approx(spread.low)
    assert spread.mean + above == pytest.approx(spread.high)
    assert whiskers(over_seeds([1.0])) is None


@pytest.mark.parametrize(
    ("largest", "until", "ticks"),
    [
        (444, 1.0, [0, 1, 3, 10, 30, 100, 300]),
        (0.0, 1.0, [0, 1]),
        (8.0, 1.0, [0, 1, 3, 10]),
        (2.5, 0.01, [0, 0.01, 0.03, 0.1, 0.3, 1, 3]),
        (100, 1.0, [0, 1, 3, 10, 30, 100]),
    ],
)
def test_ticks_of_the_log_axis(axes, largest, until, ticks):
    log_axis(axes, "x", largest, linear_until=until)
    assert axes.get_xticks().tolist() == pytest.approx(ticks)
    assert axes.get_xlim()[1] >= largest


def test_the_svg_follows_the_page_and_leaves_the_settings_alone():
    before = dict(matplotlib.rcParams)

    def draw(axes):
        axes.plot([0, 1], [0, 1], color=STYLES["mixture"].color)
        axes.set_xlabel("nats & <more>")

    svg = render("a", draw, 2.0)
    assert dict(matplotlib.rcParams) == before
    assert svg.startswith("<svg")
    assert "width=" not in svg.split(">", 1)[0]
    assert "viewBox=" in svg
    assert "nats &amp; &lt;more&gt;</text>" in svg
    assert "var(--mixture, #d1480f)" in svg
    assert not re.findall(r"[^ ] ?(?<!, )#(?:d1480f|1b1d21|dfe2e6)", svg)
    assert "<style" not in svg
    assert "font-family: inherit" in svg
    assert svg == render("a", draw, 2.0)
    identifiers = set(re.findall(r'id="([^"]+)"', svg))
    assert identifiers.isdisjoint(re.findall(r'id="([^"]+)"', render("b", draw, 2.0)))


def test_every_color_is_a_variable_of_its_own():
    assert len(set(VARIABLES.values())) == len(VARIABLES)
