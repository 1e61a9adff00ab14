"""Transcripts as a figure: what was said, every word of the agent on a ground as dark as the nats it cost.

The words are set in a fixed-width font, so that where each stands can be computed; light to dark is told apart in gray too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mightnt.audits.drawing import INK, PAPER, SOFT
from mightnt.experiments.sweep.cells import headline
from mightnt.experiments.sweep.pictures import Picture
from mightnt.experiments.sweep.records import Records
from mightnt.experiments.sweep.studies import DESK
from mightnt.experiments.sweep.tables import Gathered, gathered

SHOWN = ("single", "mixture", "situations", "known")
ABREAST = 2
"""Transcripts side by side."""
COLUMNS, GAP = 54, 4
"""Letters in a line of a transcript, and between two of them."""
FONT_POINTS = 6.5
LETTER_INCHES = 0.602 * FONT_POINTS / 72
LINE_INCHES = 1.5 * FONT_POINTS / 72
LEAST_NATS, MOST_NATS = 0.03, 30.0
"""Ends of the scale of grounds; what costs less has none."""
SILENCE = "(silence)"
MARK = re.compile(r"<\|.*?\|>")
"""How tokenizers write the end of a turn."""


@dataclass(frozen=True)
class Word:
    """A word in its place; nats of ``None`` are not the agent's."""

    text: str
    line: int
    column: int
    nats: float | None = None
    faint: bool = False


def laid_out(transcript: dict[str, Any], field: str, first_line: int = 0) -> list[Word]:
    """The words of a transcript, turn by turn, lines broken at ``COLUMNS``."""
    words, line = list[Word](), first_line
    for turn in transcript["turns"]:
        agent = turn["speaker"] == "assistant"
        words.append(Word("agent:" if agent else "other:", line, 0, faint=True))
        column = 7
        for text, nats in spoken(turn, field):
            if column + len(text) > COLUMNS:
                line, column = line + 1, 7
            words.append(Word(text, line, column, nats if agent else None, faint=not agent))
            column += len(text) + 1
        line += 1
    return words


def spoken(turn: dict[str, Any], field: str) -> list[tuple[str, float | None]]:
    """The words of a turn with their nats; the cost of ending it is added to its last word."""
    found = list[tuple[str, float | None]]()
    for token in turn["tokens"]:
        text, nats = MARK.sub("", token["text"]).strip(), token.get(field)
        cost = None if nats is None else float(nats)
        if text:
            found.append((text, cost))
        elif found and cost is not None:
            found[-1] = (found[-1][0], cost + (found[-1][1] or 0.0))
        elif cost is not None:
            found.append((SILENCE, cost))
    return found or [(SILENCE, None)]


def transcripts(records: Records, first_seed: int) -> Picture:
    """In the chat."""
    return word_for_word("transcripts", [gathered(headline(base), records, first_seed) for base in SHOWN])


def desk_transcripts(records: Records, first_seed: int) -> Picture:
    """At the help desk, where the largest reward is known."""
    cells = [replace(headline(base), setting=DESK) for base in SHOWN]
    return word_for_word("transcripts-desk", [gathered(cell, records, first_seed) for cell in cells])


def word_for_word(name: str, every: Sequence[Gathered]) -> Picture:
    """The first kept episode of each cell, its words on grounds by their KL to the demonstrator."""
    words, titles, top = list[Word](), list[Word](), 0
    for row in (every[i : i + ABREAST] for i in range(0, len(every), ABREAST)):
        bottom = top + 1
        for place, one in enumerate(row):
            left = place * (COLUMNS + GAP)
            titles.append(Word(one.cell.base + ("" if kept(one) else ": missing"), top, left))
            own = laid_out(kept(one)[0], "kl_demonstrator_nats", top + 1) if kept(one) else []
            words += [replace(word, column=left + word.column) for word in own]
            bottom = max([bottom, *(word.line + 2 for word in own)])
        top = bottom
    caption = (
        "One episode on each base, the first that was kept, nothing chosen: every word of the agent on a ground as dark as its "
        f"KL to the demonstrator (none below {LEAST_NATS:g} nats, darkest from {MOST_NATS:g}); what the other says is gray."
    )
    lacking = ", ".join(one.cell.base for one in every if not kept(one))
    columns = ABREAST * (COLUMNS + GAP) - GAP
    size = (columns + 2) * LETTER_INCHES, (top + 3) * LINE_INCHES

    def draw(figure: Figure) -> None:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        axes.set_xlim(-1, columns + 1)
        axes.set_ylim(top + 1, -2)
        for title in titles:
            axes.text(title.column, title.line, title.text, size=FONT_POINTS + 1, weight="bold", color=INK, va="center")
        for word in words:
            write(axes, word)

    missing = f" Missing: {lacking}." if lacking else ""
    return Picture(name, caption + missing, draw, size)


def kept(one: Gathered) -> Sequence[dict[str, Any]]:
    """The transcripts that the first run kept; none where it is missing."""
    return one.runs[0].get("transcripts", []) if one.runs else []


def write(axes: Axes, word: Word) -> None:
    """A word on its ground."""
    norm, colors = LogNorm(LEAST_NATS, MOST_NATS, clip=True), matplotlib.colormaps["Blues"]
    ink = SOFT if word.faint else INK
    if word.nats is not None and word.nats >= LEAST_NATS:
        share = float(norm(min(word.nats, MOST_NATS))) if math.isfinite(word.nats) else 1.0
        ground = colors(0.15 + 0.8 * share)
        axes.add_patch(Rectangle((word.column, word.line - 0.46), len(word.text), 0.92, color=ground, lw=0))
        ink = PAPER if share > 0.55 else INK
    axes.text(
        word.column, word.line, word.text, size=FONT_POINTS, family="DejaVu Sans Mono", color=ink, va="center_baseline"
    )
