"""The chat as a setting: the imitators of ``experiments.chat``, its student, its known demonstrator."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from mightnt.audits.description import Units
from mightnt.experiments import chat
from mightnt.experiments.authors import AUTHORS
from mightnt.experiments.parts import Part, Report
from mightnt.experiments.sweep.cells import Cell
from mightnt.experiments.sweep.playing import play
from mightnt.worlds.chat import words
from mightnt.worlds.chat.kinds import shares_by_kind

REWARDS = chat.REWARDS
BASES = (
    "none",
    "single",
    "mixture",
    "mixture-fixed",
    "pessimistic",
    "pessimistic-minimum",
    "situations",
    "counts",
    "known",
)
"""Those of ``lm.imitators``, which would load torch; a test compares."""


def profile(cell: Cell) -> chat.ChatProfile:
    """The imitators of this cell, as ``experiments.chat`` makes them, from the authors of its setting."""
    made = {name: value for name, value in asdict(cell.imitation).items() if name != "shared"}
    rounds = AUTHORS[cell.setting].rounds * cell.length
    return chat.ChatProfile("sweep", (cell.n_demonstrations,), rounds=rounds, world=cell.setting, **made)


def stages(folder: Path, place: Path, cell: Cell, seed: int) -> list[list[Part]]:
    """Networks pre-trained, then fitted to the demonstrations, then all calibrated: the first stages of ``experiments.chat``."""
    return list(islice(chat.stages(place, profile(cell), seed), 3))


def updates(cell: Cell) -> tuple[int, ...]:
    """Updates of a network in each stage."""
    return cell.imitation.pretraining_steps, chat.fitting_steps(profile(cell), cell.n_demonstrations), 0


def run(folder: Path, place: Path, cell: Cell, set_seed: int, seed: int, report: Report) -> dict[str, Any]:
    """One run."""
    from mightnt.lm.imitators import load_imitators

    imitators = load_imitators(place / f"imitators-{cell.n_demonstrations}")
    scene = chat.scene_for(cell.reward, profile(cell).rounds)
    units = Units(words.vocabulary()[len(words.MARKS) :])
    return play(imitators, scene, cell, seed, report, units, shares_by_kind)
