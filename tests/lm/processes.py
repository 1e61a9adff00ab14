"""One of two processes that share members: `python processes.py RANK FOLDER` plays the scenes of test_parallel."""

import json
import os
import sys
import time
from pathlib import Path

import torch
from torch import distributed as dist

from mightnt.errors import MightntError
from mightnt.lm.parallel import Together, vouched_by_heads_together, vouched_by_logits_together

POSITIONS, TOKENS, MEMBERS = 7, 50, 3
SLACK = [0.0, 0.7, -0.3]


def members(dtype=torch.float32):
    """(hidden, heads, targets): the same in every process."""
    generator = torch.Generator().manual_seed(3)
    hidden = [torch.randn(POSITIONS, 4 + k, generator=generator).to(dtype) for k in range(MEMBERS)]
    heads = [torch.randn(TOKENS, 4 + k, generator=generator).to(dtype) for k in range(MEMBERS)]
    return hidden, heads, torch.arange(POSITIONS) * 7


def logits(dtype=torch.float32):
    hidden, heads, _ = members(dtype)
    return [h @ w.T for h, w in zip(hidden, heads, strict=True)]


def rules():
    """The cases that are compared with one process, by name."""
    return {
        "plain": {},
        "slack, temperature, actions": {
            "log_slack_nats": SLACK,
            "temperature": 0.7,
            "is_action": torch.arange(TOKENS) % 4 != 2,
        },
    }


def own_part(rank, split):
    """Which of the members this process holds."""
    first = sum(split[:rank])
    return slice(first, first + split[rank])


def numbers(rank, group):
    """Every rule, member split, block and type: what this process gets."""
    result = {}
    for split in ([2, 1], [3, 0], [0, 3]):
        mine = own_part(rank, split)
        for name, rule in rules().items():
            for dtype in (torch.float32, torch.float64):
                for block in (None, 1, 3):
                    hidden, heads, targets = members(dtype)
                    here = {**rule, "block_positions": block, "together": Together(group)}
                    if "log_slack_nats" in here:
                        here["log_slack_nats"] = SLACK[mine]
                    said = [
                        vouched_by_heads_together(hidden[mine], heads[mine], targets, **here),
                        vouched_by_logits_together(logits(dtype)[mine], targets, **here),
                    ]
                    key = f"{split} {name} {dtype} {block}"
                    result[key] = [[v.log_nu.tolist(), v.log_kept.tolist(), str(v.log_nu.dtype)] for v in said]
    empty = [each[:0] for each in logits()][own_part(rank, [2, 1])]
    none = vouched_by_logits_together(empty, torch.zeros(0, dtype=torch.int64), together=Together(group))
    result["no positions"] = [list(none.log_nu.shape), list(none.log_kept.shape)]
    return result


def refusals(rank, group):
    """What is said, by every process, of what does not fit."""
    good, targets = logits()[rank], torch.zeros(POSITIONS, dtype=torch.int64)
    strange = good.clone()
    strange[4, 7] = float("nan")
    other_actions = torch.arange(TOKENS) > rank
    cases = {
        "vocabulary": ([good[:, : TOKENS - rank]], targets, {}),
        "positions": ([good[: POSITIONS - rank]], targets[: POSITIONS - rank], {}),
        "targets": ([good], targets + rank, {}),
        "temperature": ([good], targets, {"temperature": 1.0 + rank}),
        "actions": ([good], targets, {"is_action": other_actions}),
        "type": ([good.double() if rank else good], targets, {}),
        "slack": ([good], targets, {"log_slack_nats": [1.0 + rank]}),
        "nobody": ([], targets, {}),
        "one is wrong": ([good[0] if rank else good], targets, {}),
        "one is strange": ([good, strange if rank else good], targets, {}),
        "one has no block": ([good], targets, {"block_positions": 1 - rank}),
    }
    result = {}
    for name, (own, own_targets, rest) in cases.items():
        result[name] = None
        try:
            vouched_by_logits_together(own, own_targets, together=Together(group), **rest)
        except MightntError as error:
            result[name] = [type(error).__name__, str(error)]
    return result


def last_one(rank, group, seconds, leave):
    """The last process is not there for a second call; the first says what it then says, and after how long."""
    together = Together(group, timeout_seconds=seconds)
    targets = torch.zeros(POSITIONS, dtype=torch.int64)
    vouched_by_logits_together([logits()[rank]], targets, together=together)
    if rank == 1:
        return leave()
    started = time.monotonic()
    try:
        vouched_by_logits_together([logits()[rank]], targets, together=together)
    except MightntError as error:
        return [type(error).__name__, str(error), time.monotonic() - started]
    return None


SILENT_SECONDS, TIMEOUT_SECONDS, LONG_SECONDS = 4.0, 1.0, 60.0
SCENES = {
    "numbers": numbers,
    "refusals": refusals,
    "silent": lambda rank, group: last_one(rank, group, TIMEOUT_SECONDS, lambda: time.sleep(SILENT_SECONDS)),
    "dead": lambda rank, group: last_one(rank, group, LONG_SECONDS, lambda: os._exit(0)),
}


def main():
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    groups = {scene: dist.new_group() for scene in SCENES}
    for scene, play in SCENES.items():
        said = play(rank, groups[scene])
        (folder / f"{scene}-{rank}.json").write_text(json.dumps(said), encoding="utf-8")
    os._exit(0)  # without waiting for a process that is not there


if __name__ == "__main__":
    main()
