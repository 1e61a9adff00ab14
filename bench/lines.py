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
