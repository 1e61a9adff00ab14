"""Demonstrations as people keep them: chats, one JSON object a line.

``{"messages": [{"role": "user" | "assistant", "content": "..."}, ...]}``. Assistant turns are the demonstrator's, user
turns are observations. Other keys are ignored.

An assistant turn may also have ``"begun": "..."``: what somebody else said of it before the demonstrator went on. Its content
begins with that, and only the rest is the demonstrator's; where ``begun`` is all of a content, nothing in the turn is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mightnt.errors import InputError
from mightnt.files import read_json_lines, write_json_lines

ROLES = ("user", "assistant")
MINIMUM_DIALOGUES = 10
"""Fewer cannot be split into a part to fit and a part to check on."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. ``role`` is ``assistant`` (the demonstrator, later the agent) or ``user`` (the world).

    ``begun``: what somebody else said of this turn before the demonstrator went on; ``content`` begins with it.

    Errors: :class:`~mightnt.errors.InputError` for a ``begun`` that content does not begin with, or on another's turn.
    """

    role: str
    content: str
    begun: str = ""

    def __post_init__(self) -> None:
        if self.begun and not (self.role == "assistant" and self.content.startswith(self.begun)):
            raise InputError(
                f"a turn of {self.role} has begun {self.begun[:60]!r}; only an assistant's turn that begins with it can"
            )

    @property
    def demonstrates(self) -> bool:
        """Whether something in this turn is the demonstrator's; a turn without a word is, of one who said nothing."""
        return self.role == "assistant" and (not self.begun or self.begun != self.content)


Dialogue: TypeAlias = tuple[Message, ...]


def read_dialogues(path: Path) -> list[Dialogue]:
    """Every dialogue in a JSON-lines file; the first line that does not fit is named with what it should hold.

    Errors: :class:`~mightnt.errors.InputError` for malformed JSON, missing or unknown roles, content that is not text,
    a dialogue without an assistant turn or in which others said all of them, an empty file.
    """
    dialogues = [parse_dialogue(value, f"{path}:{number}") for number, value in read_json_lines(path)]
    if not dialogues:
        raise InputError(f"{path}: is empty; one JSON object a line was expected, each with a list 'messages'")
    return dialogues


def parse_dialogue(value: Any, where: str) -> Dialogue:
    """The dialogue in one decoded JSON value; ``where`` (file:line) opens the error message."""
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list) or not messages:
        raise InputError(f"{where}: needs a non-empty list 'messages'")
    dialogue = []
    for index, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role not in ROLES:
            raise InputError(f"{where}: message {index} has role {role!r}; allowed are {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise InputError(f"{where}: message {index} has content of type {type(content).__name__}; text is needed")
        if any("\ud800" <= character <= "\udfff" for character in content):
            raise InputError(f"{where}: message {index} holds half a character (a lone surrogate), which is not text")
        begun = message.get("begun", "")
        if not isinstance(begun, str) or (begun and (role != "assistant" or not content.startswith(begun))):
            raise InputError(
                f"{where}: message {index} has 'begun', which its content must begin with (assistant only)"
            )
        dialogue.append(Message(role, content, begun))
    if not any(message.demonstrates for message in dialogue):
        raise InputError(f"{where}: has no assistant turn of a demonstrator, so it demonstrates nothing")
    return tuple(dialogue)


def write_dialogues(path: Path, dialogues: Iterable[Dialogue]) -> None:
    """Write dialogues in the same format, whole or not at all."""
    write_json_lines(path, ({"messages": [_plain(message) for message in dialogue]} for dialogue in dialogues))


def _plain(message: Message) -> dict[str, str]:
    """``begun`` stands there only where there is one."""
    return {"role": message.role, "content": message.content} | ({"begun": message.begun} if message.begun else {})


def split_dialogues(
    dialogues: Sequence[Dialogue], held_out_fraction: float, seed: int
) -> tuple[list[Dialogue], list[Dialogue]]:
    """``(to fit, held out)``: a random split that depends on ``seed`` only; each part gets at least one dialogue."""
    if len(dialogues) < MINIMUM_DIALOGUES:
        raise InputError(
            f"got {len(dialogues)} dialogue(s); at least {MINIMUM_DIALOGUES} are needed: some to fit, some to check on"
        )
    if not 0 < held_out_fraction < 1:
        raise InputError(f"held-out fraction {held_out_fraction} is not between 0 and 1")
    order = np.random.default_rng(seed).permutation(len(dialogues))
    n_held_out = min(len(dialogues) - 1, max(1, round(held_out_fraction * len(dialogues))))
    held_out = set(order[:n_held_out].tolist())
    fitted = [d for i, d in enumerate(dialogues) if i not in held_out]
    return fitted, [dialogues[i] for i in sorted(held_out)]
