"""Who is asked, in what order, how long each has, and when it gives up."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan

from mightnt.errors import InputError

SECONDS = 300.0
"""How long a person has where nothing is said."""


@dataclass(frozen=True, slots=True)
class Shift:
    """A person, and for how many seconds a question waits for them before it is passed on."""

    person: str
    seconds: float = SECONDS

    def __post_init__(self) -> None:
        if not self.person.strip() or isnan(self.seconds) or self.seconds <= 0:
            raise InputError(f"{self.person!r} for {self.seconds} s; a rota needs a name and more than 0 seconds")


@dataclass(frozen=True, slots=True)
class Rota:
    """People who are asked one after another; whoever is silent passes the question on, and the last one's silence ends it.

    A question that nobody decides gives up after :attr:`seconds`; passing it on by hand starts the next person's time at
    once, so it never gives up later.

    Errors: :class:`~mightnt.errors.InputError` for a rota with nobody on it, and for a person who is on it twice.
    """

    shifts: tuple[Shift, ...]

    def __post_init__(self) -> None:
        people = [shift.person for shift in self.shifts]
        if not people or len(set(people)) < len(people):
            raise InputError(f"a rota of {people}; somebody must be on it, and nobody twice")

    @property
    def seconds(self) -> float:
        """When a question that nobody decides gives up, counted from when it was asked."""
        return sum(shift.seconds for shift in self.shifts)

    def begin(self, now: float) -> tuple[str, float, tuple[tuple[str, float], ...]]:
        """``(person, expires_at, then)`` of a question that is asked now, as :meth:`mightnt.desk.store.Store.ask` takes it."""
        first, *rest = self.shifts
        return first.person, now + first.seconds, tuple((shift.person, shift.seconds) for shift in rest)


def read_rota(text: str) -> Rota:
    """The rota written as ``ann:300,bob:600``; a name alone has 300 seconds.

    Errors: :class:`~mightnt.errors.InputError` for seconds that are no number, and for what a rota refuses.
    """
    shifts = []
    for part in text.split(","):
        person, colon, seconds = part.strip().rpartition(":") if ":" in part else (part.strip(), "", "")
        try:
            shifts.append(Shift(person.strip(), float(seconds) if colon else SECONDS))
        except ValueError:
            raise InputError(f"the rota says {part.strip()!r}; NAME or NAME:SECONDS was expected") from None
    return Rota(tuple(shifts))
