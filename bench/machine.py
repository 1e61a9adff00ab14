"""The universal machine: steps a second in long runs, all programs to 24 bits, one core and two, beside slow references."""

from __future__ import annotations

import statistics
import time

import numpy as np
from numba import njit

from bench.lines import Line, best_seconds
from mightnt.models.machine import kernels
from mightnt.models.machine.enumeration import Limits, enumerate_programs
from mightnt.models.machine.instructions import Run, assemble

GOAL_STEPS_PER_SECOND = 2e8
GOAL_SECONDS = 60.0
SWEEP = assemble("+>+[[>]+<[<]>]")
"""Walks to and fro over a block of ones that grows by one cell each time: never silent in the same way twice."""


@njit
def dispatch(ops: np.ndarray, n_steps: int) -> int:
    """The least an interpreter does: fetch, compare, choose one of three, change a number and a cell, count."""
    cells = np.zeros(64, np.uint8)
    ip, head = 0, 32
    for _ in range(n_steps):
        op = ops[ip]
        if op == 0:
            head = (head + 1) & 63
        elif op == 1:
            cells[head] ^= 1
        else:
            ip = -1
        ip += 1
    return head


def long_run(max_silent_steps: int) -> int:
    """Executed steps of one program that never ends, in the loop that enumerates."""
    masses = np.zeros((4, 3))
    shortest, witness = np.zeros(3, np.uint8), np.zeros(3, np.int64)
    parts, limits = np.empty((0, 2), np.int64), (2, len(SWEEP), max_silent_steps, 1, 2**17)
    return kernels.tabulate((int(SWEEP, 2), len(SWEEP)), limits, masses, shortest, witness, parts)[0]


def plain_steps_per_second(n_steps: int = 200_000) -> float:
    """The oracle, the same program."""
    steps = Run(SWEEP, 2).steps()
    started = time.perf_counter()
    for _ in range(n_steps):
        next(steps)
    return n_steps / (time.perf_counter() - started)


def running() -> list[Line]:
    """Instructions executed a second, in millions; the shortest of 25 runs, not the median."""
    n_steps = 20_000_000
    assert long_run(n_steps) == n_steps
    ops = np.array([0, 1, 0, 0, 1, 2], np.int64)
    seconds = best_seconds(lambda: long_run(n_steps), lambda: dispatch(ops, n_steps))
    ours, floor = (n_steps / one / 1e6 for one in seconds)
    return [
        Line("machine, one long run", ours, GOAL_STEPS_PER_SECOND / 1e6, "M steps/s", "goal"),
        Line("machine, one long run", ours, floor, "M steps/s", "bound: a dispatch loop of three instructions"),
        Line("machine, one long run", ours, plain_steps_per_second() / 1e6, "M steps/s", "plain Python interpreter"),
    ]


def enumerating() -> list[Line]:
    """Every program to 24 bits, each until it was silent for 1000 steps, is proved to loop, or has written 12 symbols; one
    thread and two, alternating. Only executed steps are counted, not those that a proof of looping spared."""
    limits = Limits(2, 24, 1000, 12)
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for n_workers, seconds in times.items():
            started = time.perf_counter()
            table = enumerate_programs(limits, n_workers)
            seconds.append(time.perf_counter() - started)
    one, two = (statistics.median(times[n]) for n in (1, 2))
    return [
        Line("all programs to 24 bits, T = 1000", one, GOAL_SECONDS, "s", "goal, one core"),
        Line("all programs to 24 bits, two threads", two, one, "s", "one thread (ideal: half)"),
        Line("programs to 24 bits", table.n_programs / one / 1e6, table.n_steps / one / 1e6, "M/s", "their steps, M/s"),
    ]


def lines() -> list[Line]:
    """All of it."""
    return [*running(), *enumerating()]


if __name__ == "__main__":
    for line in lines():
        print(
            f"{line.what:40s} {line.ours:10.4g} {line.other:10.4g} {line.unit:10s} {line.ratio:8.3g}  {line.other_is}"
        )
