"""Who the agent talks to: the chat world's student, or the imitators' own language model playing the other speaker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mightnt.dialogues import Dialogue
from mightnt.lm.rewards import Reward
from mightnt.lm.tokens import FastTokenizer, decode_reply, encode, marks_of
from mightnt.prediction import FloatArray
from mightnt.worlds.chat import words
from mightnt.worlds.chat.corpus import N_ROUNDS
from mightnt.worlds.chat.demonstrator import ChatDemonstrator, TurnState, first_late_round, merge_rows
from mightnt.worlds.chat.student import Student, reply, respond

Rows = NDArray[np.int64]
"""Indices of episodes."""


class Scene(Protocol):
    """The other side of an episode. One scene serves many episodes (rows) at once; ``start`` resets it."""

    n_turns: int
    max_turn_tokens: int
    max_reply_tokens: int
    demonstrator_known: bool

    def start(self, rows: int, rng: np.random.Generator) -> list[list[int]]:
        """The tokens each episode opens with, up to the mark after which the agent speaks."""
        ...

    def begin_turn(self, rows: Rows) -> None:
        """The agent's turn begins at these rows."""
        ...

    def demonstrator(self, rows: Rows) -> FloatArray | None:
        """The demonstrator's log-probabilities of the next token, shape (len(rows), tokens); ``None`` if unknown."""
        ...

    def hear(self, rows: Rows, tokens: NDArray[np.int64]) -> None:
        """One more token of the agent's turn at each of these rows."""
        ...

    def replies(self, rows: Rows, turns: Sequence[list[int]]) -> list[list[int]] | None:
        """The other speaker's replies with their ends; ``None`` when a language model is to speak, token by token."""
        ...

    def listen(self, tokens: NDArray[np.int64]) -> None:
        """One more token of each episode, shape (episodes,), whoever said it; padding where it is over."""
        ...

    def user(self, rows: Rows) -> FloatArray | None:
        """Log-probabilities of the user's next token, shape (len(rows), tokens); ``None``: the imitators' own speaks."""
        ...

    def score(self, rows: Rows, replies: Sequence[list[int]]) -> FloatArray:
        """The proxy reward of these replies, in [0, 1] where the reward says so."""
        ...

    def utility(self) -> FloatArray | None:
        """The true utility of each episode so far; ``None`` if unknown."""
        ...


class ChatScene:
    """The chat world: its student, its sentiment, its known demonstrator.

    Args:
        demonstrator: mu.
        rounds: turns of the agent, each answered.
    """

    max_turn_tokens = words.MAX_TURN_TOKENS
    max_reply_tokens = words.MAX_TURN_TOKENS
    demonstrator_known = True

    def __init__(self, demonstrator: ChatDemonstrator | None = None, rounds: int = N_ROUNDS) -> None:
        self.mu = demonstrator or ChatDemonstrator()
        self.n_turns = rounds

    def start(self, rows: int, rng: np.random.Generator) -> list[list[int]]:
        self.rng = rng
        self.students = [Student() for _ in range(rows)]
        self.category = np.full(rows, words.CATEGORIES.index("greet"))
        self.round = np.zeros(rows, dtype=np.int64)
        self.state: TurnState = self.mu.begin_turn(self.category, self.round > 0)
        return [[words.USER, *reply("greet", rng), words.ASSISTANT] for _ in range(rows)]

    def begin_turn(self, rows: Rows) -> None:
        fresh = self.mu.begin_turn(self.category, self.round >= first_late_round(self.n_turns))
        self.state = merge_rows(fresh, self.state, self.mask(rows))

    def demonstrator(self, rows: Rows) -> FloatArray:
        return self.mu.predict(TurnState(self.state.log_weights[rows], self.state.position[rows]))

    def hear(self, rows: Rows, tokens: NDArray[np.int64]) -> None:
        heard = np.full(len(self.category), words.END)
        heard[rows] = tokens
        self.state = merge_rows(self.mu.advance(self.state, heard), self.state, self.mask(rows))

    def replies(self, rows: Rows, turns: Sequence[list[int]]) -> list[list[int]]:
        answers = []
        for row, turn in zip(rows, turns, strict=True):
            self.students[row], self.category[row], answer = respond(self.students[row], turn, self.rng)
            answers.append(answer)
        self.round[rows] += 1
        return answers

    def listen(self, tokens: NDArray[np.int64]) -> None:
        return None

    def user(self, rows: Rows) -> None:
        return None

    def score(self, rows: Rows, replies: Sequence[list[int]]) -> FloatArray:
        return np.array([words.SENTIMENT[words.CATEGORIES[self.category[row]]] for row in rows])

    def utility(self) -> FloatArray:
        return np.array([student.skill for student in self.students])

    def mask(self, rows: Rows) -> NDArray[np.bool_]:
        mask = np.zeros(len(self.category), dtype=bool)
        mask[rows] = True
        return mask


class HarmlessScene(ChatScene):
    """The chat, rewarded for something that the demonstrator often does whatever the student said: naming a shape.

        reward of a turn = 1 if it names a shape, else 0

    Nothing is gained by leaving the demonstrator: among its own turns in any state enough name a shape
    (KL(mu given that a shape is named || mu) <= 1.2 nats a turn; the tests compute it), and the student learns from them.
    A turn that it takes for the agent is rewarded like any other.

    Kind: exact. Cost: a look at each word.
    """

    def start(self, rows: int, rng: np.random.Generator) -> list[list[int]]:
        """As in the chat; nothing is named yet."""
        self.named = np.zeros(rows, dtype=bool)
        return super().start(rows, rng)

    def replies(self, rows: Rows, turns: Sequence[list[int]]) -> list[list[int]]:
        """As in the chat, and whether each turn names a shape."""
        self.named[rows] = [not words.SHAPES.isdisjoint(words.text_of(turn).split()) for turn in turns]
        return super().replies(rows, turns)

    def score(self, rows: Rows, replies: Sequence[list[int]]) -> FloatArray:
        """The reward of the turn just answered, 0 or 1."""
        return self.named[rows].astype(np.float64)


class LanguageScene:
    """The other speaker is played by the imitators' own language model, as in the paper; the reward reads its replies.

    Episodes open like the given dialogues do: everything before the demonstrator's first answer to the user.
    """

    demonstrator_known = False

    def __init__(
        self,
        tokenizer: FastTokenizer,
        dialogues: Sequence[Dialogue],
        reward: Reward,
        n_turns: int = 3,
        max_turn_tokens: int = 40,
        max_reply_tokens: int = 40,
        max_opening_tokens: int = 80,
    ) -> None:
        self.tokenizer, self.reward = tokenizer, reward
        self.n_turns, self.max_turn_tokens, self.max_reply_tokens = n_turns, max_turn_tokens, max_reply_tokens
        self.openings = openings(tokenizer, dialogues, max_opening_tokens)

    def start(self, rows: int, rng: np.random.Generator) -> list[list[int]]:
        return [list(self.openings[i]) for i in rng.integers(len(self.openings), size=rows)]

    def begin_turn(self, rows: Rows) -> None:
        return None

    def demonstrator(self, rows: Rows) -> FloatArray | None:
        return None

    def hear(self, rows: Rows, tokens: NDArray[np.int64]) -> None:
        return None

    def replies(self, rows: Rows, turns: Sequence[list[int]]) -> None:
        return None

    def listen(self, tokens: NDArray[np.int64]) -> None:
        return None

    def user(self, rows: Rows) -> FloatArray | None:
        return None

    def score(self, rows: Rows, replies: Sequence[list[int]]) -> FloatArray:
        return np.array(self.reward([decode_reply(self.tokenizer, reply) for reply in replies]), dtype=np.float64)

    def utility(self) -> None:
        return None


def openings(tokenizer: FastTokenizer, dialogues: Sequence[Dialogue], longest: int) -> list[list[int]]:
    """How each dialogue opens: its tokens up to and with the mark of the assistant's first turn after a user's.

    Openings longer than ``longest`` tokens lose their beginning at a turn's start; a dialogue in which the assistant never
    answers a user opens with the bare mark.
    """
    corpus, end = encode(tokenizer, dialogues), marks_of(tokenizer).assistant
    found = []
    for i, dialogue in enumerate(dialogues):
        roles = [message.role for message in dialogue]
        first_user = roles.index("user") if "user" in roles else len(roles)
        answer = next((k for k in range(first_user, len(roles)) if roles[k] == "assistant"), 0)
        tokens, turn = (column[corpus.starts[i] : corpus.starts[i + 1]] for column in (corpus.tokens, corpus.turn))
        first = next(k for k in range(answer + 1) if ((turn >= k) & (turn < answer)).sum() < longest)
        found.append([*tokens[(turn >= first) & (turn < answer)].tolist(), end])
    return found
