"""`python -m bench [PART...]`: what costs time, each beside a peer, a goal or a floor measured in the same minute.

Machines differ and are noisy: read the ratios. Every figure is a median of several repetitions, one thread, unless its
part says otherwise. A part that is run takes the place of the same part in the record; the others stay.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import importlib
import resource
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.lines import Line
from mightnt.files import read_json, write_json
from mightnt.provenance import provenance

PARTS = (
    "language_models",
    "scoring",
    "vocabulary",
    "decisions",
    "kernel",
    "adapters",
    "context_tree",
    "machine",
    "soft_planner",
    "suffix_array",
    "trl",
    "loop",
    "desk",
)
RECORD = Path("results/bench.json")


def measure(part: str, source: dict[str, Any]) -> tuple[list[Line], dict[str, Any]]:
    """The comparisons of one part, and what goes into the record."""
    busy, started = os.getloadavg()[0], time.perf_counter()
    lines: list[Line] = importlib.import_module(f"bench.{part}").lines()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = [{**asdict(line), "ratio": line.ratio} for line in lines]
    return lines, {
        "lines": rows,
        "load_before": busy,
        "seconds": time.perf_counter() - started,
        "peak_gib": peak,
        "provenance": source,
    }


def show(part: str, lines: list[Line]) -> None:
    """Print a table."""
    table = Table(title=part, box=None, title_justify="left")
    for name in ("what", "ours", "other", "unit", "ours / other", "other is"):
        table.add_column(name, justify="left" if name in ("what", "other is", "unit") else "right")
    for line in lines:
        table.add_row(line.what, f"{line.ours:.3g}", f"{line.other:.3g}", line.unit, f"{line.ratio:.2f}", line.other_is)
    Console(width=130).print(table, end="\n\n")


def main() -> None:
    """Run the parts that are asked for, print their tables, keep a record."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)}; all by default")
    wanted = parser.parse_args().parts or PARTS
    if unknown := [part for part in wanted if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; there are {', '.join(PARTS)}")
    source = provenance(0, {})  # before the record changes
    kept = read_json(RECORD).get("parts", {}) if RECORD.exists() else {}
    for part in wanted:
        lines, entry = measure(part, source)
        if not lines:  # a part that this machine cannot run, which says so
            continue
        show(part, lines)
        kept[part] = entry
        write_json(RECORD, {"kind": "mightnt bench", "version": 1, "parts": {p: kept[p] for p in PARTS if p in kept}})
    print(f"Record: {RECORD}")


if __name__ == "__main__":
    main()
