"""What a policy that is served obeys: turns of a conversation, said piece by piece, with a price, and with questions.

Values and protocols only, so that a server knows nothing of networks. A turn goes like this::

    turn = speaker.begin(messages, spent_nats=1.2, turn=3, seed=7)
    while isinstance(event := turn.next_piece(), Piece):
        ...                              # words of the agent, and what they cost
    # now an Asked (a demonstrator goes on from here: turn.continue_with(words) ends the turn) or an Ended
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from mightnt.desk.tickets import Inquiry
from mightnt.dialogues import Dialogue, Message
from mightnt.errors import BudgetError


@dataclass(frozen=True, slots=True)
class Piece:
    """Some words that the agent says, and what they cost.

    ``text``: whole characters, to be appended to what was said before; ``nats``: what was charged for them, 0 or more;
    ``n_tokens``: how many tokens they are.

    Errors: :class:`~mightnt.errors.BudgetError` for a cost that is negative or NaN.
    """

    text: str
    nats: float
    n_tokens: int = 1

    def __post_init__(self) -> None:
        if isnan(self.nats) or self.nats < 0:
            raise BudgetError(f"a piece costs {self.nats} nats; 0 or more is needed")


@dataclass(frozen=True, slots=True)
class Asked:
    """The agent says no more in this turn: the demonstrator must go on after ``inquiry.begun``."""

    inquiry: Inquiry


@dataclass(frozen=True, slots=True)
class Ended:
    """The turn is over: the agent has finished (``stop``), or the turn is as long as turns may be (``length``)."""

    reason: Literal["stop", "length"]


Event: TypeAlias = Piece | Asked | Ended


class Turn(Protocol):
    """A turn in progress. It belongs to itself: other turns of the same speaker may go on between two of its pieces."""

    @property
    def spent_nats(self) -> float:
        """What this turn has been charged so far: its pieces and, where it asked, the decision to ask."""
        ...

    def next_piece(self) -> Event:
        """The next words, a question, or the end; after a question or the end, the same again."""
        ...

    def continue_with(self, text: str) -> None:
        """Hand in the demonstrator's words after a question. They end the turn, cost nothing and are evidence."""
        ...


class Speaker(Protocol):
    """A policy that can be served. Calls may come from different threads, but never two at the same time."""

    @property
    def name(self) -> str:
        """What clients call it: the ``model`` of their requests."""
        ...

    @property
    def limit_nats(self) -> float:
        """What a conversation may spend; ``inf`` for no limit."""
        ...

    def begin(
        self,
        messages: tuple[Message, ...],
        spent_nats: float,
        turn: int,
        seed: int,
        answered: Mapping[int, str] | None = None,
    ) -> Turn:
        """Begin the agent's next turn.

        Args:
            messages: the conversation so far, which ends with a user's message.
            spent_nats: what its earlier turns were charged; the turn never takes it beyond ``limit_nats``.
            turn: number of the agent's turn in this conversation, from 0.
            seed: of the conversation; the same arguments give the same turn, word for word.
            answered: index of each assistant message that a demonstrator finished -> what the agent had begun of it. The
                rest of it is the demonstrator's, and evidence.
        """
        ...


@runtime_checkable
class LearningSpeaker(Speaker, Protocol):
    """A speaker that answers teach at once. One that has no ``taught`` is served as it is."""

    def taught(self, answers: Sequence[Dialogue]) -> Speaker:
        """The speaker after these answers, in this order; it learns in its turn. This one stays as it is, and so do its
        turns in progress.

        Of each dialogue the last turn is the answer (``Message.begun``: what the agent had said of it), and nothing else is
        evidence. The same answers in the same order give the same speaker; a server hands them in one at a time.

        Errors: :class:`~mightnt.errors.MightntError` for words that cannot be learnt from.
        """
        ...
