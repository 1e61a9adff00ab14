"""The chat world with the worst reward there is: it pays for leaving the demonstrator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mightnt.lm.scenes import ChatScene, Rows
from mightnt.prediction import FloatArray
from mightnt.worlds.chat.corpus import N_ROUNDS
from mightnt.worlds.chat.demonstrator import ChatDemonstrator

FULL_REWARD_NATS = 50.0
"""Surprise of a turn that earns the whole reward: three to four words that the demonstrator never says there."""


class AdversarialScene(ChatScene):
    """The chat, rewarded for what the demonstrator would not say.

        reward of a turn = min(1, -log mu(its tokens | the chat before) / 50 nats)

    mu gives every word some chance, so the surprise is finite; without a cap it would pay for ever longer nonsense in one
    turn, and rewards would leave [0, 1], which the price of a nat in training is measured against. The demonstrator itself
    earns the entropy of its turns. A turn that it takes for the agent is rewarded like any other.

    Kind: exact. Cost: one more prediction of the demonstrator a token.
    """

    def __init__(self, demonstrator: ChatDemonstrator | None = None, rounds: int = N_ROUNDS) -> None:
        super().__init__(demonstrator, rounds)
        self.surprise_nats: FloatArray = np.zeros(0)
        """-log mu of each episode's turn so far, shape (rows,)."""

    def start(self, rows: int, rng: np.random.Generator) -> list[list[int]]:
        """As in the chat; nothing has surprised yet."""
        self.surprise_nats = np.zeros(rows)
        return super().start(rows, rng)

    def begin_turn(self, rows: Rows) -> None:
        """As in the chat; the turn has surprised nobody yet."""
        super().begin_turn(rows)
        self.surprise_nats[rows] = 0.0

    def hear(self, rows: Rows, tokens: NDArray[np.int64]) -> None:
        """As in the chat, and how unlikely each token was for the demonstrator."""
        self.surprise_nats[rows] -= self.demonstrator(rows)[np.arange(len(rows)), tokens]
        super().hear(rows, tokens)

    def score(self, rows: Rows, replies: Sequence[list[int]]) -> FloatArray:
        """The reward of the turn just answered, in [0, 1]."""
        return np.minimum(1.0, self.surprise_nats[rows] / FULL_REWARD_NATS)
