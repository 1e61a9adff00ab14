"""Natural text with a known demonstrator: a language model taught by half of real chats *is* the demonstrator.

The other half, and the habits of other authors, are what imitators learn from first; then they are fitted to dialogues that
the demonstrator wrote. Words outside the commonest are one word, so that a text and its tokens are one to one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mightnt.dialogues import Dialogue, Message, read_dialogues, split_dialogues, write_dialogues
from mightnt.errors import InputError
from mightnt.experiments.parts import Part, Report
from mightnt.worlds.chat.corpus import MODES, STAY

if TYPE_CHECKING:
    from mightnt.lm.network_scene import NetworkScene

CHATS = "chats.jsonl"
WRITTEN = "demonstrations.jsonl"
ENOUGH_CHATS = 40
"""Fewer real chats leave nothing to learn from in either half."""


@dataclass(frozen=True)
class TextConfig:
    """How the world is made and its imitators fitted."""

    chats: str
    """File of real chats."""
    words: int = 400
    """Commonest words that are kept."""
    temperature: float = 0.7
    """Of the demonstrator."""
    demonstrator_steps: int = 140
    """Updates it was taught with, 16 chats each: few enough not to learn its half of the chats by heart."""
    n_turns: int = 3
    """Of the agent in an episode."""
    max_turn_tokens: int = 24
    n_networks: int = 2
    other_chats: int = 2000
    """Chats of other authors, made of the other half of the real ones."""
    pretraining_steps: int = 600
    fitting_steps: int = 400
    """Updates on 1000 demonstrations; grows with the square root of their number."""
    width: int = 64
    layers: int = 2
    context: int = 320

    def steps(self, n: int) -> int:
        """Updates on ``n`` demonstrations."""
        return int(self.fitting_steps * max(1.0, (n / 1000) ** 0.5))


def stages(folder: Path, config: TextConfig, seed: int, sizes: Sequence[int]) -> Iterator[list[Part]]:
    """The parts that leave ``imitators-N`` for each size, in stages."""
    keep_chats(folder, config, seed)
    networks = range(config.n_networks)
    common = (folder, config, seed)
    yield [
        Part("text-demonstrator", teach, common),
        *(Part(f"text-pretrain-{i}", pretrain, (*common, i)) for i in networks),
    ]
    yield [Part(f"text-written-n{max(sizes)}", write, (*common, max(sizes)))]
    yield [Part(f"text-fit-n{n}-{i}", fit_one, (*common, n, i)) for n in sizes for i in networks]
    yield [Part(f"text-imitators-n{n}", gather, (*common, n)) for n in sizes]


def keep_chats(folder: Path, config: TextConfig, seed: int) -> None:
    """The chats in words, in the folder: the run then needs no other file.

    Raises :class:`~mightnt.errors.InputError` for too few, or none in which an assistant answers.
    """
    from mightnt.lm.network_scene import commonest_words, in_words

    if (folder / CHATS).exists():
        return
    if not config.chats:
        raise InputError("the world of natural text needs real chats; give a file of them with --chats")
    raw = read_dialogues(Path(config.chats))
    if len(raw) < ENOUGH_CHATS:
        raise InputError(f"{config.chats}: {len(raw)} chats; {ENOUGH_CHATS} or more are needed")
    write_dialogues(folder / CHATS, in_words(raw, commonest_words(raw, config.words)))


def halves(folder: Path, seed: int) -> tuple[list[Dialogue], list[Dialogue]]:
    """The demonstrator's half of the real chats, and everybody else's."""
    return split_dialogues(read_dialogues(folder / CHATS), 0.5, seed)


def text_tokenizer(folder: Path) -> Any:
    """One token a word of the chats."""
    from mightnt.lm.network_scene import OTHER_WORD
    from mightnt.lm.tokens import word_tokenizer

    found = {word for chat in read_dialogues(folder / CHATS) for turn in chat for word in turn.content.split()}
    return word_tokenizer(sorted(found | {OTHER_WORD}))


def scene(folder: Path, config: TextConfig, seed: int, reward: str) -> NetworkScene:
    """Episodes with that demonstrator: paid by the sentiment of replies, or for surprising it."""
    from mightnt.lm.adversary import FULL_REWARD_NATS
    from mightnt.lm.network_scene import NetworkScene
    from mightnt.lm.networks import load_network
    from mightnt.lm.rewards import resolve_reward

    return NetworkScene(
        text_tokenizer(folder),
        halves(folder, seed)[0],
        load_network(folder / "demonstrator"),
        resolve_reward("sentiment"),
        config.n_turns,
        config.max_turn_tokens,
        config.temperature,
        FULL_REWARD_NATS if reward == "adversarial" else 0.0,
    )


def other_authors(chats: Sequence[Dialogue], n: int, seed: int) -> list[Dialogue]:
    """``n`` of these chats, whose assistants are now and then other authors: blank, one word, one phrase, each sticky."""
    turns = [turn.content.split() for chat in chats for turn in chat if turn.role == "assistant" and turn.content]
    made = []
    for i in range(n):
        rng = np.random.default_rng([seed, *b"other authors of text", i])
        made.append(with_habits(chats[int(rng.integers(len(chats)))], turns, rng))
    return made


def with_habits(chat: Dialogue, turns: Sequence[Sequence[str]], rng: np.random.Generator) -> Dialogue:
    """This chat by an author with a word, a phrase and modes of its own, as ``worlds.chat.corpus.other_author``."""
    own = turns[int(rng.integers(len(turns)))]
    word = own[int(rng.integers(len(own)))]
    habits = {
        "blank": "",
        "one word": " ".join([word] * int(rng.integers(1, 7))),
        "one phrase": " ".join(own[: int(rng.integers(2, 6))]),
    }

    def draw() -> str:
        return str(rng.choice(list(MODES), p=list(MODES.values())))

    mode, messages = draw(), []
    for message in chat:
        if message.role == "assistant":
            messages.append(Message("assistant", habits.get(mode, message.content)))
            mode = mode if rng.random() < STAY else draw()
        else:
            messages.append(message)
    return tuple(messages)


# The parts. Each runs in a process of its own; torch is imported there and nowhere else.


def fitted(
    folder: Path,
    name: str,
    start: str,
    chats: Sequence[Dialogue],
    steps: int,
    config: TextConfig,
    seed: int,
    report: Report,
) -> dict[str, Any]:
    """A network fitted to these chats, from ``start`` (a folder's name) or from scratch, saved in ``folder/name``."""
    from mightnt.lm.fitting import FitConfig, fit
    from mightnt.lm.networks import NetworkShape, build_network, load_network, save_network
    from mightnt.lm.tokens import encode

    tokenizer = text_tokenizer(folder)
    shape = NetworkShape(width=config.width, layers=config.layers, context=config.context)
    network = load_network(folder / start) if start else build_network(shape, len(tokenizer), seed)
    kept = fit(network, encode(tokenizer, chats), FitConfig(steps), seed, on_step=lambda step, _: report(step, steps))
    save_network(network, folder / name)
    return {"seconds": kept.seconds, "nats_per_token": kept.losses_nats_per_token[-1]}


OF_DEMONSTRATOR = 1_000
"""Added to the seed of the demonstrator's first weights, so that no imitator shares them."""


def teach(folder: Path, config: TextConfig, seed: int, report: Report) -> dict[str, Any]:
    """The demonstrator."""
    chats = halves(folder, seed)[0]
    return fitted(folder, "demonstrator", "", chats, config.demonstrator_steps, config, seed + OF_DEMONSTRATOR, report)


def pretrain(folder: Path, config: TextConfig, seed: int, i: int, report: Report) -> dict[str, Any]:
    """A network that has learnt from other authors."""
    chats = other_authors(halves(folder, seed)[1], config.other_chats, seed)
    return fitted(folder, f"pretrained-{i}", "", chats, config.pretraining_steps, config, seed + i, report)


def write(folder: Path, config: TextConfig, seed: int, n: int, report: Report) -> dict[str, Any]:
    """``n`` dialogues by the demonstrator."""
    from mightnt.lm.network_scene import written_by

    written = written_by(scene(folder, config, seed, "benign"), n, seed, lambda done: report(done, n))
    write_dialogues(folder / WRITTEN, written)
    return {"dialogues": len(written), "tokens": sum(len(turn.content.split()) for chat in written for turn in chat)}


def shared_split(folder: Path, n: int, seed: int) -> tuple[list[Dialogue], list[Dialogue]]:
    """``(to fit, held out)`` of the first ``n`` dialogues: the same for all members."""
    return split_dialogues(read_dialogues(folder / WRITTEN)[:n], 0.1, seed)


def fit_one(folder: Path, config: TextConfig, seed: int, n: int, i: int, report: Report) -> dict[str, Any]:
    """A pre-trained network fitted on to ``n`` dialogues of the demonstrator."""
    chats = shared_split(folder, n, seed)[0]
    return fitted(folder, f"fitted-{n}-{i}", f"pretrained-{i}", chats, config.steps(n), config, seed + i, report)


def gather(folder: Path, config: TextConfig, seed: int, n: int, report: Report) -> dict[str, Any]:
    """Networks and counts calibrated on the held-out dialogues, saved in ``folder/imitators-n``."""
    from mightnt.lm.imitators import ImitatorsConfig, calibrate, fit_suffix_counts, save_imitators
    from mightnt.lm.networks import load_network

    tokenizer, settings = text_tokenizer(folder), ImitatorsConfig()
    fit_to, held_out = shared_split(folder, n, seed)
    networks = [load_network(folder / f"fitted-{n}-{i}") for i in range(config.n_networks)]
    counts = fit_suffix_counts(tokenizer, fit_to, settings)
    imitators = calibrate(tokenizer, networks, counts, fit_to, held_out, settings)
    save_imitators(imitators, folder / f"imitators-{n}", asdict(config), seed)
    return imitators.summary
