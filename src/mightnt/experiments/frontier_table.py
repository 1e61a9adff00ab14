"""A record of the frontier as tables: goals, ranking, every cell by seed; what was not run is said to be missing.

Ranked by the episodes that were set aside for choosing; every number shown is from the other, fresh ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from mightnt.audits.summary import percent, short

Set = Literal["chosen_on", "reported"]
Record = Mapping[str, Any]
ORACLE = "known"
"""The demonstrator itself as base: shown, ranked, never the default."""
TOLERANCE_NATS = 1e-6
"""Rounding allowed on a budget, for a whole episode."""
MISSING, FAILED = "missing", "failed"
MARKS = {True: "✓", False: "✗", None: "–"}


@dataclass(frozen=True)
class Cell:
    """The runs of one candidate with one number of demonstrations and one reward."""

    record: Record
    candidate: str
    n_demonstrations: int
    reward: str = "benign"

    @property
    def runs(self) -> list[Record | None]:
        """By seed; ``None`` for a run that was not made."""
        here = (self.candidate, self.n_demonstrations, self.reward)
        found = {
            run["seed"]: run
            for run in self.record["runs"]
            if (run["candidate"], run["n_demonstrations"], run["reward"]) == here
        }
        return [found.get(seed) for seed in range(self.record["seeds"])]

    def values(self, name: str, of: Set = "reported", part: str = "mean") -> list[float | None]:
        """One number by seed, ``None`` where there was no run; ``part`` of it where it is an estimate."""
        return [None if run is None else number(run[of][name], part) for run in self.runs]

    def gains(self, of: Set = "reported") -> list[float | None]:
        """(reward - mu's) / (the oracle's mean reward - mu's) by seed; ``None`` where any of these is missing."""
        oracle = mean(Cell(self.record, ORACLE, self.n_demonstrations, self.reward).values("proxy_reward", of))
        here = (self.n_demonstrations, self.reward)
        own = [
            d["proxy_reward"]["mean"]
            for d in self.record["demonstrator"]
            if (d["n_demonstrations"], d["reward"]) == here
        ]
        if oracle is None or not own or oracle <= float(own[0]):
            return [None] * self.record["seeds"]
        reached = self.values("proxy_reward", of)
        return [None if value is None else (value - own[0]) / (oracle - own[0]) for value in reached]

    def absent(self, seed: int) -> str:
        """Why there is no number of this seed: no run, a failed one, or (an en dash) one for which it is not defined."""
        if self.runs[seed] is not None:
            return short(None)
        name = f"run-{self.reward}-n{self.n_demonstrations}-{self.candidate}-seed{seed}"
        return FAILED if name in self.record["failed"] else MISSING


def number(value: Any, part: str) -> float | None:
    """A number of a record (infinities are strings there); ``None`` stays."""
    picked = value[part] if isinstance(value, Mapping) else value
    return None if picked is None else float(picked)


def mean(values: list[float | None]) -> float | None:
    """The mean over the seeds that were run; ``None`` for none."""
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there else None


def on_every_seed(values: list[float | None], limit: float) -> bool | None:
    """Whether all are at most ``limit``; one above decides, else a missing one leaves it open (``None``)."""
    if any(value is not None and not value <= limit for value in values):
        return False
    return None if None in values else True


def on_average(values: list[float | None], limit: float, sign: int = 1) -> bool | None:
    """Whether the mean over all seeds is at most ``limit`` (at least, for ``sign`` -1); open while a seed is missing."""
    average = mean(values)
    return None if average is None or None in values else sign * average <= sign * limit


@dataclass(frozen=True)
class Goal:
    """One thing aimed at, set before anything was run."""

    words: str
    n_demonstrations: int
    reward: str
    shown: Callable[[Cell], str]
    met: Callable[[Cell, float, Set], bool | None]
    """``(cell, budget_nats, which episodes)``."""


def keeps(cell: Cell, budget: float, of: Set, times: float = 1.0, part: str = "mean") -> bool | None:
    """KL(pi, mu) is at most ``times`` B on every seed; ``part`` max: in every episode."""
    return on_every_seed(cell.values("kl_demonstrator_nats", of, part), times * budget)


def asks(cell: Cell, budget: float, of: Set, at_most: float) -> bool | None:
    """Asks in at most this share of turns, mean over seeds."""
    return on_average(cell.values("asks_per_turn", of), at_most)


def earns(cell: Cell, budget: float, of: Set, at_least: float) -> bool | None:
    """Reaches at least this share of the oracle's gain, mean over seeds."""
    return on_average(cell.gains(of), at_least, -1)


def keeps_and_asks(cell: Cell, budget: float, of: Set, times: float, at_most: float) -> bool | None:
    """Both; one that fails decides."""
    both = keeps(cell, budget, of, times), asks(cell, budget, of, at_most)
    return False if False in both else None if None in both else True


def nats(value: float | None) -> str:
    """A distance in words; what rounding leaves of 0 is 0."""
    return short(0.0 if value is not None and abs(value) < TOLERANCE_NATS else value)


def by_seed(cell: Cell, values: list[float | None], text: Callable[[float | None], str] = nats) -> str:
    """The mean and, in brackets, every seed: ``9.8 (9.7, 9.9, missing)``; one word where nothing was run."""
    each = [cell.absent(seed) if value is None else text(value) for seed, value in enumerate(values)]
    average = mean(values)
    if average is None:
        return next((word for word in (FAILED, MISSING) if word in each), short(None))
    return text(average) if len(each) == 1 else f"{text(average)} ({', '.join(each)})"


def kl(cell: Cell) -> str:
    """KL(pi, mu), by seed."""
    return by_seed(cell, cell.values("kl_demonstrator_nats"))


def worst(cell: Cell) -> str:
    """The largest episode, over seeds and by seed."""
    values = cell.values("kl_demonstrator_nats", part="max")
    there = [value for value in values if value is not None]
    return short(max(there)) if there else by_seed(cell, values)


def asked(cell: Cell) -> str:
    """Asks per turn, mean over seeds."""
    return by_seed(cell, cell.values("asks_per_turn"), fine_percent)


def kl_and_asks(cell: Cell) -> str:
    """KL(pi, mu) by seed, and asks per turn."""
    average = mean(cell.values("asks_per_turn"))
    return kl(cell) if average is None else f"{kl(cell)}; asks {fine_percent(average)}"


def gained(cell: Cell) -> str:
    """Share of the oracle's gain, by seed."""
    return by_seed(cell, cell.gains(), whole_percent)


def fine_percent(value: float | None) -> str:
    """A small share: ``0.06%``."""
    return "–" if value is None else f"{100 * value:.2f}%" if value < 0.1 else percent(value)


def whole_percent(value: float | None) -> str:
    """A large share: ``112%``."""
    return "–" if value is None else f"{100 * value:.0f}%"


GOALS = {
    "chat": (
        Goal("n = 10,000: KL(π, μ) ≤ B on every seed", 10000, "benign", kl, keeps),
        Goal("worst episode ≤ 2B", 10000, "benign", worst, partial(keeps, times=2.0, part="max")),
        Goal("asks ≤ 1% of turns", 10000, "benign", asked, partial(asks, at_most=0.01)),
        Goal("≥ 95% of the oracle's gain", 10000, "benign", gained, partial(earns, at_least=0.95)),
        Goal("adversarial: KL(π, μ) ≤ 2B on every seed", 10000, "adversarial", kl, partial(keeps, times=2.0)),
        Goal(
            "n = 1,000: KL(π, μ) ≤ B on every seed, asks ≤ 5%",
            1000,
            "benign",
            kl_and_asks,
            partial(keeps_and_asks, times=1.0, at_most=0.05),
        ),
    ),
    "text": (
        Goal(
            "n = 3,000: KL(π, μ) ≤ 2B on every seed, asks ≤ 10%",
            3000,
            "benign",
            kl_and_asks,
            partial(keeps_and_asks, times=2.0, at_most=0.10),
        ),
    ),
}
"""By world. Asks and gain are means over seeds."""


@dataclass(frozen=True)
class Ranked:
    """One candidate's place."""

    candidate: str
    chosen_on: tuple[bool | None, ...]
    """Each goal, on the episodes the ranking is decided on."""
    reported: tuple[bool | None, ...]
    """Each goal, on the fresh ones."""
    kl_nats: float
    """What decides between equals: KL(pi, mu) at the largest n that was run, on the episodes for choosing; ``inf`` for none."""


def ranking(record: Record) -> list[Ranked]:
    """All candidates, best first: by goals met, then by KL to the demonstrator; never by a number that is reported.

    The numbers of demonstrations that goals name come before others; where no goal could be judged, KL decides alone.
    """
    goals, budget = GOALS[record["world"]], float(record["budget_nats"])
    found = []
    for entry in record["candidates"]:
        name = entry["name"]
        cells = [Cell(record, name, goal.n_demonstrations, goal.reward) for goal in goals]
        judged: dict[Set, tuple[bool | None, ...]] = {
            of: tuple(goal.met(cell, budget, of) for goal, cell in zip(goals, cells, strict=True))
            for of in ("chosen_on", "reported")
        }
        found.append(Ranked(name, judged["chosen_on"], judged["reported"], deciding_kl(record, name)))
    return sorted(found, key=lambda ranked: (-ranked.chosen_on.count(True), ranked.kl_nats))


def deciding_kl(record: Record, name: str) -> float:
    """KL(pi, mu) on the episodes for choosing, with the honest reward, at the largest n where it was run."""
    for n in sorted(record["n_demonstrations"], reverse=True):
        value = mean(Cell(record, name, n).values("kl_demonstrator_nats", "chosen_on"))
        if value is not None:
            return value
    return math.inf


def default_base(record: Record) -> Ranked | None:
    """The first of the ranking that needs no known demonstrator and was run at all."""
    return next((r for r in ranking(record) if r.candidate != ORACLE and math.isfinite(r.kl_nats)), None)


@dataclass(frozen=True)
class Table:
    """What every rendering shows: a title, a head, rows of text."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


def tables(record: Record) -> list[Table]:
    """The ranking, every cell, the bases alone, what each promises."""
    cells = [
        runs_table(record, n, reward)
        for reward in record["rewards"]
        for n in sorted(record["n_demonstrations"], reverse=True)
    ]
    alone = [alone_table(record, n) for n in sorted(record["n_demonstrations"], reverse=True)]
    return [ranked_table(record), *cells, *alone, promises(record)]


def ranked_table(record: Record) -> Table:
    """One row a candidate, one column a goal: the number on fresh episodes and whether it meets the goal there."""
    goals = GOALS[record["world"]]
    rows = []
    for place, ranked in enumerate(ranking(record), 1):
        judged = [
            f"{MARKS[met]} {goal.shown(Cell(record, ranked.candidate, goal.n_demonstrations, goal.reward))}"
            for goal, met in zip(goals, ranked.reported, strict=True)
        ]
        met = f"{ranked.reported.count(True)} of {len(goals)}"
        rows.append((str(place), ranked.candidate, met, *judged))
    caption = (
        f"Ranked by goals met, then by KL(π, μ), on episodes set aside for choosing; the numbers are from "
        f"{record['evaluation_episodes']:,} other episodes a run. Mean over seeds, every seed in brackets; nats an episode, "
        f"B = {float(record['budget_nats']):g}. {MARKS[True]} met, {MARKS[False]} not met, {MARKS[None]} open: runs are missing."
    )
    return Table("Ranking", ("", "base", "goals met", *(goal.words for goal in goals)), tuple(rows), caption)


RUN_COLUMNS: dict[str, Callable[[Cell], str]] = {
    "KL(π, μ)": kl,
    "± (standard error)": lambda cell: by_seed(cell, cell.values("kl_demonstrator_nats", part="standard_error")),
    "worst episode": worst,
    "KL(π, base)": lambda cell: by_seed(cell, cell.values("kl_base_nats")),
    "gap": lambda cell: by_seed(cell, cell.values("gap_policy_nats")),
    "asks per turn": asked,
    "demonstrator's tokens": lambda cell: by_seed(cell, cell.values("demonstrator_tokens_per_episode")),
    "reward": lambda cell: by_seed(cell, cell.values("proxy_reward")),
    "true utility": lambda cell: by_seed(cell, cell.values("true_utility")),
    "of the oracle's gain": gained,
    "episodes over B": lambda cell: counted(cell),
}


def counted(cell: Cell) -> str:
    """Episodes over their budget, in training and after."""
    runs = [run for run in cell.runs if run is not None]
    over = sum(run["training_over_budget_episodes"] + run["reported"]["over_budget_episodes"] for run in runs)
    total = sum(run["training_episodes"] + run["reported"]["episodes"] for run in runs)
    return f"{over} of {total:,}" if runs else by_seed(cell, [None] * len(cell.runs))


def runs_table(record: Record, n: int, reward: str) -> Table:
    """Every candidate with this reward and this number of demonstrations."""
    rows = []
    for entry in record["candidates"]:
        cell = Cell(record, entry["name"], n, reward)
        rows.append((entry["name"], *(show(cell) for show in RUN_COLUMNS.values())))
    caption = (
        "Nats an episode; means over episodes, then over seeds, every seed in brackets. The gap is KL(π, μ) less what was "
        "charged: above 0, the base vouched for what the demonstrator would not do. The standard error is over episodes."
    )
    return Table(
        f"After reinforcement learning: n = {n:,}, {reward} reward", ("base", *RUN_COLUMNS), tuple(rows), caption
    )


ALONE_COLUMNS = {
    "KL(base, μ)": "kl_base_demonstrator_nats",
    "floor": "asking_nats_per_episode",
    "asks per turn": "asks_per_turn",
    "gap on μ's histories, base acting": "gap_base_nats",
    "gap on μ's histories, μ acting": "gap_demonstrator_nats",
    "held-out turns vetoed": "held_out_vetoed_turns",
    "held-out turns asking": "held_out_asking_turns",
    "time of one network": "times_single",
}


def alone_table(record: Record, n: int) -> Table:
    """Every candidate without reinforcement learning, with this number of demonstrations."""
    found = {alone["candidate"]: alone for alone in record["alone"] if alone["n_demonstrations"] == n}
    rows = []
    for entry in record["candidates"]:
        name, alone = entry["name"], found.get(entry["name"])
        absent = FAILED if f"alone-n{n}-{name}" in record["failed"] else MISSING
        each = (
            [absent] * len(ALONE_COLUMNS)
            if alone is None
            else [alone_text(alone, key) for key in ALONE_COLUMNS.values()]
        )
        rows.append((name, *each, f"{entry['forward_passes']:g}"))
    caption = (
        "The base itself as policy, nats an episode with standard error; gaps are E Σ log(ν/μ) on histories that the "
        "demonstrator acted out: −∞ where it might say a word that the base vetoes. Held-out turns hold a vetoed word, or a "
        "place where asking is open. Time: processor time of scoring beside one network, in one process."
    )
    return Table(
        f"Without reinforcement learning: n = {n:,}", ("base", *ALONE_COLUMNS, "forward passes"), tuple(rows), caption
    )


def alone_text(alone: Record, key: str) -> str:
    """One number of a base alone, with its standard error where it has one; an en dash where it means nothing."""
    value = alone.get(key)
    if isinstance(value, Mapping):
        error = float(value["standard_error"])
        return nats(number(value, "mean")) + (f" ± {short(error, 2)}" if error > TOLERANCE_NATS else "")
    found = number(value, "mean")
    return short(found) if key == "times_single" else fine_percent(found)


def promises(record: Record) -> Table:
    """What holds by construction."""
    rows = tuple((entry["name"], entry["promise"]) for entry in record["candidates"])
    return Table("What each promises", ("base", "by construction"), rows)


def markdown(record: Record) -> str:
    """All tables for docs/results.md."""
    return "\n".join(markdown_table(table) for table in tables(record))


def markdown_table(table: Table) -> str:
    """A table with its title and caption."""
    lines = [table.head, tuple("---" for _ in table.head), *table.rows]
    text = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    return f"### {table.title}\n\n{text}\n" + (f"\n{table.caption}\n" if table.caption else "")
