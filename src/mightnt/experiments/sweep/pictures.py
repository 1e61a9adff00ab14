"""Figures of the full experiment, from records: vector files in the one style of all pages, told apart without color too.

What is missing from a figure is said in its caption; a mean of fewer runs than planned is drawn hollow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from mightnt.audits.drawing import INK, PAPER, PARAMETERS, SOFT, STYLES, Style, whiskers
from mightnt.audits.summary import over_seeds
from mightnt.experiments.sweep.cells import alone, headline
from mightnt.experiments.sweep.records import Records
from mightnt.experiments.sweep.studies import COMPARED, LENGTHS, STUDIES, Study
from mightnt.experiments.sweep.tables import Gathered, Measured, asks_per_100_turns, gathered, held_by, mean_of
from mightnt.files import replacing
from mightnt.prediction import FloatArray

FORMATS = ("svg", "pdf")
PANEL_INCHES = (3.4, 2.9)
PRINT = {**PARAMETERS, "font.size": 9, "pdf.fonttype": 42, "legend.frameon": False, "legend.fontsize": 8}
NATS = "nats an episode"


@dataclass(frozen=True)
class Picture:
    """One figure: a file name, what it shows and what is missing from it."""

    name: str
    caption: str
    draw: Callable[[Figure], None]
    inches: tuple[float, float] = PANEL_INCHES
    """Width and height."""

    def write(self, folder: Path) -> None:
        """Save it as ``folder/NAME.svg`` and ``.pdf``, the same bytes for the same records."""
        with matplotlib.rc_context({**PRINT, "svg.hashsalt": self.name}):
            figure = Figure(figsize=self.inches, layout="constrained")
            self.draw(figure)
            for kind in FORMATS:
                plain = {"CreationDate": None} if kind == "pdf" else {"Date": None}
                with replacing(folder / f"{self.name}.{kind}") as path:
                    figure.savefig(path, format=kind, metadata=plain)


APART = 1.025
"""How far lines stand side by side where an axis is logarithmic, so that none hides another."""


def look(base: str) -> Style:
    """How this base looks everywhere."""
    return STYLES[base]


def beside(base: str) -> float:
    """The factor by which this base's points stand aside."""
    return float(APART ** (COMPARED.index(base) - len(COMPARED) // 2))


def absent(found: Sequence[Gathered]) -> str:
    """The sentence that names the runs which a figure lacks; empty when none does."""
    lacking = [
        f"{one.cell.base}, {held_by(one.cell)} ({len(one.missing_seeds)} of {one.n_planned})"
        for one in found
        if one.missing_seeds
    ]
    return f" Missing runs: {'; '.join(lacking)}." if lacking else ""


def log_ticks(axes: Axes, name: str, values: Sequence[float]) -> None:
    """A logarithmic axis whose ticks are these values."""
    getattr(axes, f"set_{name}scale")("log")
    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_major_formatter(FixedFormatter([f"{value:,g}" for value in values]))
    axis.set_minor_locator(NullLocator())


def decades(low: float, high: float) -> list[float]:
    """1, 3, 10, ... from ``low`` to ``high``."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**e for e in exponents for step in (1, 3) if low <= step * 10.0**e <= high]


def series(
    axes: Axes, base: str, points: Sequence[tuple[float, Gathered]], number: Callable[[Measured], float | None]
) -> None:
    """A line through means with their intervals; runs as small dots; a mean that lacks runs is hollow."""
    style, means = look(base), list[tuple[float, float]]()
    for place, one in points:
        x = place * beside(base)
        values = [value for value in one.values(number) if math.isfinite(value)]
        spread = over_seeds(values)
        if spread is None:
            continue
        axes.plot([x] * len(values), values, ls="", marker=".", ms=3, color=style.color, alpha=0.5, zorder=2)
        face = PAPER if one.missing_seeds else style.color
        axes.errorbar(
            [x],
            [spread.mean],
            yerr=whiskers(spread),
            fmt=style.marker,
            ms=5.5,
            color=style.color,
            mfc=face,
            mec=style.color,
            elinewidth=1,
            capsize=2,
            zorder=3,
        )
        means.append((x, spread.mean))
    if means:
        axes.plot(*zip(*means, strict=True), color=style.color, ls=style.dash, lw=1.4, zorder=2.5)
    axes.plot([], [], color=style.color, ls=style.dash, marker=style.marker, ms=5.5, label=base)


def over_optimization(records: Records, first_seed: int) -> Picture:
    """The curve in the chat."""
    return against_budgets("over-optimization", STUDIES["budgets"], records, first_seed)


def shortcut(records: Records, first_seed: int) -> Picture:
    """The curve where the largest reward is known."""
    return against_budgets("shortcut", STUDIES["shortcut"], records, first_seed)


def against_budgets(name: str, study: Study, records: Records, first_seed: int) -> Picture:
    """Proxy reward, true utility and KL to the demonstrator against the budget, a line for each base of the study."""
    held = [cell for cell in study.cells if cell.constraint == "budget"]
    by_base = {
        base: sorted(
            ((cell.strength, gathered(cell, records, first_seed)) for cell in held if cell.base == base),
            key=itemgetter(0),
        )
        for base in COMPARED
        if base in {cell.base for cell in held}
    }
    [free] = [gathered(cell, records, first_seed) for cell in study.cells if cell.base == "none"]
    mu = gathered(alone(replace(held[0], base="known")), records, first_seed)
    budgets = sorted({cell.strength for cell in held})
    shown = (
        ("proxy reward", "proxy_reward"),
        ("true utility", "true_utility"),
        ("KL(π, μ), " + NATS, "kl_demonstrator_nats"),
    )

    def draw(figure: Figure) -> None:
        for axes, (label, number) in zip(figure.subplots(1, 3), shown, strict=True):
            for base, points in by_base.items():
                series(axes, base, points, mean_of(number))
            log_ticks(axes, "x", budgets)
            axes.set_xlabel(f"budget, {NATS}")
            axes.set_ylabel(label)
            for one, color, words in ((free, look("none").color, "no budget"), (mu, INK, "demonstrator")):
                spread = one.spread(mean_of(number))
                if spread and math.isfinite(spread.mean):
                    axes.axhline(spread.mean, color=color, lw=1, ls=(0, (1, 1.5)), zorder=1, label=words)
            if number == "kl_demonstrator_nats":
                axes.plot(budgets, budgets, color=SOFT, lw=0.8, label="KL(π, μ) = budget")
                spread_ticks(axes)
            else:
                fit_to_runs(axes)
        legend_below(figure, 5)

    caption = (
        "What a nat buys: proxy reward, true utility and distance to the demonstrator against the budget of KL to the base an "
        "episode. Dots are runs, markers means over seeds with 95% t intervals (cut where they leave the panel), hollow where "
        "runs are missing."
    )
    return Picture(
        name,
        caption + absent([one for points in by_base.values() for _, one in points] + [free, mu]),
        draw,
        panels(3),
    )


CAP = "_"
"""The marker at the ends of an interval."""


def drawn(axes: Axes) -> FloatArray:
    """The height of every run, mean and line of a panel, without the ends of intervals."""
    lines = [np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines if line.get_marker() != CAP]
    heights: FloatArray = np.concatenate([np.empty(0), *lines])
    return heights[np.isfinite(heights)]


def spread_ticks(*panels: Axes) -> None:
    """One logarithmic y axis for these panels, around their runs and lines, with ticks 1, 3, 10, ..., where any were drawn."""
    heights = np.concatenate([drawn(axes) for axes in panels])
    if not (heights > 0).any():
        return
    low, high = 0.7 * heights[heights > 0].min(), 1.4 * heights.max()
    for axes in panels:
        log_ticks(axes, "y", decades(low, high))
        axes.set_ylim(low, high)


def fit_to_runs(axes: Axes) -> None:
    """A linear y axis around runs and lines: the intervals of three seeds would flatten them."""
    heights = drawn(axes)
    if len(heights):
        margin = 0.06 * (float(np.ptp(heights)) or 1.0)
        axes.set_ylim(heights.min() - margin, heights.max() + margin)


def panels(n: int) -> tuple[float, float]:
    """Width and height of a row of panels."""
    return n * PANEL_INCHES[0], PANEL_INCHES[1]


def legend_below(figure: Figure, columns: int) -> None:
    """One legend for all panels, under them, each label once."""
    found = dict[str, Any]()
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=columns)


def promise_and_truth(records: Records, first_seed: int) -> Picture:
    """KL to the base against KL to the demonstrator, both logarithmic, every run of the budgets a dot; the diagonal."""
    study = STUDIES["budgets"]
    every = [gathered(cell, records, first_seed) for cell in study.cells if not cell.alone]

    def draw(figure: Figure) -> None:
        axes, lengths = figure.subplots(), list[float]()
        for base in COMPARED:
            style = look(base)
            pairs = [pair for one in every if one.cell.base == base for pair in both(one)]
            if pairs:
                axes.plot(
                    *zip(*pairs, strict=True),
                    ls="",
                    marker=style.marker,
                    ms=4.5,
                    color=style.color,
                    mec=PAPER,
                    mew=0.4,
                    label=base,
                )
                lengths += [value for pair in pairs for value in pair]
        if lengths:
            low, high = 0.8 * min(lengths), 1.25 * max(lengths)
            axes.plot([low, high], [low, high], color=SOFT, lw=0.8, zorder=1)
            for name in ("x", "y"):
                log_ticks(axes, name, decades(low, high))
                getattr(axes, f"set_{name}lim")(low, high)
            legend_below(figure, 3)
        axes.set_xlabel(f"KL(π, base), {NATS}: the promise")
        axes.set_ylabel(f"KL(π, μ), {NATS}: the truth")

    caption = (
        "The promise and the truth, every run a dot; the line: both are equal. A KL of 0 or infinity has no place here."
    )
    return Picture("promise-and-truth", caption + absent(every), draw, (4.2, 4.4))


FACES = {"budget": "full", "penalty": "none", "target": "left"}
"""How much of a marker is filled, for each constraint."""


def how_held(records: Records, first_seed: int) -> Picture:
    """KL to the demonstrator and proxy reward against KL to the base, for each constraint and strength, every run a dot."""
    bases = dict.fromkeys(cell.base for cell in STUDIES["constraints"].cells if not cell.alone)
    cells = dict.fromkeys(
        cell
        for study in ("constraints", "budgets")
        for cell in STUDIES[study].cells
        if cell.base in bases and not cell.alone
    )
    every = [gathered(cell, records, first_seed) for cell in cells]

    def draw(figure: Figure) -> None:
        distance, reward = figure.subplots(1, 2)
        for one in every:
            style, face = look(one.cell.base), FACES[one.cell.constraint]
            plain = {
                "ls": "",
                "marker": style.marker,
                "ms": 5,
                "color": style.color,
                "fillstyle": face,
                "mfcalt": PAPER,
            }
            for x, y in both(one):
                distance.plot([x], [y], **plain)
            for x, y in beside_spent(one, "proxy_reward"):
                reward.plot([x], [y], **plain)
        promised = sorted({x for one in every for x, _ in both(one)})
        if promised:
            ends = 0.8 * promised[0], 1.25 * promised[-1]
            distance.plot(ends, ends, color=SOFT, lw=0.8, zorder=1)
            spread_ticks(distance)
            for axes in (distance, reward):
                log_ticks(axes, "x", decades(*ends))
                axes.set_xlim(*ends)
        for base in bases:
            distance.plot([], [], ls="", marker=look(base).marker, ms=5, color=look(base).color, label=base)
        for constraint, face in FACES.items():
            distance.plot([], [], ls="", marker="o", ms=5, color=INK, fillstyle=face, mfcalt=PAPER, label=constraint)
        distance.set_ylabel(f"KL(π, μ), {NATS}")
        reward.set_ylabel("proxy reward")
        for axes in (distance, reward):
            axes.set_xlabel(f"KL(π, base), {NATS}")
        legend_below(figure, 6)

    caption = (
        "How the policy is held, at the same KL to the base: budgets, penalties and targets of every strength, every run a dot; "
        "the line: KL(π, μ) = KL(π, base)."
    )
    return Picture("how-held", caption + absent(every), draw, panels(2))


def beside_spent(one: Gathered, name: str) -> list[tuple[float, float]]:
    """(KL to the base, this number) of every run in which both are known."""
    pairs = [(mean_of("kl_base_nats")(run), mean_of(name)(run)) for run in one.runs]
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def both(one: Gathered) -> list[tuple[float, float]]:
    """(KL to the base, KL to the demonstrator) of every run in which both are positive and finite."""
    pairs = beside_spent(one, "kl_demonstrator_nats")
    return [(x, y) for x, y in pairs if 0 < x < math.inf and 0 < y < math.inf]


def along_episode(records: Records, first_seed: int) -> Picture:
    """KL from the beginning of an episode to each token, to the base and to the demonstrator, for the headline's bases."""
    every = [gathered(headline(base), records, first_seed) for base in COMPARED if base != "none"]
    shown = (
        ("KL(π, base) so far, nats", "kl_base_by_token_nats"),
        ("KL(π, μ) so far, nats", "kl_demonstrator_by_token_nats"),
    )

    def draw(figure: Figure) -> None:
        for axes, (label, name) in zip(figure.subplots(1, 2), shown, strict=True):
            for one in every:
                rows = [np.array(list(map(float, run[name]))) for run in one.runs if run.get(name)]
                if rows:
                    style = look(one.cell.base)
                    length = max(map(len, rows))
                    so_far = np.cumsum(np.mean([np.pad(row, (0, length - len(row))) for row in rows], axis=0))
                    axes.plot(
                        np.arange(1, length + 1),
                        np.where((so_far > 0) & np.isfinite(so_far), so_far, np.nan),
                        color=style.color,
                        ls=style.dash,
                        lw=1.3,
                        label=one.cell.base,
                    )
            axes.set_xlabel("the agent's tokens in an episode")
            axes.set_ylabel(label)
        promise, truth = figure.axes
        promise.axhline(headline().strength, color=SOFT, lw=0.8, zorder=1)
        promise.set_ylim(bottom=0)
        spread_ticks(truth)
        legend_below(figure, 4)

    caption = (
        f"Where an episode pays, headline (B = {headline().strength:g}, the gray line): KL from its beginning to each token, in "
        "the mean over episodes and seeds. A line that stops rising on the left and goes on on the right: paid up front."
    )
    return Picture("along-the-episode", caption + absent(every), draw, panels(2))


def lengths(records: Records, first_seed: int) -> Picture:
    """KL to the demonstrator against the length of an episode, in the chat and at the help desk, a line for each base."""
    places = (("chat", STUDIES["lengths"]), ("help desk", STUDIES["repeats"]))
    found = {
        place: [gathered(cell, records, first_seed) for cell in study.cells if not cell.alone]
        for place, study in places
    }

    def draw(figure: Figure) -> None:
        for axes, (place, every) in zip(figure.subplots(1, 2, sharey=True), found.items(), strict=True):
            for base in dict.fromkeys(one.cell.base for one in every):
                points = [(float(one.cell.length), one) for one in every if one.cell.base == base]
                series(axes, base, points, mean_of("kl_demonstrator_nats"))
            axes.axhline(headline().strength, color=SOFT, lw=0.8, zorder=1)
            log_ticks(axes, "x", LENGTHS)
            axes.set_xlabel("length of an episode, in multiples of six turns")
            axes.set_title(place, size=9)
        figure.axes[0].set_ylabel(f"KL(π, μ), {NATS}")
        spread_ticks(*figure.axes)
        legend_below(figure, 4)

    caption = (
        f"Longer episodes, the same {headline().strength:g} nats of KL to the base for the whole of each (the gray line): in the "
        "chat what is bought is one turn, at the help desk it pays in every turn. Dots are runs, markers means over seeds with "
        "95% t intervals, cut where they leave the panel."
    )
    return Picture("lengths", caption + absent([one for every in found.values() for one in every]), draw, panels(2))


def asking(records: Records, first_seed: int) -> Picture:
    """Asks in 100 turns, and KL to the demonstrator, against the number of demonstrations."""
    study = STUDIES["demonstrations"]
    cells = [cell for cell in study.cells if not cell.alone]
    by_base = {
        base: [
            (float(cell.n_demonstrations), gathered(cell, records, first_seed)) for cell in cells if cell.base == base
        ]
        for base in dict.fromkeys(cell.base for cell in cells)
    }
    sizes = sorted({cell.n_demonstrations for cell in cells})

    def draw(figure: Figure) -> None:
        panels = (("asks in 100 turns", asks_per_100_turns), (f"KL(π, μ), {NATS}", mean_of("kl_demonstrator_nats")))
        for axes, (label, number) in zip(figure.subplots(1, 2), panels, strict=True):
            for base, points in by_base.items():
                series(axes, base, points, number)
            log_ticks(axes, "x", sizes)
            axes.set_xlabel("demonstrations")
            axes.set_ylabel(label)
        asks, distance = figure.axes
        fit_to_runs(asks)
        distance.axhline(headline().strength, color=SOFT, lw=0.8, zorder=1)
        spread_ticks(distance)
        legend_below(figure, 4)

    caption = (
        f"Does data fix it? Asking and distance against demonstrations, B = {headline().strength:g} (the gray line). Dots are "
        "runs, markers means over seeds with 95% t intervals, cut where they leave the panel."
    )
    return Picture(
        "asking", caption + absent([one for points in by_base.values() for _, one in points]), draw, panels(2)
    )
