"""Runs side by side: grouped by base, averaged over seeds with an interval, the headline setting first.

A *group* is all runs that differ in their seed alone; a *setting* is one number of demonstrations and one budget, with
the runs without any budget shown beside it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from mightnt.audits.results import BASES, BaseAlone, EpisodeMean, Results, Run

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Spread:
    """One number over seeds. ``low`` and ``high`` are ``None`` with one seed and where a value is infinite."""

    mean: float
    low: float | None
    high: float | None
    smallest: float
    largest: float
    n_seeds: int

    def __str__(self) -> str:
        """``10.6 (7.1 to 14.1)``, or ``10.6 (one seed)``."""
        if self.low is None or self.high is None:
            return short(self.mean) + (" (one seed)" if self.n_seeds == 1 else " (no interval)")
        return f"{short(self.mean)} ({short(self.low)} to {short(self.high)})"


def over_seeds(values: Sequence[float]) -> Spread | None:
    """Mean and 95% interval over seeds: mean +- t_(0.975, n-1) s / sqrt(n); ``None`` for no values.

    s is the sample standard deviation (divisor n-1). The interval treats seeds as independent and roughly normal; it is
    not cut at zero. One seed has no interval, nor has an infinite value.

    Kind: estimate (Student t over seeds). Paper: none. Cost: O(n).
    """
    n = len(values)
    if n == 0:
        return None
    mean, low, high = math.fsum(values) / n, None, None
    if n > 1 and all(map(math.isfinite, values)):
        variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
        half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * math.sqrt(variance / n)
        low, high = mean - half, mean + half
    return Spread(mean, low, high, min(values), max(values), n)


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that differ in their seed alone."""

    base: str
    n_demonstrations: int
    budget_nats: float
    asking: str
    runs: tuple[Run, ...]
    held_by: str = ""
    """What held the policy where it was no budget, in words; see :attr:`Run.held_by`."""

    @property
    def name(self) -> str:
        """The base, and what held the policy to it where that was no budget."""
        return f"{self.base}, {self.held_by}" if self.held_by else self.base

    def spread(self, field: str) -> Spread | None:
        """Mean and interval of a field of :class:`Run` over the seeds that measured it; ``None`` where none did."""
        return over_seeds(measured(getattr(run, field) for run in self.runs))

    @property
    def bounded(self) -> bool:
        """Whether these runs had a budget."""
        return math.isfinite(self.budget_nats)

    @property
    def all_measured(self) -> bool:
        """Whether every run knows its distance to the demonstrator."""
        return all(run.kl_demonstrator_nats is not None for run in self.runs)

    @property
    def ratio(self) -> Spread | None:
        """KL to the demonstrator divided by the budget; ``None`` where not measured, and for a budget of 0 or none."""
        if not self.bounded or self.budget_nats == 0:
            return None
        values = measured(run.kl_demonstrator_nats for run in self.runs)
        return over_seeds([value / self.budget_nats for value in values])

    @property
    def kinds(self) -> str:
        """What the base is, in the words of the runs."""
        return "; ".join(dict.fromkeys(run.kind_of_base for run in self.runs))

    def total(self, field: str) -> int:
        """Sum of a counting field of :class:`Run`."""
        return sum(getattr(run, field) for run in self.runs)


def measured(values: Iterable[EpisodeMean | float | None]) -> list[float]:
    """The numbers among these, an :class:`EpisodeMean` standing for its mean."""
    return [value.mean if isinstance(value, EpisodeMean) else value for value in values if value is not None]


@dataclass(frozen=True, slots=True)
class Setting:
    """One number of demonstrations and one budget; ``groups`` in the order of the bases, no budget included."""

    n_demonstrations: int
    budget_nats: float
    groups: tuple[Group, ...]

    @property
    def bounded(self) -> tuple[Group, ...]:
        """The groups that had a budget."""
        return tuple(group for group in self.groups if group.bounded)

    def label(self, group: Group) -> str:
        """The group's name; with the account of asking where two groups here differ in that alone."""
        twins = sum(other.name == group.name for other in self.groups)
        return group.name if twins == 1 else f"{group.name} ({group.asking})"


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything a report says, before it is put into words and pictures."""

    results: Results
    groups: tuple[Group, ...]
    settings: tuple[Setting, ...]
    """The headline setting first; empty without runs."""

    @property
    def headline(self) -> Setting | None:
        """The setting of the verdict; ``None`` without runs."""
        return self.settings[0] if self.settings else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before comparing: how sources were merged, and sums that do not add up."""
        odd = [f"{run.base} seed {run.seed}" for group in self.groups for run in group.runs if not adds_up(run)]
        text = "KL by token does not add up to KL by episode (is it a mean over episodes still running?): "
        return self.results.notes + ((f"{text}{', '.join(odd)}.",) if odd else ())

    def base_alone(self, group: Group) -> BaseAlone | None:
        """The measurement of the group's base without reinforcement learning, if there is one."""
        same = (b for b in self.results.bases if (b.name, b.n_demonstrations) == (group.base, group.n_demonstrations))
        return next(same, None)


def adds_up(run: Run) -> bool:
    """Does the KL at each token, ended episodes counting 0, sum to the episode's mean within 2%? True where not kept."""
    pairs = [
        (run.kl_base_by_token_nats, run.kl_base_nats),
        (run.kl_demonstrator_by_token_nats, run.kl_demonstrator_nats),
    ]
    return all(
        math.isclose(math.fsum(by_token), episode.mean, rel_tol=0.02, abs_tol=0.01)
        for by_token, episode in pairs
        if by_token and episode is not None and math.isfinite(episode.mean)
    )


def summarize(results: Results) -> Summary:
    """Groups and settings of ``results``. Cost: O(runs)."""
    groups = group_runs(results.runs)
    return Summary(results, groups, make_settings(results, groups))


def group_runs(runs: Iterable[Run]) -> tuple[Group, ...]:
    """Runs grouped by (demonstrations, budget, base, account of asking, what else held them); each group ordered by seed."""
    groups: dict[tuple[int, float, int, str, str], list[Run]] = {}
    for run in runs:
        key = (run.n_demonstrations, run.budget_nats, BASES.index(run.base), run.asking, run.held_by)
        groups.setdefault(key, []).append(run)
    return tuple(
        Group(BASES[base], n, budget, asking, tuple(sorted(members, key=lambda run: run.seed)), held_by)
        for (n, budget, base, asking, held_by), members in sorted(groups.items())
    )


def make_settings(results: Results, groups: Sequence[Group]) -> tuple[Setting, ...]:
    """One setting for each (demonstrations, budget) that occurs; the headline first.

    The headline is what ``results`` names, if it was run, and else the setting with most runs. Runs without a budget
    join every setting of their number of demonstrations and make one of their own only where there is no other.
    """
    budgeted = {group.n_demonstrations for group in groups if group.bounded}
    runs = Counter[tuple[int, float]]()
    for group in groups:
        if group.bounded or group.n_demonstrations not in budgeted:
            runs[group.n_demonstrations, group.budget_nats] += len(group.runs)
    if not runs:
        return ()
    named = results.headline and (results.headline.n_demonstrations, results.headline.budget_nats)
    first = named if named in runs else max(sorted(runs), key=runs.__getitem__)
    order = sorted(runs, key=lambda key: (key != first, key))
    return tuple(Setting(n, budget, groups_at(groups, n, budget)) for n, budget in order)


def groups_at(groups: Iterable[Group], n_demonstrations: int, budget_nats: float) -> tuple[Group, ...]:
    """The groups with this many demonstrations and this budget or none, in the order of the bases."""
    here = [g for g in groups if g.n_demonstrations == n_demonstrations and g.budget_nats in (budget_nats, math.inf)]
    return tuple(sorted(here, key=lambda group: (BASES.index(group.base), group.asking, group.held_by)))


def short(value: float | None, digits: int = 3) -> str:
    """Three significant digits for people: ``10.6``, ``211``, ``0.404``, ``1,234``; an en dash for nothing."""
    if value is None:
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 10**digits - 0.5 else f"{value:#.{digits}g}".rstrip(".")


def percent(value: float | None) -> str:
    """A share as percent with one digit, ``0.4%``; an en dash for nothing."""
    return "–" if value is None else f"{100 * value:.1f}%"
