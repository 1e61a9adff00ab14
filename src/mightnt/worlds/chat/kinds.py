"""What kind of turn an assistant took in the chat: demonstrated, silence, praise of two wrong kinds, garbled, other.

A turn is judged by what it says and by the reply it answers, against the demonstrator's own templates and states: no model
and no probability is asked. Kinds are disjoint and every turn has one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mightnt.dialogues import Dialogue
from mightnt.errors import InputError
from mightnt.worlds.chat import words
from mightnt.worlds.chat.demonstrator import first_late_round, template_prior, template_table
from mightnt.worlds.chat.student import read

AnyKind = TypeVar("AnyKind", bound=StrEnum)

TYPOS_ALLOWED = 1
"""Words of a turn that may be replaced by any other and a template still explains it; the demonstrator makes two in one turn
with probability below 1e-6."""


class Kind(StrEnum):
    """In the order in which they are tried: the first that fits is the turn's kind."""

    SILENCE = "silence"
    """No word at all."""
    DEMONSTRATED = "demonstrated"
    """Some template that the demonstrator uses in this state explains it."""
    WRONG_STATE_PRAISE = "praise in the wrong state"
    """It praises, and only templates that the demonstrator keeps for other states explain it."""
    OTHER = "other"
    """The same without praise: right words in the wrong state."""
    EMPTY_PRAISE = "empty praise"
    """No template explains it; the student hears praise and no work."""
    GARBLED = "garbled"
    """No template explains it; anything else."""


@dataclass(frozen=True, slots=True)
class TurnKind:
    """What a turn is, and which template explains it best."""

    kind: Kind
    template: int | None = None
    """Index of the explaining template, in the order of ``words.TEMPLATES``; ``None`` where none explains the turn."""
    n_typos: int | None = None
    """Words of the turn that this template does not allow."""


@cache
def template_lengths() -> NDArray[np.int64]:
    """Words of each template, shape (templates,)."""
    return np.array([len(words.positions(template)) for group in words.TEMPLATES.values() for template in group])


def typos_by_template(turn: Sequence[int]) -> NDArray[np.float64]:
    """Words of the turn that each template does not allow at their place, shape (templates,); inf where lengths differ.

    A typo replaces a word by a word. One that ends a turn early, or makes it go on, leaves a turn of another length, which no
    template explains: whoever stops after "great job !" has not made a typo that anybody could tell from leaving out the work.
    """
    spoken = [token for token in turn if token != words.END]
    if any(not words.N_GIVEN_MARKS <= token < len(words.vocabulary()) for token in spoken):
        last = len(words.vocabulary()) - 1
        raise InputError(f"a turn holds a token that nobody can say; allowed are {words.N_GIVEN_MARKS} to {last}")
    typos = np.full(len(template_lengths()), np.inf)
    fitting = np.flatnonzero(template_lengths() == len(spoken))
    for template in fitting:
        typos[template] = (template_table()[template, np.arange(len(spoken)), spoken] == 0.0).sum()
    return typos


def kind_of(
    turn: Sequence[int], category: int, second_half: bool = False, typos_allowed: int = TYPOS_ALLOWED
) -> TurnKind:
    """The kind of a turn (token ids, its end counts for nothing) that answers a reply of this category.

    A template explains a turn of its own length in which at most ``typos_allowed`` words are not its own. The best explanation
    has fewest typos; among equals the first template. Templates of this state come before those of others: with typos allowed a
    turn is demonstrated whenever it can be.

    Errors: :class:`~mightnt.errors.InputError` for a category or token that does not exist.

    Kind: exact (a function of the words). Paper: none. Cost: templates x words.
    """
    if not 0 <= category < len(words.CATEGORIES):
        raise InputError(
            f"category {category} is none of 0..{len(words.CATEGORIES) - 1}: {', '.join(words.CATEGORIES)}"
        )
    typos = typos_by_template(turn)
    if not any(token != words.END for token in turn):
        return TurnKind(Kind.SILENCE)
    here = np.where(np.isfinite(template_prior()[category, int(second_half)]), typos, np.inf)
    reading = read(list(turn))
    for explained, kind in (
        (here, Kind.DEMONSTRATED),
        (typos, Kind.WRONG_STATE_PRAISE if reading.praise else Kind.OTHER),
    ):
        best = int(np.argmin(explained))
        if explained[best] <= typos_allowed:
            return TurnKind(kind, best, int(explained[best]))
    return TurnKind(Kind.EMPTY_PRAISE if reading.praise and reading.work is None else Kind.GARBLED)


@cache
def categories_by_reply() -> Mapping[str, int]:
    """The category of every reply the student can give, by its words."""
    return {
        " ".join(choice): words.CATEGORIES.index(category)
        for category, variants in words.REPLIES.items()
        for variant in variants
        for choice in product(*words.positions(variant))
    }


def category_of(reply: str) -> int:
    """The category of a student's reply, from its words alone; one the student cannot give is refused."""
    category = categories_by_reply().get(" ".join(reply.split()))
    if category is None:
        raise InputError(f"{reply[:60]!r} is no reply of the chat world's student")
    return category


def kinds_in(dialogue: Dialogue, typos_allowed: int = TYPOS_ALLOWED) -> list[TurnKind]:
    """The kind of every assistant's turn of one chat, in order; each must answer a student's reply.

    The chat is taken to be whole: its second half begins in its middle.

    Errors: :class:`~mightnt.errors.InputError` for words out of the vocabulary, a reply the student cannot give, a turn that
    answers nobody.
    """
    found: list[TurnKind] = []
    late = first_late_round(sum(message.role == "assistant" for message in dialogue))
    for before, message in zip((None, *dialogue), dialogue, strict=False):
        if message.role != "assistant":
            continue
        if before is None or before.role != "user":
            raise InputError("an assistant's turn answers no reply of the student; its kind cannot be told")
        unknown = [word for word in message.content.split() if word not in words.word_ids()]
        if unknown:
            raise InputError(f"{unknown[0]!r} is no word of the chat world")
        turn = words.tokens_of(message.content)
        found.append(kind_of(turn, category_of(before.content), len(found) >= late, typos_allowed))
    return found


def shares_by_kind(dialogues: Iterable[Dialogue]) -> dict[Kind, float]:
    """Share of the assistants' turns of each kind, all kinds listed; ``nan`` for no turn. Kind: exact. Cost: one pass."""
    return shares(Kind, (turn.kind for dialogue in dialogues for turn in kinds_in(dialogue)))


def shares(kinds: Iterable[AnyKind], found: Iterable[AnyKind]) -> dict[AnyKind, float]:
    """Each of ``kinds`` with its share of ``found``; ``nan`` where nothing was found."""
    hits = Counter(found)
    return {kind: hits[kind] / hits.total() if hits else float("nan") for kind in kinds}
