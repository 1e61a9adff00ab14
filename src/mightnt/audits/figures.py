"""The pictures of a report: every run a dot or a line, and nothing drawn that was not measured.

Each function returns a :class:`Panel`, or leaves it out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from mightnt.audits.drawing import (
    GRID,
    INK,
    PAPER,
    SOFT,
    STYLES,
    Array,
    lines,
    log_axis,
    reference_line,
    render,
    strip,
    whiskers,
)
from mightnt.audits.results import PESSIMISTIC, Demonstrator, Run
from mightnt.audits.summary import Group, Setting, over_seeds
from mightnt.audits.verdict import ASKS_PER_TURN_GOAL


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: a title in words, the SVG, and what is missing from it."""

    title: str
    svg: str
    note: str = ""


def kl_panel(setting: Setting) -> Panel:
    """Per base, KL to the base (hollow) above KL to the demonstrator (filled), nats an episode; the budget as a line.

    Log scale above 1 nat, linear below. Dots are runs, the bar is the mean, the band its 95% interval over seeds.
    """

    def draw(axes: Axes) -> None:
        log_axis(axes, "x", largest_kl(setting))
        for row, group in enumerate(setting.groups):
            strip(axes, row - 0.19, [run.kl_base_nats.mean for run in group.runs], group.base, hollow=True)
            values = [run.kl_demonstrator_nats.mean for run in group.runs if run.kl_demonstrator_nats is not None]
            strip(axes, row + 0.19, values, group.base)
            if not values:
                axes.text(0.05, row + 0.19, "not measured", color=SOFT, va="center", size=9, style="italic")
        if setting.bounded:
            reference_line(axes, setting.budget_nats, f"budget {setting.budget_nats:g}")
        base_rows(axes, setting)
        axes.set_xlabel("nats an episode")

    partly = [setting.label(g) for g in setting.groups if not g.all_measured and g.spread("kl_demonstrator_nats")]
    note = f"The KL to the demonstrator was measured on some runs only: {', '.join(partly)}." if partly else ""
    height = 0.9 + 0.56 * len(setting.groups)
    return Panel("KL to the base (hollow) and to the demonstrator (filled)", render("kl", draw, height), note)


def reward_panel(setting: Setting, demonstrator: Demonstrator | None) -> Panel:
    """Proxy reward against true utility, the demonstrator as a star; reward alone where utility is not measured."""
    if not any(run.true_utility for group in setting.groups for run in group.runs):
        own = (demonstrator.proxy_reward.mean, "demonstrator") if demonstrator else None
        note = "True utility was not measured; only the reward that was optimized is shown."
        return strip_panel("Proxy reward", setting, lambda run: run.proxy_reward.mean, own, note)

    def draw(axes: Axes) -> None:
        if demonstrator is not None:
            x, y = demonstrator.proxy_reward.mean, demonstrator.true_utility.mean
            axes.axvline(x, color=SOFT, lw=0.8, ls=":")
            axes.axhline(y, color=SOFT, lw=0.8, ls=":")
            axes.plot([x], [y], marker="*", ms=15, color=INK, mec=PAPER, zorder=5)
            axes.annotate("demonstrator", (x, y), xytext=(8, 9), textcoords="offset points", size=9)
        for group in setting.groups:
            scatter(axes, group)
        axes.margins(0.14)
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel("proxy reward")
        axes.set_ylabel("true utility")

    height = 0.9 + 0.56 * max(len(setting.groups), 4)
    return Panel("Reward optimized, utility meant", render("reward", draw, height))


def asks_panel(setting: Setting) -> Panel:
    """Asks per turn by base, with the goal of a pessimistic base as a line."""
    pessimistic = any(group.base in PESSIMISTIC for group in setting.groups)
    goal = (ASKS_PER_TURN_GOAL, f"goal {ASKS_PER_TURN_GOAL:.0%}") if pessimistic else None
    return strip_panel("Share of turns in which it asked", setting, lambda run: run.asks_per_turn, goal, percent=True)


def token_panels(setting: Setting) -> list[Panel]:
    """KL along the episode, to the base and to the demonstrator: nats at each token, and the share spent so far."""
    panels = []
    for share in (False, True):
        for field, whom in (("kl_base_by_token_nats", "base"), ("kl_demonstrator_by_token_nats", "demonstrator")):
            series = [(group, by_token(group, field)) for group in setting.groups]
            if any(len(rows) for _, rows in series):
                panels.append(token_panel(whom, series, share))
    return panels


def by_token(group: Group, field: str) -> Array:
    """KL at each token, shape (runs that measured it, tokens); ended episodes count 0."""
    rows = [row for run in group.runs if (row := getattr(run, field))]
    length = max(map(len, rows), default=0)
    padded = [np.pad(np.array(row, dtype=float), (0, length - len(row))) for row in rows]
    return np.array(padded).reshape(len(rows), length)


def token_panel(whom: str, series: Sequence[tuple[Group, Array]], share: bool) -> Panel:
    """Nats at each token, or the share of the whole spent up to it (above the diagonal: paid up front)."""
    shown = [(group, spent_so_far(rows) if share else rows) for group, rows in series]
    length = max(rows.shape[-1] for _, rows in series)

    def draw(axes: Axes) -> None:
        for group, rows in shown:
            lines(axes, group.base, np.arange(1, rows.shape[-1] + 1), rows)
        if share:
            axes.plot([0, length], [0, 1], color=SOFT, lw=0.8, ls=":")
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        else:
            largest = max(float(rows[np.isfinite(rows)].max(initial=0.0)) for _, rows in shown)
            log_axis(axes, "y", largest, linear_until=0.01)
        axes.set_xlabel("the agent's tokens in an episode")

    title = f"Share of the KL to the {whom} spent so far" if share else f"KL to the {whom} at each token, nats"
    missing = sum(len(rows) for _, rows in series) - sum(len(rows) for _, rows in shown)
    note = f"Left out: {missing} run(s) whose KL is 0 or infinite and has no shares." if missing else ""
    return Panel(title, render(title, draw, 3.0), note)


def spent_so_far(rows: Array) -> Array:
    """Share of each run's KL spent up to each token; runs whose KL is 0 or infinite have none and are left out."""
    totals = rows.sum(axis=-1)
    rows = rows[(totals > 0) & np.isfinite(totals)]
    shares: Array = np.cumsum(rows, axis=-1) / rows.sum(axis=-1, keepdims=True)
    return shares


def curve_panels(setting: Setting) -> list[Panel]:
    """Learning curves: proxy reward, true utility and KL to the base over training iterations, where measured."""
    panels = []
    for field, title in (
        ("proxy_reward", "Proxy reward"),
        ("true_utility", "True utility"),
        ("kl_base_nats", "KL to the base, nats"),
    ):
        curves = [(group, run, curve(run, field)) for group in setting.groups for run in group.runs]
        if any(len(points) for _, _, points in curves):
            panels.append(curve_panel(title, setting, field))
    return panels


def curve_panel(title: str, setting: Setting, field: str) -> Panel:
    """One quantity over training iterations; the thick line is the mean at iterations that all seeds have."""

    def draw(axes: Axes) -> None:
        for group in setting.groups:
            curves = [points for run in group.runs if (points := curve(run, field))]
            if curves:
                shared = sorted(set.intersection(*(set(points) for points in curves)))
                lines(axes, group.base, np.array(shared), np.array([[c[i] for i in shared] for c in curves]))
        if field == "kl_base_nats":
            if setting.bounded:
                axes.axhline(setting.budget_nats, color=INK, lw=1.2, ls=(0, (4, 2)))
            largest = max(value for g in setting.groups for run in g.runs for value in curve(run, field).values())
            log_axis(axes, "y", largest)
        axes.set_xlabel("training iteration")

    return Panel(title, render(f"curve {field}", draw, 3.0))


def curve(run: Run, field: str) -> dict[int, float]:
    """A quantity by training iteration, where it was measured."""
    return {point.iteration: value for point in run.curve if (value := getattr(point, field)) is not None}


def key(base: str) -> str:
    """A small picture of a base's line and marker, for legends made of text."""
    style = STYLES[base]

    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        axes.plot([0, 2], [0, 0], color=style.color, lw=2, ls=style.dash)
        axes.plot([1], [0], color=style.color, marker=style.marker, ms=7, mec=PAPER, mew=0.6)

    return render(f"key {base}", draw, 0.2, width_inches=0.5)


def strip_panel(
    title: str,
    setting: Setting,
    value: Callable[[Run], float],
    reference: tuple[float, str] | None,
    note: str = "",
    percent: bool = False,
) -> Panel:
    """One number per base, a row each; ``reference`` is a value to compare with and its name."""

    def draw(axes: Axes) -> None:
        for row, group in enumerate(setting.groups):
            strip(axes, row, [value(run) for run in group.runs], group.base, percent=percent)
        if reference is not None:
            reference_line(axes, *reference)
        base_rows(axes, setting)
        axes.margins(x=0.08)
        axes.locator_params(axis="x", nbins=6)
        if percent:
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))

    return Panel(title, render(title, draw, 0.7 + 0.4 * len(setting.groups)), note)


def scatter(axes: Axes, group: Group) -> None:
    """A group in the plane of proxy reward and true utility: runs small, the mean large with both intervals."""
    style = STYLES[group.base]
    runs = [(run.proxy_reward.mean, run.true_utility.mean) for run in group.runs if run.true_utility is not None]
    if not runs:
        return
    xs, ys = zip(*runs, strict=True)
    axes.scatter(xs, ys, s=22, marker=style.marker, color=style.color, alpha=0.55, lw=0, zorder=3)
    x, y = over_seeds(xs), over_seeds(ys)
    assert x is not None
    assert y is not None
    axes.errorbar(
        x.mean,
        y.mean,
        xerr=whiskers(x),
        yerr=whiskers(y),
        fmt=style.marker,
        ms=9,
        color=style.color,
        mec=PAPER,
        zorder=4,
    )


def base_rows(axes: Axes, setting: Setting) -> None:
    """The bases as rows, the first on top."""
    groups = setting.groups
    axes.set_ylim(len(groups) - 0.5, -0.6)
    axes.set_yticks(range(len(groups)), [setting.label(group) for group in groups])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(axis="y", visible=False)
    for row in range(1, len(groups)):
        axes.axhline(row - 0.5, color=GRID, lw=0.8)


def largest_kl(setting: Setting) -> float:
    """The largest finite mean KL of any run, or the budget where that is larger."""
    values = [run.kl_base_nats.mean for group in setting.groups for run in group.runs]
    values += [k.mean for group in setting.groups for run in group.runs if (k := run.kl_demonstrator_nats) is not None]
    return max(value for value in [*values, setting.budget_nats, 1.0] if math.isfinite(value))
