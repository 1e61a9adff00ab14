"""All chapters as one book: computed in parts, kept as one record, drawn as one page and one table for the documents."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mightnt.audits.page import drawn, page
from mightnt.audits.summary import short
from mightnt.errors import InputError
from mightnt.experiments.parts import Part, Report, open_folder, run_parts
from mightnt.experiments.theory.theorem import Computed, Row, Theorem
from mightnt.files import plain, read_json, write_json, write_text
from mightnt.provenance import provenance
from mightnt.watching import Watcher

CHAPTERS = {
    "P1": "no_triangle",
    "T1": "novelty",
    "T1-machine": "novelty_on_machine",
    "P2": "simplest_event",
    "T2": "variation",
    "T3": "pessimism",
    "weaker": "weaker",
    "simplicity": "simplicity",
}
"""What ``mightnt theory`` calls a chapter, and the module that computes it; in the order of the page."""

PROFILES = ("quick", "default")


def chapter(name: str) -> Theorem:
    """The chapter of this name."""
    theorem: Theorem = importlib.import_module(f"mightnt.experiments.theory.{CHAPTERS[name]}").THEOREM
    return theorem


def named_chapters(names: Sequence[str]) -> list[str]:
    """The chapters meant by ``names``, in the order of the book: ``all``, or any of them in any case.

    Errors: :class:`~mightnt.errors.InputError` for a name that is none.
    """
    known = {name.lower(): name for name in CHAPTERS}
    wanted = [name.lower() for name in names]
    unknown = [name for name in names if name.lower() not in known and name.lower() != "all"]
    if unknown or not names:
        raise InputError(f"got {' '.join(unknown) or 'no name'}; the chapters are all, {', '.join(CHAPTERS)}")
    return [name for name in CHAPTERS if "all" in wanted or name.lower() in wanted]


def write_book(
    folder: Path, names: Sequence[str], profile: str, seed: int, watcher: Watcher, resume: bool, workers: int
) -> dict[str, Any]:
    """Compute these chapters into ``folder`` and return the record of all chapters that are there now.

    Leaves ``theory.json`` (the record), ``theory.html`` (the page) and ``theory.md`` (the rows as a table). A chapter is
    computed in a process of its own; what is whole already is not computed again.

    Errors: :class:`~mightnt.errors.InputError` for an unknown chapter or profile, a seed below 0, or a folder that holds a
    run of another profile or seed.
    """
    names = named_chapters(names)
    if profile not in PROFILES:
        raise InputError(f"profile {profile!r}; allowed are {', '.join(PROFILES)}")
    if seed < 0:
        raise InputError(f"seed {seed}; 0 or more is allowed")
    open_folder(folder, {"theory": profile, "seed": seed}, resume)
    run_parts([Part(name, compute, (name, profile, seed)) for name in names], folder, watcher, workers)
    there = [name for name in CHAPTERS if (folder / "parts" / f"{name}.json").exists()]
    chapters = {name: read_json(folder / "parts" / f"{name}.json") for name in there}
    record = {
        "kind": "mightnt theory",
        "version": 1,
        "profile": profile,
        "seed": seed,
        "chapters": chapters,
    }
    write_json(folder / "theory.json", record)
    write_pages(record, folder)
    return record


def compute(name: str, profile: str, seed: int, report: Report) -> dict[str, Any]:
    """One chapter as a record: its rows and curves, its configuration and where they come from."""
    theorem = chapter(name)
    config = theorem.profiles[profile]
    computed = theorem.compute(config, seed, report)
    value: dict[str, Any] = plain(computed.as_json() | {"provenance": provenance(seed, asdict(config))})
    return value


def write_pages(record: Mapping[str, Any], folder: Path) -> None:
    """Draw ``theory.html`` and ``theory.md`` of a record; nothing is computed again."""
    write_text(folder / "theory.html", book_html(record))
    write_text(folder / "theory.md", book_table(record))


def book_html(record: Mapping[str, Any]) -> str:
    """The page of a record as one self-contained HTML text; the same record gives the same page."""
    chapters = []
    for name, value in record["chapters"].items():
        theorem, computed = chapter(name), Computed.from_json(value)
        panels = [drawn(panel) for panel in theorem.draw(computed.curves)]
        chapters.append({"theorem": theorem, "rows": computed.rows, "panels": panels, "record": value["provenance"]})
    rows = [row for each in chapters for row in each["rows"]]
    return page(
        Path(__file__).parent / "theory.html.jinja",
        record=record,
        chapters=chapters,
        n_claims=sum(row.holds is not None for row in rows),
        failed=[row for row in rows if row.holds is False],
        shown=shown,
        interval=interval,
    )


def book_table(record: Mapping[str, Any]) -> str:
    """The rows of a record as Markdown tables, one a chapter, for docs/results.md."""
    parts = []
    for name, value in record["chapters"].items():
        lines = [
            f"### {name}. {chapter(name).title}",
            f"`mightnt theory {name}`",
            "| claim | number | kind | interval | holds |\n|---|---|---|---|---|",
        ]
        rows = Computed.from_json(value).rows
        table = "\n".join(
            f"| {cell(row.claim)} | {shown(row)} | {row.kind} | {cell(interval(row))} | {holds(row)} |" for row in rows
        )
        parts.append("\n\n".join(lines) + "\n" + table + "\n")
    return "\n".join(parts)


def shown(row: Row) -> str:
    """A value with its unit: ``10.6 nats``, ``80.1%``, ``0``."""
    return number(row.value, row.unit) + ("" if row.unit == "probability" else f" {row.unit}".rstrip())


def number(value: float, unit: str) -> str:
    """Four significant digits, a probability as percent."""
    return f"{100 * value:.4g}%" if unit == "probability" else short(value, 4)


def interval(row: Row) -> str:
    """The interval of an estimate, what a bound bounds, how far rounding reaches: in words."""
    if row.low is None or row.high is None:
        return row.how
    ends = f"{number(row.low, row.unit)} to {number(row.high, row.unit)}"
    return f"{ends} ({row.how})" if row.how else ends


def holds(row: Row) -> str:
    """Whether the claim came out, in a word."""
    return {None: "", True: "yes", False: "**no**"}[row.holds]


def cell(text: str) -> str:
    """Text that does not break a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
