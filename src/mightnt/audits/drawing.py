"""How the pictures of a report are drawn: SVG text that follows the colors and the font of its page.

Colors are written as ``var(--name, #fallback)``, so that a page can darken them; text stays text. matplotlib's own
objects are used, never pyplot, so there is no global figure.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from mightnt.audits.summary import Spread, over_seeds, short

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Style:
    """How one base looks everywhere: color, marker, dash."""

    color: str
    marker: str
    dash: Any


STYLES = {
    "none": Style("#757d87", "X", (0, (1, 1.5))),
    "single": Style("#c98a00", "s", (0, (4, 1.5))),
    "mixture": Style("#d1480f", "D", (0, (6, 1.5, 1, 1.5))),
    "mixture-fixed": Style("#e58a5a", "d", (0, (3, 1, 1, 1))),
    "pessimistic": Style("#0a6ebd", "o", "-"),
    "pessimistic-minimum": Style("#3fa9dc", "^", (0, (2, 1))),
    "situations": Style("#7b3fa8", "v", (0, (10, 1.5))),
    "known": Style("#0b8f6a", "P", (0, (8, 2))),
}
"""In the order of BASES; told apart by marker and dash too, not by color alone."""

INK, SOFT, GRID, PAPER = "#1b1d21", "#63686f", "#dfe2e6", "#fdfdfc"
VARIABLES = {"ink": INK, "soft": SOFT, "grid": GRID, "paper": PAPER} | {
    name: style.color for name, style in STYLES.items()
}
"""Name of the CSS variable behind each color."""

PARAMETERS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "axes.unicode_minus": True,
}
WIDTH_INCHES = 5.0


def reference_line(axes: Axes, value: float, name: str) -> None:
    """A dashed line across all rows, named on top."""
    axes.axvline(value, color=INK, lw=1.2, ls=(0, (4, 2)), zorder=1)
    axes.text(value, -0.62, name, ha="center", va="bottom", size=9)


def strip(
    axes: Axes, row: float, values: Sequence[float], base: str, hollow: bool = False, percent: bool = False
) -> None:
    """A row of dots (runs), the mean as a bar and in words, its interval as a band; the infinite as an arrow."""
    color, spread = STYLES[base].color, over_seeds(values)
    if spread is None:
        return
    finite = [value for value in values if math.isfinite(value)]
    offsets = np.linspace(-0.07, 0.07, len(finite)) if len(finite) > 1 else np.zeros(len(finite))
    if spread.low is not None and spread.high is not None:
        axes.plot([spread.low, spread.high], [row, row], color=color, lw=6, alpha=0.28, solid_capstyle="butt")
    if math.isfinite(spread.mean):
        axes.plot([spread.mean], [row], marker="|", ms=13, mew=2.4, color=color, zorder=3)
    face, edge = (PAPER, color) if hollow else (color, PAPER)
    axes.scatter(finite, row + offsets, s=26, facecolor=face, edgecolor=edge, lw=1.1, zorder=4)
    at_edge = axes.get_yaxis_transform()
    if len(finite) < len(values):
        axes.plot([1], [row], marker=">", ms=8, color=color, transform=at_edge, clip_on=False, zorder=4)
    text = f"{spread.mean:.1%}" if percent else short(spread.mean)
    axes.text(1.025, row, text, transform=at_edge, color=SOFT if hollow else INK, va="center", size=9)


def whiskers(spread: Spread) -> list[list[float]] | None:
    """Lengths of the interval below and above the mean, as matplotlib wants them; ``None`` without an interval."""
    if spread.low is None or spread.high is None:
        return None
    return [[spread.mean - spread.low], [spread.high - spread.mean]]


def lines(axes: Axes, base: str, x: Array, rows: Array) -> None:
    """One thin line a run and a thick one for their mean; nothing for no runs."""
    style = STYLES[base]
    if not len(rows):
        return
    for row in rows:
        axes.plot(x, row, color=style.color, lw=0.8, alpha=0.45)
    axes.plot(x, np.mean(rows, axis=0), color=style.color, lw=2, ls=style.dash)


def log_axis(axes: Axes, name: Literal["x", "y"], largest: float, linear_until: float = 1.0) -> None:
    """Zero, a linear piece up to ``linear_until`` (a power of ten), then decades up to just above ``largest``."""
    top = 1.25 * max(largest, linear_until)
    decades = range(round(math.log10(linear_until)), math.floor(math.log10(top)) + 1)
    ticks = [0.0] + [tick for decade in decades for step in (1, 3) if (tick := step * 10.0**decade) <= top]
    axis = axes.xaxis if name == "x" else axes.yaxis
    getattr(axes, f"set_{name}scale")("symlog", linthresh=linear_until, linscale=0.45)
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())
    getattr(axes, f"set_{name}lim")(-0.12 * linear_until, top)


def render(name: str, draw: Callable[[Axes], None], height_inches: float, width_inches: float = WIDTH_INCHES) -> str:
    """The SVG element that ``draw`` paints; ``name`` keeps its inner ids apart from those of other pictures."""
    with matplotlib.rc_context({**PARAMETERS, "svg.hashsalt": name}):
        figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return themed(buffer.getvalue())


def themed(svg: str) -> str:
    """The bare ``<svg>`` element: sized by its page, fonts and colors from the page, no ids that could clash."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg))
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    for variable, color in VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable}, {color})")
    return re.sub(r"\n\s*\n+", "\n", svg).strip()
