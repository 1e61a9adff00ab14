"""Where each episode stands: who speaks, what is given, when a turn ends and is answered.

Rows do not wait for each other: at a step one row may hear its opening, another choose a word, a third be answered. So there
is no padding inside a dialogue, and one forward pass a step serves all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mightnt.errors import InputError
from mightnt.lm.scenes import Scene
from mightnt.lm.tokens import Marks

IntArray = NDArray[np.int64]


class Stage:
    """Where each row stands: who speaks, what is still to be said for it, how long the turn is. Moves by its methods."""

    def __init__(self, scene: Scene, marks: Marks, rows: int, rng: np.random.Generator) -> None:
        self.scene, self.marks, self.rng = scene, marks, rng
        self.given: list[list[int]] = scene.start(rows, rng)
        """Tokens each row has yet to hear, in order."""
        self.turn: list[list[int]] = [[] for _ in range(rows)]
        """Tokens of the turn in progress."""
        self.agent_speaks = np.ones(rows, dtype=bool)
        """Who speaks once nothing is given: the agent, or the language model as the user."""
        self.answered = np.zeros(rows, dtype=bool)
        """The demonstrator is taking this turn."""
        self.done = np.zeros(rows, dtype=bool)
        self.n_turns = np.zeros(rows, dtype=np.int64)
        self.reward = np.zeros(rows)
        self.fresh_reward = np.zeros(rows)
        """Reward since the last look."""

    def acting(self) -> IntArray:
        """Rows where somebody must choose the agent's next token."""
        return self.free(self.agent_speaks)

    def replying(self) -> IntArray:
        """Rows where the language model must choose the user's next token."""
        return self.free(~self.agent_speaks)

    def free(self, who: NDArray[np.bool_]) -> IntArray:
        return np.array([r for r in np.flatnonzero(who & ~self.done) if not self.given[r]], dtype=np.int64)

    def hear_given(self, tokens: IntArray) -> None:
        """Take one given token at every row that has one."""
        for row, queue in enumerate(self.given):
            if queue:
                tokens[row] = queue.pop(0)

    def speak(self, rows: IntArray, tokens: IntArray) -> None:
        """The agent (or the demonstrator for it) said these tokens; ended turns are answered."""
        if not len(rows):
            return
        self.scene.hear(rows, tokens)
        ended, cut = self.extend(rows, tokens, self.scene.max_turn_tokens)
        if not len(ended):
            return
        self.n_turns[ended] += 1
        self.answered[ended] = False
        replies = self.scene.replies(ended, [self.turn[r] for r in ended])
        for i, row in enumerate(ended):
            self.turn[row] = []
            self.given[row] = [self.marks.end] * cut[i] + [self.marks.user]
            self.agent_speaks[row] = replies is not None
            if replies is not None:
                self.given[row] += replies[i]
        if replies is not None:
            self.settle(ended, replies)

    def reply(self, rows: IntArray, tokens: IntArray) -> None:
        """The language model said these tokens as the user."""
        if not len(rows):
            return
        ended, cut = self.extend(rows, tokens, self.scene.max_reply_tokens)
        if not len(ended):
            return
        replies = [self.turn[r] for r in ended]
        for i, row in enumerate(ended):
            self.turn[row] = []
            self.given[row] = [self.marks.end] * cut[i]
            self.agent_speaks[row] = True
        self.settle(ended, replies)

    def extend(self, rows: IntArray, tokens: IntArray, limit: int) -> tuple[IntArray, list[int]]:
        """Append; return the rows whose turn ended, and whether (1 or 0) the length limit cut it off."""
        ended, cut = [], []
        for row, token in zip(rows, tokens, strict=True):
            self.turn[row].append(int(token))
            if token == self.marks.end or len(self.turn[row]) >= limit:
                ended.append(row)
                cut.append(int(token != self.marks.end))
        return np.array(ended, dtype=np.int64), cut

    def settle(self, rows: IntArray, replies: list[list[int]]) -> None:
        """Replies are complete: score them, and begin the next turn or end the episode.

        Errors: :class:`~mightnt.errors.InputError` for a reward that is not in [0, 1].
        """
        score = self.scene.score(rows, replies)
        bad = score[~((score >= 0) & (score <= 1))]
        if len(bad):
            raise InputError(f"a turn was rewarded with {bad[0]:g}; a number in [0, 1] is needed: rescale the reward")
        reward = score / self.scene.n_turns
        self.reward[rows] += reward
        self.fresh_reward[rows] += reward
        over = self.n_turns[rows] >= self.scene.n_turns
        self.done[rows[over]] = True
        going = rows[~over]
        for row in going:
            self.given[row].append(self.marks.assistant)
        if len(going):
            self.scene.begin_turn(going)
