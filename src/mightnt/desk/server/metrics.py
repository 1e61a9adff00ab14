"""Numbers for Prometheus, in its text format: asks, waiting, answered, expired, budget spent, tokens, latency.

Counters start at 0 with the process, as Prometheus expects; what must last is in the store.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field

BOUNDS_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper edges of the buckets of a latency."""

TYPE = "text/plain; version=0.0.4; charset=utf-8"

MEANINGS = {
    "mightnt_calls_total": "Answers to calls of clients and desks, by route and status.",
    "mightnt_turns_total": "Turns of the agent that ended, by how: stop, length, ask.",
    "mightnt_failures_total": "Turns that ended in an error of the policy.",
    "mightnt_asks_total": "Questions put before people.",
    "mightnt_settled_total": "Questions that are settled, by how: answered, refused, stopped, expired.",
    "mightnt_answers_learned_total": "Answers that the policy has learnt from, those of before the start included.",
    "mightnt_refits_total": "Times that networks were fitted on in the background, by outcome: passed, kept, failed.",
    "mightnt_spent_nats_total": "KL to the base that turns were charged.",
    "mightnt_tokens_total": "Tokens that the agent said.",
    "mightnt_waiting": "Questions that are not settled now.",
    "mightnt_queued": "Turns that are being said or wait for that now.",
    "mightnt_turn_seconds": "From the call to the end of the agent's part of a turn.",
}


@dataclass
class Histogram:
    """How many latencies fell into each bucket, their sum and their number."""

    counts: list[int] = field(default_factory=lambda: [0] * len(BOUNDS_SECONDS))
    total_seconds: float = 0.0
    n: int = 0

    def add(self, seconds: float) -> None:
        """One more."""
        place = bisect_left(BOUNDS_SECONDS, seconds)
        if place < len(self.counts):
            self.counts[place] += 1
        self.total_seconds += seconds
        self.n += 1

    def lines(self, name: str) -> list[str]:
        """Cumulative, as the format wants it."""
        lines, below = [], 0
        for bound, count in zip(BOUNDS_SECONDS, self.counts, strict=True):
            below += count
            lines.append(f'{name}_bucket{{le="{bound:g}"}} {below}')
        return [
            *lines,
            f'{name}_bucket{{le="+Inf"}} {self.n}',
            f"{name}_sum {self.total_seconds}",
            f"{name}_count {self.n}",
        ]


class Metrics:
    """All numbers of a server. Labels are a fixed few words of ours, never what a client sent. For one thread."""

    def __init__(self) -> None:
        self.counters: dict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
        self.gauges: dict[str, float] = {"mightnt_waiting": 0, "mightnt_queued": 0}
        self.turn_seconds = Histogram()
        for name in (
            "mightnt_failures_total",
            "mightnt_asks_total",
            "mightnt_answers_learned_total",
            "mightnt_spent_nats_total",
            "mightnt_tokens_total",
        ):
            self.counters[name, ()] = 0.0

    def count(self, name: str, by: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        self.counters[name, tuple(sorted(labels.items()))] += by

    def text(self) -> str:
        """Everything, as Prometheus reads it."""
        values: dict[str, list[str]] = {name: [f"{name} {value:.17g}"] for name, value in self.gauges.items()}
        for (name, labels), value in sorted(self.counters.items()):
            words = ",".join(f'{key}="{word}"' for key, word in labels)
            values.setdefault(name, []).append(f"{name}{{{words}}} {value:.17g}" if words else f"{name} {value:.17g}")
        values["mightnt_turn_seconds"] = self.turn_seconds.lines("mightnt_turn_seconds")
        lines = []
        for name, meaning in MEANINGS.items():
            if name in values:
                kind = "counter" if name.endswith("_total") else "histogram" if name.endswith("seconds") else "gauge"
                lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *values[name]]
        return "\n".join(lines) + "\n"
