"""Who is asked: a question, and demonstrators that answer it or say that they cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mightnt.errors import NoAnswer
from mightnt.history import History
from mightnt.prediction import TOLERANCE, Model, Prediction, follow


@dataclass(frozen=True, slots=True)
class Question:
    """What would you do now?

    ``history``: the episode so far; ``n_symbols``: how many actions there are to choose from; ``number``: questions of
    this episode before this one; ``seed``: that of the episode.
    """

    history: History
    n_symbols: int
    number: int
    seed: int


class Demonstrator(Protocol):
    """Somebody who can be asked."""

    def answer(self, question: Question) -> int:
        """The action to take, in 0..n_symbols-1; raises :class:`~mightnt.errors.NoAnswer` where there is none."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """Answers that were there before the question: drawn from a model of the demonstrator, or read from a list.

    A model is followed along the history and an action drawn from its prediction; the dice depend on ``seed``, the seed
    of the episode and the number of the question alone, so the same question gets the same answer. A list answers
    question i of an episode with its item i.

    Errors: :class:`~mightnt.errors.NoAnswer` when the list is exhausted, or with the probability that the model misses.

    Kind: exact. Cost: one pass over the history a question, for a model.
    """

    source: Model | Sequence[int]
    seed: int = 0

    def answer(self, question: Question) -> int:
        """The recorded action."""
        if isinstance(self.source, Sequence):
            if question.number >= len(self.source):
                raise NoAnswer(f"question {question.number + 1} was asked, {len(self.source)} answer(s) were recorded")
            return self.source[question.number]
        rng = np.random.default_rng([self.seed, question.seed, question.number])
        answer = draw(self.source.predict(follow(self.source, question.history)), rng)
        if answer is None:
            raise NoAnswer(f"the demonstrator has no answer after {len(question.history)} step(s)")
        return answer


def draw(prediction: Prediction, rng: np.random.Generator) -> int | None:
    """A symbol, with the probabilities of the prediction as they are; ``None`` with the probability that is missing.

    Missing mass up to 1e-9 is rounding: it goes to the last possible symbol. One number is taken from ``rng``, always.

    Kind: exact sampling. Cost: O(n_symbols).
    """
    probabilities = prediction.probabilities
    symbol = int(np.searchsorted(np.cumsum(probabilities), rng.random(), side="right"))
    if symbol < probabilities.size:
        return symbol
    return None if prediction.missing > TOLERANCE else int(np.flatnonzero(probabilities)[-1])
