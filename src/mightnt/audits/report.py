"""The report: one HTML page that stands alone, with the verdict, the pictures, every run and where it all came from.

No scripts, nothing loaded from elsewhere, light or dark as the reader prefers. Everything from models and people is
escaped. The same input gives the same page, byte for byte.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mightnt.audits import figures
from mightnt.audits.page import drawn, page
from mightnt.audits.results import BASES, Results, Run, Token, Turn
from mightnt.audits.summary import Setting, Summary, short, summarize
from mightnt.audits.verdict import judge
from mightnt.files import write_text

SHADES_NATS = (0.1, 0.5, 2.0, 5.0, 10.0)
"""A token's shade is the number of these that its KL reaches."""


def write_report(results: Results, path: Path) -> None:
    """Write the page of ``results`` to ``path``, whole or not at all."""
    write_text(path, report_html(results))


def report_html(results: Results) -> str:
    """The page of ``results`` as one self-contained HTML text. Cost: about two seconds, most of it drawing."""
    summary = summarize(results)
    shown = {run.base for run in results.runs} | {base.name for base in results.bases}
    return page(
        Path(__file__).parent / "report.html.jinja",
        summary=summary,
        results=results,
        verdict=judge(summary),
        settings=[(setting, overview(setting, summary)) for setting in summary.settings],
        details=details(summary),
        keys={base: Markup(figures.key(base)) for base in BASES if base in shown},
        shades=SHADES_NATS,
        shade=shade,
        separator=separator,
        token_title=token_title,
        as_given=as_given,
    )


def overview(setting: Setting, summary: Summary) -> list[dict[str, Any]]:
    """The two pictures that say it all about one setting."""
    return [drawn(figures.kl_panel(setting)), drawn(figures.reward_panel(setting, summary.results.demonstrator))]


def details(summary: Summary) -> dict[str, list[dict[str, Any]]]:
    """The other pictures of the headline setting, by section."""
    setting = summary.headline
    if setting is None:
        return {"tokens": [], "asks": [], "curves": []}
    return {
        "tokens": [drawn(panel) for panel in figures.token_panels(setting)],
        "asks": [drawn(figures.asks_panel(setting))],
        "curves": [drawn(panel) for panel in figures.curve_panels(setting)],
    }


def shown_nats(token: Token) -> float | None:
    """The KL a token is shaded by: to the demonstrator where measured, else to the base."""
    return token.kl_base_nats if token.kl_demonstrator_nats is None else token.kl_demonstrator_nats


def shade(token: Token) -> int:
    """0 (below 0.1 nats, or not measured) to 5 (10 nats and more)."""
    nats = shown_nats(token)
    return 0 if nats is None else sum(nats >= edge for edge in SHADES_NATS)


def token_title(token: Token) -> str:
    """Both distances of a token in words, for whoever points at it."""
    parts = [("to the demonstrator", token.kl_demonstrator_nats), ("to the base", token.kl_base_nats)]
    return ", ".join(f"{short(nats)} nats {name}" for name, nats in parts if nats is not None)


def separator(run: Run) -> str:
    """What stands between two tokens: nothing where tokens carry their own spaces, else a space."""

    def spaced(turn: Turn) -> bool:
        return any(token.text != token.text.strip() for token in turn.tokens)

    return "" if any(spaced(turn) for transcript in run.transcripts for turn in transcript.turns) else " "


def as_given(number: float) -> str:
    """A number that somebody chose, not measured: ``10``, ``2.5``, or an infinity sign."""
    return f"{number:g}" if math.isfinite(number) else "∞"
