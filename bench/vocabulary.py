"""The minimum of members over a large vocabulary: time per member, time against one read of the logits, memory."""

from __future__ import annotations

import subprocess
import sys

import torch

from bench.lines import Line, best_seconds
from mightnt.lm.vocabulary import vouched_by_heads, vouched_by_logits

WIDTH = 896
"""Of the hidden states: that of a network with half a billion parameters."""
SMALL, LARGE = 32_000, 152_064
"""Tokens: as in Llama 2, as in Qwen 2.5."""

MEMORY = """
import re, torch
from pathlib import Path
from mightnt.lm.vocabulary import vouched_by_heads

torch.set_num_threads(1)
members, positions, tokens, width = {members}, {positions}, {tokens}, 64
hidden = [torch.randn(positions, width) for _ in range(members)]
head, targets = torch.randn(tokens, width), torch.zeros(positions, dtype=torch.int64)


def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**20


vouched_by_heads([h[:1] for h in hidden], [head] * members, targets[:1])
before = peak()
vouched_by_heads(hidden, [head] * members, targets)
ours = peak() - before
naive = torch.stack([(h @ head.T).log_softmax(-1) for h in hidden]).amin(0)
kept = naive.logsumexp(-1)
print(ours, peak() - before)
"""


def by_heads(tokens: int, positions: int, members: tuple[int, ...]) -> list[Line]:
    """From hidden states, as many members as named, against one member scored as usual and against the products alone."""
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(tokens, WIDTH, generator=generator)  # larger than the cache: read again for each member
    hidden = [torch.randn(positions, WIDTH, generator=generator) / 8 for _ in range(max(members))]
    targets = torch.randint(tokens, (positions,), generator=generator)

    def usual() -> torch.Tensor:
        return (hidden[0] @ head.T).log_softmax(-1).gather(-1, targets[:, None])

    def ours(n: int) -> object:
        return vouched_by_heads(hidden[:n], [head] * n, targets)

    calls = [usual, lambda: hidden[0] @ head.T, *(lambda n=n: ours(n) for n in members)]
    one, product, *times = best_seconds(*calls, repetitions=4)
    what = f"{{}} by heads, {positions} x {tokens}"
    against = [
        Line(what.format(n), t * 1e3, one * 1e3, "ms", "one by log_softmax, gather")
        for n, t in zip(members, times, strict=True)
    ]
    last = f"floor: {members[-1]} products alone"
    return [*against, Line(what.format(members[-1]), times[-1] * 1e3, members[-1] * product * 1e3, "ms", last)]


def by_logits(tokens: int, positions: int, members: int) -> list[Line]:
    """From logits that are there, against one read of them at the bandwidth of a copy, and against the obvious way."""
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(positions, tokens, generator=generator) for _ in range(members)]
    targets, space = torch.randint(tokens, (positions,), generator=generator), torch.empty_like(logits[0])

    def obvious() -> torch.Tensor:
        least = torch.stack([each.log_softmax(-1) for each in logits]).amin(0)
        return least.logsumexp(-1) + least.gather(-1, targets[:, None])[:, 0]

    ours, stacked, copy = best_seconds(
        lambda: vouched_by_logits(logits, targets), obvious, lambda: space.copy_(logits[0]), repetitions=6
    )
    floor = members * copy / 2  # a copy reads and writes; the members are only read
    what = f"{members} by logits, {positions} x {tokens}"
    return [
        Line(what, ours * 1e3, stacked * 1e3, "ms", "stacked log_softmax, amin"),
        Line(what, ours * 1e3, floor * 1e3, "ms", "floor: each logit read once at copy bandwidth"),
    ]


def memory(members: int, positions: int, tokens: int) -> list[Line]:
    """What a process grows by (Linux), against holding members x positions x vocabulary."""
    code = MEMORY.format(members=members, positions=positions, tokens=tokens)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    ours, naive = map(float, done.stdout.split())
    what = f"{members} by heads, {positions} x {tokens}"
    all_at_once = members * positions * tokens * 4 / 2**30
    return [
        Line(what, ours, naive, "GiB", "stacked log_softmax, amin"),
        Line(what, ours, all_at_once, "GiB", "members x positions x vocabulary"),
    ]


def lines() -> list[Line]:
    """Every comparison; one thread."""
    torch.set_num_threads(1)
    return [
        *by_heads(SMALL, 64, (1, 2, 4, 8)),
        *by_heads(LARGE, 32, (4,)),
        *by_logits(LARGE, 16, 4),
        *memory(8, 1024, SMALL),
    ]
