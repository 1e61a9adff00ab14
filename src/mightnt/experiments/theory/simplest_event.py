"""P2, the simplest event that has not happened yet: how long its description is, against time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mightnt.audits.drawing import INK, SOFT, STYLES, render
from mightnt.audits.figures import Panel
from mightnt.errors import InputError
from mightnt.experiments.theory.ingredients import mean_row
from mightnt.experiments.theory.theorem import Computed, Report, Row, Theorem
from mightnt.models.switching.events import Alphabets, Event, Kind, Whose, gamma_bits
from mightnt.prediction import FloatArray

IntArray = NDArray[np.int64]
Symbols = NDArray[np.uint8]

TWO = Alphabets(2, 2)
"""Binary observations; the code is that of the switching language."""

CLOCK_BITS = 4
"""What it costs to name a clock that is not in the language, before its number: one of two, after the four kinds."""

FAMILIES = ("time", "run", "word")


@dataclass(frozen=True, slots=True)
class SimplestEvent:
    """What is computed."""

    n_steps: int = 10_000_000
    """Length of every sequence."""
    n_coins: int = 5
    """Sequences of the fair coin."""
    n_points: int = 120
    """Points of each curve, evenly spaced in log time."""


# four worlds


def coin(n_steps: int, rng: np.random.Generator) -> Symbols:
    """A fair coin."""
    return rng.integers(2, size=n_steps, dtype=np.uint8)


def squares(n_steps: int) -> Symbols:
    """1 at the times 1, 4, 9, 16, ..., else 0: ever rarer."""
    symbols = np.zeros(n_steps, dtype=np.uint8)
    symbols[np.arange(1, int(np.sqrt(n_steps)) + 1) ** 2 - 1] = 1
    return symbols


def champernowne(n_steps: int) -> Symbols:
    """All numbers in binary, one after another: 1 10 11 100 101 ...; every word occurs in it."""
    pieces, total, digits = list[Symbols](), 0, 0
    while total < n_steps:
        digits += 1
        n_numbers = min(2 ** (digits - 1), (n_steps - total) // digits + 1)
        numbers = 2 ** (digits - 1) + np.arange(n_numbers, dtype=np.int32)
        rows = (numbers[:, None] >> np.arange(digits - 1, -1, -1, dtype=np.int32)) & 1
        pieces.append(rows.astype(np.uint8).ravel())
        total += pieces[-1].size
    return np.concatenate(pieces)[:n_steps]


def alternating(n_steps: int) -> Symbols:
    """0 1 0 1 ... for ever."""
    return (np.arange(n_steps) % 2).astype(np.uint8)


# the simplest event of each family that has not happened


def bits_of_time(j: int) -> int:
    """Length of "the time is at least 2^j"."""
    return len(Event(Kind.TIME, number=j).code(TWO))


def bits_of_run(r: int) -> int:
    """Length of "a run of r equal observations has occurred"."""
    return len(Event(Kind.RUN, Whose.OBSERVATIONS, r).code(TWO))


def bits_of_word(length: int) -> int:
    """Length of "the observations w have occurred", w a word of this length."""
    return len(Event(Kind.SEEN, Whose.OBSERVATIONS, word=(0,) * length).code(TWO))


def all_words_seen_at(symbols: Symbols) -> list[int]:
    """For word lengths 1, 2, ...: how many steps it takes until every word of the length has occurred.

    The list ends before the first length of which some word never does; of longer ones some word never does either.

    Kind: exact. Cost: O(n_steps) for each length, at most log2(n_steps) of them; 8 bytes a word.
    """
    times, length, codes = list[int](), 0, np.zeros(len(symbols) + 1, dtype=np.int32)
    while True:
        length += 1
        codes = 2 * codes[:-1] + symbols[length - 1 :]  # codes[i]: the word that ends at step i + length
        first = np.full(2**length, -1, dtype=np.int64)
        if len(codes) < len(first):
            return times
        first[codes[::-1]] = np.arange(len(symbols), length - 1, -1)  # of equal words the first is written last
        if (first < 0).any():
            return times
        times.append(int(first.max()))


def longest_runs_at(symbols: Symbols) -> IntArray:
    """When a run of 1, 2, 3, ... equal symbols was first complete, in steps.

    Kind: exact. Cost: O(n_steps).
    """
    begins = np.flatnonzero(np.diff(symbols, prepend=1 - symbols[:1]) != 0)
    lengths = np.diff(begins, append=len(symbols))
    record = np.maximum.accumulate(lengths)
    ranks = np.arange(1, int(record[-1]) + 1)
    return np.asarray(begins[np.searchsorted(record, ranks)] + ranks)


def simplest_by_family(symbols: Symbols, times: IntArray) -> dict[str, IntArray]:
    """Bits of the simplest event of each family that has not happened at each of ``times`` (steps so far, from 1).

    ``time``: the next power of two. ``run``: one longer than the longest so far. ``word``: of the shortest length of which a
    word is missing. "The last symbols are w" has never been true exactly when w has not occurred, and costs the same.

    Kind: exact. Cost: that of :func:`all_words_seen_at`.
    """
    if len(times) and not 1 <= times.min() <= times.max() <= len(symbols):
        raise InputError(f"times from {times.min()} to {times.max()}; 1 to {len(symbols)} are in the sequence")
    exponents = np.frexp(times.astype(np.float64))[1]  # 2^(e-1) <= t < 2^e
    longest = np.searchsorted(longest_runs_at(symbols), times, side="right")
    missing = 1 + np.searchsorted(np.array(all_words_seen_at(symbols)), times, side="right")
    return {
        "time": np.array([bits_of_time(int(e)) for e in exponents]),
        "run": np.array([bits_of_run(max(2, int(r) + 1)) for r in longest]),
        "word": np.array([bits_of_word(int(length)) for length in missing]),
    }


def simplest(families: Mapping[str, IntArray], names: tuple[str, ...] = FAMILIES) -> IntArray:
    """The least over families."""
    least: IntArray = np.min([families[name] for name in names], axis=0)
    return least


def bound_in_language_bits(times: IntArray) -> FloatArray:
    """3 + 2 log2(log2 t + 2): above the length of the next power of two, hence of the simplest event, in any world."""
    bound: FloatArray = 3 + 2 * np.log2(np.log2(times) + 2)
    return bound


def clock_bits(growth: FloatArray) -> IntArray:
    """Bits of the next tick of a clock made to be simpler than ``growth``, a nondecreasing function of time.

    cost(j) = :data:`CLOCK_BITS` + |gamma(j+1)|. Tick j of the clock is at h(j) = the least t with g(t) > 2 cost(j+1), which a
    program for g computes. At time t the next tick is the least j with h(j) > t. If j > 0 then h(j-1) <= t, so
    g(t) > 2 cost(j): the next tick has fewer than g(t) / 2 bits, for every t from h(0) on. That is the proof, with the
    language extended by one word for one g; a universal language has that word already, at the price of a program for g.

    Kind: exact. Paper: proposition 2, its mechanism. Cost: O(n log of the largest cost).
    """
    costs = CLOCK_BITS + np.array([gamma_bits(j + 1) for j in range(2 ** (2 + int(growth.max() / 4)))])
    return np.asarray(costs[np.searchsorted(2 * costs[1:], growth)])


def next_power_bits(x: FloatArray) -> IntArray:
    """Bits of the next "the time is at least 2^j" at t = 2^2^x, x >= 0."""
    return np.array([bits_of_time(int(2.0**value) + 1) if value < 8 else 2 + gamma_bits(int(2.0**value) + 2)
                     for value in x.tolist()])  # fmt: skip


def next_double_power_bits(x: FloatArray) -> IntArray:
    """Bits of the next "the time is at least 2^2^j" at t = 2^2^x, x >= 0, with one more word in the language."""
    return np.array([CLOCK_BITS + gamma_bits(int(value) + 2) for value in x.tolist()])


def next_tower_bits(x: FloatArray) -> IntArray:
    """Bits of the next "the time is at least 2^2^...^2, j times" at t = 2^2^x, x >= 0, with one more word."""
    reached = np.searchsorted([0, 1, 2, 4, 16, 65536], x, side="right")  # log2 log2 of 2, 4, 16, 2^16, 2^65536, ...
    return np.array([CLOCK_BITS + gamma_bits(int(j) + 2) for j in reached])


# the chapter


def compute(config: SimplestEvent, seed: int, report: Report) -> Computed:
    """Curves and rows for every world."""
    times = np.unique(np.geomspace(1, config.n_steps, config.n_points).astype(np.int64))
    made: dict[str, Callable[[], Symbols]] = {
        "squares": lambda: squares(config.n_steps),
        "all numbers": lambda: champernowne(config.n_steps),
        "alternating": lambda: alternating(config.n_steps),
    }
    n_parts = config.n_coins + len(made)
    coins = []
    for number in range(config.n_coins):
        coins.append(simplest_by_family(coin(config.n_steps, np.random.default_rng([seed, number])), times))
        report(number + 1, n_parts)
    worlds = {"fair coin": coins[0]}
    for name, make in made.items():
        worlds[name] = simplest_by_family(make(), times)
        report(config.n_coins + len(worlds) - 1, n_parts)
    curves = {name: {family: values.tolist() for family, values in found.items()} for name, found in worlds.items()}
    rows = [*coin_rows(coins, times), *world_rows(worlds, times), *clock_rows()]
    return Computed(tuple(rows), {"times": times.tolist(), "worlds": curves, "clocks": clock_curves()})


def coin_rows(coins: list[dict[str, IntArray]], times: IntArray) -> list[Row]:
    """The fair coin, over several sequences."""
    last, of = int(times[-1]), "sequences of the coin"
    whole = [int(simplest(found)[-1]) for found in coins]
    words = [int(found["word"][-1]) for found in coins]
    late = times >= 100
    slope = [float(np.polyfit(np.log2(times[late]), found["word"][late], 1)[0]) for found in coins]
    return [
        mean_row(f"Fair coin: the simplest event that has not happened in {last} steps", whole, "bits", of,
                 holds=max(whole) <= float(bound_in_language_bits(times)[-1])),
        mean_row("Fair coin, words alone: the simplest that has not occurred", words, "bits", of),
        mean_row("Fair coin, words alone: bits more for each doubling of time; so words alone grow like log t, and a log is "
                 "not beaten", slope, "bits", of, holds=min(slope) > 0.9),
    ]  # fmt: skip


def world_rows(worlds: Mapping[str, Mapping[str, IntArray]], times: IntArray) -> list[Row]:
    """Every world at the end, and the bound that holds in all of them."""
    last = int(times[-1])
    slack = min(float((bound_in_language_bits(times) - simplest(found)).min()) for found in worlds.values())
    rows = [
        Row(f"{name}: the simplest event that has not happened in {last} steps", float(simplest(found)[-1]), "bits", "exact",
            how=f"without the clock {simplest(found, FAMILIES[1:])[-1]}, words alone {found['word'][-1]}")
        for name, found in worlds.items()
    ]  # fmt: skip
    bound = float(bound_in_language_bits(times)[-1])
    rows += [
        Row("In this language it never exceeds 3 + 2 log2(log2 t + 2), whatever the world does", bound, "bits", "upper bound",
            how=f"at t = {last}; least left over in all worlds and at all times shown {slack:.3g} bits", holds=slack >= 0),
        Row("alternating: it does not grow at all after a while; the change in the second half of log time",
            float(np.ptp(simplest(worlds["alternating"])[len(times) // 2 :])), "bits", "exact",
            holds=bool(np.ptp(simplest(worlds["alternating"])[len(times) // 2 :]) == 0)),
    ]  # fmt: skip
    return rows


GROWTHS: dict[str, tuple[float, Callable[[FloatArray], FloatArray]]] = {
    "log t": (6, lambda x: 2.0**x),
    "log log t": (60, lambda x: x),
    "log log log t": (2.0**60, lambda x: np.log2(x)),
}
"""Functions of time as functions of x = log2(log2 t), and the largest x at which they are tried."""


def clock_rows() -> list[Row]:
    """For each slow function, the share of it that the next tick of the clock made for it costs."""
    rows = []
    for name, (largest, growth) in GROWTHS.items():
        values = growth(np.geomspace(1, largest, 400))
        bits = clock_bits(values)
        ticked = bits > CLOCK_BITS + 1
        worst = float((bits[ticked] / values[ticked]).max())
        rows.append(
            Row(f"With one more word, a clock made for {name}, the simplest novelty has less than half of {name} bits from the "
                "first tick on; at most this share", worst, "", "exact",
                how=f"up to t = 2^2^{largest:.3g}; a word of {CLOCK_BITS} bits", holds=worst < 0.5)
        )  # fmt: skip
    return rows


def clock_curves(n_points: int = 240) -> dict[str, list[float]]:
    """The next tick of three clocks at times that no sequence reaches; x = log2(log2 t)."""
    x = np.linspace(0, 60, n_points)
    clocks = {"2^j": next_power_bits(x), "2^2^j": next_double_power_bits(x), "a tower of 2s": next_tower_bits(x)}
    return {"x": x.tolist()} | {name: bits.tolist() for name, bits in clocks.items()}


# pictures


WORLD_STYLES = {"fair coin": "mixture", "squares": "single", "all numbers": "pessimistic", "alternating": "known"}


def draw(curves: Mapping[str, Any]) -> list[Panel]:
    """The simplest event, words alone, and clocks."""
    whole = "The simplest event that has not happened yet"
    words = "Without a clock, words alone: novelty gets as complicated as log t"
    clocks = "Each further word in the language makes the next novelty simpler"
    return [
        Panel(whole, render("P2 whole", lambda axes: _draw_worlds(axes, curves, FAMILIES), 3.4),
              "Curves of worlds that agree lie on one another."),
        Panel(words, render("P2 words", lambda axes: _draw_worlds(axes, curves, ("word",)), 3.4)),
        Panel(clocks, render("P2 clocks", lambda axes: _draw_clocks(axes, curves["clocks"]), 3.2),
              "The next tick of a clock has never happened, in any world; computed, not simulated: at the right t = 2^2^60."),
    ]  # fmt: skip


def _draw_worlds(axes: Axes, curves: Mapping[str, Any], names: tuple[str, ...]) -> None:
    times = np.array(curves["times"])
    for name, families in curves["worlds"].items():
        style = STYLES[WORLD_STYLES[name]]
        bits = simplest({family: np.array(values) for family, values in families.items()}, names)
        axes.step(times, bits, where="post", color=style.color, lw=2, ls=style.dash, label=name)
    if "time" in names:
        axes.plot(
            times, bound_in_language_bits(times), color=INK, lw=1.1, ls=(0, (4, 2)), label="3 + 2 log2(log2 t + 2)"
        )
    axes.plot(times, np.log2(times), color=SOFT, lw=1, ls=":", label="log2 t")
    axes.set_xscale("log")
    axes.set_ylim(0, 14 if "time" in names else 34)
    axes.set_xlabel("time t, steps")
    axes.set_ylabel("shortest description, bits")
    axes.legend(fontsize=8, frameon=False, loc="best", ncols=2)


def _draw_clocks(axes: Axes, curves: Mapping[str, Any]) -> None:
    for (name, bits), base in zip(list(curves.items())[1:], ("mixture", "single", "pessimistic"), strict=True):
        style = STYLES[base]
        axes.step(curves["x"], bits, where="post", color=style.color, lw=2, ls=style.dash, label=f"time >= {name}")
    axes.plot(curves["x"], curves["x"], color=SOFT, lw=1, ls=":", label="log2 log2 t")
    axes.set_ylim(0, 40)
    axes.set_xlabel("log2 log2 t")
    axes.set_ylabel("bits of the next tick")
    axes.legend(fontsize=8, frameon=False, loc="upper right")


THEOREM = Theorem(
    name="P2",
    title="There is always a simple novelty around the corner",
    says=(
        "However long a world has been watched, something simple has not happened yet. Proved for a universal language: the "
        'length of the simplest such event grows slower than every computable function without bound, because "the time is at '
        'least the next tick of this slow clock" is one, and a short program makes the clock. That length cannot be computed. '
        "What is computed here is its like in the small fixed language of T1 (words, runs, powers of two of time), in four "
        'worlds: there "the time is at least 2^j" costs about 2 log2 j bits, so the simplest novelty never exceeds about '
        "2 log2 log2 t. Words alone do not do that: in a world of coins they grow like log t. One more word in the language "
        "beats any function you name; the last picture and rows show it. The language and the numbers are ours."
    ),
    profiles={"quick": SimplestEvent(n_steps=300_000, n_coins=3, n_points=60), "default": SimplestEvent()},
    compute=compute,
    draw=draw,
)
