"""What happened in an episode, step by step, on disk one JSON object a line.

A file holds records one after another. Each opens with a header line::

    {"record": 1, "n_steps": 4, "limit_nats": 2.0, "asking": "floor", "seed": 0, "utility": 0.7,
     "provenance": {...}}

and goes on with one line a step::

    {"symbol": 1, "chooser": "agent", "kl_base_nats": 0.3, "kl_demonstrator_nats": null, "asking_probability": 0.0,
     "left_nats": 1.7, "policy_log_probabilities": [-1.2, -0.4]}

JSON has no infinities: they are the strings ``inf`` and ``-inf``. Another program that writes such lines can be
audited.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from math import fsum, isnan
from pathlib import Path
from typing import Any

from mightnt.constraints.asking import ACCOUNTS, AskAccount
from mightnt.errors import InputError
from mightnt.files import read_json_lines, write_json_lines
from mightnt.history import Chooser, History, Step
from mightnt.provenance import provenance

FORMAT = 1
"""The number in a header that says how to read what follows."""


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """One step of an episode."""

    symbol: int
    """The action or observation."""
    chooser: Chooser
    """Who chose it; ``demonstrator`` means that it was asked."""
    kl_base_nats: float
    """What the decision was charged under the record's account of asking; 0 for observations and forced questions."""
    kl_demonstrator_nats: float | None
    """KL(system, demonstrator) of the decision, answers included; ``None`` where it was not measured."""
    asking_probability: float
    """How likely it was that the demonstrator would be asked here; 1 for a forced question."""
    left_nats: float
    """What is left of the budget after this step."""
    policy_log_probabilities: tuple[float, ...] | None = None
    """What the action was drawn from (missing mass = asking); ``None`` for observations and forced questions."""


@dataclass(frozen=True, slots=True)
class Record:
    """One episode: its steps, what it was allowed, what it was worth, where it came from."""

    steps: tuple[RecordedStep, ...]
    limit_nats: float
    asking: AskAccount
    seed: int
    utility: float
    config: Mapping[str, Any] = field(default_factory=dict)
    """What was played against what, in words."""
    provenance: Mapping[str, Any] | None = None
    """Filled when the record is written: commit, versions, seed, config."""

    @property
    def history(self) -> History:
        """The steps as models see them."""
        return tuple(Step(step.symbol, step.chooser) for step in self.steps)

    @property
    def spent_nats(self) -> float:
        """The sum of what was charged."""
        return fsum(step.kl_base_nats for step in self.steps)

    @property
    def n_asks(self) -> int:
        """How many decisions the demonstrator made."""
        return sum(step.chooser is Chooser.DEMONSTRATOR for step in self.steps)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records one after another, all or nothing; provenance is added to those that have none."""
    write_json_lines(path, (line for record in records for line in _lines(record)))


def read_records(path: Path) -> list[Record]:
    """Every record in a file.

    Errors: :class:`~mightnt.errors.InputError` names file and line of the first thing that does not fit: no header,
    another format, a missing or mistyped value, NaN, fewer steps than the header promises, an empty file.
    """
    records = []
    lines = read_json_lines(path)
    for number, header in lines:
        where = f"{path}:{number}"
        if not isinstance(header, dict) or header.get("record") != FORMAT:
            raise InputError(f'{where}: a record begins with a line that holds "record": {FORMAT}')
        n_steps = _get(header, "n_steps", int, where)
        steps = tuple(_step(row, f"{path}:{line}") for line, row in islice(lines, max(0, n_steps)))
        if len(steps) != n_steps:
            raise InputError(f"{where}: {n_steps} steps are promised, {len(steps)} are there; the file is cut off")
        records.append(_record(header, steps, where))
    if not records:
        raise InputError(f"{path}: is empty; a record was expected")
    return records


def _lines(record: Record) -> list[dict[str, Any]]:
    header = {
        "record": FORMAT,
        "n_steps": len(record.steps),
        "limit_nats": record.limit_nats,
        "asking": record.asking,
        "seed": record.seed,
        "utility": record.utility,
        "provenance": record.provenance or provenance(record.seed, dict(record.config)),
    }
    return [header, *(asdict(step) for step in record.steps)]


def _record(header: dict[str, Any], steps: tuple[RecordedStep, ...], where: str) -> Record:
    asking = _get(header, "asking", str, where)
    if asking not in ACCOUNTS:
        raise InputError(f"{where}: the account of asking is {asking!r}; known are {', '.join(ACCOUNTS)}")
    source = _get(header, "provenance", dict, where)
    return Record(
        steps,
        limit_nats=_number(header, "limit_nats", where),
        asking=asking,
        seed=_get(header, "seed", int, where),
        utility=_number(header, "utility", where),
        config=_get(source, "config", dict, where),
        provenance=source,
    )


def _step(row: Any, where: str) -> RecordedStep:
    if not isinstance(row, dict):
        raise InputError(f"{where}: a step is a JSON object, got {type(row).__name__}")
    chooser = _get(row, "chooser", str, where)
    if chooser not in list(Chooser):
        raise InputError(f"{where}: the chooser is {chooser!r}; known are {', '.join(Chooser)}")
    measured = row.get("kl_demonstrator_nats") is not None
    logs = row.get("policy_log_probabilities")
    if logs is not None and not isinstance(logs, list):
        raise InputError(f"{where}: policy_log_probabilities is no list")
    return RecordedStep(
        symbol=_get(row, "symbol", int, where),
        chooser=Chooser(chooser),
        kl_base_nats=_number(row, "kl_base_nats", where),
        kl_demonstrator_nats=_number(row, "kl_demonstrator_nats", where) if measured else None,
        asking_probability=_number(row, "asking_probability", where),
        left_nats=_number(row, "left_nats", where),
        policy_log_probabilities=None if logs is None else tuple(_number({"log": x}, "log", where) for x in logs),
    )


def _get(row: dict[str, Any], key: str, kind: type, where: str) -> Any:
    value = row.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{where}: {key!r} should be {kind.__name__}, got {value!r}")
    return value


def _number(row: dict[str, Any], key: str, where: str) -> float:
    value = row.get(key)
    if isinstance(value, bool) or not (isinstance(value, int | float) or value in ("inf", "-inf")):
        raise InputError(f"{where}: {key!r} should be a number or the string inf, got {value!r}")
    number = float(value)
    if isnan(number):
        raise InputError(f"{where}: {key!r} is NaN")
    return number
