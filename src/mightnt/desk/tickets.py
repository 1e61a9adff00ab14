"""What goes over a desk for people: questions about a turn of a conversation, and what a person decided.

Values only. Where they are kept is :mod:`mightnt.desk.store`, who is asked :mod:`mightnt.desk.rota`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from math import isnan
from typing import Any

from mightnt.dialogues import Message
from mightnt.errors import InputError


class State(StrEnum):
    """Where a question stands. ``waiting`` and ``decided`` (it can still be undone) are not final; the others are."""

    WAITING = "waiting"
    DECIDED = "decided"
    ANSWERED = "answered"
    REFUSED = "refused"
    STOPPED = "stopped"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        """Whether nothing can change it any more."""
        return self not in (State.WAITING, State.DECIDED)


class Verdict(StrEnum):
    """What a person can decide."""

    ANSWER = "answer"
    """These are the words, written by the person or taken as proposed."""
    EDIT = "edit"
    """These are the words, made from a proposal."""
    REFUSE = "refuse"
    """Nothing is said in this turn."""
    STOP = "stop"
    """The conversation ends here."""
    ESCALATE = "escalate"
    """Somebody else is to decide."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one plausible model would say, and how probable exactly these words are under it."""

    model: str
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What do you say next, and why are you asked?

    Args:
        conversation: which conversation it is.
        turn: number of the agent's turn in it, from 0.
        messages: the conversation before this turn.
        begun: what the agent has said of this turn already; an answer goes on from there.
        asking_probability: theta, the mass that the base could not vouch for where it asked.
        forced: nobody else may act: not even the base can be paid from what is left.
        limit_nats, left_nats: the account of the conversation.
        proposals: what each plausible model would say.
        disagreement: why theta is not 0, in one sentence.
    """

    conversation: str
    turn: int
    messages: tuple[Message, ...]
    begun: str
    asking_probability: float
    forced: bool
    limit_nats: float
    left_nats: float
    proposals: tuple[Proposal, ...] = ()
    disagreement: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.asking_probability <= 1:
            raise InputError(f"an asking probability of {self.asking_probability}; 0 to 1 is allowed")
        if isnan(self.limit_nats) or isnan(self.left_nats):
            raise InputError("the account of a conversation holds NaN")


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody decided about a question.

    ``text`` is needed for ``answer`` and ``edit`` and must be empty otherwise; ``proposal`` is the number of the proposal it
    was taken or made from. ``key`` tells one decision from a second sending of the same one.

    Errors: :class:`~mightnt.errors.InputError` for words where none belong, none where some do, and half a character.
    """

    verdict: Verdict
    person: str
    key: str
    text: str = ""
    proposal: int | None = None

    def __post_init__(self) -> None:
        speaks = self.verdict in (Verdict.ANSWER, Verdict.EDIT)
        if speaks != bool(self.text.strip()):
            raise InputError(f"{self.verdict} {'needs words' if speaks else 'takes no words'}; got {self.text!r}")
        if any("\ud800" <= character <= "\udfff" for character in self.text):
            raise InputError("the words hold half a character (a lone surrogate), which is not text")
        if not self.person or not self.key:
            raise InputError("a decision needs a person and a key")


@dataclass(frozen=True, slots=True)
class Ticket:
    """A question at the desk, and how it stands.

    Times are seconds since the epoch by the clock of whoever kept the store. ``person`` is whose turn on the rota it is;
    ``decision`` is there from ``decided`` on; ``sequence`` grows with every change of any ticket of a store.
    """

    number: str
    inquiry: Inquiry
    state: State
    asked_at: float
    expires_at: float
    person: str
    decision: Decision | None
    decided_at: float | None
    sequence: int


def as_plain(value: Inquiry | Ticket) -> dict[str, Any]:
    """The value as dictionaries and lists; a message says what was begun of it only where something was."""
    return asdict(value, dict_factory=_row)


def _row(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    return {key: item for key, item in row.items() if item or key != "begun" or "role" not in row}
