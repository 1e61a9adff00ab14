"""Dialogues to learn from: the demonstrator's, and those of other authors who share its words but not its ways.

Some of the others close tickets without a word of help and keep to it. An imitator that has seen them can tell, within a
dialogue, that this author is one of those: then the shortcut is cheap.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mightnt.dialogues import Dialogue, Message
from mightnt.worlds.chat.corpus import STAY, generators
from mightnt.worlds.tools import words
from mightnt.worlds.tools.customer import Reply, arrive, respond
from mightnt.worlds.tools.demonstrator import ToolsDemonstrator, written

N_TURNS = 6
"""Turns of the assistant in a dialogue, unless said otherwise; the customer speaks first, and somebody answers each."""
CARE = 0.8
"""Chance that another author, working, does what the reply asks for; otherwise any act."""

Assistant = Callable[[Reply, np.random.Generator], list[int]]
"""``(the reply before, rng) -> tokens of the turn``."""

MODES = {"normal": 0.45, "shortcut": 0.25, "one word": 0.15, "blank": 0.15}
"""How other authors work, and how often they start so."""


def dialogue(assistant: Assistant, rng: np.random.Generator, rounds: int = N_TURNS) -> Dialogue:
    """One dialogue of so many turns between an assistant and a new customer."""
    customer, before = arrive(rng)
    messages = [Message("user", words.text_of(before.tokens))]
    for _ in range(rounds):
        turn = assistant(before, rng)
        customer, before = respond(customer, turn, rng)
        messages += [Message("assistant", words.text_of(turn)), Message("user", words.text_of(before.tokens))]
    return tuple(messages)


def demonstrations(
    n: int, seed: int, demonstrator: ToolsDemonstrator | None = None, rounds: int = N_TURNS
) -> list[Dialogue]:
    """``n`` dialogues of the demonstrator; the first k of n are those of ``demonstrations(k, seed)``."""
    mu = demonstrator or ToolsDemonstrator()

    def assistant(before: Reply, rng: np.random.Generator) -> list[int]:
        return mu.sample_turn(before.category, before.slots, rng)

    return [dialogue(assistant, rng, rounds) for rng in generators(n, seed, "help desk, demonstrations", rounds)]


def other_authors(n: int, seed: int, rounds: int = N_TURNS) -> list[Dialogue]:
    """``n`` dialogues of other authors, each with sticky modes: normal, shortcut, one word, blank."""
    streams = generators(n, seed, "help desk, other authors", rounds)
    return [dialogue(other_author(rng), rng, rounds) for rng in streams]


def other_author(rng: np.random.Generator) -> Assistant:
    """An assistant with habits of its own: favorite templates of each act, no great care, and modes that stick."""
    favorites = {
        act: [group[i] for i in rng.choice(len(group), 2, replace=False)] for act, group in words.TEMPLATES.items()
    }
    word = int(rng.integers(words.END + 1, len(words.vocabulary())))
    repeats = int(rng.integers(1, words.MAX_TURN_TOKENS))
    shortcut = words.tokens_of(words.SHORTCUTS[rng.integers(len(words.SHORTCUTS))])
    mode = ""

    def assistant(before: Reply, rng: np.random.Generator) -> list[int]:
        nonlocal mode
        if not mode or rng.random() > STAY:
            mode = str(rng.choice(list(MODES), p=list(MODES.values())))
        if mode == "blank":
            return [words.END]
        if mode == "one word":
            return [word] * repeats + [words.END]
        if mode == "shortcut":
            return [*shortcut, words.END]
        acts = list(words.TEMPLATES if rng.random() > CARE else words.ACTS[words.CATEGORIES[before.category]])
        favorite = favorites[acts[rng.integers(len(acts))]][rng.integers(2)]
        return [*written(favorite, before.slots, rng), words.END]

    return assistant


def take_shortcut(before: Reply, rng: np.random.Generator) -> list[int]:
    """The assistant that closes every ticket at once: the maximal proxy reward, and no utility."""
    return [*words.tokens_of(words.SHORTCUTS[0]), words.END]
