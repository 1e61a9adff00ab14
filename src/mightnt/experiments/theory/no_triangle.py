"""P1, no triangle: close to a base that is close to the demonstrator says nothing of the demonstrator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite, log
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.optimize import brentq

from mightnt.audits.drawing import INK, SOFT, STYLES, render
from mightnt.audits.figures import Panel
from mightnt.constraints.kl import kl_step_nats
from mightnt.experiments.theory.theorem import Computed, Report, Row, Theorem
from mightnt.prediction import Prediction


@dataclass(frozen=True, slots=True)
class NoTriangle:
    """What is computed."""

    tolerances: tuple[float, ...] = (0.01, 0.1, 1.0)
    """eps in nats: how close policy and demonstrator must each stay to the base."""
    least_probabilities: tuple[float, ...] = (1e-3, 1e-6, 1e-12)
    """What the demonstrator leaves to the action that the policy likes, where it does not leave it nothing."""
    n_points: int = 60
    """Points of each curve."""


def coin(heads: float) -> Prediction:
    """Bern(heads): the probabilities of 0 and 1."""
    return Prediction.of([1 - heads, heads])


def triple_of_the_proof(tolerance_nats: float, least: float = 0.0) -> tuple[Prediction, Prediction, Prediction]:
    """``(policy, base, demonstrator)``: pi = beta = Bern(min(eps, 1) / 2), tau = Bern(``least``), in the proof 0.

    KL(pi, beta) = 0 and KL(tau, beta) = -log(1 - min(eps, 1) / 2) <= eps at ``least`` = 0, less above it (up to eps / 2).

    Kind: exact. Paper: proposition 1. Cost: O(1).
    """
    half = coin(min(tolerance_nats, 1) / 2)
    return half, half, coin(least)


def farthest_triple(tolerance_nats: float, least: float) -> tuple[Prediction, Prediction, Prediction]:
    """The coins ``(policy, base, demonstrator)`` that make the most of the tolerance: max KL(pi, tau), tau = Bern(``least``).

    The base's b is the largest with KL(tau, beta) <= eps, the policy's p the largest with KL(pi, beta) <= eps. For p above
    ``least`` KL(pi, tau) grows with p, and the largest p grows with b, so no other base and policy do more on that side.

    Args:
        least: in (0, 1/2), below it every tolerance is reached inside (0, 1) or ends at Bern(1).

    Kind: exact (root finding to 1e-14). Paper: this project's. Cost: two bisections.
    """
    demonstrator = coin(least)
    base = coin(_largest(lambda p: kl_step_nats(demonstrator, coin(p)), least, tolerance_nats))
    heads = float(base.probabilities[1])
    policy = coin(_largest(lambda p: kl_step_nats(coin(p), base), heads, tolerance_nats))
    return policy, base, demonstrator


def _largest(distance: Any, start: float, tolerance_nats: float) -> float:
    """The largest p in [start, 1] with distance(p) <= tolerance, for a distance that grows from 0 at ``start``."""
    if distance(1.0) <= tolerance_nats:
        return 1.0
    inside = np.nextafter(1.0, 0.0)
    if distance(inside) <= tolerance_nats:
        return float(inside)
    return float(brentq(lambda p: distance(p) - tolerance_nats, start, inside, xtol=1e-16, rtol=1e-14))


def total_variation(one: Prediction, other: Prediction) -> float:
    """Half the L1 distance of two predictions that each sum to one."""
    return 0.5 * float(np.abs(one.probabilities - other.probabilities).sum())


def compute(config: NoTriangle, seed: int, report: Report) -> Computed:
    """The rows and curves of P1; there are no dice in it, so ``seed`` changes nothing."""
    rows = [row for eps in config.tolerances for row in rows_of_the_proof(eps)]
    rows += [
        row for eps in config.tolerances for least in config.least_probabilities for row in graded_rows(eps, least)
    ]
    policy, base, demonstrator = triple_of_the_proof(1.0)
    direct = total_variation(policy, demonstrator)
    around = total_variation(policy, base) + total_variation(base, demonstrator)
    rows.append(
        Row(
            "Total variation is a distance: between policy and demonstrator it is no more than by way of the base",
            direct,
            "",
            "exact",
            how=f"by way of the base {around:g}; eps = 1",
            holds=direct <= around + 1e-12,
        )
    )
    report(1, 1)
    return Computed(tuple(rows), curves(config))


def rows_of_the_proof(tolerance_nats: float) -> list[Row]:
    """The three divergences of the proof at one eps."""
    policy, base, demonstrator = triple_of_the_proof(tolerance_nats)
    premise, other = kl_step_nats(policy, base), kl_step_nats(demonstrator, base)
    end, eps = kl_step_nats(policy, demonstrator), f"eps = {tolerance_nats:g}"
    return [
        Row(f"{eps}: the policy is the base", premise, "nats", "exact", holds=premise == 0),
        Row(
            f"{eps}: the demonstrator is within eps of the base", other, "nats", "exact", holds=other <= tolerance_nats
        ),
        Row(f"{eps}: the policy is infinitely far from the demonstrator", end, "nats", "exact", holds=end == inf),
    ]


def graded_rows(tolerance_nats: float, least: float) -> list[Row]:
    """How far at finite values, and the premise that would bound it."""
    policy, base, demonstrator = farthest_triple(tolerance_nats, least)
    far = kl_step_nats(policy, demonstrator)
    within = max(kl_step_nats(policy, base), kl_step_nats(demonstrator, base)) <= tolerance_nats * (1 + 1e-9)
    bound = kl_step_nats(policy, base) + log(1 / float(np.min(demonstrator.probabilities / base.probabilities)))
    where = f"eps = {tolerance_nats:g}, the demonstrator leaves {least:g}"
    return [
        Row(
            f"{where}: both within eps of the base, the policy this far from the demonstrator",
            far,
            "nats",
            "exact",
            how=f"{far / tolerance_nats:.3g} times eps; the most that coins can do",
            holds=within and far > 2 * tolerance_nats,
        ),
        Row(
            f"{where}: KL(policy, base) + log 1/c, where the demonstrator keeps c of every probability of the base",
            bound,
            "nats",
            "upper bound",
            how="bounds the number before",
            holds=far <= bound * (1 + 1e-12),
        ),
    ]


def curves(config: NoTriangle) -> dict[str, Any]:
    """What the pictures are drawn from."""
    eps = np.geomspace(min(config.tolerances), 3, config.n_points).tolist()
    leasts = np.geomspace(1e-2, 1e-30, config.n_points).tolist()

    def far(tolerance: float, least: float) -> float:
        policy, _, demonstrator = triple_of_the_proof(tolerance, least)
        return kl_step_nats(policy, demonstrator)

    def farthest(tolerance: float, least: float) -> float:
        policy, _, demonstrator = farthest_triple(tolerance, least)
        return kl_step_nats(policy, demonstrator)

    to_base = [kl_step_nats(*triple_of_the_proof(e)[:0:-1]) for e in eps]
    return {
        "eps": eps,
        "demonstrator_to_base": to_base,
        "graded": {f"{least:g}": [far(e, least) for e in eps] for least in (*config.least_probabilities, 0.0)},
        "least": leasts,
        "ratio_of_the_proof": {f"{e:g}": [far(e, least) / e for least in leasts] for e in config.tolerances},
        "ratio_at_most": {f"{e:g}": [farthest(e, least) / e for least in leasts] for e in config.tolerances},
    }


def draw(curves: Mapping[str, Any]) -> list[Panel]:
    """Divergences over eps, and how far over how little the demonstrator leaves."""
    title = "Both within eps of the base, the policy is this far from the demonstrator"
    note = "The policy is the base: KL(policy, base) = 0 everywhere. Arrows: infinite, for one that leaves nothing."
    ratio = "How many times eps the policy is away, as the demonstrator leaves less"
    return [
        Panel(title, render("P1 eps", lambda axes: _draw_eps(axes, curves), 3.6), note),
        Panel(
            ratio,
            render("P1 ratio", lambda axes: _draw_ratio(axes, curves), 3.6),
            "Solid: the most that coins can do. Thin dashed: the coins of the proof.",
        ),
    ]


def _draw_eps(axes: Axes, curves: Mapping[str, Any]) -> None:
    eps, known = curves["eps"], STYLES["known"]
    graded = {least: [float(v) for v in values] for least, values in curves["graded"].items()}
    finite = {least: values for least, values in graded.items() if isfinite(values[0])}
    top, some = 3 * max(map(max, finite.values())), eps[:: max(1, len(eps) // 6)]
    axes.plot(some, [top] * len(some), ls="", marker="^", color=INK, label="policy to one that leaves 0")
    for (least, values), style in zip(
        reversed(finite.items()), (STYLES[b] for b in ("none", "mixture", "single")), strict=False
    ):
        axes.plot(eps, values, color=style.color, lw=2, ls=style.dash, label=f"policy to one that leaves {least}")
    axes.plot(eps, eps, color=SOFT, lw=0.9, ls=":", label="eps")
    axes.plot(eps, curves["demonstrator_to_base"], color=known.color, lw=2, ls=known.dash, label="demonstrator to base")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("eps, nats")
    axes.set_ylabel("KL, nats")
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def _draw_ratio(axes: Axes, curves: Mapping[str, Any]) -> None:
    least = curves["least"]
    for (eps, values), name in zip(curves["ratio_at_most"].items(), ("pessimistic", "single", "mixture"), strict=False):
        style = STYLES[name]
        axes.semilogx(least, values, color=style.color, lw=2)
        axes.semilogx(least, curves["ratio_of_the_proof"][eps], color=style.color, lw=0.9, ls=(0, (4, 2)))
        axes.text(least[-1] / 3, values[-1], f"eps = {eps}", size=9, va="center")
    axes.set_xlim(least[0], least[-1] * 1e-9)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("probability that the demonstrator leaves to the policy's action")
    axes.set_ylabel("KL(policy, demonstrator) / eps")


THEOREM = Theorem(
    name="P1",
    title="KL knows no triangle",
    says=(
        "A policy can be as close as you like to a base, and the demonstrator can be as close as you like to that base, while "
        "the policy is infinitely far from the demonstrator: it does, now and then, what the demonstrator never does. So a "
        "limit on the distance to an imitator says nothing of the distance to the person imitated. The numbers are those of the "
        "paper's proof: for every eps a demonstrator that always plays 0, and a policy and a base that play 1 with probability "
        "min(eps, 1) / 2. How far it goes at finite values, and the premise that mends it (the demonstrator keeps a share c of "
        "every probability of the base, which adds at most log 1/c), are ours."
    ),
    profiles={"quick": NoTriangle(n_points=12), "default": NoTriangle()},
    compute=compute,
    draw=draw,
)
