"""Answers of people as demonstrations, in the chat format that ``mightnt imitate`` reads.

The agent's own words are no evidence of what the demonstrator would do. They are kept, so that a conversation stays whole,
and marked as such: what the agent said of an assistant turn is that turn's ``begun``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mightnt.desk.store import Store
from mightnt.desk.tickets import Ticket
from mightnt.dialogues import Dialogue, Message, write_dialogues
from mightnt.errors import InputError


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """What answers demonstrate: dialogues, how many answers stand in them, and how many of those the agent had begun."""

    dialogues: tuple[Dialogue, ...]
    n_answers: int
    n_begun_by_agent: int
    """Answers that go on from words of the agent within a turn."""


def demonstrations(tickets: Iterable[Ticket]) -> Demonstrations:
    """The answered ``tickets`` as dialogues in which people's words alone are demonstrated, in the order of the tickets.

    An answer is written after the whole conversation before it. Answers that follow one another in a conversation share a
    dialogue, so none is counted twice. Tickets that are not answered are left out.

    Kind: exact. Cost: linear in the words.
    """
    conversations: dict[str, dict[int, Ticket]] = defaultdict(dict)
    for ticket in tickets:
        if ticket.state == "answered" and ticket.decision is not None:
            conversations[ticket.inquiry.conversation][ticket.inquiry.turn] = ticket
    dialogues = [dialogue for turns in conversations.values() for dialogue in _dialogues(turns)]
    answers = [message for dialogue in dialogues for message in dialogue if message.demonstrates]
    return Demonstrations(tuple(dialogues), len(answers), sum(bool(message.begun) for message in answers))


def lesson(ticket: Ticket) -> Dialogue:
    """One answer and the conversation before it, in which nothing else is demonstrated.

    What earlier answers of the same conversation taught is theirs to teach. Errors:
    :class:`~mightnt.errors.InputError` for a ticket that is not answered.
    """
    if ticket.state != "answered" or ticket.decision is None:
        raise InputError(f"the ticket {ticket.number} is {ticket.state}; only an answered one teaches something")
    return (*_marked(ticket.inquiry.messages, {}), answer_of(ticket))


def answer_of(ticket: Ticket) -> Message:
    """The turn that this answer ended, its words whole."""
    assert ticket.decision is not None, "an answered ticket has a decision"
    begun = ticket.inquiry.begun
    return Message("assistant", begun + ticket.decision.text, begun)


def export(store: Store, path: Path) -> Demonstrations:
    """Write every final answer of a store as demonstrations, whole or not at all, and return what was written.

    Errors: :class:`~mightnt.errors.InputError` where there is nothing to write.
    """
    found = demonstrations(store.answers())
    if not found.dialogues:
        raise InputError(f"{store.path}: no answer can be written as a demonstration yet")
    write_dialogues(path, found.dialogues)
    return found


Places = Mapping[tuple[Dialogue, str], tuple[int, Message]]
"""A conversation and the whole words that followed -> the number of the turn and the same words, marked."""


def _dialogues(turns: Mapping[int, Ticket]) -> list[Dialogue]:
    """The dialogues of one conversation: each of the last answers, with the earlier ones that it follows."""
    answers = {turn: answer_of(ticket) for turn, ticket in turns.items()}
    places = {(turns[n].inquiry.messages, answer.content): (n, answer) for n, answer in answers.items()}
    found: list[Dialogue] = []
    seen: set[int] = set()
    for (messages, _), (turn, answer) in sorted(places.items(), key=lambda item: -item[1][0]):
        if turn not in seen:
            before = _marked(messages, places)
            first = len(messages) - len(before)
            spoken = [i for i in range(first, len(messages)) if messages[i].role == "assistant"]
            seen.update(places.get((messages[:i], messages[i].content), (turn,))[0] for i in spoken)
            found.append((*before, answer))
    return found[::-1]


def _marked(messages: Dialogue, places: Places) -> Dialogue:
    """A conversation whose assistant turns say what of them the agent had begun: all of it, unless it is an answer's place.

    A turn in which the agent said nothing cannot be told from a demonstrator's silence: what follows it is returned.
    """
    marked: list[Message] = []
    for i, message in enumerate(messages):
        known = places.get((messages[:i], message.content)) if message.role == "assistant" else None
        if known:
            marked.append(known[1])
        elif message.role != "assistant":
            marked.append(message)
        elif message.content:
            marked.append(Message("assistant", message.content, message.content))
        else:
            marked.clear()
    return tuple(marked)
