"""Context-tree weighting: processor time a bit on 10^6 bits, beside a plain C++ program, a slow reference and two floors.

The floors, from a run's own counts. A node is 32 bytes. Sort the nodes by visits: at best the most visited ones stay in
the second-level cache, and every visit of another node is a miss. *Memory*: misses a bit, times the time of one random
load out of many independent ones in a table of the same size. *Divisions*: nodes a bit, times three (the estimate, the
mixture, the new odds), times the time of one division out of many independent ones. Both are measured here, at once.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from bench.lines import Line, best_seconds
from mightnt.models.context_tree.running import RunningContextTree, TreeShape
from tests.models.context_tree.reference import slow_bits

N_BITS = 10**6
DEPTHS = (16, 24, 48)
GOALS_NS = {16: 1e9 / 3e6, 24: 1e9 / 1.6e6, 48: 1e9 / 0.5e6}
REPETITIONS = 5
NODE_BYTES = 32
TOTAL = 4


def random_bits() -> np.ndarray:
    """Pseudo-random bits: nothing to learn, every context new."""
    return np.random.default_rng(0).integers(0, 2, N_BITS)


def structured_bits() -> np.ndarray:
    """A source of order 3 with unequal chances: few contexts matter, the others keep coming."""
    rng = np.random.default_rng(1)
    chances, draws = rng.uniform(0.02, 0.98, 8), rng.random(N_BITS)
    bits, last = np.zeros(N_BITS, dtype=np.int64), 0
    for t in range(N_BITS):
        bits[t] = draws[t] < chances[last]
        last = (last << 1 | int(bits[t])) & 7
    return bits


@njit(cache=True)
def _gather(table: Any, places: Any) -> int:
    total = 0
    for place in places:
        total += table[place]
    return total


@njit(cache=True, error_model="numpy")
def _divide(numbers: Any, out: Any) -> None:
    for i in range(len(numbers) - 1):
        out[i] = numbers[i + 1] / numbers[i]


def processor_seconds(function: Callable[[], object], repetitions: int = REPETITIONS) -> float:
    """Shortest processor time of a call, after one that is not counted: everything here is one thread."""
    return best_seconds(function, repetitions=repetitions)[0]


def second_level_cache_bytes() -> int:
    """As the kernel says; 1 MiB where it does not."""
    said = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
    return int(said.read_text().strip().removesuffix("K")) * 1024 if said.exists() else 2**20


def random_load_ns(n_bytes: int) -> float:
    """Time of one of many independent loads, anywhere in this many bytes."""
    table = np.zeros(max(n_bytes, 4096) // 8, dtype=np.int64)
    places = np.random.default_rng(0).integers(0, len(table), 10**6)
    return processor_seconds(lambda: _gather(table, places)) / len(places) * 1e9


def division_ns() -> float:
    """Time of one of many independent divisions, as many at once as the machine does."""
    numbers, out = np.random.default_rng(0).uniform(1, 2, 4096), np.empty(4096)
    return processor_seconds(lambda: [_divide(numbers, out) for _ in range(100)]) / (100 * 4096) * 1e9


def floors_ns(tree: RunningContextTree) -> tuple[float, float]:
    """The memory floor and the division floor of a bit, from how often each node was visited."""
    visits = np.sort(tree._trees[0].rows[: tree.n_nodes, TOTAL])[::-1]
    cached = second_level_cache_bytes() // NODE_BYTES
    misses, nodes = visits[cached:].sum() / N_BITS, visits.sum() / N_BITS
    return misses * random_load_ns(tree.n_nodes * NODE_BYTES), nodes * 3 * division_ns()


@contextmanager
def plain_peer() -> Iterator[Path | None]:
    """The plain C++ program, compiled into a temporary folder; None, and a word, where there is no compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    with tempfile.TemporaryDirectory() as folder:
        if compiler is None:
            print("context trees: no C++ compiler here, the plain C++ peer is left out")
            yield None
            return
        program = Path(folder) / "peer"
        source = Path(__file__).with_name("context_tree_peer.cpp")
        subprocess.run([compiler, "-O3", "-march=native", "-o", program, source], check=True)
        yield program


def run_peer(program: Path, bits: np.ndarray, depth: int) -> tuple[float, float]:
    """Bits and processor seconds (without reading) of the plain program."""
    done = subprocess.run([program, str(depth)], input=bits.astype(np.uint8).tobytes(), capture_output=True, check=True)
    total, seconds, _ = done.stdout.split()
    return float(total), float(seconds)


def at_depth(name: str, bits: np.ndarray, depth: int, program: Path | None) -> list[Line]:
    """One source at one depth: against the goal, the floors and the peer, whose total has to agree to 10^-6 bits."""

    def learn() -> RunningContextTree:
        tree = RunningContextTree(TreeShape(2, depth))
        tree.learn_many(bits)
        return tree

    what = f"context tree, depth {depth}, {name}"
    ours = processor_seconds(learn) / N_BITS * 1e9
    memory, divisions = floors_ns(learn())
    lines = [
        Line(what, ours, GOALS_NS[depth], "ns/bit", "goal (on pseudo-random bits)"),
        Line(what, ours, memory, "ns/bit", "floor: misses x random load"),
        Line(what, ours, divisions, "ns/bit", "floor: 3 divisions a node"),
    ]
    if program is not None:
        runs = [run_peer(program, bits, depth) for _ in range(3)]
        total = -np.log2(RunningContextTree(TreeShape(2, depth)).learn_many(bits)).sum()
        assert abs(total - runs[0][0]) < 1e-6, f"{what}: {total} bits here, {runs[0][0]} there"
        lines.append(Line(what, ours, min(seconds for _, seconds in runs) / N_BITS * 1e9, "ns/bit", "plain C++"))
    return lines


def against_the_reference(bits: np.ndarray) -> Line:
    """The slow reference on the first bits; the totals have to agree to 10^-6 bits."""
    few, shape = bits[:5_000], TreeShape(2, 16)
    ours = processor_seconds(lambda: RunningContextTree(shape).learn_many(few))
    slow = processor_seconds(lambda: slow_bits(few.tolist(), 2, 16), 1)
    difference = abs(-np.log2(RunningContextTree(shape).learn_many(few)).sum() - slow_bits(few.tolist(), 2, 16))
    assert difference < 1e-6, f"the reference differs by {difference} bits"
    return Line(
        "context tree, depth 16, 5000 bits", ours / len(few) * 1e9, slow / len(few) * 1e9, "ns/bit", "slow reference"
    )


def lines() -> list[Line]:
    """Every comparison."""
    sources = {"random bits": random_bits(), "order-3 source": structured_bits()}
    found = [against_the_reference(sources["random bits"])]
    with plain_peer() as program:
        for name, bits in sources.items():
            for depth in DEPTHS:
                found += at_depth(name, bits, depth, program)
    return found
