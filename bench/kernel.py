"""The fused kernel on a GPU: its share of the bandwidth of a device copy, and what the way without it takes.

Floor: each logit read once from device memory, members x positions x vocabulary x bytes of a logit, at the bandwidth of a
copy on the same device in the same run (which reads and writes). ``ours / other`` is then the time over that of the floor:
one over the share of copy bandwidth, which is printed beside it. Without a GPU, or without triton, nothing is measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

from bench.lines import Line
from mightnt.lm.fused import kernel_serves, vouched_by_kernel
from mightnt.lm.vocabulary import vouched_by_logits

CASES = (
    (4, 512, 32_000, torch.bfloat16),
    (4, 512, 152_064, torch.bfloat16),
    (4, 512, 152_064, torch.float32),
    (8, 512, 128_256, torch.bfloat16),
)
"""Members, positions, vocabulary (all multiples of 16: rows begin where whole vectors are read), type."""
REPETITIONS = 20


def device_seconds(function: Callable[[], object]) -> float:
    """Median time of a call as the device's own events see it, after two that are not counted."""
    times = []
    for repetition in range(REPETITIONS + 2):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function()
        end.record()
        torch.cuda.synchronize()
        if repetition >= 2:
            times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def by_kernel(members: int, positions: int, tokens: int, dtype: torch.dtype) -> list[Line]:
    """One case against its floor, the goal and the way without the kernel."""
    generator = torch.Generator("cuda").manual_seed(0)
    logits = [torch.randn(positions, tokens, device="cuda", generator=generator).to(dtype) for _ in range(members)]
    targets = torch.randint(tokens, (positions,), device="cuda", generator=generator)
    space = [torch.empty_like(each) for each in logits]
    ours = device_seconds(lambda: vouched_by_kernel(logits, targets))
    copy = device_seconds(lambda: [a.copy_(b) for a, b in zip(space, logits, strict=True)])
    without = device_seconds(lambda: vouched_by_logits(logits, targets))
    name = str(dtype).removeprefix("torch.")
    what, floor = f"{members} members, {positions} x {tokens} {name}", copy / 2  # a copy reads and writes
    return [
        Line(what, ours * 1e3, floor * 1e3, "ms", "floor: each logit read once at copy bandwidth"),
        Line(what, 100 * floor / ours, 80.0, "%", "goal: of copy bandwidth"),
        Line(what, ours * 1e3, without * 1e3, "ms", "without the kernel, same device"),
    ]


def lines() -> list[Line]:
    """Every case on a GPU; none and a sentence elsewhere."""
    if not torch.cuda.is_available() or not kernel_serves([torch.empty(1, 1, device="cuda")]):
        print("kernel: not run; a GPU and triton are needed, and no number stands in for them.")
        return []
    return [line for case in CASES for line in by_kernel(*case)]
