"""The picture shows every bin with its interval, marks the broken ones by shape, and its title says what is seen."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import mightnt.audits
from mightnt.audits.page import drawn, page
from mightnt.audits.reliability import Bin, reliability, tally
from mightnt.audits.reliability_figure import LOOKS, bin_mark, reliability_panel


def found_with(factor, n_decisions=3000):
    """Reliability of the truth times a factor, at most 1: three tokens, nothing hidden."""
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.full(3, 2.0), size=n_decisions)
    chosen = np.minimum((rng.random((n_decisions, 1)) >= truth.cumsum(axis=1)).sum(axis=1), 2)
    bounds = np.minimum(factor * truth, 1.0)
    bounds /= np.maximum(1.0, bounds.sum(axis=1, keepdims=True))
    return reliability(tally(bounds, chosen, np.arange(n_decisions) // 10, n_decisions // 10))


def some_bin(outcome, observed=0.4, low=0.3, high=0.5):
    return Bin(0.25, 0.5, 10, 10, 4, 0.35, observed, low, high, outcome)


def test_titles_say_what_is_seen():
    assert reliability_panel(found_with(0.5)).title.startswith("Kept for p in")
    assert reliability_panel(found_with(1.0, 20)).title == "Too little data to say whether the lower bounds are kept"
    assert reliability_panel(found_with(0.0)).title == "Nothing was vouched for"
    broken = found_with(1.0)
    bins = tuple(some_bin(outcome) for outcome in ("fails", "holds", "fails"))
    swapped = type(broken)(bins, *(getattr(broken, name) for name in type(broken).__slots__[1:]))
    assert reliability_panel(swapped).title.startswith("Broken: in 2 of 3 bins")
    all_kept = type(broken)(bins[1:2], *(getattr(broken, name) for name in type(broken).__slots__[1:]))
    assert reliability_panel(all_kept).title.startswith("Kept: tokens")


@pytest.mark.parametrize("outcome", LOOKS)
def test_a_bin_is_its_share_and_its_interval_at_its_mean_prediction(outcome):
    axes = Figure().add_subplot()
    bin_mark(axes, some_bin(outcome), 0.01)
    interval, share = axes.lines
    assert interval.get_xydata().tolist() == [[0.35, 0.3], [0.35, 0.5]]
    assert share.get_xydata().tolist() == [[0.35, 0.4]]
    assert share.get_marker() == LOOKS[outcome].marker
    assert len({look.marker for look in LOOKS.values()}) == len(LOOKS)


def test_what_never_happened_is_an_arrow_at_the_edge():
    axes = Figure().add_subplot()
    bin_mark(axes, some_bin("too little data", observed=0.0, low=0.0), 0.01)
    interval, arrow = axes.lines
    assert interval.get_ydata().tolist() == [0.01, 0.5]
    assert (arrow.get_marker(), arrow.get_ydata().tolist()) == ("v", [0.01])


def test_the_diagonal_and_only_the_outcomes_that_occur_are_named():
    found = found_with(0.5)
    svg = reliability_panel(found).svg
    assert ">just as often<" in svg
    for outcome in LOOKS:
        assert (f">{outcome}<" in svg) == any(part.outcome == outcome for part in found.bins)


def test_the_note_counts_and_says_what_the_intervals_rely_on():
    note = reliability_panel(found_with(0.5)).note
    assert note.startswith("3,000 held-out decisions in 300 dialogues. Bars: 95% intervals, all at once")
    assert "50.0% of the probability is left open" in note


def test_the_page_holds_a_row_for_each_bin():
    found = found_with(0.5)
    template = Path(mightnt.audits.__file__).parent / "reliability.html.jinja"
    text = page(
        template, panel=drawn(reliability_panel(found)), found=found, name="<b>", notes=["a & b"], sentences=["c"]
    )
    assert text.count('<td class="') == len(found.bins)
    assert "&lt;b&gt;" in text
    assert "a &amp; b" in text
    assert found.sentence in text


def test_pyplot_is_never_loaded():
    code = "import mightnt.audits.reliability_figure, sys; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
