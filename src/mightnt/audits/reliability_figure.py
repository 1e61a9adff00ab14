"""The picture of a reliability: predicted lower bounds against how often they came true."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from mightnt.audits.drawing import INK, PAPER, STYLES, Style, render
from mightnt.audits.figures import Panel
from mightnt.audits.reliability import Bin, Outcome, Reliability
from mightnt.audits.summary import percent

LOOKS: dict[Outcome, Style] = {
    "holds": Style(STYLES["known"].color, "o", "-"),
    "too little data": Style(STYLES["none"].color, "s", "-"),
    "fails": Style(STYLES["mixture"].color, "X", "-"),
}
"""Told apart by marker as well as by color; a bin with too little data is hollow."""
BELOW_ALL = 0.4
"""How far the picture reaches below its smallest share; what never happened is drawn at the edge, as an arrow."""


def reliability_panel(found: Reliability) -> Panel:
    """Each bin's mean lower bound against the share that came true, with its interval; both scales logarithmic.

    Above the diagonal the lower bounds are kept, below it they are broken.
    """

    def draw(axes: Axes) -> None:
        shown = [value for b in found.bins for value in (b.predicted, b.observed) if value > 0]
        lowest = BELOW_ALL * min([*shown, 0.02])
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(lowest, 1.5)
        axes.set_ylim(lowest, 1.5)
        axes.plot([lowest, 1.0], [lowest, 1.0], color=INK, lw=1.2, ls=(0, (4, 2)), zorder=1, label="just as often")
        for part in found.bins:
            bin_mark(axes, part, lowest)
        for outcome in LOOKS:
            if any(part.outcome == outcome for part in found.bins):
                axes.plot([], [], ls="", ms=8, label=outcome, **look(outcome))
        axes.legend(loc="upper left", frameon=False, fontsize=9)
        axes.set_xlabel("lower bound on the probability of a token")
        axes.set_ylabel("share that the demonstrator chose")

    return Panel(title(found), render("reliability", draw, 4.2), note(found))


def bin_mark(axes: Axes, part: Bin, lowest: float) -> None:
    """One bin: its interval as a line, its share as a mark; a share of 0 as an arrow at the lower edge."""
    style = LOOKS[part.outcome]
    axes.plot([part.predicted] * 2, [max(part.low, lowest), part.high], color=style.color, lw=2, zorder=2)
    if part.observed > 0:
        axes.plot([part.predicted], [part.observed], ls="", ms=9, zorder=4, **look(part.outcome))
    else:
        axes.plot([part.predicted], [lowest], marker="v", ms=9, color=style.color, clip_on=False, zorder=4)


def look(outcome: Outcome) -> dict[str, Any]:
    """Marker and colors of an outcome."""
    style, hollow = LOOKS[outcome], outcome == "too little data"
    return {
        "marker": style.marker,
        "color": style.color,
        "mfc": PAPER if hollow else style.color,
        "mec": style.color if hollow else PAPER,
    }


def title(found: Reliability) -> str:
    """What is seen, in a line."""
    n_failed = sum(part.outcome == "fails" for part in found.bins)
    if not found.bins:
        return "Nothing was vouched for"
    if n_failed:
        return f"Broken: in {n_failed} of {len(found.bins)} bins tokens are chosen less often than the lower bound says"
    if found.outcome == "holds":
        return "Kept: tokens are chosen at least as often as their lower bound says"
    if found.where("holds"):
        return f"Kept for p in {found.where('holds')}; elsewhere too little data to say"
    return "Too little data to say whether the lower bounds are kept"


def note(found: Reliability) -> str:
    """What the intervals are, and what is not in the picture."""
    of = {
        "nothing": "the decisions made, whatever depends on what",
        "dialogues": "a new dialogue, if dialogues are independent and alike",
        "decisions": "independent decisions",
    }[found.independent]
    return (
        f"{found.n_decisions:,} held-out decisions in {found.n_dialogues:,} dialogues. Bars: {100 * found.confidence:.4g}% "
        f"intervals, all at once, for {of}. {percent(found.unforeseen_share)} of the tokens chosen had the lower bound 0; "
        f"{percent(found.mean_asking_probability)} of the probability is left open on the mean."
    )
