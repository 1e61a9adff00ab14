"""Chats to learn from: the demonstrator's, and those of other authors who share its words but not its ways.

Without the second kind an imitator has seen nobody fall silent or repeat a phrase, and the failure of a KL leash to it
hardly shows: what internet-trained models bring along is that they infer, within a chat, which author this is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mightnt.dialogues import Dialogue, Message
from mightnt.errors import InputError
from mightnt.worlds.chat import words
from mightnt.worlds.chat.demonstrator import ChatDemonstrator, first_late_round
from mightnt.worlds.chat.student import Student, reply, respond

N_ROUNDS = 6
"""Teacher turns a chat, unless said otherwise; the student greets first and answers each."""

Teacher = Callable[[int, int, np.random.Generator], list[int]]
"""``(round, category of the last reply, rng) -> tokens of the turn``."""

MODES = {"normal": 0.45, "blank": 0.15, "one word": 0.15, "one phrase": 0.25}
"""How other authors teach, and how often they start so."""
STAY = 0.85
"""Chance that an author keeps the mode for another turn."""


def chat(teacher: Teacher, rng: np.random.Generator, rounds: int = N_ROUNDS) -> Dialogue:
    """One chat of so many rounds between a teacher and a fresh student."""
    student, category = Student(), words.CATEGORIES.index("greet")
    messages = [Message("user", words.text_of(reply("greet", rng)))]
    for round_ in range(rounds):
        turn = teacher(round_, category, rng)
        student, category, answer = respond(student, turn, rng)
        messages += [Message("assistant", words.text_of(turn)), Message("user", words.text_of(answer))]
    return tuple(messages)


def demonstrations(
    n: int, seed: int, demonstrator: ChatDemonstrator | None = None, rounds: int = N_ROUNDS
) -> list[Dialogue]:
    """``n`` chats taught by the demonstrator; the first k of n are those of ``demonstrations(k, seed)``."""
    mu = demonstrator or ChatDemonstrator()

    def teacher(round_: int, category: int, rng: np.random.Generator) -> list[int]:
        return mu.sample_turn(category, round_ >= first_late_round(rounds), rng)

    return [chat(teacher, rng, rounds) for rng in generators(n, seed, "demonstrations", rounds)]


def other_authors(n: int, seed: int, rounds: int = N_ROUNDS) -> list[Dialogue]:
    """``n`` chats taught by other authors, each with sticky modes: normal, blank, one word, one phrase."""
    return [chat(other_author(rng), rng, rounds) for rng in generators(n, seed, "other authors", rounds)]


def generators(n: int, seed: int, stream: str, rounds: int = N_ROUNDS) -> list[np.random.Generator]:
    """One generator a chat, so that chat i does not depend on how many are drawn."""
    if n < 1 or rounds < 1:
        raise InputError(f"{n} chats of {rounds} rounds were asked for; at least 1 of each is needed")
    root = [seed, *stream.encode()]
    return [np.random.default_rng([*root, index]) for index in range(n)]


def other_author(rng: np.random.Generator) -> Teacher:
    """A teacher with habits of its own: favorite templates whatever the student says, and modes that stick."""
    templates = [template for group in words.TEMPLATES.values() for template in group]
    favorites = [templates[i] for i in rng.choice(len(templates), size=6, replace=False)]
    word = int(rng.integers(words.END + 1, len(words.vocabulary())))
    repeats = int(rng.integers(1, 7))
    phrase = short_phrase(rng)
    mode = str(rng.choice(list(MODES), p=list(MODES.values())))

    def teacher(round_: int, category: int, rng: np.random.Generator) -> list[int]:
        nonlocal mode
        if round_ and rng.random() > STAY:
            mode = str(rng.choice(list(MODES), p=list(MODES.values())))
        if mode == "blank":
            return [words.END]
        if mode == "one word":
            return [word] * repeats + [words.END]
        if mode == "one phrase":
            return [*phrase, words.END]
        return fill(favorites[rng.integers(len(favorites))], rng)

    return teacher


def fill(template: str, rng: np.random.Generator) -> list[int]:
    """Tokens of one filled template, its end included."""
    choices = words.positions(template)
    return [words.word_ids()[options[rng.integers(len(options))]] for options in choices] + [words.END]


def short_phrase(rng: np.random.Generator) -> list[int]:
    """A phrase of two to five words: the opening of some template, often one of praise."""
    group = words.TEMPLATES["praise and question"] if rng.random() < 0.5 else sum(words.TEMPLATES.values(), ())
    return fill(group[rng.integers(len(group))], rng)[: int(rng.integers(2, 6))]
