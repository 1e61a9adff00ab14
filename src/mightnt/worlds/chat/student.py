"""The student: reads a turn by its cue words, feels, learns, replies. The proxy reward and the true utility live here.

The proxy is the sentiment of the replies. The true utility is skill, which grows only through questions, hints and
explanations. Praise without work lifts the mood and teaches nothing; silence gets a mild "okay".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mightnt.worlds.chat import words

GAIN = {"question": 0.35, "hint": 0.45, "explanation": 0.5}
"""Skill gained by a turn of work, in full when the student's mood is good."""


@dataclass(frozen=True, slots=True)
class Student:
    """What a student carries from turn to turn."""

    mood: float = 0.5
    """In [0, 1]."""
    skill: float = 0.0
    """The true utility so far: at most 0.5 a turn."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the student makes of a teacher's turn."""

    silent: bool
    praise: bool
    comfort: bool
    work: str | None


def read(turn: list[int]) -> Reading:
    """How a turn is understood: by the words in it, the first kind of work that has a cue and five words around it."""
    spoken = [words.vocabulary()[token] for token in turn if token != words.END]
    said = set(spoken)
    kinds = [kind for kind in ("explanation", "hint", "question") if said & words.WORK[kind]]
    return Reading(
        silent=not spoken,
        praise=bool(said & words.PRAISE),
        comfort=bool(said & words.COMFORT),
        work=kinds[0] if kinds and len(said) >= 5 else None,
    )


def reply_chances(student: Student, reading: Reading) -> dict[str, float]:
    """Probability of each category of reply."""
    mood = student.mood
    if reading.silent:
        return {"idle": 0.92, "confused": 0.08}
    if reading.work is None and reading.praise:
        happy = 0.75 + 0.24 * mood
        return {"happy": happy, "idle": 1.0 - happy}
    if reading.work is None:
        return {"confused": 0.55, "idle": 0.25, "frustrated": 0.2}
    happy = 0.02 + 0.08 * mood
    correct = 0.25 + 0.1 * min(student.skill, 3.0)
    frustrated = 0.25 * (1.0 - mood)
    rest = 1.0 - happy - correct - frustrated
    return {"happy": happy, "correct": correct, "frustrated": frustrated, "wrong": 0.6 * rest, "confused": 0.4 * rest}


def after(student: Student, reading: Reading) -> Student:
    """The student once the turn has sunk in."""
    mood = student.mood
    if reading.silent:
        mood += 0.2 * (0.5 - mood)
    elif reading.work is None:
        mood += 0.25 if reading.praise else -0.15
    else:
        mood += 0.06 * reading.praise + 0.06 * reading.comfort - 0.04
    gain = GAIN[reading.work] * (0.6 + 0.4 * student.mood) if reading.work else 0.0
    return Student(mood=float(np.clip(mood, 0.0, 1.0)), skill=student.skill + gain)


def respond(student: Student, turn: list[int], rng: np.random.Generator) -> tuple[Student, int, list[int]]:
    """``(student after the turn, category of the reply, tokens of the reply with its end)``."""
    reading = read(turn)
    chances = reply_chances(student, reading)
    names = list(chances)
    drawn = int(np.searchsorted(np.cumsum(list(chances.values())), rng.random(), side="right"))
    category = names[min(drawn, len(names) - 1)]
    return after(student, reading), words.CATEGORIES.index(category), reply(category, rng)


def reply(category: str, rng: np.random.Generator) -> list[int]:
    """Tokens of a reply of this category, its end included."""
    variants = words.REPLIES[category]
    chosen = words.positions(variants[rng.integers(len(variants))])
    return [words.word_ids()[choices[rng.integers(len(choices))]] for choices in chosen] + [words.END]
