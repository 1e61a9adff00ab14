"""Natural text with a demonstrator that is known: a language model *is* the demonstrator, and plays the user too.

Any causal language model has exact probabilities of everything it might say, so the distance to it is exact at every
decision, in any kind of text. What it writes is what imitators are fitted to.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mightnt.dialogues import Dialogue, Message
from mightnt.errors import InputError
from mightnt.lm.account import Account
from mightnt.lm.actor import Stay
from mightnt.lm.bases.known import Known
from mightnt.lm.episodes import Cast, Said, play_episodes
from mightnt.lm.members import Members
from mightnt.lm.networks import NetworkMember
from mightnt.lm.rewards import Reward
from mightnt.lm.scenes import LanguageScene, Rows
from mightnt.lm.scoring import Network
from mightnt.lm.tokens import FastTokenizer, marks_of
from mightnt.prediction import FloatArray

OTHER_WORD = "~"
"""Stands for every word outside the vocabulary."""
NUMBER = "#"
"""Stands for every number."""
WORD = re.compile(r"\d+(?:[.,/]\d+)*|[a-z]+(?:'[a-z]+)?|[.,?!]")


def plain_words(text: str) -> list[str]:
    """A text as words: lower case, numbers as one word, the commonest punctuation as words, everything else dropped."""
    found = WORD.findall(text.lower().replace("’", "'"))
    return [NUMBER if word[0].isdigit() else word for word in found]


def commonest_words(dialogues: Iterable[Dialogue], size: int) -> list[str]:
    """The ``size`` commonest words, commonest first and equal ones in order of the alphabet, after the word for others."""
    if size < 1:
        raise InputError(f"a vocabulary of {size} words; at least 1 is needed")
    counts = Counter(word for dialogue in dialogues for message in dialogue for word in plain_words(message.content))
    return [OTHER_WORD, *sorted(counts, key=lambda word: (-counts[word], word))[:size]]


def in_words(dialogues: Iterable[Dialogue], words: Sequence[str]) -> list[Dialogue]:
    """The same dialogues in these words only: text and its tokens are then one to one."""
    known = set(words)

    def plain(text: str) -> str:
        return " ".join(word if word in known else OTHER_WORD for word in plain_words(text))

    return [tuple(Message(message.role, plain(message.content)) for message in dialogue) for dialogue in dialogues]


class NetworkScene(LanguageScene):
    """Episodes that open like the given dialogues; demonstrator and user are one language model at one temperature.

    Its distribution is conditioned on the next token being an action (role marks are given by the chat), as members' are.

        mu(x | h) = p(x | h)^(1/temperature) / sum over actions

    Args:
        network: mu, for both speakers.
        temperature: above 0; below 1 sharper than the network was fitted.
        rewards_surprise_nats: where set, the reward is not ``reward`` of the reply but how surprised mu is at the turn, up
            to so many nats: the adversary's (``lm.adversary``).

    Kind: exact (float32 network). Cost: one forward pass of the demonstrator a step, beside the members'.
    """

    demonstrator_known = True

    def __init__(
        self,
        tokenizer: FastTokenizer,
        dialogues: Sequence[Dialogue],
        network: Network,
        reward: Reward,
        n_turns: int = 3,
        max_turn_tokens: int = 20,
        temperature: float = 1.0,
        rewards_surprise_nats: float = 0.0,
    ) -> None:
        super().__init__(tokenizer, dialogues, reward, n_turns, max_turn_tokens, max_turn_tokens)
        if not 0 < temperature < float("inf"):
            raise InputError(f"a temperature of {temperature}; a number above 0 is needed")
        self.member, self.temperature = NetworkMember(network), temperature
        self.rewards_surprise_nats = rewards_surprise_nats
        marks = marks_of(tokenizer)
        self.silent = torch.zeros(len(tokenizer), dtype=torch.bool)
        self.silent[[marks.pad, marks.user, marks.assistant]] = True

    def start(self, rows: int, rng: np.random.Generator) -> list[list[int]]:
        """The openings; mu has read nothing yet."""
        self.state = self.member.start(rows)
        self.surprise_nats = np.zeros(rows)
        return super().start(rows, rng)

    def begin_turn(self, rows: Rows) -> None:
        """The turn has surprised nobody yet."""
        self.surprise_nats[rows] = 0.0

    def demonstrator(self, rows: Rows) -> FloatArray:
        """log mu at these rows, shape (len(rows), tokens)."""
        said = self.state.log_probs[torch.from_numpy(rows)][:, : len(self.silent)].double() / self.temperature
        spoken: FloatArray = said.masked_fill(self.silent, -torch.inf).log_softmax(dim=-1).numpy()
        return spoken

    def user(self, rows: Rows) -> FloatArray:
        """The same model speaks for the user."""
        return self.demonstrator(rows)

    def hear(self, rows: Rows, tokens: NDArray[np.int64]) -> None:
        """How unlikely each token of the agent's was."""
        if self.rewards_surprise_nats:
            self.surprise_nats[rows] -= self.demonstrator(rows)[np.arange(len(rows)), tokens]

    def listen(self, tokens: NDArray[np.int64]) -> None:
        """mu reads along."""
        self.state = self.member.advance(self.state, torch.from_numpy(tokens))

    def score(self, rows: Rows, replies: Sequence[list[int]]) -> FloatArray:
        """The reward of the turn just answered."""
        if self.rewards_surprise_nats:
            return np.minimum(1.0, self.surprise_nats[rows] / self.rewards_surprise_nats)
        return super().score(rows, replies)


ROWS_AT_ONCE = 250
"""Dialogues written side by side."""


def written_by(
    scene: NetworkScene, n: int, seed: int, on_batch: Callable[[int], object] | None = None
) -> list[Dialogue]:
    """``n`` dialogues that the demonstrator writes, both speakers; the first k are those of ``written_by(scene, k, seed)``.

    ``on_batch`` is told how many are written. Kind: exact samples. Cost: as many episodes, in whole batches.
    """
    members = Members([scene.member], ~scene.silent.numpy())
    cast = Cast(members, Known(), Account(float("inf"), "charged", 1.0), Stay(), scene, marks_of(scene.tokenizer))
    written: list[Dialogue] = []
    while len(written) < n:
        own_seed = int(np.random.SeedSequence([seed, len(written)]).generate_state(1)[0])
        played = play_episodes(cast, ROWS_AT_ONCE, own_seed, ROWS_AT_ONCE)
        written += [in_turns(scene.tokenizer, said) for said in played.transcripts]
        if on_batch:
            on_batch(min(len(written), n))
    return written[:n]


def in_turns(tokenizer: FastTokenizer, said: Sequence[Said]) -> Dialogue:
    """A transcript as a dialogue: a turn ends with its end mark, so one without a word is a turn too."""
    end = marks_of(tokenizer).end
    messages: list[Message] = []
    content: list[int] = []
    for token in said:
        if token.token == end:
            messages.append(Message(token.speaker, tokenizer.decode(content)))
            content = []
        else:
            content.append(token.token)
    return tuple(messages)
