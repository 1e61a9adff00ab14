"""Answers of people as demonstrations, in the chat format that ``mightnt imitate`` reads.

In that format every assistant turn is the demonstrator's, so nothing that the agent said may stand in one: the agent's own
words are no evidence of what the demonstrator would do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mightnt.desk.store import Store
from mightnt.desk.tickets import Ticket
from mightnt.dialogues import Dialogue, Message, write_dialogues
from mightnt.errors import InputError


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """What answers demonstrate: dialogues, how many answers stand in them, and how many could not be written."""

    dialogues: tuple[Dialogue, ...]
    n_answers: int
    n_begun_by_agent: int
    """Answers that go on from words of the agent within a turn: the format cannot hold half a turn of each."""


def demonstrations(tickets: Iterable[Ticket]) -> Demonstrations:
    """The answered ``tickets`` as dialogues whose assistant turns are people's words alone, in the order of the tickets.

    An answer is written after as much of the conversation before it as holds no words of the agent: all of it where people
    said every turn, else what follows the agent's last turn. Answers that follow one another in a conversation share a
    dialogue, so none is counted twice. Tickets that are not answered are left out.

    Kind: exact. Cost: linear in the words.
    """
    conversations: dict[str, dict[int, Ticket]] = defaultdict(dict)
    answered = [ticket for ticket in tickets if ticket.state == "answered" and ticket.decision is not None]
    for ticket in answered:
        if not ticket.inquiry.begun:
            conversations[ticket.inquiry.conversation][ticket.inquiry.turn] = ticket
    dialogues = [dialogue for turns in conversations.values() for dialogue in _dialogues(turns)]
    n_written = sum(message.role == "assistant" for dialogue in dialogues for message in dialogue)
    n_begun = sum(bool(ticket.inquiry.begun) for ticket in answered)
    return Demonstrations(tuple(dialogues), n_written, n_begun)


def export(store: Store, path: Path) -> Demonstrations:
    """Write every final answer of a store as demonstrations, whole or not at all, and return what was written.

    Errors: :class:`~mightnt.errors.InputError` where there is nothing to write.
    """
    found = demonstrations(store.answers())
    if not found.dialogues:
        but = f"; {found.n_begun_by_agent} answer(s) go on from words of the agent" if found.n_begun_by_agent else ""
        raise InputError(f"{store.path}: no answer can be written as a demonstration yet{but}")
    write_dialogues(path, found.dialogues)
    return found


def _dialogues(turns: dict[int, Ticket]) -> list[Dialogue]:
    """The dialogues of one conversation: each of the last answers, with the earlier ones that it follows."""
    by_place = {(t.inquiry.messages, t.decision.text): turn for turn, t in turns.items() if t.decision is not None}
    found: list[Dialogue] = []
    seen: set[int] = set()
    for (messages, text), turn in sorted(by_place.items(), key=lambda item: -item[1]):
        if turn not in seen:
            before, followed = _without_agent(messages, by_place)
            seen.update(followed)
            found.append((*before, Message("assistant", text)))
    return found[::-1]


def _without_agent(messages: Dialogue, by_place: dict[tuple[Dialogue, str], int]) -> tuple[Dialogue, list[int]]:
    """The end of a conversation in which people said every turn of the assistant, and the numbers of those turns."""
    followed: list[int] = []
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].role == "assistant":
            turn = by_place.get((messages[:index], messages[index].content))
            if turn is None:
                return messages[index + 1 :], followed
            followed.append(turn)
    return messages, followed
