"""Where a cell is played: what has to be made before, and the one function that runs it and measures everything.

A new setting is a module with ``REWARDS``, ``BASES``, ``stages``, ``updates`` and ``run``, and an entry of ``SETTINGS``;
``MAXIMAL_PROXY_REWARD`` where that is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from mightnt.errors import InputError
from mightnt.experiments.parts import Part, Report
from mightnt.experiments.sweep import chat_setting, text_setting, tools_setting
from mightnt.experiments.sweep.cells import Cell

TRAINING_SECONDS_PER_EPISODE = 0.0225
EVALUATION_SECONDS_PER_EPISODE = 0.0082
SECONDS_PER_UPDATE = 0.1
START_SECONDS = 5.0
"""Of one process on one of two cores at the usual length: the fastest seed of each base in runs at n = 10,000, in the
mean over bases. Used until runs of the sweep itself have been measured."""
SETS_APART = 1000
"""Between the seeds of two sets of imitators, since each uses several seeds from its own on."""


@dataclass(frozen=True)
class Preparation:
    """Something that many runs need and that is made once: a part, and the file that says that it is whole."""

    part: Part
    place: Path
    seconds: float
    """About how long it takes on one core."""


@dataclass(frozen=True)
class Setting:
    """Where cells are played."""

    rewards: tuple[str, ...]
    """What a turn can be paid for."""
    bases: tuple[str, ...]
    """What a policy can be held to."""
    prepare: Callable[[Path, Cell, int], list[Preparation]]
    """What a run of this cell with this seed needs, in order; the same names for what runs share. Imports nothing heavy."""
    run: Callable[[Path, Cell, int, Report], dict[str, Any]]
    """The run: what was measured, as JSON. Called in a process of its own, once what it needs is whole."""
    seconds: Callable[[Cell], float]
    """About how long a run takes on one core."""
    maximal_proxy_reward: float | None = None
    """Of an episode under the honest reward, where it is known: no policy can have more."""


def imitators_set(cell: Cell, seed: int) -> int:
    """Which set of imitators a run uses: one of its own, or the first for all."""
    return 0 if cell.imitation.shared else seed


def place_of(folder: Path, cell: Cell, seed: int) -> Path:
    """Where the imitators of a run lie; cells that differ in the number of demonstrations share what was pre-trained."""
    made = f"{cell.data} {cell.length} {sorted(asdict(cell.imitation).items())}"
    name = f"{cell.setting}-x{cell.length}-{sha256(made.encode()).hexdigest()[:6]}-set{imitators_set(cell, seed)}"
    return folder / "prepared" / name


Stages = Callable[[Path, Path, Cell, int], list[list[Part]]]
"""``(folder of the sweep, place of these imitators, cell, seed of the set) -> parts, in stages``."""


def prepared(
    stages: Stages, updates: Callable[[Cell], tuple[int, ...]], folder: Path, cell: Cell, seed: int
) -> list[Preparation]:
    """The parts of a setting as preparations: each needs the stage before."""
    place, found, before = place_of(folder, cell, seed), list[Preparation](), tuple[str, ...]()
    parts = stages(folder, place, cell, SETS_APART * imitators_set(cell, seed))
    for stage, steps in zip(parts, updates(cell), strict=True):
        seconds = START_SECONDS + cell.length * steps * SECONDS_PER_UPDATE
        own = [replace(part, name=f"{place.name}-{part.name}", needs=before) for part in stage]
        files = [place / "parts" / f"{part.name}.json" for part in stage]
        found += [Preparation(part, file, seconds) for part, file in zip(own, files, strict=True)]
        before = tuple(part.name for part in own)
    return found


def seconds(cell: Cell) -> float:
    """About how long a run takes."""
    training = cell.iterations * cell.episodes * TRAINING_SECONDS_PER_EPISODE
    return START_SECONDS + cell.length * (training + cell.evaluation_episodes * EVALUATION_SECONDS_PER_EPISODE)


Run = Callable[[Path, Path, Cell, int, int, Report], dict[str, Any]]
"""``(folder, place, cell, seed of the set, seed, report) -> measured``."""


def placed(run: Run, folder: Path, cell: Cell, seed: int, report: Report) -> dict[str, Any]:
    """The run, told where its imitators lie."""
    return run(folder, place_of(folder, cell, seed), cell, SETS_APART * imitators_set(cell, seed), seed, report)


def setting(module: Any) -> Setting:
    """The setting that a module describes."""
    prepare = partial(prepared, module.stages, module.updates)
    most = getattr(module, "MAXIMAL_PROXY_REWARD", None)
    return Setting(module.REWARDS, module.BASES, prepare, partial(placed, module.run), seconds, most)


SETTINGS = {"chat": setting(chat_setting), "text": setting(text_setting), "tools": setting(tools_setting)}


def checked(cell: Cell) -> Cell:
    """The cell, if it can be run.

    Raises :class:`~mightnt.errors.InputError` for an unknown setting, reward, base or constraint, with those there are,
    and for numbers that make no sense.
    """
    one_of("setting", cell.setting, tuple(SETTINGS))
    one_of("reward", cell.reward, SETTINGS[cell.setting].rewards)
    one_of("base", cell.base, SETTINGS[cell.setting].bases)
    one_of("constraint", cell.constraint, ("none", "budget", "penalty", "target"))
    one_of("asking", cell.asking, ("charged", "floor"))
    counts = ("n_demonstrations", "length", "actor_width", "actor_layers", "episodes", "passes", "evaluation_episodes")
    for name, least in (*((name, 1) for name in counts), ("iterations", 0)):
        if getattr(cell, name) < least:
            raise InputError(f"{name} is {getattr(cell, name)}; {least} or more is needed")
    if (cell.base == "none" or cell.alone) and cell.constraint != "none":
        raise InputError(
            f"base {cell.base!r}, {cell.iterations} iterations: nothing is held, so constraint must be none"
        )
    if not (math.isfinite(cell.strength) and (cell.strength == 0 if cell.constraint == "none" else cell.strength > 0)):
        raise InputError(f"constraint {cell.constraint!r} of strength {cell.strength:g}; finite, above 0, 0 for none")
    return cell


def one_of(what: str, got: str, allowed: tuple[str, ...]) -> None:
    """Refuse a name that is not among those allowed."""
    if got not in allowed:
        raise InputError(f"unknown {what} {got!r}; allowed are {', '.join(allowed)}")
