"""The record of ``mightnt learning`` as rows for docs/results.md: claim, number, kind, interval; what falls and what does not."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from mightnt.audits.summary import over_seeds, short
from mightnt.experiments.learning import POLICIES, SOURCES, SOURCES_OF, curves

HEAD = "| claim | number | kind | interval |\n|---|---|---|---|\n"
BEGIN, END = "<!-- learning: begin -->\n", "<!-- learning: end -->"
"""What stands before and after the rows in docs/results.md; a test compares what is between with the record."""
Curves = dict[str, list[float]]


def learning_table(record: dict[str, Any]) -> str:
    """All rows, one table a policy, in Markdown.

    Differences are within a seed: the last fifth of the turns with learning minus the same without.
    """
    budget_nats, parts = record["config"]["budget_nats"], list[str]()
    for policy, name in POLICIES.items():
        found = {source: of_source(record, policy, source) for source in SOURCES_OF[policy]}
        rows = [row for source in found for row in levels(source, found[source])]
        rows += [row for source in found if source != "nothing" for row in gains(source, found)]
        rows += [cubes(source, found[source]) for source in found]
        rows += [row for source in found for row in lessons(record, policy, source)]
        rows.append(within_budget(record, policy, budget_nats))
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        parts.append(f"### Policy: {name}\n\n{HEAD}" + "\n".join(lines) + "\n")
    return "\n".join(parts)


Row = tuple[str, str, str, str]


def of_source(record: dict[str, Any], policy: str, source: str) -> list[Curves]:
    """Fifths of every seed's run."""
    runs = (run for run in record["runs"] if (run["policy"], run["source"]) == (policy, source))
    return [curves(run, 5) for run in runs]


def levels(source: str, found: Sequence[Curves]) -> list[Row]:
    """How often it asks and how far it is from the demonstrator, first and last fifth; beside it what was charged."""
    asks, kl, charged = (
        of_each(found, name) for name in ("asks_per_100_turns", "kl_demonstrator_nats", "charged_nats")
    )
    n_below = sum(near[-1] <= paid[-1] for near, paid in zip(kl, charged, strict=True))
    paid = f"charged {short(mean(charged, -1))}, the KL is below that on {n_below} of {len(kl)} seeds"
    distance = (
        f"{SOURCES[source]}: KL to the demonstrator, nats an episode, and T3's bound on it where the base is below mu"
    )
    return [
        (f"{SOURCES[source]}: asks per 100 turns, first -> last fifth", change(asks), "estimate", interval_of(asks)),
        (f"{distance}, first -> last fifth", f"{change(kl)}; {paid}", "estimate", interval_of(kl)),
    ]


def cubes(source: str, found: Sequence[Curves]) -> Row:
    """Whether the cubes of the asking probability die out, as T3 says they do in its class."""
    sums = [[c["theta_cubed_so_far"][0], c["theta_cubed_so_far"][-1] - c["theta_cubed_so_far"][-2]] for c in found]
    return f"{SOURCES[source]}: sum of theta^3, first -> last fifth", change(sums), "estimate", interval_of(sums)


def gains(source: str, found: dict[str, list[Curves]]) -> list[Row]:
    """What learning changed in the last fifth, and on how many seeds it fell."""
    rows = []
    for name, what in (
        ("asks_per_100_turns", "asks per 100 turns"),
        ("kl_demonstrator_nats", "KL to the demonstrator"),
    ):
        pairs = zip(found[source], found["nothing"], strict=True)
        changes = [one[name][-1] - other[name][-1] for one, other in pairs]
        n_fell = sum(difference < 0 for difference in changes)
        number = f"{short(fmean(changes))} (by seed {listed(changes)}); lower on {n_fell} of {len(changes)} seeds"
        claim = f"{SOURCES[source]}, against no learning: {what}, last fifth"
        rows.append((claim, number, "estimate", interval(changes)))
    return rows


def lessons(record: dict[str, Any], policy: str, source: str) -> list[Row]:
    """How many lessons of the network were taken; nothing where it had none."""
    runs = [run for run in record["runs"] if (run["policy"], run["source"]) == (policy, source)]
    n_taken, n_refused = (sum(run[name] for run in runs) for name in ("networks_taken", "networks_refused"))
    if not n_taken + n_refused:
        return []
    claim = f"{SOURCES[source]}: lessons of the network that passed the held-out check"
    return [(claim, f"{n_taken} of {n_taken + n_refused}", "exact, every lesson", "none needed")]


def within_budget(record: dict[str, Any], policy: str, budget_nats: float) -> Row:
    """The most that any episode was charged."""
    batches = [run["by_batch"] for run in record["runs"] if run["policy"] == policy]
    most, n = max(max(b["most_charged_nats"]) for b in batches), sum(int(sum(b["episodes"])) for b in batches)
    over = sum(sum(nats > budget_nats + 1e-6 for nats in b["most_charged_nats"]) for b in batches)
    return (
        "No episode over its budget, learning or not",
        f"{over} batches with such an episode, {n:,} episodes in all; most charged {most:.4f} of {budget_nats:g} nats",
        "exact, every episode",
        "none needed",
    )


def of_each(found: Sequence[Curves], name: str) -> list[list[float]]:
    """One curve of every seed."""
    return [curve[name] for curve in found]


def mean(by_seed: Sequence[Sequence[float]], fifth: int) -> float:
    """Over seeds."""
    return fmean(values[fifth] for values in by_seed)


def change(by_seed: Sequence[Sequence[float]]) -> str:
    """Means of the first and the last fifth, and the last of every seed."""
    last = listed([values[-1] for values in by_seed])
    return f"{short(mean(by_seed, 0))} -> {short(mean(by_seed, -1))} (last by seed {last})"


def interval_of(by_seed: Sequence[Sequence[float]]) -> str:
    """Of the last fifth."""
    return interval([values[-1] for values in by_seed])


def listed(values: Sequence[float]) -> str:
    """Every seed."""
    return ", ".join(map(short, values))


def interval(values: Sequence[float]) -> str:
    """95% Student t over seeds."""
    spread = over_seeds(values)
    if spread is None or spread.low is None or spread.high is None:
        return "one seed"
    return f"{short(spread.low)} to {short(spread.high)}"
