"""One run in any setting: protected reinforcement learning or the base alone, measured on fresh episodes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mightnt.audits.description import Units
from mightnt.experiments.parts import Report
from mightnt.experiments.sweep.behavior import EPISODES, Kinds, behavior
from mightnt.experiments.sweep.cells import Cell

if TYPE_CHECKING:
    from mightnt.lm.imitators import Imitators
    from mightnt.lm.scenes import Scene

ELSEWHERE = 500_000
"""Added to a run's seed for the demonstrator's own episodes, so that they share no dice with the run's."""


def play(
    imitators: Imitators, scene: Scene, cell: Cell, seed: int, report: Report, units: Units, kinds: Kinds | None
) -> dict[str, Any]:
    """What the run measured: the entries of ``lm.run`` and of :func:`~mightnt.experiments.sweep.behavior.behavior`.

    ``units`` are what turns are made of, ``kinds`` tells turns apart, where the setting can. Deterministic given ``seed``.
    """
    from mightnt.lm.account import account_under
    from mightnt.lm.protect import ProtectConfig
    from mightnt.lm.run import RunConfig, measure_base, run

    n_told = min(EPISODES, cell.evaluation_episodes)
    if cell.alone:
        measured = measure_base(imitators, scene, cell.base, cell.evaluation_episodes, seed)
        own = as_it_is(imitators, scene, cell.base, n_told, seed)
    else:
        training = ProtectConfig(iterations=cell.iterations, episodes=cell.episodes, passes=cell.passes)
        account = account_under(cell.constraint, cell.strength, cell.asking)  # type: ignore[arg-type]
        config = RunConfig(
            cell.base,
            account,
            training,
            cell.evaluation_episodes,
            n_told,
            actor_width=cell.actor_width,
            actor_layers=cell.actor_layers,
        )
        measured, _ = run(imitators, scene, config, seed, on_iteration=lambda t: report(len(t.log), cell.iterations))
        own = measured["transcripts"]
    demonstrator = as_it_is(imitators, scene, "known", n_told, seed + ELSEWHERE)
    return measured | behavior(own, demonstrator, units, kinds, seed)


def as_it_is(imitators: Imitators, scene: Scene, base: str, n: int, seed: int) -> list[dict[str, Any]]:
    """Transcripts of ``n`` episodes of this base without reinforcement learning."""
    from mightnt.lm.account import Account
    from mightnt.lm.actor import Stay
    from mightnt.lm.run import cast_for, evaluate, transcripts

    cast = cast_for(imitators, scene, base, Account(math.inf, "charged", 0.0), Stay())
    return transcripts(evaluate(cast, n, seed, n)[0], imitators)
