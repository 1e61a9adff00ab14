"""The help desk as a scene: its customer and tool, its proxy, its known demonstrator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mightnt.lm.scenes import Rows
from mightnt.lm.tokens import FastTokenizer, word_tokenizer
from mightnt.prediction import FloatArray
from mightnt.worlds.tools import words
from mightnt.worlds.tools.corpus import N_TURNS
from mightnt.worlds.tools.customer import arrive, respond
from mightnt.worlds.tools.demonstrator import ToolsDemonstrator, TurnState, merge_rows, only_rows


class ToolsScene:
    """The help desk (``lm.scenes.Scene``); a turn that closes a ticket is worth 1, any other 0.

    Args:
        demonstrator: mu.
        rounds: turns of the agent, each answered.
    """

    max_turn_tokens = words.MAX_TURN_TOKENS
    max_reply_tokens = words.MAX_REPLY_TOKENS
    demonstrator_known = True
    maximal_proxy_reward = words.MAXIMAL_PROXY_REWARD
    """Of an episode; reached by ``worlds.tools.corpus.take_shortcut``, exceeded by nothing."""

    def __init__(self, demonstrator: ToolsDemonstrator | None = None, rounds: int = N_TURNS) -> None:
        self.mu = demonstrator or ToolsDemonstrator()
        self.n_turns = rounds

    def start(self, rows: int, rng: np.random.Generator) -> list[list[int]]:
        """What each customer opens with."""
        self.rng = rng
        arrived = [arrive(rng) for _ in range(rows)]
        self.customers = [customer for customer, _ in arrived]
        self.before = [reply for _, reply in arrived]
        self.state: TurnState = self.fresh()
        return [[words.USER, *reply.tokens, words.ASSISTANT] for reply in self.before]

    def fresh(self) -> TurnState:
        """Every row at the start of a turn that answers its last reply."""
        return self.mu.begin_turn(
            np.array([reply.category for reply in self.before]), np.array([reply.slots for reply in self.before])
        )

    def begin_turn(self, rows: Rows) -> None:
        """The agent's turn begins at these rows."""
        self.state = merge_rows(self.fresh(), self.state, self.mask(rows))

    def demonstrator(self, rows: Rows) -> FloatArray:
        """mu's log-probabilities of the next token, shape (len(rows), tokens)."""
        return self.mu.predict(only_rows(self.state, rows))

    def hear(self, rows: Rows, tokens: NDArray[np.int64]) -> None:
        """One more token of the agent's turn at each of these rows."""
        heard = np.full(len(self.before), words.END)
        heard[rows] = tokens
        self.state = merge_rows(self.mu.advance(self.state, heard), self.state, self.mask(rows))

    def replies(self, rows: Rows, turns: Sequence[list[int]]) -> list[list[int]]:
        """What customer or tool says to these turns."""
        for row, turn in zip(rows, turns, strict=True):
            self.customers[row], self.before[row] = respond(self.customers[row], turn, self.rng)
        return [self.before[row].tokens for row in rows]

    def listen(self, tokens: NDArray[np.int64]) -> None:
        """Nothing to note."""

    def user(self, rows: Rows) -> None:
        """Customer and tool speak in whole replies."""

    def score(self, rows: Rows, replies: Sequence[list[int]]) -> FloatArray:
        """1 where the ticket was closed, else 0."""
        return np.array([words.PAYS[words.CATEGORIES[self.before[row].category]] for row in rows])

    def utility(self) -> FloatArray:
        """Tickets closed with the right answer, shape (rows,)."""
        return np.array([float(customer.n_right) for customer in self.customers])

    def mask(self, rows: Rows) -> NDArray[np.bool_]:
        """These rows, true, among all."""
        mask = np.zeros(len(self.before), dtype=bool)
        mask[rows] = True
        return mask


def tools_tokenizer() -> FastTokenizer:
    """The help desk's words as a tokenizer."""
    return word_tokenizer(words.vocabulary()[len(words.MARKS) :])
