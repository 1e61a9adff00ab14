"""Weaker assumptions: what breaks and what survives when a premise of the theorems fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log
from typing import Any

import numpy as np

from mightnt.bases.mixture import BayesMixture
from mightnt.bases.pessimistic import Pessimistic
from mightnt.experiments.theory.ingredients import charges_nats, mean_row, share_row
from mightnt.experiments.theory.theorem import Computed, Report, Row, Theorem
from mightnt.experiments.theory.timetables import (
    Timetable,
    ask,
    asking_probabilities,
    believed,
    coins,
    smallest_levels,
)
from mightnt.experiments.theory.weaker_pictures import panels
from mightnt.history import Chooser, Evidence, History, Step
from mightnt.models.categorical import Categorical
from mightnt.models.finite import ModelClass, top_set
from mightnt.models.switch import Switch
from mightnt.planners.least import least_kl_nats
from mightnt.prediction import FloatArray, Model, Prediction, follow
from mightnt.worlds.tree import Path, TreeWorld

Part = tuple[list[Row], dict[str, Any]]
"""Rows, and the curve they come with."""

PROMISED_FAILURE = 0.1
"""alpha / w(mu) wherever a level is needed and is not the question."""


@dataclass(frozen=True, slots=True)
class Weaker:
    """What is computed."""

    n_seeds: int = 10
    """Random classes (or targets) of the parts that plan."""
    horizon: int = 8
    """Actions of the episodes that are planned."""
    demonstrated_steps: tuple[int, ...] = (0, 10, 100, 1000, 10_000, 100_000)
    """Demonstrated steps before an episode."""
    n_runs: int = 1000
    """Demonstrations and imitators of the parts that do not plan."""
    n_steps: int = 4000
    """Steps of the longest of these demonstrations."""
    n_points: int = 49
    """Demonstrators outside the class, between the coins 0 and 1."""
    levels: tuple[float, ...] = (0.002, 0.02, 0.2, 0.5, 1.0)
    """alpha of the part that makes it too large."""
    n_odd: int = 20
    """Odd actions that the agent takes one after another."""


def compute(config: Weaker, seed: int, report: Report) -> Computed:
    """The five parts."""
    parts: tuple[Callable[[Weaker, int], Part], ...] = (
        not_closed,
        outside,
        level_too_large,
        not_exploitable,
        own_evidence,
    )
    rows, curves = list[Row](), dict[str, Any]()
    for done, part in enumerate(parts):
        more, curves[part.__name__] = part(config, seed)
        rows += more
        report(done + 1, len(parts))
    return Computed(tuple(rows), curves)


# the class is not closed under switching


def spoken(history: History) -> bool:
    """The event that the world says something; no demonstration contains it."""
    return bool(history) and history[-1].chooser is Chooser.WORLD


def only_actions(horizon: int, utility: Callable[[Path], float]) -> TreeWorld:
    """A world of ``horizon`` binary actions whose answer is always the same."""
    return TreeWorld(2, 1, horizon, lambda path: [1.0], utility)


def share_of_ones(path: Path) -> float:
    """The share of actions 1: a reward that the simplest behavior maximizes."""
    actions = path[::2]
    return sum(actions) / len(actions)


def switching_pair(
    heads: float, n_steps: int, rng: np.random.Generator, switch_cost_bits: float = 6
) -> dict[str, ModelClass]:
    """The class of three coins as it stands after ``n_steps`` of the first, alone and closed under "once spoken to, switch".

    The coins are the demonstrator's (``heads``), .5 and .9, equally likely; the six switching pairs share 2^-cost. Until the
    world speaks a pair predicts what its first coin does, so all posteriors follow from the count of ones.
    """
    coins_ = [Categorical.of([1 - p, p]) for p in (heads, 0.5, 0.9)]
    ones = int(rng.binomial(n_steps, heads))
    counts = np.array([n_steps - ones, ones])
    likelihood = [float(counts @ coin.prediction.log_probabilities) for coin in coins_]
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    switches = [Switch(coins_[a], spoken, coins_[b]) for a, b in pairs]
    per_switch = 2.0**-switch_cost_bits / len(pairs)
    own = [log((1 - 2.0**-switch_cost_bits) / 3) + value for value in likelihood]
    switched = [log(per_switch) + likelihood[a] for a, _ in pairs]
    return {
        "open": ModelClass(coins_, _normalized(own)),
        "closed": ModelClass([*coins_, *switches], _normalized([*own, *switched])),
    }


def _normalized(log_weights: list[float]) -> FloatArray:
    """A posterior from log joint weights: divided by their sum, as Bayes' rule does."""
    values = np.array(log_weights)
    normalized: FloatArray = values - np.logaddexp.reduce(values)
    return normalized


def not_closed(config: Weaker, seed: int) -> Part:
    """The least KL that buys nine tenths of the reward after a novelty, with and without switching models in the class."""
    world, value, level = only_actions(config.horizon, share_of_ones), 0.9, PROMISED_FAILURE / 3
    shape = (config.n_seeds, len(config.demonstrated_steps))
    found = {key: np.zeros(shape) for key in ("open", "closed", "pessimistic", "demonstrator")}
    inside = np.zeros(shape, dtype=bool)
    for number in range(config.n_seeds):
        rng = np.random.default_rng([seed, 1, number])
        heads = float(rng.uniform(0.01, 0.1))
        to_demonstrator = least_kl_nats(world, Categorical.of([1 - heads, heads]), value)
        for column, n_steps in enumerate(config.demonstrated_steps):
            found["demonstrator"][number, column] = to_demonstrator
            after = switching_pair(heads, n_steps, rng)
            for key, model_class in after.items():
                found[key][number, column] = least_kl_nats(world, BayesMixture(model_class), value)
            found["pessimistic"][number, column] = least_kl_nats(world, Pessimistic(after["closed"], level), value)
            inside[number, column] = 0 in top_set(after["closed"].log_prior, level)
    most, of = config.demonstrated_steps[-1], "random demonstrators"
    early, grown = config.demonstrated_steps[2], float(np.abs(found["closed"][:, -1] - found["closed"][:, 2]).max())
    above = float((found["pessimistic"] - found["demonstrator"])[inside].min())
    near = found["open"][:, -1] / found["demonstrator"][:, -1]
    rows = [
        mean_row(f"Closed under switching: the least KL to the mixture that buys .9 of the reward, after {most} steps",
                 found["closed"][:, -1].tolist(), "nats", of),
        Row(f"Closed under switching: demonstrations do not make it dearer; the most it changes from {early} steps to {most}",
            grown, "nats", "exact", how=f"to 1e-9, over {config.n_seeds} {of}", holds=grown < 0.1),
        mean_row("Not closed: what breaks is the cheap way out (T1), what survives is learning: as a share of the least KL to "
                 "the demonstrator, the price after all demonstrations", near.tolist(), "", of, holds=bool((near > 0.99).all())),
        Row("Closed under switching: while the demonstrator is believed, the price to the pessimistic base is never below that "
            "to the demonstrator (T3); the least difference", above, "nats", "exact",
            how=f"to 1e-9, over {inside.sum()} of {inside.size} cases", holds=above >= -1e-9),
        mean_row("The least KL to the demonstrator itself", found["demonstrator"][:, -1].tolist(), "nats", of),
    ]  # fmt: skip
    curve = {key: values.tolist() for key, values in found.items()}
    return rows, {"steps": list(config.demonstrated_steps), **curve}


# the demonstrator is outside the class


MEMBERS = (0.2, 0.5, 0.8)
"""Heads of the coins in the class when the demonstrator is none of them."""


def worst_gaps(
    heads: float, n_steps: int, level: float, n_runs: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """``(max over actions of log(nu_alpha / mu), theta)`` after ``n_steps`` demonstrations of the coin ``heads``, run by run.

    A policy that takes the worst action is that much further from the demonstrator than from the base, every time;
    at most 0 where the base is below the demonstrator. ``inf`` where the demonstrator never does what the base may do.
    """
    table, mu = coins(MEMBERS), np.array([1 - heads, heads])
    ones = rng.binomial(n_steps, heads, size=n_runs)[:, None]
    weights = ones * np.log(MEMBERS) + (n_steps - ones) * np.log1p(-np.array(MEMBERS))
    least = np.where(believed(weights, level)[:, :, None], table.probabilities[0], np.inf).min(axis=1)
    with np.errstate(divide="ignore"):
        gaps = np.log(least) - np.log(mu)
    return gaps.max(axis=1), asking_probabilities(table, np.zeros(n_runs, dtype=np.int64), weights, level)


def outside(config: Weaker, seed: int) -> Part:
    """How far above the demonstrator the base rises when the demonstrator is no member of the class."""
    level, heads = PROMISED_FAILURE / len(MEMBERS), np.linspace(0, 1, config.n_points)
    counts = (10, 100, 1000, 10_000)

    def after(p: float, n_steps: int) -> tuple[FloatArray, FloatArray]:
        rng = np.random.default_rng([seed, 2, n_steps, round(1e6 * p)])
        return worst_gaps(p, n_steps, level, config.n_runs, rng)

    curve = {str(n): [float(after(p, n)[0].mean()) for p in heads.tolist()] for n in counts}
    of, most = f"demonstrations of {counts[-1]} steps", counts[-1]
    few, many = after(0.35, counts[0])[0], {p: after(p, most) for p in (0.5, 0.55, 0.35, 0.98)}
    gap = {p: float(g.mean()) for p, (g, _) in many.items()}
    silent = int((many[0.35][1] == 0).sum())
    rows = [
        mean_row("Demonstrator a member (.5): the most that the base exceeds it", many[0.5][0].tolist(), "nats a decision", of,
                 holds=gap[0.5] <= 0.05),
        mean_row("Demonstrator outside but near a member (.55): T3 breaks, each decision by this much at most; what survives is "
                 "KL(policy, demonstrator) <= KL(policy, base) + decisions * this", many[0.55][0].tolist(), "nats a decision", of,
                 holds=0 < gap[0.55] < 0.2),
        mean_row("Demonstrator between two members (.35): while both are believed the base stays below it; after 10 steps",
                 few.tolist(), "nats a decision", "demonstrations of 10 steps", holds=float(few.mean()) < 0),
        mean_row("Demonstrator between two members (.35): data choose one of them, and the base rises above it",
                 many[0.35][0].tolist(), "nats a decision", of, holds=gap[0.35] > 0.2),
        mean_row("Demonstrator far from all members (.98): the same, and worse", many[0.98][0].tolist(), "nats a decision", of,
                 holds=gap[0.98] > gap[0.35]),
        share_row("Outside the class, asking gives no warning: demonstrations of the coin .35 after which nothing is asked",
                  silent, config.n_runs, of, holds=silent > 0.9 * config.n_runs),
    ]  # fmt: skip
    return rows, {"heads": heads.tolist(), "members": list(MEMBERS), "gaps": curve}


# alpha is too large


def level_too_large(config: Weaker, seed: int) -> Part:
    """What a larger alpha saves in questions and costs in coverage: lost at some time, and lost at a given time."""
    table = coins((0.5, 0.3, 0.45, 0.55, 0.8))
    prior = float(table.prior[0])
    lowest = smallest_levels(table, config.n_steps, config.n_runs, np.random.default_rng([seed, 3]))
    times = np.unique(np.geomspace(1, config.n_steps, 30).astype(np.int64))
    now = lost_at(table, times, config.levels, config.n_runs, np.random.default_rng([seed, 3, 1]))
    rows, asked = list[Row](), list[list[float]]()
    for index, level in enumerate(config.levels):
        n_lost, promise = int((lowest < level).sum()), level / prior
        words = f"at most {promise:.2g} of the time" if promise < 1 else "nothing is promised any more"
        row = share_row(f"alpha = {level:g}: the demonstrator is lost at some time in {config.n_steps} steps; {words}", n_lost,
                        config.n_runs, "demonstrations")  # fmt: skip
        rows.append(replace(row, holds=row.low is not None and row.low <= promise if promise < 1 else None))
        sums = ask(table, level, times, config.n_runs, np.random.default_rng([seed, 4, index]))
        questions = mean_row(f"alpha = {level:g}: questions asked in {config.n_steps} steps", sums[1][:, -1].tolist(),
                             "questions", "imitators")  # fmt: skip
        rows.append(questions)
        asked.append([questions.value, float(questions.low or 0), float(questions.high or 0)])
    most, early, late = config.levels[-1], *(float(now[-1][i]) for i in (len(times) // 2, -1))
    rows.append(
        share_row(
            f"alpha = {most:g}: what breaks is \"for ever\"; what survives is the long run: lost at step {times[-1]}, less "
            f"often than the {early:.0%} at step {times[len(times) // 2]}", round(late * config.n_runs), config.n_runs,
            "demonstrations", holds=late < early,
        )
    )  # fmt: skip
    curve = {
        "levels": list(config.levels),
        "prior": prior,
        "asked": asked,
        "times": times.tolist(),
        "lost_at": now.tolist(),
    }
    return rows, curve | {"lost": [float((lowest < level).mean()) for level in config.levels]}


def lost_at(
    table: Timetable, times: Any, levels: tuple[float, ...], n_runs: int, rng: np.random.Generator
) -> FloatArray:
    """Share of demonstrations of two-sided steady models in which mu is outside the top set at each of ``times``.

    Shape ``(n_levels, n_times)``.
    """
    ones = np.cumsum(
        rng.binomial(np.diff(times, prepend=0), table.probabilities[0, 0, 1], size=(n_runs, len(times))), axis=1
    )
    log_rows, shares = np.log(table.probabilities[0]), np.zeros((len(levels), len(times)))
    for index, time in enumerate(times.tolist()):
        weights = (
            np.log(table.prior) + ones[:, index, None] * log_rows[:, 1] + (time - ones[:, index, None]) * log_rows[:, 0]
        )
        shares[:, index] = [1 - believed(weights, level)[:, 0].mean() for level in levels]
    return shares


# a reward that simple behavior cannot exploit


@dataclass(frozen=True, slots=True)
class Cycle:
    """The model that repeats ``pattern`` for ever, for certain."""

    pattern: tuple[int, ...]

    @property
    def n_symbols(self) -> int:
        """Two."""
        return 2

    def start(self) -> int:
        """No action yet."""
        return 0

    def predict(self, state: int) -> Prediction:
        """The next symbol of the pattern."""
        return Prediction.of(np.eye(2)[self.pattern[state % len(self.pattern)]])

    def advance(self, state: int, step: Step) -> int:
        """One action further; observations do not count."""
        return state + step.is_action


CYCLES = ((0,), (1,), (0, 1), (1, 0))
"""The simple behaviors of the class."""


def cycles_and_coin(cost_bits: float = 5) -> ModelClass:
    """The fair coin, and each simple behavior at a weight of 2^-cost."""
    weights = [2.0**-cost_bits] * len(CYCLES)
    return ModelClass.of([Categorical.of([0.5, 0.5]), *map(Cycle, CYCLES)], [1 - sum(weights), *weights])


def not_exploitable(config: Weaker, seed: int) -> Part:
    """The least KL to the mixture over rewards: all ones, and agreement with random sequences that no simple behavior shows."""
    horizon, values = config.horizon, [0.6, 0.7, 0.8, 0.9, 1.0]
    mixture, coin = BayesMixture(cycles_and_coin()), Categorical.of([0.5, 0.5])
    rng = np.random.default_rng([seed, 5])
    simple_ones = {tuple((pattern * horizon)[:horizon]) for pattern in CYCLES}
    targets = list[Path]()
    while len(targets) < config.n_seeds:
        target = tuple(rng.integers(2, size=horizon).tolist())
        if target not in simple_ones:
            targets.append(target)

    def prices(base: Model, target: Path) -> list[float]:
        world = only_actions(horizon, lambda path: float(np.mean(np.equal(path[::2], target))))
        return [least_kl_nats(world, base, value) for value in values]

    simple, own = prices(mixture, (1,) * horizon), prices(coin, (1,) * horizon)
    hard = np.array([prices(mixture, target) for target in targets])
    of = f"random sequences of {horizon} actions"
    rows = [
        Row("All ones: the least KL to the mixture that buys the whole reward", simple[-1], "nats", "exact", how="to 1e-9",
            holds=simple[-1] < own[-1]),
        mean_row("A random sequence: the least KL to the mixture that buys the whole reward. What breaks is the cheap exploit: "
                 "T1 still holds, but describing the behavior is its price", hard[:, -1].tolist(), "nats", of,
                 holds=bool(hard[:, -1].min() >= own[-1])),
        Row("Either: the least KL to the demonstrator, a fair coin, that buys the whole reward", own[-1], "nats", "exact",
            how="to 1e-9", holds=abs(own[-1] - horizon * log(2)) < 1e-6),
    ]  # fmt: skip
    return rows, {"values": values, "simple": simple, "hard": hard.tolist(), "demonstrator": own}


# the agent's own actions as evidence


def own_evidence(config: Weaker, seed: int) -> Part:
    """What odd actions cost, one after another, when the agent's own actions are evidence and when they are not."""
    found = dict[str, list[list[float]]]()
    kept = {"all": 0, "demonstrated": 0}
    for number in range(config.n_seeds):
        rng = np.random.default_rng([seed, 6, number])
        mu, rivals = 0.97 * np.eye(3)[0] + 0.03 * rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), size=5)
        model_class = ModelClass.of([Categorical.of(row) for row in (mu, *rivals)], [0.9, *[0.02] * 5])
        odd = [int(np.argmin(mu))] * config.n_odd
        rules: tuple[Evidence, ...] = ("all", "demonstrated")
        for rule in rules:
            pessimistic = Pessimistic(model_class, PROMISED_FAILURE * 0.9, evidence=rule)
            found.setdefault(f"mixture {rule}", []).append(charges_nats(BayesMixture(model_class, rule), odd))
            found.setdefault(f"pessimistic {rule}", []).append(charges_nats(pessimistic, odd))
            after = follow(pessimistic, [Step(action, Chooser.AGENT) for action in odd]).of_class.log_posterior
            kept[rule] += 0 in top_set(after, pessimistic.top_set_level)
        found.setdefault("demonstrator", []).append(charges_nats(model_class.models[0], odd))
    totals = {name: np.array(charges).sum(axis=1) for name, charges in found.items()}
    own, of, n = totals["demonstrator"], "random classes", config.n_odd
    less = {rule: bool((totals[rule] < own).all()) for rule in ("mixture all", "pessimistic all")}
    never_less = bool((totals["pessimistic demonstrated"] >= own * (1 - 1e-12)).all())
    claims = {
        "mixture all": ("the agent's odd actions soon speak for models that take them", less["mixture all"]),
        "mixture demonstrated": ("each is charged like the first", None),
        "pessimistic all": ("T3 breaks, it is charged less than the demonstrator would", less["pessimistic all"]),
        "pessimistic demonstrated": ("T3 survives, it is never charged less", never_less),
        "demonstrator": ("-log of its probabilities", None),
    }
    rows = [
        mean_row(
            f"{n} odd actions in a row, {_evidence_words(name)}: {words}; in total",
            totals[name].tolist(),
            "nats",
            of,
            holds,
        )
        for name, (words, holds) in claims.items()
    ]
    rows += [
        share_row(f"Evidence {rule}: the demonstrator is still believed after them", hits, config.n_seeds, of,
                  holds=hits == (config.n_seeds if rule == "demonstrated" else 0))
        for rule, hits in kept.items()
    ]  # fmt: skip
    return rows, found


def _evidence_words(name: str) -> str:
    base, *rule = name.split()
    return f"{base}, evidence {rule[0]}" if rule else f"the {base} itself"


THEOREM = Theorem(
    name="weaker",
    title="Weaker assumptions: what breaks, what survives",
    says=(
        'The theorems rest on premises; here each of five fails. A class of models that is not closed under "once this happens, '
        'behave differently"; a demonstrator that is none of the models, near one of them or far from all; a level alpha at '
        "which too few models are believed; a reward that no simple behavior maximizes; and an agent whose own actions count as "
        "evidence about the demonstrator. For each: what breaks, what survives, and by how much. All of this is ours; the paper "
        "leaves it open."
    ),
    profiles={
        "quick": Weaker(
            n_seeds=3, horizon=4, demonstrated_steps=(0, 10, 1000, 100_000), n_runs=100, n_steps=400, n_points=13
        ),
        "default": Weaker(),
    },
    compute=compute,
    draw=panels,
)
