"""What every part of the bench shares: one comparison a line, medians of repeated calls."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One comparison: ``ours`` against ``other`` in the same ``unit``; ``other_is`` names the peer, the floor or the goal."""

    what: str
    ours: float
    other: float
    unit: str
    other_is: str

    @property
    def ratio(self) -> float:
        """Ours over the other."""
        return self.ours / self.other


def median_seconds(function: Callable[[], object], repetitions: int = 7) -> float:
    """Median wall time of a call, after one that is not counted."""
    function()
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def best_seconds(*functions: Callable[[], object], repetitions: int = 25) -> list[float]:
    """Shortest processor time of each, called in turn: what the core does when nobody disturbs it."""
    best = [float("inf")] * len(functions)
    for function in functions:
        function()
    for _ in range(repetitions):
        for i, function in enumerate(functions):
            started = time.process_time()
            function()
            best[i] = min(best[i], time.process_time() - started)
    return best
