"""Is the near-optimal policy simple? The shortest program whose output is worth enough, against how much is enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mightnt.audits.drawing import INK, SOFT, STYLES, render
from mightnt.audits.figures import Panel
from mightnt.audits.intervals import share_interval
from mightnt.audits.summary import CONFIDENCE
from mightnt.experiments.theory.theorem import Computed, Report, Row, Theorem
from mightnt.models.machine.enumeration import CUT_BITS, CUT_STEPS, Limits, OutputTable, enumerate_programs
from mightnt.models.machine.instructions import assemble, disassemble
from mightnt.prediction import FloatArray


@dataclass(frozen=True, slots=True)
class Simplicity:
    """What is computed."""

    n_output: int = 16
    """m: a policy is a string of so many binary symbols."""
    max_bits: int = 24
    """L: programs of at most so many bits."""
    max_silent_steps: int = 1000
    """T: a program that executes so many instructions without writing is cut."""
    n_random: int = 200
    """Random utilities, each a value uniform on [0, 1] for every string on its own."""
    n_points: int = 60
    """Points of each curve."""


COPY = ",0.]"
"""Writes its own data: the first bit, here 0, is read before the dot, all others after the ``]``."""


def ones(strings: FloatArray) -> FloatArray:
    """The share of 1."""
    return np.asarray(strings.mean(axis=1))


def changes(strings: FloatArray) -> FloatArray:
    """The share of neighbors that differ."""
    return np.asarray((strings[:, 1:] != strings[:, :-1]).mean(axis=1))


def palindrome(strings: FloatArray) -> FloatArray:
    """The share of places that equal their mirror image, halved where the string is all one symbol."""
    alike = (strings == strings[:, ::-1]).mean(axis=1)
    return np.asarray(np.where(np.ptp(strings, axis=1) == 0, alike / 2, alike))


def number(strings: FloatArray) -> FloatArray:
    """The string as a binary number, over the largest."""
    places = 2.0 ** -np.arange(1, strings.shape[1] + 1)
    return np.asarray(strings @ places / places.sum())


def close_to_half_and_late(strings: FloatArray) -> FloatArray:
    """Half zeros, then half ones: the share of places where it is so."""
    n = strings.shape[1]
    return np.asarray((strings == (np.arange(n) >= n // 2)).mean(axis=1))


SIMPLE: dict[str, Callable[[FloatArray], FloatArray]] = {
    "many ones": ones,
    "many changes": changes,
    "zeros, then ones": close_to_half_and_late,
    "large as a number": number,
    "mirrored, not constant": palindrome,
}
"""Utilities with a short rule; strings come as rows of 0 and 1."""


def all_strings(n: int) -> FloatArray:
    """Every binary string of length n, in the order of the table's columns; shape (2^n, n)."""
    codes = np.arange(2**n)
    return np.asarray((codes[:, None] >> np.arange(n - 1, -1, -1)) & 1, np.float64)


def description_bits(table: OutputTable) -> FloatArray:
    """K_L of every string of the table's horizon; ``inf`` where no program was found."""
    size, n = table.limits.n_symbols, table.limits.horizon
    lengths = table.shortest_bits[-(size**n) :].astype(np.float64)
    return np.where(table.shortest_bits[-(size**n) :] == 255, inf, lengths)


def shortest_worth(values: FloatArray, bits: FloatArray, ranks: FloatArray) -> FloatArray:
    """For each rank q in (0, 1] the least description of a string whose value is among the best share q.

    min over strings x with U(x) >= v of K_L(x), v the value that a share q of all strings reaches or exceeds. ``inf`` where
    none of them was found. Falls as q grows.
    """
    order = np.argsort(-values, kind="stable")
    worst = np.searchsorted(-values[order], -values[order][np.ceil(ranks * len(values)).astype(int) - 1], side="right")
    return np.asarray(np.minimum.accumulate(bits[order])[worst - 1])


def shortest_by_value(values: FloatArray, bits: FloatArray, shares: FloatArray) -> FloatArray:
    """For each share s of the optimum the least description of a string worth at least min + s (max - min)."""
    low, high = values.min(), values.max()
    return np.array([bits[values >= low + share * (high - low) - 1e-12].min() for share in shares])


def compute(config: Simplicity, seed: int, report: Report) -> Computed:
    """One table, then minima over it."""
    limits = Limits(2, config.max_bits, config.max_silent_steps, config.n_output)
    table = enumerate_programs(limits, report=report)
    bits, strings = description_bits(table), all_strings(config.n_output)
    ranks = np.geomspace(1 / len(bits), 1, config.n_points)
    rng = np.random.default_rng(seed)
    random = np.array([shortest_worth(rng.uniform(size=len(bits)), bits, ranks) for _ in range(config.n_random)])
    simple = {name: rule(strings) for name, rule in SIMPLE.items()}
    shares = np.linspace(0, 1, config.n_points)
    curves = {
        "m": config.n_output,
        "max_bits": config.max_bits,
        "ranks": ranks.tolist(),
        "shares": shares.tolist(),
        "counting": np.log2(1 / ranks).tolist(),
        "random": np.quantile(random, [0.1, 0.5, 0.9], axis=0, method="inverted_cdf").tolist(),
        "simple": {name: shortest_by_value(values, bits, shares).tolist() for name, values in simple.items()},
        "lengths": {str(int(b)): int((bits == b).sum()) for b in sorted(set(bits[np.isfinite(bits)]))},
        "not_found": int(np.isinf(bits).sum()),
    }
    rows = [*reach_rows(table, bits), *random_rows(random, ranks, bits), *simple_rows(table, simple, bits)]
    return Computed(tuple(rows), curves)


def reach_rows(table: OutputTable, bits: FloatArray) -> list[Row]:
    """How many strings any program reaches, and what the limits leave open."""
    limits, n = table.limits, len(bits)
    missed = int(np.isinf(bits).sum())
    most = max(int(np.isfinite(bits[bits <= b]).sum()) / 2.0**b for b in set(bits[np.isfinite(bits)]))
    cut = [float(table.masses[row, : table.limits.n_outputs - n].sum()) for row in (CUT_BITS, CUT_STEPS)]
    literal = len(assemble(COPY)) + limits.horizon - 1
    return [
        Row(f"strings of {limits.horizon} symbols that no program to {limits.max_bits} bits writes", missed / n, "share",
            "exact", how=f"{missed} of {n}; their shortest program is longer, or silent for {limits.max_silent_steps} steps"),
        Row(f"bits of the program that holds the string itself as data, {COPY}", literal, "bits", "upper bound",
            how="on the description of any string of this length", holds=bool(literal > limits.max_bits or missed == 0)),
        Row("mass of the programs cut for their length before they wrote as much", cut[0], "probability", "exact",
            how=f"cut for their silence: {cut[1]:.3g}"),
        Row("at most 2^b strings have a program of b bits or fewer: the largest share of that reached", most, "", "exact",
            how="no more programs than bit strings", holds=bool(most <= 1)),
    ]  # fmt: skip


def random_rows(random: FloatArray, ranks: FloatArray, bits: FloatArray) -> list[Row]:
    """Random utilities: the best, and the best hundredth."""
    n_random = len(random)
    found = np.isfinite(random[:, 0])
    low, high = share_interval(int((~found).sum()), n_random, 1 - CONFIDENCE)
    at = int(np.searchsorted(ranks, 0.01))
    middle = np.quantile(random[:, at], [0.025, 0.5, 0.975], method="inverted_cdf")
    spare = np.quantile(random, 0.5, axis=0, method="inverted_cdf") - (np.log2(1 / ranks) - 1)
    return [
        Row("random utilities: share whose best string no program found writes", float((~found).mean()), "share", "estimate",
            low, high, f"95% Clopper-Pearson over {n_random} utilities; a share {np.isinf(bits).mean():.3g} of strings is so"),
        Row("random utilities: shortest program worth the best hundredth, median", float(middle[1]), "bits", "estimate",
            float(middle[0]), float(middle[2]), f"middle 95% of {n_random} utilities; counting asks for "
            f"{np.log2(1 / ranks[at]) - 1:.2g} bits at least"),
        Row("random utilities: bits of the median above log2(1/q) - 1, the least that counting allows, at the tightest q",
            float(spare.min()), "bits", "exact", how="a program of b bits is among the best share q with "
            "probability q, and there are at most 2^b of them", holds=bool(spare.min() >= 0)),
    ]  # fmt: skip


def simple_rows(table: OutputTable, simple: Mapping[str, FloatArray], bits: FloatArray) -> list[Row]:
    """Simple utilities: the best string's program."""
    rows = []
    for name, values in simple.items():
        best = np.flatnonzero(values == values.max())
        index = int(best[np.argmin(bits[best])])
        output = [int(digit) for digit in f"{index:0{table.limits.horizon}b}"]
        program = table.program(output)
        shown = disassemble(program) if program else "none found"
        rows.append(
            Row(f"{name}: the shortest program worth the optimum", float(bits[index]), "bits", "upper bound",
                how=f"{shown} writes {''.join(map(str, output))}", holds=isfinite(bits[index]))
        )  # fmt: skip
    return rows


def draw(curves: Mapping[str, Any]) -> list[Panel]:
    """Random utilities, simple ones, and how many strings have short programs."""
    return [
        Panel("Random utilities: the more is asked, the longer the program",
              render("simplicity random", lambda axes: _random(axes, curves), 3.4),
              "Band: the middle 80% of utilities. Where the line ends no program was found for half of them."),
        Panel("Simple utilities: the optimum itself has a short program",
              render("simplicity simple", lambda axes: _simple(axes, curves), 3.4)),
        Panel("Most strings have no short program",
              render("simplicity lengths", lambda axes: _lengths(axes, curves), 3.0),
              f"{curves['not_found']} of {2 ** curves['m']} strings are written by no program found."),
    ]  # fmt: skip


def _random(axes: Axes, curves: Mapping[str, Any]) -> None:
    x = np.array(curves["counting"])
    low, middle, high = (np.array([float(v) for v in row]) for row in curves["random"])
    top = curves["max_bits"] + 1.0
    axes.fill_between(x, low, np.minimum(high, top), color=STYLES["mixture"].color, alpha=0.2, lw=0)
    axes.plot(x, middle, color=STYLES["mixture"].color, lw=2, label="shortest program found, median")
    axes.plot(x, x, color=SOFT, lw=1.1, ls=":", label="counting: one string in 2^b is as good")
    axes.set_ylim(0, top)
    axes.set_xlabel("how rare: -log2 of the share of strings as good")
    axes.set_ylabel("bits")
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def _simple(axes: Axes, curves: Mapping[str, Any]) -> None:
    bases = ("mixture", "single", "pessimistic", "known", "none")
    for (name, bits), base in zip(curves["simple"].items(), bases, strict=True):
        y = np.array([float(value) for value in bits])
        axes.plot(curves["shares"], np.where(np.isfinite(y), y, np.nan), color=STYLES[base].color, lw=1.8,
                  ls=STYLES[base].dash, label=name)  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xlabel("value asked for, from the worst string (0) to the best (1)")
    axes.set_ylabel("shortest program found, bits")
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def _lengths(axes: Axes, curves: Mapping[str, Any]) -> None:
    x = [int(b) for b in curves["lengths"]]
    axes.bar(x, list(curves["lengths"].values()), color=STYLES["pessimistic"].color, width=0.7)
    axes.plot(x, [2.0**b for b in x], color=INK, lw=1.1, ls=(0, (4, 2)))
    axes.text(x[0], 2.0 ** x[0] * 1.6, "2^b", color=INK, size=9)
    axes.set_yscale("log")
    axes.set_ylim(0.7, 2 * 2 ** curves["m"])
    axes.set_xlabel("shortest program found, bits")
    axes.set_ylabel("strings")


THEOREM = Theorem(
    name="simplicity",
    title="Is the near-optimal policy simple?",
    says=(
        "A policy here is a string of symbols, its description the shortest program found that writes it on the universal "
        "machine. If the utility gives every string a random value, being among the best share q takes about log2(1/q) bits "
        "and some more, for there are no more short programs than that: the more is asked, the less simple. If the utility "
        "has a short rule, the optimum itself has a short program. So what the theory fears, a simple policy that is nearly "
        "optimal, is what simple utilities have and random ones have not. Lengths are upper bounds: a shorter program may "
        "have been cut. None needs more than the string itself and nine bits. The question is one of the paper's readers, the "
        "numbers are ours."
    ),
    profiles={"quick": Simplicity(n_output=10, max_bits=18, n_random=100), "default": Simplicity()},
    compute=compute,
    draw=draw,
)
