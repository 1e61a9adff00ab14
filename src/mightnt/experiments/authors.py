"""Whose dialogues imitators learn from: in each made-up world other authors first, then its demonstrator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mightnt.dialogues import Dialogue
from mightnt.worlds.chat import corpus as chat_corpus
from mightnt.worlds.tools import corpus as tools_corpus


@dataclass(frozen=True)
class Authors:
    """Everybody who writes in a world, and how its imitators are fitted to the demonstrator."""

    tokenizer: Callable[[], Any]
    """Of the world's words."""
    rounds: int
    """Turns of the assistant in a dialogue of the usual length."""
    others: Callable[[int, int, int], list[Dialogue]]
    """``(n, seed, rounds) -> n`` dialogues of other authors."""
    demonstrations: Callable[[int, int, int], list[Dialogue]]
    """``(n, seed, rounds) -> n`` dialogues of the demonstrator."""
    others_share: float = 0.0
    """Of the dialogues that a network is fitted to: how sure it can be, at most, that the demonstrator writes. The first of those
    it was pre-trained on."""
    fitting: dict[str, Any] = field(default_factory=dict)
    """What fitting differs in from ``lm.fitting.FitConfig``."""

    def to_fit(self, fitted: list[Dialogue], seed: int, rounds: int) -> list[Dialogue]:
        """Demonstrations, and so many by other authors that these are ``others_share`` of all."""
        others = round(len(fitted) * self.others_share / (1 - self.others_share))
        return fitted + (self.others(others, seed, rounds) if others else [])


def chat_tokenizer() -> Any:
    """The chat world's words as a tokenizer."""
    from mightnt.lm.tokens import word_tokenizer
    from mightnt.worlds.chat import words

    return word_tokenizer(words.vocabulary()[len(words.MARKS) :])


def chat_demonstrations(n: int, seed: int, rounds: int) -> list[Dialogue]:
    """The teacher's chats."""
    return chat_corpus.demonstrations(n, seed, rounds=rounds)


def tools_tokenizer() -> Any:
    """The help desk's words as a tokenizer."""
    from mightnt.lm import tools_scene

    return tools_scene.tools_tokenizer()


def tools_demonstrations(n: int, seed: int, rounds: int) -> list[Dialogue]:
    """The help desk's dialogues."""
    return tools_corpus.demonstrations(n, seed, rounds=rounds)


CHAT = "chat"
AUTHORS = {
    CHAT: Authors(chat_tokenizer, chat_corpus.N_ROUNDS, chat_corpus.other_authors, chat_demonstrations),
    "tools": Authors(
        tools_tokenizer,
        tools_corpus.N_TURNS,
        tools_corpus.other_authors,
        tools_demonstrations,
        others_share=0.05,
        fitting={"learning_rate": 1e-3},
    ),
}
"""By the name of the world.

A network that is fitted to one author alone forgets that there are others, which is no inference: a Bayesian keeps them as
likely as they were. In the chat enough of them is left; at the help desk nothing is, so some of them are read on.
"""
