"""What a computed theorem consists of: a claim in words, a configuration, rows of numbers, curves and their pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from mightnt.audits.figures import Panel
from mightnt.errors import InputError

Kind: TypeAlias = Literal["exact", "upper bound", "lower bound", "estimate"]
"""What a number is. An estimate has an interval; a bound says in ``how`` what it bounds."""

KINDS = ("exact", "upper bound", "lower bound", "estimate")

Report: TypeAlias = Callable[[int, int], None]
"""``(done, of)``: a theorem tells how far its computation is."""


@dataclass(frozen=True, slots=True)
class Row:
    """One number, what it says and what it is.

    Args:
        claim: one short sentence, or the name of a quantity, that the number stands behind.
        value: ``inf`` is an answer; NaN is refused.
        unit: ``nats``, ``bits``, ``probability``, ``steps``, ...; ``""`` for a ratio.
        kind: one of :data:`KINDS`.
        low, high: the interval of an estimate; both or neither.
        how: how the interval was made, how far rounding reaches, or what bounds what; one line.
        holds: whether the claim came out; ``None`` where the number claims nothing.
    """

    claim: str
    value: float
    unit: str
    kind: Kind
    low: float | None = None
    high: float | None = None
    how: str = ""
    holds: bool | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"{self.claim}: kind {self.kind!r}; allowed are {', '.join(KINDS)}")
        if math.isnan(self.value):
            raise InputError(f"{self.claim}: the value is NaN")
        if (self.low is None) != (self.high is None):
            raise InputError(f"{self.claim}: an interval needs both ends")
        if self.kind == "estimate" and self.low is None:
            raise InputError(f"{self.claim}: an estimate needs an interval")
        if self.low is not None and self.high is not None and not self.low <= self.value <= self.high:
            raise InputError(f"{self.claim}: {self.value} lies outside its interval {self.low} to {self.high}")
        if self.holds is not None and not isinstance(self.holds, bool):
            raise InputError(
                f"{self.claim}: whether it holds is a {type(self.holds).__name__}; a bool or None is needed"
            )


@dataclass(frozen=True, slots=True)
class Computed:
    """What a theorem's computation gives: the rows, and the numbers its pictures are drawn from (plain JSON values)."""

    rows: tuple[Row, ...]
    curves: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """For a record."""
        return {"rows": [asdict(row) for row in self.rows], "curves": dict(self.curves)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Computed:
        """From a record; infinities come as the strings inf and -inf."""
        rows: list[dict[str, Any]] = [row | {key: _number(row[key]) for key in NUMBERS} for row in value["rows"]]
        return cls(tuple(Row(**row) for row in rows), value["curves"])


NUMBERS = ("value", "low", "high")


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


@dataclass(frozen=True, slots=True)
class Theorem:
    """One chapter of the page.

    Args:
        name: what ``mightnt theory NAME`` calls it, such as ``P1``.
        title: a few words.
        says: the claim in two to five plain sentences; what is computed here, and which parts are ours, not the paper's.
        profiles: configuration (a frozen dataclass) by profile; ``quick`` (seconds) and ``default`` (at most minutes).
        compute: ``(configuration, seed, report)`` to what was computed; the same input gives the same output.
        draw: pictures from the curves of a record, so that a page can be drawn again without computing again.
    """

    name: str
    title: str
    says: str
    profiles: Mapping[str, Any]
    compute: Callable[[Any, int, Report], Computed]
    draw: Callable[[Mapping[str, Any]], Sequence[Panel]]
