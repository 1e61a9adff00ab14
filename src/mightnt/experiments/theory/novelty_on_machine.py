"""T1 on the universal machine: after something unprecedented, what it costs to leave the mixture over all programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf, isfinite, log, log2
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mightnt.audits.drawing import INK, SOFT, STYLES, render
from mightnt.audits.figures import Panel
from mightnt.bases.pessimistic import Pessimistic
from mightnt.experiments.theory.theorem import Computed, Report, Row, Theorem
from mightnt.history import Chooser, Step, demonstrated
from mightnt.models.after import After
from mightnt.models.machine.enumeration import Limits, OutputTable, enumerate_programs
from mightnt.models.machine.instructions import assemble, disassemble, run_program
from mightnt.models.machine.universal import MachineState, UniversalMachine
from mightnt.planners.least import least_kl_nats
from mightnt.prediction import Prediction, follow
from mightnt.worlds.tree import Path, TreeWorld

Word = tuple[int, ...]

NOTHING: Word = (0,)
"""The world goes on as ever: the "event" that only time brings."""


@dataclass(frozen=True, slots=True)
class NoveltyOnMachine:
    """What is computed."""

    max_bits: int = 18
    """L: programs of at most so many bits."""
    max_silent_steps: int = 300
    """T: a program that executes so many instructions without writing is cut."""
    rounds: tuple[int, ...] = (10, 100, 1000, 10_000, 100_000)
    """Demonstrated rounds k, ascending, even."""
    word_length: int = 2
    """The search for the event goes through all words of so many observations at most."""
    n_actions_after: int = 6
    """Actions after the event; the value is the share of them that are 1."""
    value: float = 0.9
    """The value to be reached."""
    table_bits: int = 24
    """L of the table in which switching by counting alone is looked up."""
    table_horizon: int = 14
    """How many symbols that table has."""
    top_set_level: float = 0.05
    """Of the pessimistic imitator over the same programs."""


DEMONSTRATORS: dict[str, Word] = {"always 0": (0, 0), "0 and 1 in turn": (0, 1)}
"""Two actions that a demonstrator repeats; the world answers 0 all the time."""


BY_HAND = {"always 0": ".?[.]]", "0 and 1 in turn": ".+>?[.]<]"}
"""For each demonstrator a program that does as it does until it sees a 1, and then writes 1 for ever."""


@dataclass(frozen=True)
class Facing:
    """The machine from a state on, in a world whose observations are fixed: first ``word``, then 0 for ever."""

    machine: UniversalMachine
    state: MachineState
    word: Word

    @property
    def n_symbols(self) -> int:
        """Size of the alphabet of actions."""
        return self.machine.n_symbols

    def start(self) -> tuple[MachineState, int]:
        """After the first observation of the word."""
        return self._see((self.state, 0))

    def predict(self, state: tuple[MachineState, int]) -> Prediction:
        """xi."""
        return self.machine.predict(state[0])

    def advance(self, state: tuple[MachineState, int], step: Step) -> tuple[MachineState, int]:
        """An action; for an observation of the planner's tree the next one of the word."""
        return (self.machine.advance(state[0], step), state[1]) if step.is_action else self._see(state)

    def _see(self, state: tuple[MachineState, int]) -> tuple[MachineState, int]:
        symbol = self.word[state[1]] if state[1] < len(self.word) else 0
        return self.machine.advance(state[0], Step(symbol, Chooser.WORLD)), state[1] + 1


def share_of_ones_world(word: Word, n_actions_after: int) -> TreeWorld:
    """One action after each observation; worth: the share of 1 among the last ``n_actions_after``, after the word."""

    def utility(path: Path) -> float:
        return float(np.mean(path[::2][len(word) - 1 :]))

    return TreeWorld(2, 1, len(word) - 1 + n_actions_after, lambda path: [1.0], utility)


@dataclass(frozen=True, slots=True)
class Surprise:
    """One event after k rounds: the least KL that reaches the value, and the shortest program that does it."""

    word: Word
    least_bits: float
    program_bits: float
    program: str


def surprise(config: NoveltyOnMachine, machine: UniversalMachine, state: MachineState, word: Word) -> Surprise:
    """The least KL to xi of a policy that reaches the value when the world says ``word``, and its bound by one program.

    A program that says what was demonstrated and then acts for the value has mass 2^-length in M(h x), and M(h) <= 1, so
    following it costs at most its length. Between two observations of the word it plays what it likes: of all programs
    that reach the value the shortest is shown.
    """
    world, facing = share_of_ones_world(word, config.n_actions_after), Facing(machine, state, word)
    least = least_kl_nats(world, facing, config.value) / log(2)
    found = [(program.bits, path) for path in good_paths(config, word) if (program := first_program(facing, path))]
    if not found:
        return Surprise(word, least, inf, "none found")
    bits, _ = min(found, key=lambda pair: (len(pair[0]), pair[0]))
    return Surprise(word, least, len(bits), disassemble(bits))


def good_paths(config: NoveltyOnMachine, word: Word) -> list[Word]:
    """The sequences of actions that reach the value."""
    n = len(word) - 1 + config.n_actions_after
    paths = product(range(2), repeat=n)
    return [path for path in paths if np.mean(path[len(word) - 1 :]) >= config.value]


def first_program(facing: Facing, path: Word) -> Any:
    """The shortest program that acts like ``path``; ``None`` if there is none."""
    state = facing.start()
    for action in path[:-1]:
        state = facing.advance(facing.advance(state, Step(action, Chooser.AGENT)), Step(0, Chooser.WORLD))
    programs = facing.machine.programs(facing.machine.advance(state[0], Step(path[-1], Chooser.AGENT)))
    return programs[0] if programs else None


def unprecedented(length: int) -> list[Word]:
    """Words of observations that end in the first 1 or hold one: none has occurred while the world said 0."""
    return [word for n in range(1, length + 1) for word in product(range(2), repeat=n) if any(word)]


def compute(config: NoveltyOnMachine, seed: int, report: Report) -> Computed:
    """Nothing here is drawn by chance; ``seed`` changes nothing."""
    machine = UniversalMachine(2, config.max_bits, config.max_silent_steps)
    curves: dict[str, Any] = {"rounds": list(config.rounds), "value": config.value, "events": {}}
    rows: list[Row] = []
    n_parts = len(DEMONSTRATORS) * len(config.rounds) + 1
    for number, (name, actions) in enumerate(DEMONSTRATORS.items()):
        state, shown, points = machine.start(), 0, list[dict[str, Any]]()
        for k in config.rounds:
            state = machine.after(state, demonstrated([x for a in actions for x in (a, 0)] * ((k - shown) // 2)))
            shown = k
            points.append(at(config, machine, state))
            report(number * len(config.rounds) + len(points), n_parts)
        curves["events"][name] = points
        rows += event_rows(config, name, points)
    table = enumerate_programs(Limits(2, config.table_bits, config.max_silent_steps, config.table_horizon))
    rows += time_rows(table)
    curves["time"] = time_curves(table)
    rows += pessimistic_rows(config, machine)
    report(n_parts, n_parts)
    return Computed(tuple(rows), curves)


def at(config: NoveltyOnMachine, machine: UniversalMachine, state: MachineState) -> dict[str, Any]:
    """The numbers after one demonstration: the best event of the search, the same without an event, and the programs."""
    found = [surprise(config, machine, state, word) for word in unprecedented(config.word_length)]
    best = min(found, key=lambda one: (one.least_bits, len(one.word), one.word))
    alone = surprise(config, machine, state, NOTHING)
    low, high = machine.interval(state)
    return {
        "event": "".join(map(str, best.word)),
        "least_bits": best.least_bits,
        "program_bits": best.program_bits,
        "program": best.program,
        "time_alone_bits": alone.least_bits,
        "demonstrator_bits": machine.shortest_found_bits(state),
        "n_programs": state.n_programs,
        "mass": [low, high],
        "events": {"".join(map(str, one.word)): one.least_bits for one in found},
    }


def event_rows(config: NoveltyOnMachine, name: str, points: Sequence[Mapping[str, Any]]) -> list[Row]:
    """What the curves of one demonstrator say."""
    first, last, k = points[0], points[-1], config.rounds[-1]
    within = f"of programs to {config.max_bits} bits; {last['n_programs']} of them are left"
    did = f"after {k} rounds of {name} the world says {last['event']}"
    rows = [
        Row(f"{did}: least KL to the mixture for value {config.value:g}", last["least_bits"], "bits", "exact",
            how=f"{within}; shortest that does it: {last['program']}"),
        Row(f"{name}: KL to the demonstrator of whoever reaches that value", inf, "bits", "exact",
            how="by definition: the demonstrator never acts so, whatever the world says"),
        Row(f"{name}: bits of a program by hand that switches at a 1, {BY_HAND[name]}", hand_bits(config, name), "bits",
            "upper bound", how="on the least KL of the machine without limits, for every k; checked by running it",
            holds=isfinite(hand_bits(config, name))),
        Row(f"{name}: without an event, after {config.rounds[0]} rounds: least KL for the same value",
            first["time_alone_bits"], "bits", "exact", how="inf: no program within the limit counts so far and turns",
            holds=first["time_alone_bits"] >= first["least_bits"]),
    ]  # fmt: skip
    least = [point["least_bits"] for point in points]
    if isfinite(max(least)):
        slack = min(point["program_bits"] - point["least_bits"] for point in points)
        rows += [
            Row(f"{name}: change of that least KL from {config.rounds[0]} rounds to {k}", max(least) - min(least), "bits",
                "exact", how="what there is of it: programs that fail late, or walk off the 2^18 cells of the tape",
                holds=max(least) - min(least) < 0.1),
            Row(f"{name}: the shortest program found that demonstrates and, after the event, acts for the value",
                last["program_bits"], "bits", "upper bound",
                how=f"on the least KL, at every k; at least {slack:.3g} bits to spare", holds=slack >= 0),
            Row(f"{name}: bits of that program beyond the shortest that only demonstrates",
                last["program_bits"] - last["demonstrator_bits"], "bits", "upper bound", how="the switch, on this machine"),
        ]  # fmt: skip
    return rows


def hand_bits(config: NoveltyOnMachine, name: str) -> float:
    """The length of the program by hand, if it does what it is said to do for the least k; ``inf`` if not."""
    k, n, bits = config.rounds[0], config.n_actions_after, assemble(BY_HAND[name])
    run, _ = run_program(bits, 2, config.max_silent_steps, k + n, (*(0,) * k, 1, 0))
    return len(bits) if run.written == [*DEMONSTRATORS[name] * (k // 2), *[1] * n] else inf


def time_rows(table: OutputTable) -> list[Row]:
    """Leaving at a given time, without an event: the mixture must have counted."""
    limits, cost = table.limits, time_curves(table)
    finite = [value for value in cost["break_bits"] if isfinite(value)]
    k = len(cost["break_bits"])
    return [
        Row(f"always 0, no event: bits to write a 1 after {k} zeros", cost["break_bits"][-1], "bits", "exact",
            how=f"of programs to {limits.max_bits} bits; after 1 zero {finite[0]:.3g}", holds=finite[-1] > finite[0]),
        Row(f"always 0, no event: the shortest program found that writes at least {k} zeros and then a 1",
            cost["program_bits"][-1], "bits", "upper bound",
            how=f"against {cost['program_bits'][0]:g} bits for at least one zero; waiting longer costs no less"),
        Row("mass of the machine that these limits leave open after those zeros", sum(table.unresolved((0,) * k)),
            "probability", "exact", how="cut by bits and by steps; found: " f"{table.mass((0,) * k):.4g}"),
    ]  # fmt: skip


def time_curves(table: OutputTable) -> dict[str, list[float]]:
    """For k zeros: -log2 xi(1 | 0^k), and the least length of a program that writes 0^t 1 for some t >= k."""
    last = table.limits.horizon - 1
    breaks = [(table.mass((0,) * k), table.mass((*(0,) * k, 1))) for k in range(1, last + 1)]
    lengths = [table.shortest_found_bits((*(0,) * t, 1)) for t in range(1, last + 1)]
    return {
        "k": [float(k) for k in range(1, last + 1)],
        "break_bits": [log2(whole / part) if part > 0 else inf for whole, part in breaks],
        "program_bits": [min(lengths[k:]) for k in range(last)],
    }


def pessimistic_rows(config: NoveltyOnMachine, machine: UniversalMachine) -> list[Row]:
    """The pessimistic imitator over the same programs asks at the event."""
    k = config.rounds[0]
    shown = demonstrated([0, 0] * k)
    programs = machine.as_class(machine.after(machine.start(), shown), 200)
    base = Pessimistic(programs, config.top_set_level)
    usual = base.predict(follow(base, shown)).missing
    novel = After(base, (*shown[:-1], Step(1, Chooser.WORLD)))
    missing = novel.predict(novel.start()).missing
    how = f"the 200 shortest programs, level {config.top_set_level:g}, {k} rounds of always 0"
    return [
        Row("pessimistic: asking probability while nothing is new", usual, "probability", "exact", how=how, holds=usual == 0),
        Row("pessimistic: asking probability at the event", missing, "probability", "exact", how=how, holds=missing == 1),
    ]  # fmt: skip


def draw(curves: Mapping[str, Any]) -> list[Panel]:
    """Against the demonstrated rounds, and against time alone."""
    return [
        Panel(
            "After a novelty the demonstrator's record does not hold the agent back",
            render("T1 machine rounds", lambda axes: _rounds(axes, curves), 3.6),
            f"Least KL to the mixture for value {curves['value']:g}. KL to the demonstrator: infinite. A demonstrator without a "
            "curve: no program within the limit switches from it.",
        ),
        Panel(
            "Without a novelty, to leave at a time of one's own choosing needs a program that counts",
            render("T1 machine time", lambda axes: _time(axes, curves["time"]), 3.4),
            "Demonstrator always 0.",
        ),
    ]


def _rounds(axes: Axes, curves: Mapping[str, Any]) -> None:
    for (name, points), base in zip(curves["events"].items(), ("mixture", "single"), strict=True):
        style = STYLES[base]
        for key, dash, label in (("program_bits", (0, (2, 2)), "bound: a program"), ("least_bits", "-", "least KL")):
            y = [float(point[key]) for point in points]
            if not isfinite(max(y)):
                continue
            axes.plot(curves["rounds"], y, color=style.color, ls=dash, marker=style.marker if key == "least_bits" else None,
                      ms=5, lw=1.8, label=f"{name}, {label}")  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("demonstrated rounds")
    axes.set_ylabel("bits")
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def _time(axes: Axes, curve: Mapping[str, Any]) -> None:
    k = curve["k"]
    for key, style, label in (
        ("break_bits", STYLES["mixture"], "a 1 right now: -log2 of the mixture's probability"),
        ("program_bits", STYLES["none"], "shortest program that waits at least so long"),
    ):
        y = np.array([float(value) for value in curve[key]])
        axes.plot(np.array(k)[np.isfinite(y)], y[np.isfinite(y)], color=style.color, marker=style.marker, ms=4, lw=1.8,
                  ls=style.dash, label=label)  # fmt: skip
    axes.plot(k, np.log2(k), color=SOFT, lw=1, ls=":")
    axes.text(k[-1], log2(k[-1]), " log2 k", color=INK, size=8, va="bottom", ha="right")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("zeros written so far, k")
    axes.set_ylabel("bits")
    axes.legend(fontsize=8, frameon=False)


THEOREM = Theorem(
    name="T1-machine",
    title="Little constraint in novel situations, on a universal machine",
    says=(
        "The imitator is the mixture over all programs of a small universal machine, each with weight 2^-length; a program "
        "writes actions and may look at the last observation. A demonstrator does something simple for k rounds while the "
        "world says 0. Then the world says something it never said; a search over all short words of observations finds the "
        "one after which a policy gets a high value at the least KL to the mixture. That KL does not depend on k, and it is "
        "below the length of the shortest program found that does all of it, though the KL to the demonstrator is infinite. "
        "Without such an event, when only time passes, the class must count, and leaving gets dearer with every round. "
        "Programs longer than the limit are left out; the numbers are exact for those that are in. Machine and search are ours."
    ),
    profiles={
        "quick": NoveltyOnMachine(rounds=(10, 100, 1000), table_bits=18, table_horizon=12),
        "default": NoveltyOnMachine(),
    },
    compute=compute,
    draw=draw,
)
