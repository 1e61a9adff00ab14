"""Which runs there are, what they need, and how long they should take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mightnt.experiments.sweep.cells import Cell
from mightnt.experiments.sweep.records import Records, missing
from mightnt.experiments.sweep.settings import SETTINGS, Preparation
from mightnt.experiments.sweep.studies import Study, n_seeds

Run = tuple[Cell, int]


def planned(studies: Iterable[Study], first_seed: int = 0) -> list[Run]:
    """Every run of these studies once: study by study, and in each one seed of all cells after the other."""
    runs = dict[Run, None]()
    for study in studies:
        for s in range(max(map(n_seeds, study.cells), default=0)):
            runs |= {(cell, first_seed + s): None for cell in study.cells if s < n_seeds(cell)}
    return list(runs)


def preparations(runs: Iterable[Run], folder: Path) -> dict[str, Preparation]:
    """What these runs need and what is not there yet, by name, each once; what is needed before what needs it."""
    found = dict[str, Preparation]()
    for cell, seed in runs:
        for one in SETTINGS[cell.setting].prepare(folder, cell, seed):
            if one.part.name not in found and not one.place.exists():
                found[one.part.name] = one
    return found


def run_seconds(cell: Cell) -> float:
    """About how long a run takes on one core."""
    return SETTINGS[cell.setting].seconds(cell)


def pace(records: Records) -> float:
    """Seconds that measured runs took, by the seconds they should have taken; 1 for none."""
    known = [(record.seconds, run_seconds(record.cell)) for record in records.by_run.values() if record.measured]
    return math.fsum(took for took, _ in known) / math.fsum(should for _, should in known) if known else 1.0


@dataclass(frozen=True)
class Row:
    """One study in the table of the plan."""

    study: Study
    runs: int
    """Of its cells, shared ones too."""
    own_runs: int
    """Not in a study above."""
    measured: int
    """Of ``runs``, already there."""
    hours: float
    """About how long what is missing will take, but for what is in a study above."""


def overview(studies: Sequence[Study], records: Records, folder: Path, first_seed: int, workers: int) -> list[Row]:
    """The table of the plan. Hours add up: what studies share is counted with the first of them."""
    rows, before, prepared = list[Row](), set[Run](), set[str]()
    for study in studies:
        runs = planned([study], first_seed)
        own = [run for run in runs if run not in before]
        absent = missing(own, records)
        needed = {name: one for name, one in preparations(absent, folder).items() if name not in prepared}
        seconds = [*(run_seconds(cell) for cell, _ in absent), *(one.seconds for one in needed.values())]
        hours = math.fsum(seconds) * pace(records) / 3600 / workers
        rows.append(Row(study, len(runs), len(own), len(runs) - len(missing(runs, records)), hours))
        before |= set(runs)
        prepared |= set(needed)
    return rows
