"""The pictures of T3, from its curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from mightnt.audits.drawing import INK, SOFT, STYLES, Style, render
from mightnt.audits.figures import Panel

SERIES = [STYLES[name] for name in ("pessimistic", "mixture", "known", "single", "none", "pessimistic-minimum")]
"""Looks for series that are no bases: told apart by marker and dash too."""

TOKEN, TRAJECTORY = STYLES["pessimistic-minimum"], STYLES["pessimistic"]


def panels(curves: Mapping[str, Any]) -> list[Panel]:
    """Every picture of the chapter."""
    return [*belief_panels(curves), *price_panels(curves)]


def belief_panels(curves: Mapping[str, Any]) -> list[Panel]:
    """Who stays believed, and how often is asked."""
    return [
        Panel(
            "How often the demonstrator stays believed, against the promise",
            render("T3 coverage", lambda axes: coverage(axes, curves["coverage"]), 3.6),
            "Promised is 1 - alpha / w. Bands: 95% Clopper-Pearson. Every curve must lie above the dashed line, up to its band.",
        ),
        Panel(
            "How loose: how often it was lost, against how often it may be",
            render("T3 lost", lambda axes: lost(axes, curves["coverage"]), 3.6),
            "The same runs, both axes logarithmic; every curve must lie below, up to its band. One bold rival meets the "
            "promise at powers of two.",
        ),
        Panel(
            "theta^3 summed over the steps so far, and what it can come to at most",
            render("T3 cubes", lambda axes: cubes(axes, curves["asking"]), 3.8),
            "Lines: mean over imitators; bands: nine of ten of them. Ticks on the right: the bound of each class, in its color.",
        ),
        Panel(
            "Questions asked so far",
            render("T3 questions", lambda axes: questions(axes, curves["asking"]), 3.6),
            "Late novelties bring new questions at each power of two; elsewhere they end once one model is left.",
        ),
        Panel(
            "Two coins that come closer: only the cubes stay bounded",
            render("T3 power", lambda axes: power(axes, curves["power"]), 3.2),
        ),
    ]


def price_panels(curves: Mapping[str, Any]) -> list[Panel]:
    """What policies pay, what asking costs, and what minima over trajectories change."""
    refused = curves["episodes"]["refused"]
    return [
        Panel(
            "What policies paid, and how far from the demonstrator they are, over whole episodes",
            render("T3 episodes", lambda axes: episodes(axes, curves["episodes"]["points"]), 3.8),
            "Expected KL of optimized policies on random trees and classes. Hollow: the demonstrator was not among the believed."
            + (
                f" Left out: {refused} plan(s) whose budget does not pay for the base's missing mass."
                if refused
                else ""
            ),
        ),
        Panel(
            "Asking is not free: the truth, and the term that covers it",
            render("T3 ask symbol", lambda axes: ask_symbol(axes, curves["ask_symbol"]), 3.0),
            "Demonstrator (1-theta, theta); base and policy (1-theta, 0) and a question. As one more action, asking costs 0.",
        ),
        Panel(
            "Questions an episode: minima over trajectories ask less",
            render("T3 granularity", lambda axes: granularity(axes, curves["granularities"]["points"]), 3.4),
            "One dot a random class of four dice, mean over the same episodes.",
        ),
        Panel(
            "The least that an episode without a question costs",
            render("T3 floors", lambda axes: floors(axes, curves["granularities"]["floors"]), 3.0),
            "Five coins, exactly.",
        ),
        Panel(
            "What it gives up: the veto comes later",
            render("T3 veto", lambda axes: veto(axes, curves["late_veto"]), 3.0),
            "A second model allows the odd action but fits ordinary ones badly; until the odd actions outweigh that, it "
            "hides the veto from the minimum over trajectories.",
        ),
    ]


def coverage(axes: Axes, curve: Mapping[str, Any]) -> None:
    """Share of demonstrations in which mu was never lost against 1 - alpha / w(mu)."""
    promised = 1 - np.array(curve["promised"])
    axes.plot([0, 1], [0, 1], color=INK, lw=1.2, ls=(0, (4, 2)))
    for (name, values), style in zip(curve["classes"].items(), SERIES, strict=True):
        _banded(axes, promised, {key: 1 - np.array(value) for key, value in values.items()}, "lost", style, name)
    axes.set_xlabel("promised: at least")
    axes.set_ylabel("measured")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def lost(axes: Axes, curve: Mapping[str, Any]) -> None:
    """Share of demonstrations in which mu was ever lost against alpha / w(mu), logarithmic."""
    promised = np.array(curve["promised"])
    axes.loglog(promised, promised, color=INK, lw=1.2, ls=(0, (4, 2)))
    for (name, values), style in zip(curve["classes"].items(), SERIES, strict=True):
        seen = {key: np.where(np.array(values["lost"]) > 0, value, np.nan) for key, value in values.items()}
        _banded(axes, promised, seen, "lost", style, name)
    axes.set_xlabel("alpha / w: at most")
    axes.set_ylabel("lost at any time")
    axes.set_ylim(bottom=5e-4)
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def cubes(axes: Axes, curve: Mapping[str, Any]) -> None:
    """Sum of theta^3 over time with its bands, and the bounds."""
    for (name, values), style in zip(curve["classes"].items(), SERIES, strict=True):
        _banded(axes, np.array(curve["times"]), values["3"], "mean", style, name)
        axes.axhline(values["bound"], xmin=0.95, color=style.color, lw=2.4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.02)
    axes.set_xlabel("steps")
    axes.set_ylabel("sum of theta^3")
    axes.legend(fontsize=8, frameon=False, ncol=2, loc="lower right")


def questions(axes: Axes, curve: Mapping[str, Any]) -> None:
    """Expected questions over time with their bands."""
    for (name, values), style in zip(curve["classes"].items(), SERIES, strict=True):
        _banded(axes, np.array(curve["times"]), values["1"], "mean", style, name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.1)
    axes.set_xlabel("steps")
    axes.set_ylabel("questions")
    axes.legend(fontsize=8, frameon=False, ncol=1, loc="upper left")


def power(axes: Axes, curve: Mapping[str, Any]) -> None:
    """Sums of theta, theta^2 and theta^3 over the gap between two coins."""
    for (p, values), style in zip(curve["powers"].items(), SERIES, strict=False):
        mean, low, high = np.array(values).T
        axes.errorbar(
            curve["gaps"],
            mean,
            [mean - low, high - mean],
            color=style.color,
            marker=style.marker,
            ls=style.dash,
            lw=1.6,
        )
        axes.text(
            min(curve["gaps"]) * 0.93, mean[-1], f"theta^{p}" if p != "1" else "theta", size=9, va="center", ha="right"
        )
    axes.axhline(curve["bound"], color=INK, lw=1.2, ls=(0, (4, 2)))
    axes.text(min(curve["gaps"]), curve["bound"] * 1.15, "bound on the cubes", size=9, va="bottom")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(min(curve["gaps"]) * 0.6, max(curve["gaps"]) * 1.15)
    axes.set_xticks(curve["gaps"], [f"{gap:g}" for gap in curve["gaps"]])
    axes.minorticks_off()
    axes.set_xlabel("gap between the two probabilities of heads")
    axes.set_ylabel("sum over all steps")


def episodes(axes: Axes, points: list[Mapping[str, Any]]) -> None:
    """KL to the demonstrator against KL to the base."""
    shown = {"mixture": STYLES["mixture"], "token": TOKEN, "trajectory": TRAJECTORY}
    names = {"mixture": "mixture", "token": "minimum over tokens", "trajectory": "minimum over trajectories"}
    for kind, style in shown.items():
        for inside in (True, False):
            chosen = [p for p in points if p["base"] == kind and (kind == "mixture" or p["inside"] == inside)]
            if kind == "mixture" and not inside:
                continue
            xs, ys = ([float(p[f"{whom}_expected"]) for p in chosen] for whom in ("base", "demonstrator"))
            face = style.color if inside else "none"
            axes.scatter(
                xs, ys, s=24, marker=style.marker, facecolor=face, edgecolor=style.color, lw=1, alpha=0.75,
                label=names[kind] if inside else None,
            )  # fmt: skip
    top = max(float(p["base_expected"]) for p in points) * 1.1
    axes.plot([0, top], [0, top], color=INK, lw=1.2, ls=(0, (4, 2)))
    axes.set_xlabel("KL(policy, base), nats an episode")
    axes.set_ylabel("KL(policy, demonstrator), nats an episode")
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def ask_symbol(axes: Axes, curve: Mapping[str, Any]) -> None:
    """KL of agent and answers from the demonstrator, and log(1 + theta), over theta."""
    axes.plot(curve["theta"], curve["correction"], color=INK, lw=1.2, ls=(0, (4, 2)))
    axes.text(curve["theta"][-1], curve["correction"][-1] * 1.02, "log(1 + theta)", size=9, ha="right", va="bottom")
    style = STYLES["mixture"]
    axes.plot(curve["theta"], curve["truth"], color=style.color, lw=2)
    peak = int(np.argmax(curve["truth"]))
    axes.text(curve["theta"][peak], curve["truth"][peak] + 0.02, "truth", color=style.color, size=9, ha="center")
    axes.axhline(0, color=SOFT, lw=1.6)
    axes.text(0.5, 0.015, "as one more action", color=SOFT, size=9, ha="center")
    axes.set_ylim(-0.03, 0.8)
    axes.set_xlabel("theta")
    axes.set_ylabel("nats a decision")


def granularity(axes: Axes, points: Mapping[str, Any]) -> None:
    """Questions of both minima, class by class."""
    token, trajectory = (np.array(points[kind])[:, 0] for kind in ("token", "trajectory"))
    top = max(float(token.max()), float(trajectory.max())) * 1.08
    axes.plot([0, top], [0, top], color=INK, lw=1.2, ls=(0, (4, 2)))
    axes.scatter(token, trajectory, s=34, color=TRAJECTORY.color, marker=TRAJECTORY.marker)
    axes.set_xlabel("questions, minimum over tokens")
    axes.set_ylabel("questions, minimum over trajectories")


def floors(axes: Axes, curve: Mapping[str, Any]) -> None:
    """-log of the mass left to n actions."""
    for kind, style in (("token", TOKEN), ("trajectory", TRAJECTORY)):
        axes.plot(curve["lengths"], curve[kind], color=style.color, ls=style.dash, lw=2)
        name = "minimum over tokens" if kind == "token" else "over trajectories"
        axes.text(curve["lengths"][-1], curve[kind][-1], f"{name}  ", size=9, ha="right", va="bottom")
    axes.set_xlabel("actions in an episode")
    axes.set_ylabel("nats")


def veto(axes: Axes, curve: Mapping[str, Any]) -> None:
    """What each action in turn is charged."""
    looks = {"token": TOKEN, "trajectory": TRAJECTORY, "demonstrator": STYLES["known"]}
    names = {
        "token": "minimum over tokens",
        "trajectory": "minimum over trajectories",
        "demonstrator": "the demonstrator",
    }
    for kind, style in looks.items():
        values = curve["charges"][kind]
        steps = np.arange(1, len(values) + 1)
        axes.plot(steps, values, color=style.color, ls=style.dash, marker=style.marker, ms=5, lw=1.4, label=names[kind])
    axes.axvline(curve["n_ordinary"] + 0.5, color=SOFT, lw=0.9, ls=":")
    axes.text(curve["n_ordinary"] + 0.3, 3.5, "ordinary", size=9, ha="right", color=SOFT)
    axes.text(curve["n_ordinary"] + 0.7, 3.5, "odd", size=9, ha="left", color=SOFT)
    axes.set_xlabel("action")
    axes.set_ylabel("-log probability, nats")
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def _banded(axes: Axes, x: Any, values: Mapping[str, Any], middle: str, style: Style, name: str) -> None:
    """A line with a band from ``low`` to ``high``."""
    low, high = (np.array(values[key], dtype=float) for key in ("low", "high"))
    axes.fill_between(x, low, high, color=style.color, alpha=0.15, lw=0)
    axes.plot(x, values[middle], color=style.color, ls=style.dash, lw=1.8, label=name)
