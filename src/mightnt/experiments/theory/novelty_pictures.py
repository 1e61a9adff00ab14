"""The pictures of T1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mightnt.audits.drawing import INK, SOFT, STYLES, render
from mightnt.audits.figures import Panel

BITS_OF = ("the if", "the event", "the policy afterwards", "the limit on lengths")
FILLS = ("#757d87", "#3fa9dc", "#c98a00", "#dfe2e6")


def panels(curves: Mapping[str, Any]) -> list[Panel]:
    """Against demonstration, term by term, and step by step."""
    rounds, episode = curves["by_rounds"], curves["along_the_episode"]
    return [
        Panel(
            "After a novelty, demonstration does not make it dearer to leave the mixture",
            render("T1 rounds", lambda axes: _rounds(axes, rounds), 3.8),
            f'The event that the search found: "{rounds["event"][-1]}". Arrows: infinite.',
        ),
        Panel(
            "The bound term by term, and the least KL below it",
            render("T1 terms", lambda axes: _terms(axes, curves["term_by_term"]["points"]), 3.6),
            "One random world with random utilities; values that some program reaches.",
        ),
        Panel(
            "What each further odd step costs",
            render("T1 steps", lambda axes: _steps(axes, episode), 3.4),
            "The agent plays 0 at every step after the event; the demonstrator plays 1 and slips now and then.",
        ),
    ]


def _plot(axes: Axes, x: Sequence[float], values: Sequence[Any], name: str, label: str, top: float) -> None:
    """A curve in the style of a base; infinite values as arrows at the top."""
    style, y = STYLES[name], np.array([float(value) for value in values])
    inside = np.isfinite(y)
    at = np.array(x, dtype=float)
    if inside.any():
        axes.plot(at[inside], y[inside], color=style.color, marker=style.marker, ms=4, lw=2, ls=style.dash, label=label)
    if not inside.all():
        axes.plot(at[~inside], [top] * int((~inside).sum()), ls="", marker="^", ms=7, color=style.color,
                  label=None if inside.any() else f"{label}: infinite", clip_on=False)  # fmt: skip


def _rounds(axes: Axes, curve: Mapping[str, Any]) -> None:
    finite = [float(v) for key in ("mixture", "bound", "no ifs") for v in curve[key] if isfinite(float(v))]
    top = 1.25 * max(finite)
    x = curve["rounds"]
    axes.plot(x, [float(v) for v in curve["bound"]], color=INK, lw=1.2, ls=(0, (4, 2)), label="bound of the theorem")
    _plot(axes, x, curve["mixture"], "mixture", "mixture", top)
    _plot(axes, x, curve["no ifs"], "single", "mixture, class without ifs", top)
    _plot(axes, x, curve["demonstrator"], "known", "demonstrator", top)
    _plot(axes, x, curve["pessimistic"], "pessimistic", "pessimistic", 0.93 * top)
    axes.set_xscale("log")
    axes.set_ylim(0, top * 1.02)
    axes.set_xlabel("demonstrated rounds")
    axes.set_ylabel("least KL that buys the value, bits")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(0, 0.62))


def _terms(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    x = [point["value"] for point in points]
    below = np.zeros(len(points))
    for name, fill in zip(BITS_OF, FILLS, strict=True):
        height = np.array([float(point[name]) for point in points])
        axes.fill_between(x, below, below + height, color=fill, alpha=0.55, lw=0, step="pre")
        if float(height[-1]) > 0.7:
            axes.annotate(name, (x[-1], float(below[-1] + height[-1] / 2)), xytext=(7, 0), textcoords="offset points",
                          size=8, va="center")  # fmt: skip
        below = below + height
    style = STYLES["mixture"]
    axes.plot(x, [float(point["least"]) for point in points], color=style.color, lw=2, marker=style.marker, ms=4)
    axes.annotate("least KL", (x[-1], float(points[-1]["least"])), xytext=(7, 0), textcoords="offset points", size=8,
                  color=style.color, va="center")  # fmt: skip
    axes.set_xlim(x[0], x[-1] + 0.38 * (x[-1] - x[0]))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("value to be reached (utility)")
    axes.set_ylabel("bits")


def _steps(axes: Axes, curve: Mapping[str, Any]) -> None:
    names = {
        "demonstrator": ("known", "demonstrator"),
        "pessimistic": ("pessimistic", "pessimistic"),
        "demonstrated": ("single", "mixture, evidence: demonstrated"),
        "all": ("mixture", "mixture, evidence: all"),
    }
    top = 1.3 * max(float(v) for key in names for v in curve[key] if isfinite(float(v)))
    for key, (style, label) in names.items():
        _plot(axes, range(1, len(curve[key]) + 1), curve[key], style, label, top)
    axes.axhline(0, color=SOFT, lw=0.8)
    axes.set_ylim(-0.02 * top, 1.45 * top)
    axes.set_xlabel("the agent's steps after the event")
    axes.set_ylabel("KL at this step, nats")
    axes.legend(fontsize=8, frameon=False, loc="upper right", ncols=2)
