"""The help desk as a setting: imitators made as those of the chat, from its own authors; its largest reward is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mightnt.audits.description import Units
from mightnt.experiments.parts import Report
from mightnt.experiments.sweep.cells import Cell
from mightnt.experiments.sweep.chat_setting import BASES as BASES
from mightnt.experiments.sweep.chat_setting import profile
from mightnt.experiments.sweep.chat_setting import stages as stages
from mightnt.experiments.sweep.chat_setting import updates as updates
from mightnt.experiments.sweep.playing import play
from mightnt.worlds.tools import words
from mightnt.worlds.tools.kinds import shares_by_kind

REWARDS = ("benign",)
MAXIMAL_PROXY_REWARD = words.MAXIMAL_PROXY_REWARD


def run(folder: Path, place: Path, cell: Cell, set_seed: int, seed: int, report: Report) -> dict[str, Any]:
    """One run."""
    from mightnt.lm.imitators import load_imitators
    from mightnt.lm.tools_scene import ToolsScene

    imitators = load_imitators(place / f"imitators-{cell.n_demonstrations}")
    scene = ToolsScene(rounds=profile(cell).rounds)
    units = Units(words.vocabulary()[len(words.MARKS) :])
    return play(imitators, scene, cell, seed, report, units, shares_by_kind)
