"""T3, what asking costs: the price of a question, and what minima over tokens and over trajectories ask and give up."""

from __future__ import annotations

from math import comb, log
from typing import Any

import numpy as np

from mightnt.bases.pessimistic import Granularity, Pessimistic
from mightnt.constraints.asking import charge_asking_nats, with_answers
from mightnt.constraints.kl import kl_step_nats
from mightnt.desk.answer import Recorded
from mightnt.desk.play import play
from mightnt.experiments.theory.ingredients import charges_nats, mean_row, share_row
from mightnt.experiments.theory.theorem import Row
from mightnt.history import Chooser
from mightnt.models.categorical import Categorical
from mightnt.models.finite import ModelClass
from mightnt.prediction import Model, Prediction
from mightnt.worlds.tree import TreeWorld

KINDS: dict[Granularity, str] = {"token": "tokens", "trajectory": "trajectories"}
"""The two minima, and over what they are taken in words."""

HEADS = (0.5, 0.3, 0.45, 0.55, 0.8)
"""Five coins: their probabilities of 1, the demonstrator's first."""


def ask_symbol(n_decisions: int, seed: int) -> tuple[list[Row], dict[str, Any]]:
    """What asking costs if it is taken for one more action, and the term log(1 + theta) that mends it."""
    mu, base = Prediction.of([0.5, 0.5]), Prediction.of([0.5, 0.0])
    truth, charged = kl_step_nats(with_answers(base, mu), mu), charge_asking_nats(base, base)
    rng = np.random.default_rng([seed, 6])
    excess = np.array([_random_decision(rng) for _ in range(n_decisions)])
    wrong, worst = int((excess[:, 0] > 1e-9).sum()), float(excess[:, 1].max())
    example = "Demonstrator (.5, .5), base and policy (.5, 0)"
    thetas = np.linspace(0, 1, 101)[1:-1]
    family = [(Prediction.of([1 - t, t]), Prediction.of([1 - t, 0.0])) for t in thetas.tolist()]
    curve = [kl_step_nats(with_answers(nu, mu), mu) for mu, nu in family]
    rows = [
        Row(f"{example}: KL with asking as one more action", charged - log(1.5), "nats", "exact",
            how="to 1e-12", holds=abs(charged - log(1.5)) < 1e-12),
        Row(f"{example}: KL of agent and answers from the demonstrator", truth, "nats", "exact", holds=truth > 0.1),
        Row(f"{example}: charged, with log(1 + theta)", charged, "nats", "upper bound",
            how="bounds the number before", holds=truth <= charged),
        share_row("Random decisions in which asking as one more action claims less than the truth", wrong, len(excess),
                  "decisions", holds=wrong > 0),
        Row("Random decisions: truth - charge with log(1 + theta) is never above 0; the largest", worst, "nats",
            "exact", how=f"over {len(excess)} decisions", holds=worst <= 1e-9),
    ]  # fmt: skip
    corrections = np.log1p(thetas).tolist()
    return rows, {"theta": thetas.tolist(), "truth": curve, "correction": corrections, "excess": excess[:400].tolist()}


def _random_decision(rng: np.random.Generator) -> tuple[float, float]:
    """KL(system, mu) minus the extended KL, and minus the charge, for a random mu, nu <= mu and policy that may ask."""
    mu = rng.dirichlet(np.ones(3))
    nu = Prediction.of(mu * rng.uniform(size=3))
    policy = Prediction.of(rng.dirichlet(np.ones(4))[:3])
    truth = kl_step_nats(with_answers(policy, Prediction.of(mu)), Prediction.of(mu))
    charge = charge_asking_nats(policy, nu)
    return truth - (charge - log(1 + nu.missing)), truth - charge


def granularities(
    promised_failure: float, n_classes: int, n_episodes: int, n_rounds: int, seed: int
) -> tuple[list[Row], dict[str, Any]]:
    """Minima over tokens and over trajectories, on the same classes and episodes; and the least that acting costs."""
    world = TreeWorld(3, 1, n_rounds, lambda path: [1.0], lambda path: 0.0)
    means = {kind: np.zeros((n_classes, 3)) for kind in KINDS}
    for number in range(n_classes):
        dice = [Categorical.of(row) for row in np.random.default_rng([seed, 7, number]).dirichlet(np.ones(3), size=4)]
        for kind in KINDS:
            base = Pessimistic(ModelClass.of(dice), promised_failure / len(dice), kind)
            runs = [_asked_and_paid(base, dice[0], world, seed * n_episodes + e) for e in range(n_episodes)]
            means[kind][number] = np.mean(runs, axis=0)
    average = {kind: values.mean(axis=0) for kind, values in means.items()}
    fewer = average["trajectory"] < average["token"]
    within = {kind: bool(charge >= distance) for kind, (_, charge, distance) in average.items()}
    names = (
        ("questions", "questions"),
        ("charged, log(1 + theta) a decision,", "nats"),
        ("KL(system, demonstrator), within what was charged,", "nats"),
    )
    rows = [
        mean_row(
            f"Minimum over {over}: {what} in an episode of {n_rounds} actions", means[kind][:, column].tolist(), unit,
            f"random classes of 4 dice, {n_episodes} episodes each, the same for both",
            holds=within[kind] if column == 2 else bool(fewer[column]) if kind == "trajectory" else None,
        )
        for column, (what, unit) in enumerate(names) for kind, over in KINDS.items()
    ]  # fmt: skip
    more, floors = _floors(n_rounds)
    return rows + more, {"points": {kind: values.tolist() for kind, values in means.items()}, "floors": floors}


def _asked_and_paid(base: Pessimistic, mu: Model, world: TreeWorld, seed: int) -> tuple[float, float, float]:
    """Questions, charge and KL(system, mu) of one episode in which the base itself acts."""
    steps = play(base, world, desk=Recorded(mu), asking="charged", seed=seed, demonstrator=mu).steps
    asked = sum(step.chooser is Chooser.DEMONSTRATOR for step in steps)
    return asked, sum(step.kl_base_nats for step in steps), sum(float(step.kl_demonstrator_nats or 0) for step in steps)


def _floors(n_rounds: int) -> tuple[list[Row], dict[str, Any]]:
    """-log of the mass that minima over tokens and over trajectories leave to episodes without a question, exactly.

    Five coins: token, n times -log(sum of the two minima); trajectory, -log sum_k binom(n, k) min over coins of p^k (1-p)^(n-k).
    """
    heads = np.array(HEADS)
    lengths = list(range(1, n_rounds + 1))
    token = [-n * log(float(heads.min() + (1 - heads).min())) for n in lengths]
    trajectory = []
    for n in lengths:
        k = np.arange(n + 1)[:, None]
        least = (heads**k * (1 - heads) ** (n - k)).min(axis=1)
        trajectory.append(-log(sum(comb(n, int(i)) * float(p) for i, p in enumerate(least))))
    rows = [
        Row(f"Five coins: the least that {lengths[-1]} actions without a question cost, minimum over {kind}", values[-1],
            "nats", "exact", holds=None if kind == "tokens" else values[-1] <= token[-1])
        for kind, values in (("tokens", token), ("trajectories", trajectory))
    ]  # fmt: skip
    return rows, {"lengths": lengths, "token": token, "trajectory": trajectory}


def late_veto(n_ordinary: int = 12, n_odd: int = 6) -> tuple[list[Row], dict[str, Any]]:
    """What the minimum over trajectories gives up: a model that fits the agent's ordinary actions badly hides the veto.

    "Cheap" is an odd action charged less than log 10; the demonstrator would charge log 1000.
    """
    mu = Categorical.of([0.6, 0.399, 0.001])
    model_class = ModelClass.of([mu, Categorical.of([0.2, 0.3, 0.5])])

    def charged(kind: Granularity, ordinary: int) -> list[float]:
        return charges_nats(Pessimistic(model_class, 0.05, kind), [0] * ordinary + [2] * n_odd)

    counts = [0, n_ordinary // 2, n_ordinary]
    cheap = {kind: [sum(c < log(10) for c in charged(kind, n)[n:]) for n in counts] for kind in KINDS}
    charges = {kind: charged(kind, n_ordinary) for kind in KINDS}
    own = charges_nats(mu, [0] * n_ordinary + [2] * n_odd)
    rows = [
        Row(f"Minimum over {over}: odd actions that are cheap before the veto, after {n} ordinary ones", number, "actions",
            "exact", holds=number == 0 if kind == "token" else number > 0 or n < n_ordinary)
        for kind, over in KINDS.items() for index, (n, number) in enumerate(zip(counts, cheap[kind], strict=True))
    ]  # fmt: skip
    more = sum(charges["trajectory"]) - sum(own)
    rows.append(
        Row("In total the minimum over trajectories never charges less than the demonstrator itself; the difference", more,
            "nats", "exact", how=f"{n_ordinary} ordinary and {n_odd} odd actions; to 1e-9", holds=more >= -1e-9)
    )  # fmt: skip
    return rows, {"charges": {**charges, "demonstrator": own}, "n_ordinary": n_ordinary}
