"""T2, variation: what a limit on the total variation distance permits, and where the naive reading of it is false."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mightnt.audits.drawing import INK, SOFT, STYLES, render
from mightnt.audits.figures import Panel
from mightnt.experiments.theory.ingredients import share_row
from mightnt.experiments.theory.theorem import Computed, Report, Row, Theorem
from mightnt.planners.conic import best_within_trajectories
from mightnt.planners.levels import (
    Levels,
    LogPolicy,
    expected,
    kl_of_sequences_nats,
    log_trajectories,
    random_levels,
    realize,
    upwards,
    weighted,
)
from mightnt.planners.soft import best_within_expected_kl
from mightnt.planners.stepwise import best_within_steps, moved_to_the_best
from mightnt.prediction import FloatArray

MARGIN = 1e-6
"""Rises, losses of value and probabilities below this are rounding."""

SHAPES = ((2, 1, 2), (2, 2, 2), (3, 1, 2), (2, 1, 3), (2, 2, 3))
"""Actions, observations, rounds of the random trees."""

FORK_BUDGET = 1 / 8
"""All that the worst trajectory of :func:`fork` has."""


@dataclass(frozen=True, slots=True)
class Variation:
    """What is computed."""

    n_decisions: int = 500
    """Random decisions among ``n_actions`` actions."""
    n_actions: int = 5
    """Actions of a random decision."""
    n_trees: int = 300
    """Random trees of each shape."""
    budget: float = 0.2
    """The TVD that policies may spend, a probability."""
    n_budgets: int = 46
    """Points of the curve."""


def fork() -> Levels:
    """The counterexample: 2 actions, 2 observations, 3 rounds, a uniform base, fair observations.

    First action 1: worth 1 whatever follows. First action 0: the observation tells which second action is the bold one;
    bold is worth .8 with a third action 0 and .3 with 1, timid is worth .5. Bold is the better one: by the best that can
    follow (.8), by what the base makes of it (.55) and by what the plan makes of it.
    """

    def utility(first: int, told: int, second: int, third: int) -> float:
        if first == 1:
            return 1.0
        return (0.8, 0.3)[third] if second == told else 0.5

    index = np.indices((2, 2, 2, 2, 2, 2)).reshape(6, -1).T
    utilities = np.array([utility(a1, o1, a2, a3) for a1, o1, a2, _, a3, _ in index])
    sizes = [4**t for t in range(3)]
    return Levels(
        tuple(np.full((n, 2), np.log(0.5)) for n in sizes), tuple(np.full((n, 2, 2), 0.5) for n in sizes), utilities
    )


def action_values(levels: Levels, log_policy: LogPolicy | None = None) -> list[FloatArray]:
    """What each action is worth when the policy goes on after it; without one, when the best goes on."""
    value, values = levels.utilities, list[FloatArray]()
    rows = [None] * levels.horizon if log_policy is None else log_policy[::-1]
    for (_, observations), row in zip(upwards(levels), rows, strict=True):
        values.append(expected(observations, value))
        value = values[-1].max(axis=1) if row is None else weighted(np.exp(row), values[-1])
    return values[::-1]


def largest_rise_of_worse(levels: Levels, log_policy: LogPolicy, *readings: list[FloatArray]) -> float:
    """The most by which the policy lifts, above the base, the probability of an action that is not the best there.

    max over histories that the policy can come to, and over actions worse than the best by more than 1e-6 in every one
    of ``readings``, of pi(a|h) - beta(a|h); 0 where none rises.
    """
    most = 0.0
    plan = realize(levels, log_policy)
    for t, (row, log_base) in enumerate(zip(log_policy, levels.log_base, strict=True)):
        worse = plan[t].sum(axis=1, keepdims=True) > MARGIN
        for values in readings:
            worse = worse & (values[t] < values[t].max(axis=1, keepdims=True) - MARGIN)
        most = max(most, float(np.where(worse, np.exp(row) - np.exp(log_base), 0).max()))
    return most


def largest_rise_of_worse_trajectory(levels: Levels, log_policy: LogPolicy) -> float:
    """The most by which the policy lifts a sequence of actions that a best policy never takes, observations given."""
    possible = [np.where(v >= v.max(axis=1, keepdims=True) - MARGIN, 0.0, -inf) for v in action_values(levels)]
    rise = np.exp(log_trajectories(levels, log_policy)) - np.exp(log_trajectories(levels, levels.log_base))
    return max(0.0, float(np.where(log_trajectories(levels, possible) == 0, 0, rise).max()))


def one_decision(utilities: FloatArray, base: FloatArray) -> Levels:
    """A tree of one round without observations."""
    with np.errstate(divide="ignore"):
        return Levels((np.log(base)[None],), (np.ones((1, utilities.size, 1)),), utilities)


def compute(config: Variation, seed: int, report: Report) -> Computed:
    """The rows and curves of T2."""
    rng = np.random.default_rng(seed)
    steps = 3 + len(SHAPES)
    rows = decision_rows(config, rng)
    report(1, steps)
    rows += zero_rows(config)
    rows += step_rows(config, rng)
    report(2, steps)
    rows += fork_rows()
    curve = fork_curve(config.n_budgets)
    report(3, steps)
    shares = []
    for done, shape in enumerate(SHAPES, start=4):
        found = shape_rows(shape, config, rng)
        shares.append([*shape, found[0].value, found[0].low, found[0].high])
        rows += found
        report(done, steps)
    return Computed(tuple(rows), {"decision": decision_curve(config), "fork": curve, "shares": shares})


def decision_rows(config: Variation, rng: np.random.Generator) -> list[Row]:
    """One decision: who gains, and how much, under TVD and under KL."""
    shape = (config.n_decisions, config.n_actions)
    base, utilities = rng.dirichlet(np.ones(config.n_actions), size=config.n_decisions), rng.uniform(size=shape)
    gain = moved_to_the_best(base, utilities, config.budget) - base
    best = utilities == utilities.max(axis=1, keepdims=True)
    off = np.abs(gain[best] - np.minimum(config.budget, 1 - base[best]))
    nats = 2 * config.budget**2
    rising = 0
    for row, utility in zip(base, utilities, strict=True):
        levels = one_decision(utility, row)
        plan = best_within_expected_kl(levels, nats).log_policy
        rising += largest_rise_of_worse(levels, plan, [utility[None]]) > MARGIN
    how = f"the largest in {config.n_decisions} random decisions among {config.n_actions} actions"
    most = float(np.where(best, 0, gain).max())
    return [
        Row(
            f"One decision, TVD {config.budget:g}: most that an action which is not the best gains",
            max(0.0, most), "", "exact", how=how, holds=most <= 1e-12,
        ),
        Row(
            f"One decision, TVD {config.budget:g}: how far the gain of the best action is from the whole budget",
            float(off.max()), "", "exact", how=f"{how}, or from what it lacks to 1", holds=bool(off.max() <= 1e-12),
        ),
        share_row(
            f"One decision, KL {nats:g} nats (TVD at most {config.budget:g}): an action that is not the best gains",
            rising, config.n_decisions, "random decisions", rising > 0,
        ),
    ]  # fmt: skip


def zero_rows(config: Variation) -> list[Row]:
    """The best action is one to which the base gives zero."""
    levels = one_decision(np.array([1.0, 0.5, 0.0]), np.array([0.0, 0.5, 0.5]))
    moved, held = best_within_trajectories(levels, config.budget), best_within_expected_kl(levels, 100.0).log_policy
    gets, kept = (float(np.exp(policy[0][0, 0])) for policy in (moved, held))
    nats = float(kl_of_sequences_nats(levels, moved).max())
    what = "The base gives the best action zero"
    return [
        Row(f"{what}: it gets, at TVD {config.budget:g}", gets, "", "exact", holds=abs(gets - config.budget) < 1e-9),
        Row(f"{what}: it gets, at KL 100 nats", kept, "", "exact", holds=kept == 0),
        Row(f"{what}: KL of the plan at TVD {config.budget:g}", nats, "nats", "exact", holds=nats == inf),
    ]


def step_rows(config: Variation, rng: np.random.Generator) -> list[Row]:
    """The limit on every step, in several rounds."""
    most = 0.0
    for _ in range(config.n_trees):
        levels = random_levels(rng, 3, 2, 3)
        policy = best_within_steps(levels, config.budget)
        most = max(most, largest_rise_of_worse(levels, policy, action_values(levels, policy)))
    return [
        Row(
            f"Three rounds, TVD {config.budget:g} at every step: most that an action gains which is not the best given "
            "how the plan goes on",
            most, "", "exact", how=f"the largest in {config.n_trees} random trees of 3 actions, 2 observations",
            holds=most <= 1e-12,
        )
    ]  # fmt: skip


def fork_rows() -> list[Row]:
    """The counterexample at the budget that empties the worst trajectory."""
    levels = fork()
    policy = best_within_trajectories(levels, FORK_BUDGET)
    timid, loss = timid_share(policy), min(timid_losses(levels, policy))
    where = f"Three rounds, TVD {FORK_BUDGET:g} of trajectories, after first action 0"
    return [
        Row(
            f"{where}: the plan's probability of the timid action, the base's is 0.5",
            timid, "", "exact", how="2/3 by hand; linear program to 1e-9", holds=timid > 0.5 + MARGIN,
        ),
        Row(
            f"{where}: by how much the timid action is worth less than the bold one",
            loss, "utility", "exact", how="the least of three readings: the best, the plan, or the base goes on",
            holds=loss > MARGIN,
        ),
        Row(
            "The same with the limit at every step: the plan's probability of the timid action",
            timid_share(best_within_steps(levels, FORK_BUDGET)), "", "exact", how="3/8 by hand",
            holds=timid_share(best_within_steps(levels, FORK_BUDGET)) < 0.5,
        ),
    ]  # fmt: skip


def timid_share(policy: LogPolicy) -> float:
    """The conditional probability of the timid action after first action 0 and observation 0."""
    return float(np.exp(policy[1][0, 1]))


def timid_losses(levels: Levels, policy: LogPolicy) -> list[float]:
    """Bold minus timid there, when the best, the plan or the base goes on."""
    readings = (action_values(levels), action_values(levels, policy), action_values(levels, list(levels.log_base)))
    return [float(values[1][0, 0] - values[1][0, 1]) for values in readings]


def fork_curve(n_budgets: int) -> dict[str, list[float]]:
    """The timid action's probability over the budget, for trajectories and for steps, as far as the plan goes there."""
    levels, curve = fork(), dict[str, list[float]](budget=[], trajectories=[], steps=[])
    for budget in np.linspace(0, 0.45, n_budgets):
        curve["budget"].append(float(budget))
        curve["trajectories"].append(timid_share(best_within_trajectories(levels, float(budget))))
        curve["steps"].append(timid_share(best_within_steps(levels, float(budget))))
    return curve


def shape_rows(shape: tuple[int, int, int], config: Variation, rng: np.random.Generator) -> list[Row]:
    """How often, in random trees, an action rises that is worse both ways; and a sequence of actions, observations given."""
    n_actions, n_observations, horizon = shape
    actions = trajectories = 0
    most = 0.0
    for _ in range(config.n_trees):
        levels = random_levels(rng, *shape)
        policy = best_within_trajectories(levels, config.budget)
        readings = action_values(levels), action_values(levels, policy)
        actions += largest_rise_of_worse(levels, policy, *readings) > MARGIN
        rise = largest_rise_of_worse_trajectory(levels, policy)
        trajectories += rise > MARGIN
        most = max(most, rise)
    seen = f"{n_observations} observations" if n_observations > 1 else "nothing observed"
    where = f"{n_actions} actions, {seen}, {horizon} rounds, TVD {config.budget:g} of trajectories"
    rows = [
        share_row(f"{where}: the plan lifts an action that is not the best", actions, config.n_trees, "random trees")
    ]
    if n_observations == 1:
        how = f"the largest in {config.n_trees} random trees; linear program to 1e-9"
        claim = f"{where}: most that a sequence of actions gains which is not the best"
        return [*rows, Row(claim, most, "", "exact", how=how, holds=most <= 1e-8)]
    claim = f"{where}: the plan lifts, given the observations, a sequence of actions that no best policy takes"
    return [*rows, share_row(claim, trajectories, config.n_trees, "random trees")]


def decision_curve(config: Variation) -> dict[str, list[float]]:
    """One decision to look at: six actions, the best of which the base gives zero."""
    utilities, base = np.linspace(0, 1, 6), np.array([0.25, 0.25, 0.2, 0.2, 0.1, 0.0])
    levels = one_decision(utilities, base)
    return {
        "utility": utilities.tolist(),
        "base": base.tolist(),
        "tvd": np.exp(best_within_trajectories(levels, config.budget)[0][0]).tolist(),
        "kl": np.exp(best_within_expected_kl(levels, 2 * config.budget**2).log_policy[0][0]).tolist(),
        "budget": [config.budget, 2 * config.budget**2],
    }


def draw(curves: Mapping[str, Any]) -> Sequence[Panel]:
    """One decision under both limits; the counterexample over the budget; how common it is."""
    tvd, nats = (float(value) for value in curves["decision"]["budget"])
    return [
        Panel(
            "One decision: TVD lifts the best action alone, KL lifts whatever is good",
            render("T2 decision", lambda axes: _draw_decision(axes, curves["decision"]), 3.4),
            f"TVD {tvd:g} and KL {nats:g} nats, which allows at most that TVD. The base gives the best action zero.",
        ),
        Panel(
            "Three rounds: a limit on trajectories lifts the action that is not the best",
            render("T2 fork", lambda axes: _draw_fork(axes, curves["fork"]), 3.4),
            "The timid action is worth .5, the bold one .8. The limit first empties the worst trajectory, a bold one.",
        ),
        Panel(
            "How often the plan lifts an action that is not the best, in random trees",
            render("T2 shares", lambda axes: _draw_shares(axes, curves["shares"]), 3.2),
            "Bars: 95% intervals.",
        ),
    ]


def _draw_decision(axes: Axes, curve: Mapping[str, Any]) -> None:
    utility, named = np.array(curve["utility"]), (("base", "none"), ("tvd", "pessimistic"), ("kl", "mixture"))
    names = {"base": "base", "tvd": "TVD plan", "kl": "KL plan"}
    for offset, (key, look) in zip((-0.03, 0.0, 0.03), named, strict=True):
        style, at = STYLES[look], utility + offset
        axes.vlines(at, 0, curve[key], color=style.color, lw=4, alpha=0.35)
        axes.plot(at, curve[key], color=style.color, marker=style.marker, ls="", label=names[key])
    axes.legend(frameon=False, loc="upper center", ncols=3, handletextpad=0.1, columnspacing=1.2)
    axes.set_ylim(-0.01, 1.3 * max(max(curve[key]) for key in names))
    axes.set_xticks(utility)
    axes.set_xlabel("utility of the action")
    axes.set_ylabel("probability of the action")


def _draw_fork(axes: Axes, curve: Mapping[str, Any]) -> None:
    budget = curve["budget"]
    for key, name, look in (
        ("trajectories", "limit on\ntrajectories", "mixture"),
        ("steps", "limit on\nevery step", "pessimistic"),
    ):
        style, values = STYLES[look], curve[key]
        axes.plot(budget, values, color=style.color, ls=style.dash, lw=2)
        at = int(len(budget) * 0.28)
        axes.annotate(name, (budget[at], values[at]), xytext=(8, 9), textcoords="offset points", size=9, va="bottom")
    axes.axhline(0.5, color=SOFT, lw=0.9, ls=":")
    axes.text(budget[-1], 0.505, "base", color=SOFT, size=9, ha="right", va="bottom")
    axes.set_ylim(0, 0.75)
    axes.set_xlabel("budget: total variation distance, a probability")
    axes.set_ylabel("probability of the timid action")


def _draw_shares(axes: Axes, shares: Sequence[Sequence[float]]) -> None:
    names = []
    for row, (n_actions, n_observations, horizon, share, low, high) in enumerate(shares):
        axes.plot([low, high], [row, row], color=STYLES["mixture"].color, lw=6, alpha=0.3, solid_capstyle="butt")
        axes.plot([share], [row], marker="D", color=STYLES["mixture"].color, ls="")
        axes.text(1.02, row, f"{share:.0%}", color=INK, va="center", size=9, transform=axes.get_yaxis_transform())
        seen = f"{n_observations:g} observations" if n_observations > 1 else "nothing observed"
        names.append(f"{n_actions:g} actions, {horizon:g} rounds,\n{seen}")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1)
    axes.set_xlabel("share of the trees")


THEOREM = Theorem(
    name="T2",
    title="What a limit on total variation permits",
    says=(
        "The total variation distance of two policies is the probability mass by which they differ. Under a limit on it, the "
        "best plan for one decision takes mass from the worst actions and gives it to the best one: no other action becomes "
        "likelier than under the base, and the best one gains even where the base gives it zero, which no finite KL budget "
        "allows. This is exact for one decision, and for a limit on every step when each action is valued by how the plan goes "
        "on. For whole trajectories of several rounds, under the worst observations, the same sentence is false: emptying the "
        "worst trajectories lifts, at some histories, the conditional probability of an action that is not the best. The "
        "counterexample with three rounds, its frequency in random trees, and the remark that what survives without observations "
        "is the sentence about whole trajectories, are ours."
    ),
    profiles={"quick": Variation(n_decisions=40, n_trees=15, n_budgets=10), "default": Variation()},
    compute=compute,
    draw=draw,
)
