"""The pictures of the frontier: distance to the demonstrator against asking, one marker a candidate; and their page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from mightnt.audits.drawing import INK, PAPER, SOFT, STYLES, Style, log_axis, render
from mightnt.audits.figures import Panel
from mightnt.audits.page import drawn, page
from mightnt.experiments.frontier_table import Cell, default_base, mean, ranking, tables
from mightnt.files import write_text

MARKERS = ("v", "p", "<", "d", ">", "h", "*", "8", "H")
"""For candidates without a style of their own."""
COLORS = tuple(
    STYLES[name].color for name in ("pessimistic", "mixture", "known", "single", "pessimistic-minimum", "none")
)
PLACES = [(dx, dy) for dy in (0, 11, -11, 22, -22, 33, -33, 44, -44, 55, -55) for dx in (9, -9)]
"""Where a label may stand, in points from its marker; the first are preferred."""
LETTER_POINTS = 5.0
"""Width of a letter of a label, generously."""
FLOOR_NATS = 0.01
"""Distances below are drawn at the lower edge of a picture."""


@dataclass(frozen=True)
class Point:
    """One candidate: its mean, and its seeds as (asks per turn, KL in nats)."""

    name: str
    asks: float
    kl_nats: float
    seeds: tuple[tuple[float, float], ...]


def points(record: Mapping[str, Any], n: int, reward: str) -> tuple[list[Point], list[str]]:
    """What can be drawn, and the names of the candidates that cannot: not run, or infinitely far."""
    found, absent = [], []
    for entry in record["candidates"]:
        cell = Cell(record, entry["name"], n, reward)
        pairs = zip(cell.values("asks_per_turn"), cell.values("kl_demonstrator_nats"), strict=True)
        seeds = tuple((a, k) for a, k in pairs if a is not None and k is not None and math.isfinite(k))
        asks, kl = mean([a for a, _ in seeds]), mean([k for _, k in seeds])
        if asks is None or kl is None:
            absent.append(entry["name"])
        else:
            found.append(Point(entry["name"], asks, kl, seeds))
    return found, absent


def style_of(name: str, names: Sequence[str]) -> Style:
    """The base's own style, or one from the lists by its place among ``names``."""
    if name in STYLES:
        return STYLES[name]
    i = [other for other in names if other not in STYLES].index(name)
    return Style(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], "-")


def panels(record: Mapping[str, Any]) -> list[Panel]:
    """A picture for each number of demonstrations, honest reward first; none where nothing was run."""
    return [
        panel(record, n, reward)
        for reward in record["rewards"]
        for n in sorted(record["n_demonstrations"], reverse=True)
        if points(record, n, reward)[0]
    ]


def panel(record: Mapping[str, Any], n: int, reward: str) -> Panel:
    """KL(pi, mu), logarithmic, against asks per turn, linear up to .1% and logarithmic beyond."""
    found, absent = points(record, n, reward)
    names = [entry["name"] for entry in record["candidates"]]
    budget = float(record["budget_nats"])

    def draw(axes: Axes) -> None:
        every = [seed for point in found for seed in point.seeds]
        log_axis(axes, "x", max([0.01, *(asks for asks, _ in every)]), linear_until=0.001)
        distance_axis(axes, [kl for _, kl in every], budget)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
        axes.tick_params(axis="x", labelsize=9)
        for times, text in ((1, "B"), (2, "2B")):
            axes.axhline(times * budget, color=INK, lw=1.1, ls=(0, (4, 2)), zorder=1)
            axes.text(1.01, times * budget, text, transform=axes.get_yaxis_transform(), va="center", size=9)
        for point in found:
            style = style_of(point.name, names)
            shares, distances = zip(*point.seeds, strict=True)
            bottom = axes.get_ylim()[0]
            seeds = [max(distance, bottom) for distance in distances]
            axes.plot(shares, seeds, ls="", marker="o", ms=3, color=style.color, alpha=0.6, zorder=3, clip_on=False)
            axes.plot(
                [point.asks],
                [max(point.kl_nats, bottom)],
                clip_on=False,
                marker=style.marker,
                ms=9,
                color=style.color,
                mec=PAPER,
                mew=1,
                zorder=4,
            )
        axes.set_xlabel("turns in which it asks")
        axes.set_ylabel("KL(π, μ), nats an episode")
        label(axes, found, lines=(budget, 2 * budget))

    note = "Down and to the left is better. Small dots are seeds, fresh episodes."
    missing = f" Not drawn, for lack of runs: {', '.join(absent)}." if absent else ""
    return Panel(f"n = {n:,}, {reward} reward", render(f"frontier {n} {reward}", draw, 4.4, 6.4), note + missing)


def distance_axis(axes: Axes, distances: Sequence[float], budget: float) -> None:
    """Decades around all that is drawn and the budget; a distance of 0 (or rounding) stands at the lower edge."""
    positive = [distance for distance in distances if distance > FLOOR_NATS]
    low, high = 0.6 * min([0.5 * budget, *positive]), 1.6 * max([2 * budget, *distances])
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in (1, 3) if low <= step * 10.0**decade <= high]
    axes.yaxis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())


def label(axes: Axes, found: Sequence[Point], lines: Sequence[float]) -> None:
    """A name beside each marker, at the first place where it covers fewest markers, lines and other names."""
    figure = axes.get_figure()
    assert figure is not None
    figure.draw_without_rendering()  # type: ignore[union-attr]
    to_points = 72 / figure.dpi
    low_nats = axes.get_ylim()[0]
    at = [(point.asks, max(point.kl_nats, low_nats)) for point in found]
    spots = [tuple(to_points * axes.transData.transform(here)) for here in at]
    frame = axes.get_window_extent()
    left, right, low, high = (to_points * edge for edge in (frame.x0, frame.x1, frame.y0, frame.y1))
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in spots]
    for line in lines:
        height = float(to_points * axes.transData.transform((0, line))[1])
        taken.append((left, height - 1, right, height + 1))
    for point, here, (x, y) in sorted(zip(found, at, spots, strict=True), key=lambda each: -each[2][1]):
        width = LETTER_POINTS * len(point.name)
        boxes = {
            (dx, dy): (x + dx - (width if dx < 0 else 0), y + dy - 5, x + dx + (width if dx > 0 else 0), y + dy + 5)
            for dx, dy in PLACES
        }
        inside = {k: b for k, b in boxes.items() if b[0] > left and b[2] < right and low < b[1] and b[3] < high + 8}
        covers = {place: sum(overlap(box, other) for other in taken) for place, box in (inside or boxes).items()}
        dx, dy = min(covers, key=covers.__getitem__)
        taken.append(boxes[dx, dy])
        axes.annotate(
            point.name,
            here,
            xytext=(dx, dy),
            textcoords="offset points",
            size=8.5,
            ha="left" if dx > 0 else "right",
            va="center",
            arrowprops={"arrowstyle": "-", "color": SOFT, "lw": 0.6, "shrinkA": 0, "shrinkB": 3}
            if abs(dy) > 11
            else None,
            zorder=5,
        )


def overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes (left, low, right, high) share a point."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def write_page(record: Mapping[str, Any], path: Path) -> None:
    """The page of a record, alone in one file: pictures, tables, what is missing, where it came from."""
    shown = [drawn(each) for each in panels(record)]
    template = Path(__file__).parent / "frontier.html.jinja"
    best = default_base(record)
    n_goals = len(ranking(record)[0].reported) if record["candidates"] else 0
    text = page(template, record=record, panels=shown, tables=tables(record), best=best, n_goals=n_goals)
    write_text(path, text)
