"""The known demonstrator mu of the help desk: a filter over templates that copy from the last reply, exact token by token.

In each turn mu picks an act by what the last reply was, a template of the act uniformly, a word for each position uniformly,
the word of the last reply for each slot; then each token is replaced, with a small probability, by a uniform one. Many
dialogues advance together: arrays have one row a dialogue.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mightnt.errors import InputError
from mightnt.prediction import FloatArray
from mightnt.worlds.tools import words

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

UNKNOWN = -1
"""Stands for a slot that the last reply did not fill."""


@cache
def word_table() -> FloatArray:
    """Probability of each token at each position of each template, without typos, shape (templates, positions, tokens).

    A slot's row is zero: its word comes from the last reply. Past the last word stands the end of the turn. Kind: exact.
    """
    table = np.zeros((len(words.templates()), words.MAX_TURN_TOKENS, len(words.vocabulary())))
    table[:, :, words.END] = 1.0
    for index, template in enumerate(words.templates()):
        here = zip(words.positions(template), words.slots_at(template), strict=True)
        for position, (choices, slot) in enumerate(here):
            table[index, position] = 0.0
            if slot < 0:
                table[index, position, [words.word_ids()[word] for word in choices]] = 1.0 / len(choices)
    return table


@cache
def slot_table() -> IntArray:
    """Index of the slot at each position of each template, -1 where there is none, shape (templates, positions)."""
    table = np.full((len(words.templates()), words.MAX_TURN_TOKENS), -1)
    for index, template in enumerate(words.templates()):
        slots = words.slots_at(template)
        table[index, : len(slots)] = slots
    return table


@cache
def template_prior() -> FloatArray:
    """Log-probability of each template given what the last reply was, shape (categories, templates)."""
    acts = [act for act, group in words.TEMPLATES.items() for _ in group]
    share = np.array([1.0 / len(words.TEMPLATES[act]) for act in acts])
    chances = [[words.ACTS[category].get(act, 0.0) for act in acts] for category in words.CATEGORIES]
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.array(chances) * share))


@cache
def needed_slots() -> BoolArray:
    """Which slots the templates of a category copy, shape (categories, slots)."""
    used = np.stack([(slot_table() == slot).any(axis=1) for slot in range(len(words.SLOTS))], axis=1)
    return np.asarray(np.isfinite(template_prior()) @ used)


@dataclass(frozen=True)
class TurnState:
    """Where ``n`` dialogues stand inside the demonstrator's turn. A value: advancing returns a new one."""

    log_weights: FloatArray
    """Log joint weight of each template with the tokens of this turn so far, shape (n, templates)."""
    position: IntArray
    """Tokens of this turn so far, shape (n,)."""
    slots: IntArray
    """Token in each slot, from the last reply, ``UNKNOWN`` where it named none; shape (n, slots)."""


@dataclass(frozen=True)
class ToolsDemonstrator:
    """mu, for many dialogues at once.

    mu(x | turn so far) = sum_T w(T | turn so far) [(1 - e) T(x at this position | last reply) + e / n_actions], with e the
    typo probability: every KL to mu is finite, and a token that no template allows costs log(n_actions / e).

    Kind: exact (float64). Cost: templates x tokens a prediction.
    """

    typo_probability: float = 1e-4
    n_actions: int = field(default=len(words.vocabulary()) - words.N_GIVEN_MARKS, init=False)

    def begin_turn(self, category: IntArray, slots: IntArray) -> TurnState:
        """The state at the start of a turn; ``category`` (n,) indexes ``words.CATEGORIES``, ``slots`` is (n, slots).

        Errors: :class:`~mightnt.errors.InputError` where a reply of its category would name a slot and none is given.
        """
        if (needed_slots()[category] & (slots < 0)).any():
            raise InputError(f"a reply left a slot open that its templates copy; slots are {', '.join(words.SLOTS)}")
        return TurnState(template_prior()[category], np.zeros(len(category), dtype=np.int64), slots.copy())

    def predict(self, state: TurnState) -> FloatArray:
        """Log-probabilities of the next token, shape (n, tokens); ``-inf`` for marks that nobody chooses."""
        weights = np.exp(state.log_weights - state.log_weights.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        position = np.minimum(state.position, words.MAX_TURN_TOKENS - 1)
        spoken = np.empty((len(position), len(words.vocabulary())))
        for here in np.unique(position):
            rows = np.flatnonzero(position == here)
            spoken[rows] = weights[rows] @ word_table()[:, here]
            for slot in range(len(words.SLOTS)):
                copied = weights[rows] @ (slot_table()[:, here] == slot)
                spoken[rows, state.slots[rows, slot]] += copied
        probabilities = self.with_typos(spoken)
        probabilities[:, : words.N_GIVEN_MARKS] = 0.0
        with np.errstate(divide="ignore"):
            return np.log(probabilities)

    def advance(self, state: TurnState, tokens: IntArray) -> TurnState:
        """The state after one more token a dialogue, whoever chose it; ``tokens`` has shape (n,)."""
        position = np.minimum(state.position, words.MAX_TURN_TOKENS - 1)
        slot = slot_table()[:, position].T
        copied = (slot >= 0) & (np.take_along_axis(state.slots, np.maximum(slot, 0), axis=1) == tokens[:, None])
        likelihood = self.with_typos(word_table()[:, position, tokens].T + copied)
        return TurnState(state.log_weights + np.log(likelihood), state.position + 1, state.slots)

    def with_typos(self, probabilities: FloatArray) -> FloatArray:
        """(1 - e) p + e / n_actions, elementwise."""
        return (1.0 - self.typo_probability) * probabilities + self.typo_probability / self.n_actions

    def sample_turn(self, category: int, slots: tuple[int, ...], rng: np.random.Generator) -> list[int]:
        """One turn drawn from mu, its end included unless the turn ran into the length limit.

        Draws the template first and never looks at ``predict``: the two are checked against each other in the tests.
        """
        chances = np.exp(template_prior()[category])
        template = words.templates()[rng.choice(len(chances), p=chances / chances.sum())]
        said = [*written(template, slots, rng), *[words.END] * words.MAX_TURN_TOKENS]
        turn: list[int] = []
        while len(turn) < words.MAX_TURN_TOKENS and (not turn or turn[-1] != words.END):
            token = said[len(turn)]
            if rng.random() < self.typo_probability:
                token = words.N_GIVEN_MARKS + int(rng.integers(self.n_actions))
            turn.append(token)
        return turn


def written(template: str, slots: tuple[int, ...], rng: np.random.Generator) -> list[int]:
    """Tokens of a template, without an end: slots as given, any word of the slot where it is ``UNKNOWN``."""
    tokens = []
    for choices, slot in zip(words.positions(template), words.slots_at(template), strict=True):
        drawn = words.word_ids()[choices[rng.integers(len(choices))]]
        tokens.append(slots[slot] if slot >= 0 and slots[slot] != UNKNOWN else drawn)
    return tokens


def merge_rows(new: TurnState, old: TurnState, rows: BoolArray) -> TurnState:
    """``new`` where ``rows`` is true, ``old`` elsewhere."""
    return TurnState(
        np.where(rows[:, None], new.log_weights, old.log_weights),
        np.where(rows, new.position, old.position),
        np.where(rows[:, None], new.slots, old.slots),
    )


def only_rows(state: TurnState, rows: IntArray) -> TurnState:
    """The state of these rows alone."""
    return TurnState(state.log_weights[rows], state.position[rows], state.slots[rows])
