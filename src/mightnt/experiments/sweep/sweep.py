"""The full experiment: runs what is missing, part by part; stop it at any time, it goes on where it stopped."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from mightnt.desk.database import locked
from mightnt.experiments.parts import Engine, Outcome, Part, Report, open_folder, outcomes
from mightnt.experiments.sweep.cells import Cell
from mightnt.experiments.sweep.plan import Run, pace, planned, preparations, run_seconds
from mightnt.experiments.sweep.records import NAME, Record, Records, append, missing, origin, read_records, slim
from mightnt.experiments.sweep.report import write_report
from mightnt.experiments.sweep.settings import SETTINGS
from mightnt.experiments.sweep.studies import Study
from mightnt.files import write_json
from mightnt.watching import Watcher

TAKEN = "another process runs a part of the experiment in this folder; wait for it, or use another --out"


class SweepWatcher(Watcher, Protocol):
    """Told also how far the whole is."""

    def overall(self, done: int, of: int, seconds_left: float) -> None:
        """So many runs of all are there; the rest will take about this long."""
        ...


class Clock:
    """How long the rest will take, from how fast the parts since the start went by. Moves by ``passed``."""

    def __init__(self, expected_seconds: float, workers: int, pace: float) -> None:
        self.started = time.monotonic()
        self.left, self.passed_seconds = expected_seconds, 0.0
        self.workers, self.pace = workers, pace

    def passed(self, seconds: float) -> None:
        """A part that was expected to take this long on one core has ended."""
        self.left -= seconds
        self.passed_seconds += seconds

    def seconds_left(self, now: float | None = None) -> float:
        """Expected seconds left, at the speed so far; until a part has ended, at that of earlier runs on all workers."""
        elapsed = (time.monotonic() if now is None else now) - self.started
        if not self.passed_seconds:
            return self.left * self.pace / self.workers
        return self.left * elapsed / self.passed_seconds


def sweep(
    folder: Path,
    studies: Sequence[Study],
    first_seed: int,
    engine: Engine,
    watcher: SweepWatcher,
    resume: bool = False,
) -> Records:
    """Run what these studies lack in ``folder`` and write its report, also when stopped; returns every record there.

    A run is measured once, whichever study asks for it. One that fails is recorded with its error, stops no other and is
    run again next time. Another seed to begin with, other studies and other engines may join a folder.

    Cost: ``plan.overview`` says; about 0.7 GiB of memory a process.
    """
    open_folder(folder, {"experiment": "sweep"}, resume)
    with contextlib.closing(locked(folder / "sweep.lock", TAKEN)):
        try:
            run_missing(folder, planned(studies, first_seed), engine, watcher)
        finally:
            records = read_records([folder])
            write_report(folder, studies, records, first_seed)
    return records


def run_missing(folder: Path, runs: Sequence[Run], engine: Engine, watcher: SweepWatcher) -> None:
    """Run those that are not measured yet, what they need before them."""
    before = read_records([folder])
    absent = missing(runs, before)
    needed = preparations(absent, folder)
    own = {run_name(run): run for run in absent}
    expected = {name: one.seconds for name, one in needed.items()} | {
        name: run_seconds(cell) for name, (cell, _) in own.items()
    }
    first_seed = min((seed for _, seed in runs), default=0)
    clock = Clock(math.fsum(expected.values()), engine.capacity, pace(before))
    done = len(runs) - len(absent)
    watcher.overall(done, len(runs), clock.seconds_left())
    for outcome in outcomes(in_order(absent, needed, folder), engine, watcher):
        name = outcome.part.name
        if name in needed:
            if not outcome.error:
                write_json(needed[name].place, outcome.value)
        else:
            append(folder / NAME, record_of(own[name], outcome, own[name][1] == first_seed))
            done += not outcome.error
        watcher.ended(name, reused=False)
        clock.passed(expected[name])
        watcher.overall(done, len(runs), clock.seconds_left())


def in_order(runs: Sequence[Run], needed: dict[str, Any], folder: Path) -> list[Part]:
    """Each run, right after what it needs and nobody before it needed."""
    parts = dict[str, Part]()
    for cell, seed in runs:
        own = [one.part.name for one in SETTINGS[cell.setting].prepare(folder, cell, seed)]
        parts |= {name: needed[name].part for name in own if name in needed and name not in parts}
        run = Part(run_name((cell, seed)), run_one, (SETTINGS[cell.setting].run, folder, cell, seed), tuple(own))
        parts[run.name] = run
    return list(parts.values())


def run_name(run: Run) -> str:
    """What a run is called while it runs."""
    cell, seed = run
    return f"{cell.name}-seed{seed}"


def run_one(
    function: Callable[[Path, Cell, int, Report], dict[str, Any]], folder: Path, cell: Cell, seed: int, report: Report
) -> dict[str, Any]:
    """One run, with where it comes from and how long it took; in a process of its own."""
    started = time.perf_counter()
    measured = function(folder, cell, seed, report)
    return {"measured": measured, "seconds": time.perf_counter() - started, "provenance": origin(seed)}


def record_of(run: Run, outcome: Outcome, transcribed: bool) -> Record:
    """The record of a run that has ended, one way or the other; with a transcript or without."""
    cell, seed = run
    if outcome.error:
        failed = f"{type(outcome.error).__name__}: {outcome.error}"
        return Record(cell, seed, None, failed, attempts=outcome.attempts, provenance=origin(seed))
    ended = {**outcome.value, "measured": slim(outcome.value["measured"], int(transcribed))}
    return Record(cell, seed, **ended, attempts=outcome.attempts)
