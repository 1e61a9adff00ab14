"""Tables of the full experiment, from records: a row a cell, every number with its interval, what is missing as missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mightnt.audits.summary import Spread, over_seeds
from mightnt.experiments.sweep.cells import Cell, base_alone
from mightnt.experiments.sweep.records import Record, Records
from mightnt.experiments.sweep.settings import SETTINGS
from mightnt.experiments.sweep.studies import Study, n_seeds

Measured = dict[str, Any]
MISSING = "missing"


@dataclass(frozen=True)
class Gathered:
    """All runs of a cell: those measured, by seed, and the seeds that are missing."""

    cell: Cell
    by_seed: dict[int, Measured]
    missing_seeds: tuple[int, ...]
    failed: tuple[Record, ...] = ()
    """Among the missing ones."""

    @property
    def runs(self) -> list[Measured]:
        """Those measured, in order of their seeds."""
        return list(self.by_seed.values())

    @property
    def n_planned(self) -> int:
        """Runs there should be."""
        return len(self.runs) + len(self.missing_seeds)

    def values(self, number: Callable[[Measured], float | None]) -> list[float]:
        """This number of every run that measured it."""
        return [value for run in self.runs if (value := number(run)) is not None]

    def spread(self, number: Callable[[Measured], float | None]) -> Spread | None:
        """Mean and 95% interval over seeds; ``None`` where no run measured it."""
        return over_seeds(self.values(number))


def gathered(cell: Cell, records: Records, first_seed: int = 0) -> Gathered:
    """The runs of a cell."""
    seeds = range(first_seed, first_seed + n_seeds(cell))
    found = {seed: measured for seed in seeds if (measured := records.measured(cell, seed)) is not None}
    absent = tuple(seed for seed in seeds if seed not in found)
    failed = tuple(records.by_run[cell, seed] for seed in absent if (cell, seed) in records.by_run)
    return Gathered(cell, found, absent, failed)


def mean_of(name: str) -> Callable[[Measured], float | None]:
    """The mean over episodes of this quantity in a run."""
    return lambda run: None if run.get(name) is None else float(run[name]["mean"])


def largest_of(name: str) -> Callable[[Measured], float | None]:
    """The largest episode of this quantity in a run."""
    return lambda run: None if run.get(name) is None else float(run[name]["max"])


def plain_of(name: str) -> Callable[[Measured], float | None]:
    """This number of a run."""
    return lambda run: None if run.get(name) is None else float(run[name])


def demonstrator_tokens(run: Measured) -> float | None:
    """Tokens that the demonstrator spoke, an episode."""
    return None if run.get("demonstrator_tokens") is None else run["demonstrator_tokens"] / run["episodes"]


def asks_per_100_turns(run: Measured) -> float | None:
    """Turns in 100 in which the demonstrator was asked."""
    return None if run.get("asks_per_turn") is None else 100 * float(run["asks_per_turn"])


def demonstrator_nats_a_turn(run: Measured) -> float | None:
    """KL(policy, demonstrator) of a turn, in the mean."""
    kl = mean_of("kl_demonstrator_nats")(run)
    return None if kl is None or not run.get("turns") else kl * run["episodes"] / run["turns"]


COLUMNS: dict[str, Callable[[Measured], float | None]] = {
    "proxy reward": mean_of("proxy_reward"),
    "true utility": mean_of("true_utility"),
    "KL(π, base)": mean_of("kl_base_nats"),
    "KL(π, μ)": mean_of("kl_demonstrator_nats"),
    "KL(π, μ) a turn": demonstrator_nats_a_turn,
    "largest KL(π, μ)": largest_of("kl_demonstrator_nats"),
    "asks in 100 turns": asks_per_100_turns,
    "μ's tokens": demonstrator_tokens,
}
"""Of a table of runs; KL in nats an episode where not said otherwise."""
KINDS = (
    "Kind: estimates. A number is the mean over the seeds of a run's mean over its fresh episodes, in brackets the 95% t "
    "interval over seeds (each with imitators of its own where the configuration does not say shared); the KL of every "
    "decision is exact. Largest: the largest episode of a run, in the mean over seeds. Tokens: an episode. "
    "Runs: measured of planned."
)


@dataclass(frozen=True)
class Table:
    """A heading, column names, and rows of text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As Markdown; empty without rows."""
        if not self.rows:
            return ""
        lines = [self.head, tuple("---" for _ in self.head), *self.rows]
        return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def held_by(cell: Cell) -> str:
    """What holds the policy to its base, in words."""
    words = {
        "none": "nothing",
        "budget": f"budget {cell.strength:g}",
        "penalty": f"penalty {cell.strength:g}",
        "target": f"target {cell.strength:g}",
    }
    return "; ".join([words[cell.constraint], *cell.peculiar()])


def run_count(one: Gathered) -> str:
    """``3 of 3``; what is missing in bold, failures named."""
    count = f"{len(one.runs)} of {one.n_planned}"
    if not one.missing_seeds:
        return count
    return f"**{count}**" + (f" ({len(one.failed)} failed)" if one.failed else "")


def shown(one: Gathered, number: Callable[[Measured], float | None]) -> str:
    """A number with its interval; ``missing`` where no run is there, a dash where none measured it."""
    spread = one.spread(number)
    return str(spread) if spread else "–" if one.runs else MISSING


def study_table(study: Study, records: Records, first_seed: int = 0) -> Table:
    """A row for each cell with reinforcement learning; beside it how far its base is from the demonstrator by itself."""
    rows = []
    for cell in study.cells:
        if not cell.alone:
            one = gathered(cell, records, first_seed)
            rows.append(
                (
                    cell.base,
                    held_by(cell),
                    run_count(one),
                    *(shown(one, each) for each in COLUMNS.values()),
                    own_gap(cell, records, first_seed),
                )
            )
    return Table(("base", "held by", "runs", *COLUMNS, "KL(base, μ)"), tuple(rows))


def inner(name: str, field: str) -> Callable[[Measured], float | None]:
    """This number of an entry that a run may lack."""
    return lambda run: float(run[name][field]) if run.get(name) and run[name].get(field) is not None else None


def wins(question: str) -> Callable[[Measured], float | None]:
    """How often a run's episode beat one of the demonstrator's, in percent, ties worth one half."""
    return lambda run: next(
        (100 * float(one["win_rate"]) for one in run.get("judged", ()) if one["question"] == question), None
    )


DESCRIBED: dict[str, Callable[[Measured], float | None]] = {
    "bits a turn": inner("description", "bits_per_turn"),
    "smallest policy": inner("smallest_policy", "parameters"),
    "better than μ, %": wins("better"),
    "more complex than μ, %": wins("more complex"),
}
"""How much there is to a behavior, and how a judge compares it with the demonstrator's."""
BEHAVIOR_KINDS = (
    "Behavior, from the first episodes of each run: turns by kind in percent (exact for these episodes); bits a turn under the "
    "code of `audits.description` (exact); counts of the smallest policy that imitates it within 0.05 nats a token (estimate); "
    "episodes that a judge prefers to the demonstrator's or finds more complex, in percent (estimate). The judge is built in: "
    "better is more true utility, more complex is what compresses less; it reads no meaning. Intervals as above."
)


def share_of(kind: str) -> Callable[[Measured], float | None]:
    """Percent of the turns that were of this kind."""
    share = inner("kinds", kind)
    return lambda run: None if share(run) is None else 100 * (share(run) or 0.0)


def policies(study: Study, records: Records, first_seed: int = 0) -> list[Gathered]:
    """What does something in a study: every policy, and the demonstrator itself."""
    cells = [cell for cell in study.cells if not cell.alone or cell.base == "known"]
    return [gathered(cell, records, first_seed) for cell in cells]


def named(one: Gathered) -> tuple[str, str, str]:
    """The first columns of a policy's row."""
    return "demonstrator" if one.cell.alone else one.cell.base, held_by(one.cell), run_count(one)


def kind_columns(every: Sequence[Gathered]) -> dict[str, Callable[[Measured], float | None]]:
    """A column for each kind of turn that some run tells of."""
    kinds = dict.fromkeys(kind for one in every for run in one.runs for kind in run.get("kinds") or ())
    return {f"{kind}, %": share_of(kind) for kind in kinds}


def behavior_table(study: Study, records: Records, first_seed: int = 0) -> Table:
    """What the policies of a study do, and the demonstrator; empty where no run was described."""
    every = policies(study, records, first_seed)
    columns = kind_columns(every) | DESCRIBED
    if not any(run.get("description") for one in every for run in one.runs):
        return Table((), ())
    rows = [(*named(one), *(shown(one, each) for each in columns.values())) for one in every]
    return Table(("base", "held by", "runs", *columns), tuple(rows))


LARGEST_KINDS = (
    "Where the largest proxy reward that any policy can have is known: how much of it there is, beside KL in nats an episode, "
    "true utility, and turns by kind in percent (exact for the first episodes of each run). Intervals as above."
)


def share_of_largest(cell: Cell) -> Callable[[Measured], float | None]:
    """Percent of the largest proxy reward there can be in the cell's setting; ``None`` where that is not known."""
    largest, reward = SETTINGS[cell.setting].maximal_proxy_reward, mean_of("proxy_reward")
    return lambda run: None if largest is None or reward(run) is None else 100 * (reward(run) or 0.0) / largest


def largest_reward_table(study: Study, records: Records, first_seed: int = 0) -> Table:
    """How much of the largest proxy reward a policy has, for what, and with which turns; empty where no largest is known."""
    every = [
        one
        for one in policies(study, records, first_seed)
        if SETTINGS[one.cell.setting].maximal_proxy_reward is not None
    ]
    names = ("KL(π, base)", "KL(π, μ)", "true utility")
    columns = {name: COLUMNS[name] for name in names} | kind_columns(every)
    rows = [
        (*named(one), shown(one, share_of_largest(one.cell)), *(shown(one, each) for each in columns.values()))
        for one in every
    ]
    return Table(("base", "held by", "runs", "of the largest proxy reward, %", *columns), tuple(rows))


def own_gap(cell: Cell, records: Records, first_seed: int = 0) -> str:
    """KL(base, demonstrator) without reinforcement learning."""
    if cell.base == "none":
        return "–"
    return shown(gathered(base_alone(cell), records, first_seed), mean_of("kl_base_demonstrator_nats"))


def demonstrator_table(study: Study, records: Records, first_seed: int = 0) -> Table:
    """What the demonstrator itself earns in each situation of the study."""
    rows = []
    for cell in study.cells:
        if cell.alone and cell.base == "known":
            one = gathered(cell, records, first_seed)
            numbers = [shown(one, mean_of(name)) for name in ("proxy_reward", "true_utility")]
            rows.append(("; ".join(cell.peculiar()) or "headline", run_count(one), *numbers))
    return Table(("the demonstrator", "runs", "proxy reward", "true utility"), tuple(rows))
