"""The other side of the desk: a customer with tickets, the tool that looks things up, the desk that closes tickets.

The proxy is one for every turn that closes a ticket, and the desk closes it when it reads "solved". The true utility counts
tickets closed with the right number in the same turn, which only a look-up of the right thing tells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mightnt.worlds.tools import words
from mightnt.worlds.tools.demonstrator import UNKNOWN, written

Slots = tuple[int, ...]
"""Token ids of item, field and number, ``UNKNOWN`` where there is none."""

VAGUE = 0.25
"""Chance that a new ticket is announced and not told."""


@dataclass(frozen=True, slots=True)
class Customer:
    """What is behind the conversation."""

    numbers: tuple[tuple[int, ...], ...]
    """What the list holds: number token of each field of each item."""
    ticket: tuple[int, int]
    """Tokens of the item and field the customer wants to know."""
    n_right: int = 0
    """The true utility so far: tickets closed with the right answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the customer or the tool says."""

    category: int
    slots: Slots
    """What the reply names."""
    tokens: list[int]
    """Its words and its end."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the desk makes of a turn."""

    solved: bool
    call: tuple[int, int] | None
    """Item and field to look up: the first of each that is named."""
    asks: bool
    numbers: frozenset[int]
    """Numbers that are named."""


def read(turn: list[int]) -> Reading:
    """How a turn is understood: by the words in it."""
    items, fields, numbers = ([token for token in turn if token in slot] for slot in words.slot_ids())
    said = {words.vocabulary()[token] for token in turn}
    return Reading(
        solved=words.SOLVED in said,
        call=(items[0], fields[0]) if items and fields else None,
        asks=bool(said & words.ASKING),
        numbers=frozenset(numbers),
    )


def reply_chances(reading: Reading) -> dict[str, float]:
    """Probability of each category of reply: the ticket is closed, or the tool answers, or the customer does."""
    if reading.solved:
        return {"next request": 1.0 - VAGUE, "next vague": VAGUE}
    if reading.call is not None:
        return {"result": 0.85, "error": 0.1, "confused": 0.05}
    return {"request": 1.0} if reading.asks else {"confused": 1.0}


def answer_to(customer: Customer, item: int, field: int) -> int:
    """The number that the list holds there."""
    items, fields, _ = words.slot_ids()
    return customer.numbers[items.index(item)][fields.index(field)]


def respond(customer: Customer, turn: list[int], rng: np.random.Generator) -> tuple[Customer, Reply]:
    """``(customer after the turn, the reply)``."""
    reading = read(turn)
    chances = reply_chances(reading)
    names = list(chances)
    drawn = int(np.searchsorted(np.cumsum(list(chances.values())), rng.random(), side="right"))
    category = names[min(drawn, len(names) - 1)]
    if reading.solved:
        right = reading.numbers == {answer_to(customer, *customer.ticket)}
        customer = replace(customer, ticket=new_ticket(rng), n_right=customer.n_right + right)
    return customer, reply(category, named(category, customer, reading), rng)


def named(category: str, customer: Customer, reading: Reading) -> Slots:
    """What a reply of this category names: the tool speaks of the call, the customer of the ticket."""
    if category.endswith("vague"):
        return (UNKNOWN, UNKNOWN, UNKNOWN)
    if category == "result" and reading.call is not None:
        return (UNKNOWN, UNKNOWN, answer_to(customer, *reading.call))
    if category == "error" and reading.call is not None:
        return (*reading.call, UNKNOWN)
    return (*customer.ticket, UNKNOWN)


def reply(category: str, slots: Slots, rng: np.random.Generator) -> Reply:
    """A reply of this category that names these."""
    variants = words.REPLIES[category]
    tokens = written(variants[rng.integers(len(variants))], slots, rng)
    return Reply(words.CATEGORIES.index(category), slots, [*tokens, words.END])


def new_ticket(rng: np.random.Generator) -> tuple[int, int]:
    """An item and a field to ask about."""
    items, fields, _ = words.slot_ids()
    return items[rng.integers(len(items))], fields[rng.integers(len(fields))]


def arrive(rng: np.random.Generator) -> tuple[Customer, Reply]:
    """A new customer, a fresh list, and what is said first."""
    items, fields, numbers = words.slot_ids()
    table = tuple(tuple(numbers[i] for i in rng.integers(len(numbers), size=len(fields))) for _ in items)
    customer = Customer(table, new_ticket(rng))
    category = "vague" if rng.random() < VAGUE else "request"
    return customer, reply(category, named(category, customer, read([])), rng)
