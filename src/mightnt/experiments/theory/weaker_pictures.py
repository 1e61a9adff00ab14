"""The pictures of the weaker assumptions, from their curves."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from mightnt.audits.drawing import INK, SOFT, STYLES, Style, render
from mightnt.audits.figures import Panel

SERIES = [STYLES[name] for name in ("none", "single", "pessimistic-minimum", "pessimistic", "mixture")]
"""Looks for series that are no bases."""


def panels(curves: Mapping[str, Any]) -> list[Panel]:
    """One picture an assumption, two where alpha is too large."""
    return [
        Panel(
            "Not closed under switching: the price of a reward after a novelty",
            render("weaker closed", lambda axes: not_closed(axes, curves["not_closed"]), 3.4),
            "Least expected KL that buys .9 of the reward. Thin: random demonstrators; thick: their mean.",
        ),
        Panel(
            "Demonstrator outside the class: how far the base rises above it",
            render("weaker outside", lambda axes: outside(axes, curves["outside"]), 3.6),
            "Worst action, mean over demonstrations. Above 0 the bound of T3 is broken. Dotted: the coins of the class. Both "
            "ends are infinite: the demonstrator never does what the base may do.",
        ),
        Panel(
            "alpha too large: how often the demonstrator is not believed, step by step",
            render("weaker lost", lambda axes: lost(axes, curves["level_too_large"]), 3.2),
        ),
        Panel(
            "alpha too large: lost at some time, and questions asked",
            render("weaker level", lambda axes: level(axes, curves["level_too_large"]), 3.2),
            "Dashed: the promise alpha / w; beyond 1 it says nothing.",
        ),
        Panel(
            "A reward that simple behavior cannot exploit",
            render("weaker reward", lambda axes: reward(axes, curves["not_exploitable"]), 3.2),
            "Least expected KL to the mixture. Under the demonstrator, a fair coin, both rewards cost the same.",
        ),
        Panel(
            "Odd actions one after another: what each is charged",
            render("weaker evidence", lambda axes: evidence(axes, curves["own_evidence"]), 3.4),
            "Mean over random classes. With demonstrated evidence the pessimistic base charges what the demonstrator would.",
        ),
    ]


def not_closed(axes: Axes, curve: Mapping[str, Any]) -> None:
    """Least KL over demonstrated steps, closed and open classes, and the demonstrator."""
    x = np.arange(len(curve["steps"]))
    looks = {
        "pessimistic": (STYLES["pessimistic"], "pessimistic, closed"),
        "demonstrator": (STYLES["known"], "demonstrator"),
        "open": (STYLES["single"], "mixture, not closed"),
        "closed": (STYLES["mixture"], "mixture, closed"),
    }
    for key, (style, name) in looks.items():
        rows = np.array(curve[key])
        axes.plot(x, rows.T, color=style.color, lw=0.6, alpha=0.35)
        axes.plot(x, rows.mean(axis=0), color=style.color, ls=style.dash, marker=style.marker, ms=5, lw=2, label=name)
    axes.set_xticks(x, [f"{step:,}" for step in curve["steps"]])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("demonstrated steps")
    axes.set_ylabel("nats an episode")
    axes.legend(fontsize=8, frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.42))


def outside(axes: Axes, curve: Mapping[str, Any]) -> None:
    """The worst gap over the demonstrator's coin, by number of demonstrated steps."""
    for (steps, values), style in zip(curve["gaps"].items(), SERIES, strict=False):
        means = list(map(float, values))
        points = [(p, gap) for p, gap in zip(curve["heads"], means, strict=True) if isfinite(gap)]
        axes.plot(*zip(*points, strict=True), color=style.color, ls=style.dash, lw=1.8, label=f"{int(steps):,} steps")
    for member in curve["members"]:
        axes.axvline(member, color=SOFT, lw=0.9, ls=":")
    axes.axhline(0, color=INK, lw=1.2, ls=(0, (4, 2)))
    axes.set_xlabel("the demonstrator's probability of 1")
    axes.set_ylabel("log(base / demonstrator), nats a decision")
    axes.legend(fontsize=8, frameon=False, loc="upper center")


def lost(axes: Axes, curve: Mapping[str, Any]) -> None:
    """Share of demonstrations in which mu is outside the top set, over time."""
    for values, alpha, style in zip(curve["lost_at"], curve["levels"], SERIES, strict=False):
        axes.plot(curve["times"], values, color=style.color, ls=style.dash, lw=1.8, label=f"alpha = {alpha:g}")
    axes.set_xscale("log")
    axes.set_ylim(-0.03, 1.0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("demonstrated steps")
    axes.set_ylabel("not believed")
    axes.legend(fontsize=8, frameon=False)


def level(axes: Axes, curve: Mapping[str, Any]) -> None:
    """Lost at some time against alpha with the promise, and questions on a second axis."""
    style, other = STYLES["pessimistic"], STYLES["single"]
    axes.plot(curve["levels"], curve["lost"], color=style.color, marker=style.marker, lw=1.8)
    grid = np.geomspace(min(curve["levels"]), 1, 50)
    axes.plot(grid, np.minimum(1, grid / curve["prior"]), color=INK, lw=1.2, ls=(0, (4, 2)))
    axes.set_xscale("log")
    axes.set_ylim(-0.03, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("alpha")
    axes.set_ylabel("lost at some time (circles)")
    right = axes.twinx()
    right.plot(
        curve["levels"], [row[0] for row in curve["asked"]], color=other.color, marker=other.marker, ls=other.dash
    )
    right.set_ylabel("questions asked (squares)", color=SOFT)
    right.set_ylim(bottom=0)
    right.grid(visible=False)
    right.spines["right"].set_visible(True)


def reward(axes: Axes, curve: Mapping[str, Any]) -> None:
    """Least KL over value: a simple reward, random targets, and the demonstrator."""
    values, mixture = curve["values"], STYLES["mixture"]
    axes.plot(
        values, curve["simple"], color=mixture.color, ls=mixture.dash, marker=mixture.marker, lw=2, label="all ones"
    )
    hard, single = np.array(curve["hard"], dtype=float), STYLES["single"]
    axes.plot(values, hard.T, color=single.color, lw=0.6, alpha=0.4)
    mean = hard.mean(axis=0)
    axes.plot(values, mean, color=single.color, ls=single.dash, marker=single.marker, lw=2, label="random sequences")
    own = STYLES["known"]
    axes.plot(
        values, curve["demonstrator"], color=own.color, ls=own.dash, lw=1.6, label="either, under the demonstrator"
    )
    axes.set_xlabel("share of the reward that is bought")
    axes.set_ylabel("nats an episode")
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def evidence(axes: Axes, curve: Mapping[str, Any]) -> None:
    """Charges of odd actions in turn, for both bases under both rules."""
    solid: dict[str, Style] = {
        "mixture all": STYLES["mixture"],
        "mixture demonstrated": STYLES["single"],
        "pessimistic all": STYLES["pessimistic-minimum"],
        "pessimistic demonstrated": STYLES["pessimistic"],
        "demonstrator": STYLES["known"],
    }
    for name, style in solid.items():
        mean = np.array(curve[name], dtype=float).mean(axis=0)
        axes.plot(
            np.arange(1, len(mean) + 1), mean, color=style.color, ls=style.dash, marker=style.marker, ms=4, lw=1.6,
            label=name.replace(" ", ", evidence "),
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xlabel("odd action")
    axes.set_ylabel("nats")
    axes.legend(fontsize=8, frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.38))
