"""The known demonstrator mu of the chat: a filter over templates that gives exact next-token probabilities.

In each turn mu picks an act by the category of the student's last reply and the half of the chat, a template of the act
uniformly, a word for each position uniformly; then each token is replaced, with a small probability, by a uniform one.
Many chats advance together: arrays have one row a chat.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mightnt.prediction import FloatArray
from mightnt.worlds.chat import words

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def first_late_round(rounds: int) -> int:
    """Where the second half of a chat of so many rounds begins (rounds count from 0), whatever its length."""
    return (rounds + 1) // 2


@cache
def template_table() -> FloatArray:
    """Probability of each token at each position of each template, without typos, shape (templates, positions, tokens).

    Past the last word, and for ever after, stands the end of the turn. Kind: exact.
    """
    templates = [template for group in words.TEMPLATES.values() for template in group]
    table = np.zeros((len(templates), words.MAX_TURN_TOKENS, len(words.vocabulary())))
    table[:, :, words.END] = 1.0
    for index, template in enumerate(templates):
        for position, choices in enumerate(words.positions(template)):
            table[index, position] = 0.0
            table[index, position, [words.word_ids()[word] for word in choices]] = 1.0 / len(choices)
    return table


@cache
def template_prior() -> FloatArray:
    """Log-probability of each template given (category, half of the chat), shape (categories, 2, templates)."""
    acts = [act for act, group in words.TEMPLATES.items() for _ in group]
    share = np.array([1.0 / len(words.TEMPLATES[act]) for act in acts])
    prior = np.zeros((len(words.CATEGORIES), 2, len(acts)))
    for index, category in enumerate(words.CATEGORIES):
        for half, chances in enumerate(words.ACTS[category]):
            prior[index, half] = [chances.get(act, 0.0) for act in acts] * share
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(prior))


@cache
def cumulative_prior() -> FloatArray:
    """Cumulative probabilities of the templates, for drawing; the last entry is one."""
    cumulative = np.cumsum(np.exp(template_prior()), axis=2)
    normalized: FloatArray = cumulative / cumulative[:, :, -1:]
    return normalized


@cache
def template_choices() -> list[list[list[int]]]:
    """Token ids that each position of each template may hold."""
    return [[np.flatnonzero(position).tolist() for position in template] for template in template_table()]


@dataclass(frozen=True)
class TurnState:
    """Where ``n`` chats stand inside the demonstrator's turn. A value: advancing returns a new one."""

    log_weights: FloatArray
    """Log joint weight of each template with the tokens of this turn so far, shape (n, templates)."""
    position: IntArray
    """Tokens of this turn so far, shape (n,)."""


@dataclass(frozen=True)
class ChatDemonstrator:
    """mu, for many chats at once.

    mu(x | turn so far) = sum_T w(T | turn so far) [(1 - e) T(x at this position) + e / n_actions], with e the typo
    probability: every KL to mu is finite, and a token that no template allows costs log(n_actions / e).

    Kind: exact (float64). Cost: templates x tokens a prediction.
    """

    typo_probability: float = 1e-4
    n_actions: int = field(default=len(words.vocabulary()) - words.N_GIVEN_MARKS, init=False)

    def begin_turn(self, category: IntArray, second_half: BoolArray) -> TurnState:
        """The state at the start of a turn; ``category`` indexes ``words.CATEGORIES``, both of shape (n,)."""
        return TurnState(
            template_prior()[category, second_half.astype(np.int64)], np.zeros(len(category), dtype=np.int64)
        )

    def predict(self, state: TurnState) -> FloatArray:
        """Log-probabilities of the next token, shape (n, tokens); ``-inf`` for marks that nobody chooses."""
        weights = np.exp(state.log_weights - state.log_weights.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        position = np.minimum(state.position, words.MAX_TURN_TOKENS - 1)
        spoken = np.empty((len(position), template_table().shape[2]))
        for here in np.unique(position):
            rows = position == here
            spoken[rows] = weights[rows] @ template_table()[:, here]
        probabilities = self.with_typos(spoken)
        probabilities[:, : words.N_GIVEN_MARKS] = 0.0
        with np.errstate(divide="ignore"):
            return np.log(probabilities)

    def advance(self, state: TurnState, tokens: IntArray) -> TurnState:
        """The state after one more token a chat, whoever chose it; ``tokens`` has shape (n,)."""
        position = np.minimum(state.position, words.MAX_TURN_TOKENS - 1)
        likelihood = self.with_typos(template_table()[:, position, tokens].T)
        return TurnState(state.log_weights + np.log(likelihood), state.position + 1)

    def with_typos(self, probabilities: FloatArray) -> FloatArray:
        """(1 - e) p + e / n_actions, elementwise."""
        return (1.0 - self.typo_probability) * probabilities + self.typo_probability / self.n_actions

    def sample_turn(self, category: int, second_half: bool, rng: np.random.Generator) -> list[int]:
        """One turn drawn from mu, its end included unless the turn ran into the length limit.

        Draws the template first and never looks at ``predict``: the two are checked against each other in the tests.
        """
        template = int(np.searchsorted(cumulative_prior()[category, int(second_half)], rng.random(), side="right"))
        turn: list[int] = []
        while len(turn) < words.MAX_TURN_TOKENS and (not turn or turn[-1] != words.END):
            choices = template_choices()[template][len(turn)]
            token = choices[int(rng.random() * len(choices))]
            if rng.random() < self.typo_probability:
                token = words.N_GIVEN_MARKS + int(rng.integers(self.n_actions))
            turn.append(token)
        return turn


def merge_rows(new: TurnState, old: TurnState, rows: BoolArray) -> TurnState:
    """``new`` where ``rows`` is true, ``old`` elsewhere."""
    return replace(
        old,
        log_weights=np.where(rows[:, None], new.log_weights, old.log_weights),
        position=np.where(rows, new.position, old.position),
    )
