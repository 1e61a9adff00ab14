"""Records of runs: JSON lines, one line a run, only ever added to; every report is made from them alone.

A line is a run that was measured or one that failed. A process that is killed while it writes leaves half a line at the
end; readers say so and leave it out, the next writer cuts it off, and the run is run again. A line of another version, or
one that cannot be read, is refused: its run must not vanish from a table.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mightnt.errors import InputError
from mightnt.experiments.sweep.cells import Cell, cell_from
from mightnt.files import plain
from mightnt.provenance import provenance

KIND, VERSION = "mightnt sweep run", 1
DIGITS = 6
"""Significant digits of a kept number."""
NAME = "runs.jsonl"
"""Of the file in a folder."""


@dataclass(frozen=True)
class Record:
    """One run, as kept."""

    cell: Cell
    seed: int
    measured: dict[str, Any] | None
    """What the setting measured, infinities as the strings inf and -inf; ``None`` for a run that failed."""
    failed: str = ""
    """How it failed, in one sentence."""
    seconds: float = 0.0
    """It took so long, in its process."""
    attempts: int = 1
    """How often it was begun; more than once where its process died."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Commit, versions, when."""

    @property
    def run(self) -> tuple[Cell, int]:
        """Which run this is of."""
        return self.cell, self.seed


@dataclass(frozen=True)
class Records:
    """What was read: at most one record a run, a measured one where there is one."""

    by_run: dict[tuple[Cell, int], Record]
    notes: tuple[str, ...] = ()
    """What a reader must know: half lines, runs that were recorded more than once."""

    def measured(self, cell: Cell, seed: int) -> dict[str, Any] | None:
        """What this run measured; ``None`` while it is missing or failed."""
        record = self.by_run.get((cell, seed))
        return record.measured if record else None

    @property
    def commits(self) -> list[str]:
        """Every commit that records come from."""
        return sorted({str(record.provenance.get("commit")) for record in self.by_run.values()})


def origin(seed: int) -> dict[str, Any]:
    """Where a run comes from; its configuration is the cell beside it."""
    return {name: value for name, value in provenance(seed, {}).items() if name not in ("config", "seed")}


def line_of(record: Record) -> dict[str, Any]:
    """The record as an object, its numbers rounded to six significant digits."""
    kept = {"kind": KIND, "version": VERSION, "key": record.cell.key, "seed": record.seed, "cell": asdict(record.cell)}
    rest = {name: getattr(record, name) for name in ("measured", "failed", "seconds", "attempts", "provenance")}
    return {**kept, **short(plain(rest))}


def short(value: Any) -> Any:
    """``value`` with every float rounded to ``DIGITS`` significant digits."""
    if isinstance(value, dict):
        return {name: short(item) for name, item in value.items()}
    if isinstance(value, list):
        return [short(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


CURVES = ("proxy_reward", "true_utility", "kl_base_nats", "kl_demonstrator_nats", "asks_per_turn", "price_per_nat")
"""What is kept of learning, round by round."""


def slim(measured: dict[str, Any], transcripts: int) -> dict[str, Any]:
    """What was measured, as it is kept: curves as columns, so many transcripts, nothing that the cell says already."""
    kept = {name: value for name, value in measured.items() if name not in ("config", "curve", "transcripts", "seed")}
    if "curve" in measured:
        kept["curve"] = {name: [row.get(name) for row in measured["curve"]] for name in CURVES}
    if transcripts:
        kept["transcripts"] = measured.get("transcripts", [])[:transcripts]
    return kept


def append(path: Path, record: Record) -> None:
    """Add one line and flush it to disk; what was there stays, but for half a line at its end.

    Raises :class:`~mightnt.errors.InputError` where the file cannot be written.
    """
    text = json.dumps(line_of(record), ensure_ascii=False, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as file:
            cut_half_line(file)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


def cut_half_line(file: Any) -> None:
    """Shorten an open file to its last whole line."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return
    file.seek(0)
    content = file.read()
    whole = content.rfind(b"\n") + 1
    if whole < size:
        file.truncate(whole)


def read_records(paths: Iterable[Path]) -> Records:
    """The records of these files, or of ``runs.jsonl`` in these folders; files that are not there hold none.

    Raises :class:`~mightnt.errors.InputError`, naming file and line, for a line of another kind or version, or one that
    cannot be read.
    """
    found, notes = dict[tuple[Cell, int], Record](), list[str]()
    for path in paths:
        file = path / NAME if path.is_dir() else path
        again = 0
        for record in read_file(file, notes):
            before = found.get(record.run)
            again += before is not None and before.measured is not None
            if before is None or before.measured is None:
                found[record.run] = record
        if again:
            notes.append(f"{file}: {again} run(s) were there already; the first record of each is used.")
    return Records(found, tuple(notes))


def read_file(path: Path, notes: list[str]) -> Iterator[Record]:
    """The records of one file, in order."""
    if not path.exists():
        return
    with contextlib.closing(open(path, "rb")) as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                notes.append(f"{path}:{number}: half a line was left out; its run counts as missing.")
                return
            yield record_from(line, f"{path}:{number}")


def record_from(line: bytes, place: str) -> Record:
    """The record of one line."""
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place}: not JSON ({error}); repair or remove this line") from error
    if not isinstance(value, dict) or value.get("kind") != KIND:
        raise InputError(f"{place}: is not the record of a run ({KIND!r})")
    if value.get("version") != VERSION:
        raise InputError(
            f"{place}: is of version {value.get('version')}, this program reads {VERSION}; read it with the program that "
            "wrote it, or run the experiment again into another folder"
        )
    try:
        cell = cell_from(value["cell"])
        kept = {name: value[name] for name in ("seed", "failed", "seconds", "attempts", "provenance")}
        measured = value["measured"]
    except KeyError as error:
        raise InputError(f"{place}: lacks {error}") from error
    except InputError as error:
        raise InputError(f"{place}: its cell is none of this version: {error}") from error
    if not isinstance(measured, dict | None) or (measured is None) == (not kept["failed"]):
        raise InputError(f"{place}: must say what was measured or how it failed, one of the two")
    if value.get("key") != cell.key:
        raise InputError(f"{place}: key {value.get('key')!r} is not that of its cell ({cell.key}); was it edited?")
    return Record(cell, measured=measured, **kept)


def missing(runs: Sequence[tuple[Cell, int]], records: Records) -> list[tuple[Cell, int]]:
    """The runs among these that are not measured yet."""
    return [run for run in runs if records.measured(*run) is None]
