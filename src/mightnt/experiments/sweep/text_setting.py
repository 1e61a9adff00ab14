"""Natural text as a setting: a language model taught by real chats is the demonstrator, as in ``experiments.text``.

The chats are kept in the folder of the sweep; cells name them by their fingerprint.
"""

from __future__ import annotations

from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from mightnt.audits.description import Units
from mightnt.dialogues import read_dialogues, write_dialogues
from mightnt.errors import InputError
from mightnt.experiments import text
from mightnt.experiments.parts import Part, Report
from mightnt.experiments.sweep.cells import Cell
from mightnt.experiments.sweep.chat_setting import BASES as BASES
from mightnt.experiments.sweep.playing import play

CHATS = "chats.jsonl"
"""The real chats, in the folder of the sweep."""
REWARDS = ("benign", "adversarial")


def kept_chats(folder: Path, chats: Path | None) -> str:
    """The fingerprint of the chats of this folder, where they are put if they are given; empty for none.

    Raises :class:`~mightnt.errors.InputError` for a file that holds no chats, and for others than those that are there.
    """
    place = folder / CHATS
    before = fingerprint(place) if place.exists() else ""
    if chats is None:
        return before
    beside = folder / f"new-{CHATS}"
    write_dialogues(beside, read_dialogues(chats))
    given = fingerprint(beside)
    if before and given != before:
        beside.unlink()
        raise InputError(f"{chats}: {folder} holds runs on other chats; choose another --out")
    beside.replace(place)
    return given


def fingerprint(path: Path) -> str:
    """Ten hexadecimal digits of a file's content."""
    return sha256(path.read_bytes()).hexdigest()[:10]


def text_config(folder: Path, cell: Cell) -> text.TextConfig:
    """The world and its imitators of this cell; the demonstrator is taught no longer than imitators are pre-trained."""
    made = {name: value for name, value in asdict(cell.imitation).items() if name != "shared"}
    usual = text.TextConfig("")
    return text.TextConfig(
        str(folder / CHATS),
        n_turns=usual.n_turns * cell.length,
        context=usual.context * cell.length,
        demonstrator_steps=min(usual.demonstrator_steps, cell.imitation.pretraining_steps),
        **made,
    )


def stages(folder: Path, place: Path, cell: Cell, seed: int) -> list[list[Part]]:
    """The parts of ``experiments.text``, in stages; nothing is read or written before the first is run."""
    n, config = cell.n_demonstrations, text_config(folder, cell)
    common, networks = (place, config, seed), range(config.n_networks)
    return [
        [Part("chats", keep, common)],
        [
            Part("demonstrator", text.teach, common),
            *(Part(f"pretrain-{i}", text.pretrain, (*common, i)) for i in networks),
        ],
        [Part(f"written-n{n}", text.write, (*common, n))],
        [Part(f"fit-n{n}-{i}", text.fit_one, (*common, n, i)) for i in networks],
        [Part(f"imitators-n{n}", text.gather, (*common, n))],
    ]


def updates(cell: Cell) -> tuple[int, ...]:
    """Updates of a network in each stage, about."""
    steps = text_config(Path(), cell).steps(cell.n_demonstrations)
    return 0, cell.imitation.pretraining_steps, cell.n_demonstrations // 20, steps, 0


def keep(place: Path, config: text.TextConfig, seed: int, report: Report) -> dict[str, Any]:
    """The chats in words, where the other parts look for them."""
    text.keep_chats(place, config, seed)
    return {}


def run(folder: Path, place: Path, cell: Cell, set_seed: int, seed: int, report: Report) -> dict[str, Any]:
    """One run."""
    from mightnt.lm.imitators import load_imitators

    imitators = load_imitators(place / f"imitators-{cell.n_demonstrations}")
    scene = text.scene(place, text_config(folder, cell), set_seed, cell.reward)
    vocabulary = sorted(word for word in imitators.tokenizer.get_vocab() if not word.startswith("<|"))
    return play(imitators, scene, cell, seed, report, Units(tuple(vocabulary)), None)
