"""T3, the alternative: what a pessimistic base promises about the demonstrator, and how far the promise is from the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, log
from typing import Any

import numpy as np

from mightnt.audits.intervals import share_interval
from mightnt.audits.summary import CONFIDENCE
from mightnt.bases.mixture import BayesMixture
from mightnt.bases.pessimistic import Pessimistic
from mightnt.constraints.budget import KLBudget
from mightnt.constraints.kl import kl_adaptive_nats, kl_expected_nats
from mightnt.errors import BudgetError
from mightnt.experiments.theory.asking_prices import HEADS, ask_symbol, granularities, late_veto
from mightnt.experiments.theory.ingredients import demonstrations, mean_row, random_class, share_row
from mightnt.experiments.theory.pessimism_pictures import panels
from mightnt.experiments.theory.theorem import Computed, Report, Row, Theorem
from mightnt.experiments.theory.timetables import (
    Timetable,
    ask,
    coins,
    crude_order,
    cubed_asking_bound,
    late_novelties,
    smallest_levels,
)
from mightnt.history import History
from mightnt.models.after import After
from mightnt.models.finite import ModelClass, top_set
from mightnt.planners.soft import plan_expected_kl
from mightnt.prediction import FloatArray, follow
from mightnt.worlds.tree import TreeWorld, random_tree

N_ACTIONS, N_OBSERVATIONS, HORIZON = 2, 2, 3
"""Of the small trees on which policies are planned."""


@dataclass(frozen=True, slots=True)
class Pessimism:
    """What is computed. Levels are given as promised failures: alpha = promised failure * w(mu)."""

    promised_failures: tuple[float, ...] = (0.5, 0.1, 0.02)
    """alpha / w(mu) of the coverage rows; at asking and on trees the middle one."""
    n_demonstrations: int = 2000
    """Demonstrations of each class."""
    n_demonstrated_steps: int = 4000
    """Steps of each."""
    n_imitators: int = 300
    """Asking imitators of each class."""
    n_asking_steps: int = 100_000
    """Steps of each."""
    gaps: tuple[float, ...] = (0.2, 0.1, 0.05, 0.02)
    """How far two coins are apart."""
    n_trees: int = 40
    """Random classes, each with a random world and demonstrations."""
    budgets_nats: tuple[float, ...] = (2.0, 6.0)
    """Expected KL that a planned policy may spend on an episode."""
    n_random_decisions: int = 5000
    """Random demonstrators, bases below them and policies, for the price of asking."""
    n_dice: int = 12
    """Random classes on which minima over tokens and over trajectories play the same episodes."""
    n_episodes: int = 12
    """Episodes of each."""
    n_rounds: int = 40
    """Actions of each."""

    @property
    def promised_failure(self) -> float:
        """The middle one of ``promised_failures``."""
        return self.promised_failures[len(self.promised_failures) // 2]


def classes(seed: int) -> dict[str, Timetable]:
    """The classes of models by name, the demonstrator first in each; the dice are drawn with ``seed``."""
    dice = np.random.default_rng([seed, 1]).dirichlet(np.ones(4), size=8)
    return {
        "five coins": coins(HEADS),
        "five coins, demonstrator unlikely": coins(HEADS, [0.02, *[0.245] * 4]),
        "33 coins": coins([0.5, *(i / 34 for i in range(1, 34) if i != 17)]),
        "eight dice": Timetable.steady(dice),
        "late novelties": late_novelties(17),
        "one bold rival": coins([0.5, 0.0], [0.02, 0.98]),
    }


def compute(config: Pessimism, seed: int, report: Report) -> Computed:
    """All rows and curves of T3."""
    c = config
    parts: dict[str, Callable[[], tuple[list[Row], dict[str, Any]]]] = {
        "coverage": lambda: coverage(c, seed),
        "asking": lambda: asking(c, seed),
        "power": lambda: power(c, seed),
        "episodes": lambda: episodes(c, seed),
        "ask_symbol": lambda: ask_symbol(c.n_random_decisions, seed),
        "granularities": lambda: granularities(c.promised_failure, c.n_dice, c.n_episodes, c.n_rounds, seed),
        "late_veto": late_veto,
    }
    rows, curves = list[Row](), dict[str, Any]()
    for done, (name, part) in enumerate(parts.items()):
        more, curves[name] = part()
        rows += more
        report(done + 1, len(parts))
    return Computed(tuple(rows), curves)


def coverage(config: Pessimism, seed: int) -> tuple[list[Row], dict[str, Any]]:
    """How often mu stays in the top set, beside the promise 1 - alpha / w(mu)."""
    rows, curve = list[Row](), dict[str, Any]()
    promised = np.geomspace(5e-3, 1, 40)
    for number, (name, table) in enumerate(classes(seed).items()):
        rng, n = np.random.default_rng([seed, 2, number]), config.n_demonstrations
        lowest = smallest_levels(table, config.n_demonstrated_steps, n, rng)
        prior = float(table.prior[0])
        rows += [_coverage_row(name, lowest, failure, prior, config) for failure in config.promised_failures]
        lost = [int((lowest < failure * prior).sum()) for failure in promised.tolist()]
        bands = np.array([share_interval(hits, n, 1 - CONFIDENCE) for hits in lost])
        curve[name] = {"lost": [hits / n for hits in lost], "low": bands[:, 0].tolist(), "high": bands[:, 1].tolist()}
    return rows, {"promised": promised.tolist(), "classes": curve}


def _coverage_row(name: str, lowest: FloatArray, failure: float, prior: float, config: Pessimism) -> Row:
    kept, steps = int((lowest >= failure * prior).sum()), config.n_demonstrated_steps
    lost = 1 - kept / len(lowest)
    loose = f"lost {failure / lost:.2g} times less often than allowed" if lost else "never lost"
    claim = f"{name}, alpha = {failure * prior:.2g}: the demonstrator is believed for {steps} steps, at least {1 - failure:.0%}"
    low, high = share_interval(kept, len(lowest), 1 - CONFIDENCE)
    how = f"95% Clopper-Pearson, {len(lowest)} demonstrations; {loose}"
    return Row(claim, kept / len(lowest), "probability", "estimate", low, high, how, holds=high >= 1 - failure)


def asking(config: Pessimism, seed: int) -> tuple[list[Row], dict[str, Any]]:
    """Cubed asking probabilities summed over the life of an imitator, beside their bound; and how many questions."""
    rows, curve = list[Row](), dict[str, Any]()
    times = np.unique(np.geomspace(1, config.n_asking_steps, 60).astype(np.int64))
    for number, (name, table) in enumerate(classes(seed).items()):
        level = config.promised_failure * float(table.prior[0])
        sums = ask(table, level, times, config.n_imitators, np.random.default_rng([seed, 3, number]))
        bound = cubed_asking_bound(table, level)
        rows += _asking_rows(
            f"{name}, alpha = {level:.2g}", bound, crude_order(table, level), sums, config.n_asking_steps
        )
        curve[name] = {"bound": bound} | {str(p): _band(sums[p]) for p in (1, 3)}
    return rows, {"times": times.tolist(), "classes": curve}


def _asking_rows(setting: str, bound: float, order: float, sums: Mapping[int, FloatArray], n_steps: int) -> list[Row]:
    cubes, questions = sums[3][:, -1].tolist(), sums[1][:, -1].tolist()
    how = f"ours, constants proved; |A| alpha^-3 / w, the order of the bound of 2022, is {order:.2g}"
    row = mean_row(f"{setting}: theta^3 summed over {n_steps} steps stays below its bound", cubes, "", "imitators")
    return [
        replace(row, holds=row.high is not None and row.high <= bound),
        Row(f"{setting}: the bound on that sum over all time", bound, "", "upper bound", how=how),
        mean_row(f"{setting}: questions asked in {n_steps} steps", questions, "questions", "imitators"),
    ]


def _band(values: FloatArray) -> dict[str, list[float]]:
    """Mean over runs, and the quantiles between which nine of ten runs lie."""
    low, high = np.quantile(values, [0.05, 0.95], axis=0)
    return {"mean": values.mean(axis=0).tolist(), "low": low.tolist(), "high": high.tolist()}


def power(config: Pessimism, seed: int) -> tuple[list[Row], dict[str, Any]]:
    """Why the cube: as two coins come closer, questions and squares grow without bound, cubes do not."""
    level, curve = config.promised_failure / 2, dict[str, list[list[Any]]]()
    for number, gap in enumerate(config.gaps):
        times = np.array([int(200 / gap**3)])
        sums = ask(coins([0.5, 0.5 + gap]), level, times, config.n_imitators, np.random.default_rng([seed, 4, number]))
        for p in (1, 2, 3):
            row = mean_row(f"theta^{p}", sums[p][:, -1].tolist(), "", "imitators")
            curve.setdefault(str(p), []).append([row.value, row.low, row.high])
    rows = []
    octaves = log(config.gaps[0] / config.gaps[-1])
    for power_of, allowed in enumerate(("grows like 1/gap^2", "grows like 1/gap", "hardly changes"), start=1):
        wide, narrow = curve[str(power_of)][0], curve[str(power_of)][-1]
        slope, low, high = (_log_ratio(narrow[i], wide[j]) / octaves for i, j in ((0, 0), (1, 2), (2, 1)))
        rows.append(
            Row(
                f"Two coins that come closer: the sum of theta^{power_of} {allowed}; exponent of 1/gap", slope, "", "estimate",
                low, high, f"from gap {config.gaps[0]:g} to {config.gaps[-1]:g}, from the ends of 95% Student t intervals",
                holds=abs(slope - (3 - power_of)) < 0.25,
            )
        )  # fmt: skip
    bound = cubed_asking_bound(coins([0.5, 0.75]), level)
    return rows, {"gaps": list(config.gaps), "powers": curve, "bound": bound}


def _log_ratio(above: float, below: float) -> float:
    """log(above / below), where the end of an interval that reaches 0 leaves it open."""
    return -inf if above <= 0 else inf if below <= 0 else log(above / below)


def episodes(config: Pessimism, seed: int) -> tuple[list[Row], dict[str, Any]]:
    """KL to the base beside KL to the demonstrator, over whole episodes of policies that were optimized against the base."""
    points, refused = list[dict[str, Any]](), 0
    for number in range(config.n_trees):
        rng = np.random.default_rng([seed, 5, number])
        model_class = random_class(rng, 4, N_ACTIONS, N_OBSERVATIONS)
        world = random_tree(rng, N_ACTIONS, N_OBSERVATIONS, HORIZON)
        shown = demonstrations(model_class.models[0], int(rng.integers(20)), N_OBSERVATIONS, rng)
        level = config.promised_failure * float(np.exp(model_class.log_prior[0]))
        bases: dict[str, BayesMixture | Pessimistic] = {
            "mixture": BayesMixture(model_class),
            "token": Pessimistic(model_class, level, "token"),
            "trajectory": Pessimistic(model_class, level, "trajectory"),
        }
        for kind, base in bases.items():
            for budget in config.budgets_nats:
                try:
                    point = _distances(world, After(base, shown), After(model_class.models[0], shown), budget)
                except BudgetError:
                    refused += 1
                    continue
                points.append({"base": kind, "inside": _inside(model_class, level, shown), **point})
    rows = [_gap_row(points, kind, measure) for kind in ("token", "trajectory") for measure in ("expected", "worst")]
    beyond = [p["demonstrator_expected"] - p["base_expected"] for p in points if p["base"] == "mixture"]
    n_beyond = sum(gap > 1e-9 for gap in beyond)
    claim = "The neighbor: policies planned on the mixture that are further from the demonstrator than from it"
    rows.append(
        share_row(claim, n_beyond, len(beyond), f"plans; by {max(beyond):.3g} nats at most", holds=n_beyond > 0)
    )
    return rows, {"points": points, "refused": refused}


def _distances(world: TreeWorld, base: After, mu: After, budget_nats: float) -> dict[str, float]:
    policy = plan_expected_kl(world, base, KLBudget(budget_nats))
    return {
        f"{whom}_{how}": value
        for whom, model in (("base", base), ("demonstrator", mu))
        for how, value in (
            ("expected", kl_expected_nats(policy, model, world)),
            ("worst", kl_adaptive_nats(policy, model, N_OBSERVATIONS, HORIZON)),
        )
    }


def _inside(model_class: ModelClass, level: float, shown: History) -> bool:
    """Whether model 0 is in the top set after ``shown``."""
    return 0 in top_set(follow(Pessimistic(model_class, level), shown).of_class.log_posterior, level)


def _gap_row(points: Sequence[Mapping[str, Any]], kind: str, measure: str) -> Row:
    inside = [p for p in points if p["base"] == kind and p["inside"]]
    gap = max((p[f"demonstrator_{measure}"] - p[f"base_{measure}"] for p in inside), default=-inf)
    words = {"expected": "expected", "worst": "under the worst observations, chosen as it goes,"}[measure]
    return Row(
        f"Minimum over {'tokens' if kind == 'token' else 'trajectories'}: while the demonstrator is believed, KL(policy, "
        f"demonstrator) - KL(policy, base), {words} is never above 0; the largest",
        gap, "nats", "exact", how=f"to 1e-9, over {len(inside)} planned policies", holds=bool(inside) and gap <= 1e-9,
    )  # fmt: skip


THEOREM = Theorem(
    name="T3",
    title="Pessimism bounds the distance to the demonstrator",
    says=(
        "The pessimistic base gives each action the least probability that any believed model gives it, and asks with what is "
        "left over (theta). Believed are the models whose weight is at least a share alpha of the weights up to theirs. If the "
        "demonstrator is one of the models, it stays believed for ever with probability at least 1 - alpha / w, where w is "
        "what it was given at first; while it is believed, a policy is never further from the demonstrator than from the base; "
        "and questions become rare: the cubes of theta have a finite sum. These are the paper's. Ours are the constant of the "
        "last bound (proved in the code), the price log(1 + theta) of asking at random, and the minimum over whole "
        "trajectories instead of single actions, which asks less and vetoes later."
    ),
    profiles={
        "quick": Pessimism(
            n_demonstrations=300, n_demonstrated_steps=200, n_imitators=80, n_asking_steps=1000, gaps=(0.2, 0.05),
            n_trees=4, budgets_nats=(4.0,), n_random_decisions=300, n_dice=4, n_episodes=3, n_rounds=20,
        ),
        "default": Pessimism(),
    },
    compute=compute,
    draw=panels,
)  # fmt: skip
