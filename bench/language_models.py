"""What a protected run spends its time on: networks, projection, counts, episodes; and the import, whole processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch

from bench.lines import Line, median_seconds
from mightnt.experiments.chat import chat_tokenizer
from mightnt.lm.account import Account
from mightnt.lm.episodes import play_episodes
from mightnt.lm.fitting import FitConfig, fit
from mightnt.lm.imitators import Imitators, ImitatorsConfig, calibrate, fit_suffix_counts
from mightnt.lm.networks import NetworkMember, NetworkShape, build_network
from mightnt.lm.projection import tilt_to_kl
from mightnt.lm.run import RunConfig, cast_for, new_actor
from mightnt.lm.scenes import ChatScene
from mightnt.lm.tokens import encode
from mightnt.worlds.chat.corpus import demonstrations

ROWS = 96
"""Episodes side by side, as in training."""


def small_imitators() -> Imitators:
    """Imitators of the usual size, barely fitted: speed does not depend on how good they are."""
    dialogues, tokenizer = demonstrations(300, 0), chat_tokenizer()
    networks = []
    for seed in range(2):
        network = build_network(NetworkShape(context=192), len(tokenizer), seed)
        fit(network, encode(tokenizer, dialogues[:100]), FitConfig(steps=20), seed)
        networks.append(network)
    config = ImitatorsConfig()
    counts = fit_suffix_counts(tokenizer, dialogues, config)
    return calibrate(tokenizer, networks, counts, dialogues[:270], dialogues[270:], config)


def reading(imitators: Imitators) -> list[Line]:
    """One token for every row: our step, the Hugging Face step, and the multiplications it cannot avoid."""
    network = imitators.networks[0]
    tokens = torch.randint(4, 100, (60, ROWS))

    def steps(hugging_face: bool) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode():
                member = NetworkMember(network, hugging_face=hugging_face)
                state = member.start(ROWS)
                for row in tokens:
                    state = member.advance(state, row)

        return run

    ours = median_seconds(steps(False), 5) / len(tokens)
    theirs = median_seconds(steps(True), 5) / len(tokens)
    parameters = sum(p.numel() for p in network.parameters())
    floor = 2 * parameters * ROWS / multiply_rate()
    return [
        Line("network step, 96 rows", ours * 1e3, theirs * 1e3, "ms", "Hugging Face step"),
        Line("network step, 96 rows", ours * 1e3, floor * 1e3, "ms", "floor: 2 x parameters x rows / measured rate"),
    ]


def multiply_rate() -> float:
    """Floating-point operations a second of a square matrix product, one thread."""
    a = torch.randn(768, 768)
    return 2 * 768**3 / median_seconds(lambda: a @ a, 15)


def projecting() -> list[Line]:
    """The projection of a training batch, against plain bisection and against one pass over the numbers."""
    generator = torch.Generator().manual_seed(0)
    log_base = torch.randn(3000, 158, generator=generator, dtype=torch.float64).log_softmax(-1)
    direction = torch.randn(3000, 158, generator=generator, dtype=torch.float64)
    kl = torch.rand(3000, generator=generator, dtype=torch.float64)

    def bisection() -> torch.Tensor:
        low, high = torch.zeros(3000, dtype=torch.float64), torch.full((3000,), 60.0, dtype=torch.float64)
        for _ in range(45):
            middle = (low + high) / 2
            log_policy = (log_base + middle[:, None] * direction).log_softmax(-1)
            below = (log_policy.exp() * (log_policy - log_base)).sum(-1) < kl
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (log_base + low[:, None] * direction).log_softmax(-1)

    difference = float((bisection() - tilt_to_kl(log_base, direction, kl)).abs().max())
    assert difference < 1e-4, f"the two disagree by {difference}"
    ours = median_seconds(lambda: tilt_to_kl(log_base, direction, kl))
    one_pass = median_seconds(lambda: (log_base + direction).log_softmax(-1))
    return [
        Line("projection, 3000 x 158", ours * 1e3, median_seconds(bisection) * 1e3, "ms", "45 steps of bisection"),
        Line("projection, 3000 x 158", ours * 1e3, one_pass * 1e3, "ms", "floor: one log-softmax"),
    ]


def rollouts(imitators: Imitators) -> list[Line]:
    """Episodes of the chat world with an untrained actor: time per token of each base, against the base `single`."""
    seconds = {}
    for base in ("single", "mixture", "pessimistic-minimum", "pessimistic", "known"):
        config = RunConfig(base, Account(10.0))
        cast = cast_for(imitators, ChatScene(), base, config.account, new_actor(imitators, config, 0))
        n_tokens = play_episodes(cast, ROWS, 0).n_tokens
        seconds[base] = median_seconds(lambda cast=cast: play_episodes(cast, ROWS, 0), 3) / n_tokens
    return [
        Line(f"episode token, base {base}", value * 1e6, seconds["single"] * 1e6, "us", "base single")
        for base, value in seconds.items()
    ]


def counting(imitators: Imitators) -> list[Line]:
    """Predictions of the count member, against copying the same numbers out."""
    suffixes = np.random.default_rng(0).integers(4, 100, size=(ROWS, 4))
    ours = median_seconds(lambda: imitators.counts.predict(suffixes), 50)
    numbers = np.random.default_rng(0).random((ROWS, imitators.counts.n_symbols))
    floor = median_seconds(lambda: numbers.copy(), 50)
    return [Line("counts, 96 rows", ours * 1e6, floor * 1e6, "us", "floor: one copy of the answer")]


def importing() -> list[Line]:
    """`import mightnt` against `import numpy`, whole processes."""
    ours, numpy = (
        median_seconds(lambda name=name: subprocess.run([sys.executable, "-c", f"import {name}"], check=True), 5)
        for name in ("mightnt", "numpy")
    )
    return [Line("import mightnt, process", ours * 1e3, numpy * 1e3, "ms", "import numpy")]


def lines() -> list[Line]:
    """Every comparison."""
    torch.set_num_threads(1)
    imitators = small_imitators()
    return [*reading(imitators), *projecting(), *counting(imitators), *rollouts(imitators), *importing()]
