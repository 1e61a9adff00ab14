"""Which turn of a conversation a call is about: its messages, held against what was said.

A client repeats the history with every call. It may add to it; it may ask for a turn again (it gets the same words,
free of charge); it may not change what was said, because the account was charged along the history as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mightnt.desk.server.refusal import Refusal
from mightnt.dialogues import Message


@dataclass(frozen=True, slots=True)
class Told:
    """A turn as the client was told it.

    ``reply`` is empty where nobody answered: then the turn is void, and a client may repeat what had begun or leave it
    out. ``open``: it is still going on. ``asked``: a demonstrator was asked, and finished it if anybody did.
    """

    heard: tuple[Message, ...]
    begun: str
    reply: str
    open: bool = False
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """The turn that a call is about: its number, what it hears, and all messages before it (void turns left out).

    ``answered``: index of each of these messages that a demonstrator finished -> what the agent had begun of it.
    """

    number: int
    heard: tuple[Message, ...]
    before: tuple[Message, ...]
    answered: Mapping[int, str]


def find_place(told: Sequence[Told], messages: tuple[Message, ...]) -> Place:
    """The turn after these messages: one of those told, or the next.

    Errors: :class:`~mightnt.desk.server.refusal.Refusal` with status 409 where the messages are not what was said.
    """
    at, before, answered = 0, tuple[Message, ...](), dict[int, str]()
    for number, turn in enumerate(told):
        end = at + len(turn.heard)
        if messages[at:end] != turn.heard:
            raise conflict(f"messages {at} to {end - 1} are not what this conversation heard")
        before += turn.heard
        if end == len(messages):
            return Place(number, turn.heard, before, answered)
        if turn.open:
            raise conflict("its last turn is still open: repeat the same call to wait for it, or ask for its ticket")
        at = end + _repeats(turn, messages[end], end)
        if turn.reply and turn.asked:
            answered[len(before)] = turn.begun
        before += (Message("assistant", turn.reply),) if turn.reply else ()
    rest = messages[at:]
    if not rest or any(message.role != "user" for message in rest):
        raise conflict("the history holds words of the assistant that were not said in it")
    return Place(len(told), rest, before + rest, answered)


def _repeats(turn: Told, message: Message, index: int) -> int:
    """How many messages (0 or 1) repeat what was said in this turn."""
    if message.role == "user":
        if turn.reply:
            raise conflict(f"the assistant's message before message {index} was left out")
        return 0
    if message.content not in ((turn.reply,) if turn.reply else ("", turn.begun)):
        raise conflict(f"message {index} is not what the assistant said")
    return 1


def conflict(why: str) -> Refusal:
    """A history that would rewrite a conversation."""
    hint = "A conversation has one history, which its account was charged for; to start over, begin a new one"
    return Refusal(409, "other_history", f"{why}. {hint}.", "messages")
