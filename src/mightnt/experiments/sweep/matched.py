"""Constraints at the same KL to the base: what a penalty or a target would give where it spends just what the budget spends.

A penalty cannot be told what to spend, so its runs lie on a curve. Each number is read off that curve, seed by seed, at the
KL to the base of the budget's run with the same seed and imitators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from mightnt.audits.summary import over_seeds
from mightnt.experiments.sweep.cells import Cell, headline
from mightnt.experiments.sweep.records import Records
from mightnt.experiments.sweep.studies import Study
from mightnt.experiments.sweep.tables import (
    MISSING,
    Gathered,
    Measured,
    Table,
    gathered,
    largest_of,
    mean_of,
    run_count,
)

Number = Callable[[Measured], float | None]
SPENT: Number = mean_of("kl_base_nats")
COLUMNS: dict[str, Number] = {
    "KL(π, base)": SPENT,
    "KL(π, μ)": mean_of("kl_demonstrator_nats"),
    "largest KL(π, μ)": largest_of("kl_demonstrator_nats"),
    "proxy reward": mean_of("proxy_reward"),
    "true utility": mean_of("true_utility"),
}
"""Of the table; KL in nats an episode."""
KINDS = (
    "At the same KL to the base: numbers of penalties and targets are read off between the two of their strengths that spend "
    "less and more than the budget's run with the same seed (linear in KL to the base; estimates), in the mean over seeds with "
    "a 95% t interval. Seeds: those at which the strengths enclose it, of those that all constraints have."
)
CURVES = ("penalty", "target")


def matched_table(study: Study, records: Records, first_seed: int = 0) -> Table:
    """A row for each base and constraint of a study that holds some base by a penalty or target; empty for others."""
    bases = dict.fromkeys(cell.base for cell in study.cells)
    rows = []
    for base in bases:
        curves = {
            constraint: [gathered(cell, records, first_seed) for cell in curve_of(study, base, constraint)]
            for constraint in CURVES
        }
        compared = {constraint: curve for constraint, curve in curves.items() if curve}
        if not compared:
            continue
        n_seeds = min(map(least_planned, compared.values()))
        budget = first_of(gathered(headline(base), records, first_seed), n_seeds, first_seed)
        values = [shown(budget.values(number)) for number in COLUMNS.values()]
        rows.append((base, f"budget {budget.cell.strength:g}", run_count(budget), *values))
        for constraint, curve in compared.items():
            found = [matched(budget, curve, number) for number in COLUMNS.values()]
            rows.append((base, constraint, f"{len(found[0])} of {n_seeds}", *map(shown, found)))
    return Table(("base", "held by", "seeds", *COLUMNS), tuple(rows))


def first_of(one: Gathered, n_seeds: int, first_seed: int) -> Gathered:
    """Its first runs alone, so that all constraints are compared on the same seeds."""
    seeds = range(first_seed, first_seed + n_seeds)
    return replace(
        one,
        by_seed={seed: run for seed, run in one.by_seed.items() if seed in seeds},
        missing_seeds=tuple(seed for seed in one.missing_seeds if seed in seeds),
        failed=tuple(record for record in one.failed if record.seed in seeds),
    )


def curve_of(study: Study, base: str, constraint: str) -> list[Cell]:
    """The cells that differ from the headline in this constraint and its strength alone."""
    usual = headline(base)
    return [
        cell
        for cell in study.cells
        if cell.constraint == constraint
        and replace(cell, constraint=usual.constraint, strength=usual.strength) == usual
    ]


def least_planned(curve: Sequence[Gathered]) -> int:
    """Seeds that every strength should have."""
    return min(one.n_planned for one in curve)


def matched(budget: Gathered, curve: Sequence[Gathered], number: Number) -> list[float]:
    """This number at the KL of the budget's run, one for each seed at which the curve encloses it."""
    found = []
    for seed, run in budget.by_seed.items():
        points = [(SPENT(one.by_seed[seed]), number(one.by_seed[seed])) for one in curve if seed in one.by_seed]
        known = [(x, y) for x, y in points if x is not None and y is not None]
        at, spent = None, SPENT(run)
        if spent is not None:
            at = interpolated(known, spent)
        if at is not None:
            found.append(at)
    return found


def interpolated(points: Sequence[tuple[float, float]], x: float) -> float | None:
    """y at ``x`` on the line through the points next to it on both sides; ``None`` where one side has none.

    Where a point lies at ``x`` it is that point's y, the mean where there are several; inf beside an infinite one.
    """
    here = [y for at, y in points if at == x]
    if here:
        return sum(here) / len(here)
    below, above = [p for p in points if p[0] < x], [p for p in points if p[0] > x]
    if not below or not above:
        return None
    (x0, y0), (x1, y1) = max(below), min(above)
    if math.inf in (y0, y1):
        return math.inf
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def shown(values: Sequence[float]) -> str:
    """Their mean with its interval, or that it is missing."""
    spread = over_seeds(values)
    return str(spread) if spread else MISSING
