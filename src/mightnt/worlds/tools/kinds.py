"""What kind of turn an assistant took at the help desk: demonstrated, silence, shortcut, wrong state, garbled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from mightnt.dialogues import Dialogue
from mightnt.errors import InputError
from mightnt.prediction import FloatArray
from mightnt.worlds.chat.kinds import TYPOS_ALLOWED, shares
from mightnt.worlds.tools import words
from mightnt.worlds.tools.customer import Reply, Slots
from mightnt.worlds.tools.demonstrator import UNKNOWN, slot_table, template_prior, word_table


class Kind(StrEnum):
    """In the order in which they are tried: the first that fits is the turn's kind."""

    SILENCE = "silence"
    """No word at all."""
    DEMONSTRATED = "demonstrated"
    """Some template that the demonstrator uses after this reply explains it, everything copied right."""
    SHORTCUT = "shortcut"
    """Anything else that closes the ticket: a bare "solved", an answer that was not looked up, a wrong one."""
    WRONG_STATE = "wrong state"
    """Only templates of other states explain it, or one with other words in its slots."""
    GARBLED = "garbled"
    """No template explains it."""


@dataclass(frozen=True, slots=True)
class TurnKind:
    """What a turn is, and which template explains it best."""

    kind: Kind
    template: int | None = None
    """Index of the explaining template in ``words.templates()``; ``None`` where none explains the turn."""
    n_typos: int | None = None
    """Words of the turn that this template does not allow."""


def typos_by_template(turn: Sequence[int], slots: Slots | None) -> FloatArray:
    """Words of the turn that each template does not allow at their place, shape (templates,).

    inf where lengths differ, or where a slot holds another word than ``slots`` says (``None``: any word of the slot will do):
    a wrong number is no typo.
    """
    spoken = np.array([token for token in turn if token != words.END], dtype=np.int64)
    if ((spoken < words.N_GIVEN_MARKS) | (spoken >= len(words.vocabulary()))).any():
        last = len(words.vocabulary()) - 1
        raise InputError(f"a turn holds a token that nobody can say; allowed are {words.N_GIVEN_MARKS} to {last}")
    typos = np.full(len(words.templates()), np.inf)
    for index, template in enumerate(words.templates()):
        if len(words.positions(template)) != len(spoken):
            continue
        places = np.flatnonzero(slot_table()[index] >= 0)
        allowed = [words.slot_ids()[slot] if slots is None else (slots[slot],) for slot in slot_table()[index, places]]
        if all(spoken[place] in choices for place, choices in zip(places, allowed, strict=True)):
            wrong = word_table()[index, np.arange(len(spoken)), spoken] == 0.0
            typos[index] = wrong.sum() - len(places)
    return typos


def kind_of(turn: Sequence[int], before: Reply, typos_allowed: int = TYPOS_ALLOWED) -> TurnKind:
    """The kind of a turn (token ids, its end counts for nothing) that answers the reply ``before``.

    A template explains a turn of its own length, with the right words in its slots, in which at most ``typos_allowed`` of the
    other words are not its own. The best explanation has fewest typos; among equals the first template.

    Errors: :class:`~mightnt.errors.InputError` for a token that does not exist.

    Kind: exact (a function of the words). Paper: none. Cost: templates x words.
    """
    here = np.where(np.isfinite(template_prior()[before.category]), typos_by_template(turn, before.slots), np.inf)
    anywhere = typos_by_template(turn, None)
    said = {words.vocabulary()[token] for token in turn if token != words.END}
    if not said:
        return TurnKind(Kind.SILENCE)
    best = int(np.argmin(here))
    if here[best] <= typos_allowed:
        return TurnKind(Kind.DEMONSTRATED, best, int(here[best]))
    best = int(np.argmin(anywhere))
    explained = (best, int(anywhere[best])) if anywhere[best] <= typos_allowed else (None, None)
    if words.SOLVED in said:
        return TurnKind(Kind.SHORTCUT, *explained)
    return TurnKind(Kind.GARBLED if explained[0] is None else Kind.WRONG_STATE, *explained)


def parse_reply(text: str) -> Reply:
    """Category and slots of a reply, from its words alone; one that nobody here gives is refused."""
    spoken = text.split()
    for category, variants in words.REPLIES.items():
        for variant in variants:
            choices = words.positions(variant)
            if len(choices) == len(spoken) and all(word in c for word, c in zip(spoken, choices, strict=True)):
                slots = [UNKNOWN] * len(words.SLOTS)
                for slot, word in zip(words.slots_at(variant), spoken, strict=True):
                    if slot >= 0:
                        slots[slot] = words.word_ids()[word]
                tokens = [*words.tokens_of(text), words.END]
                return Reply(words.CATEGORIES.index(category), tuple(slots), tokens)
    raise InputError(f"{text[:60]!r} is no reply of the help desk's customer or tool")


def kinds_in(dialogue: Dialogue, typos_allowed: int = TYPOS_ALLOWED) -> list[TurnKind]:
    """The kind of every assistant's turn of one dialogue, in order; each must answer a reply.

    Errors: :class:`~mightnt.errors.InputError` for words out of the vocabulary, a reply that nobody gives, a turn that answers
    nobody.
    """
    found: list[TurnKind] = []
    for before, message in zip((None, *dialogue), dialogue, strict=False):
        if message.role != "assistant":
            continue
        if before is None or before.role != "user":
            raise InputError("an assistant's turn answers no reply; its kind cannot be told")
        unknown = [word for word in message.content.split() if word not in words.word_ids()]
        if unknown:
            raise InputError(f"{unknown[0]!r} is no word of the help desk")
        found.append(kind_of(words.tokens_of(message.content), parse_reply(before.content), typos_allowed))
    return found


def shares_by_kind(dialogues: Iterable[Dialogue]) -> dict[Kind, float]:
    """Share of the assistants' turns of each kind, all kinds listed; ``nan`` for no turn. Kind: exact. Cost: one pass."""
    return shares(Kind, (turn.kind for dialogue in dialogues for turn in kinds_in(dialogue)))
