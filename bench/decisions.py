"""What the CPU does for a decision over a large vocabulary besides the network: play it within a budget, learn from it."""

from __future__ import annotations

import numpy as np
import torch

from bench.lines import Line, best_seconds
from mightnt.lm.account import Account, offer
from mightnt.lm.actor import Actor
from mightnt.lm.episodes import draw
from mightnt.lm.ledgers import Decisions
from mightnt.lm.protect import ProtectConfig, Training, learn

WIDTH, TOKENS = 4096, 32_004
"""The hidden states and the vocabulary of Mixtral-8x7B with the four marks of a chat."""
ROWS = 64
"""Episodes side by side."""
ROUND = 512
"""Decisions learnt from at once; a round of training has more, and memory for them."""
ACCOUNT = Account(20.0)


def decisions(actor: Actor) -> Decisions:
    """A round of made-up decisions, played by this actor."""
    generator = torch.Generator().manual_seed(0)
    log_nu = (3 * torch.randn(ROUND, TOKENS, generator=generator, dtype=torch.float64)).log_softmax(-1)
    offered = offer(log_nu, ACCOUNT)
    left = 20 * torch.rand(ROUND, generator=generator, dtype=torch.float64)
    features = actor.features(torch.randn(ROUND, WIDTH, generator=generator), left, offered.toll_nats)
    spendable = ACCOUNT.spendable(left, offered.toll_nats)
    with torch.no_grad():
        log_policy, cost = actor.policy(features, offered.log_base, spendable)
    choice = draw(log_policy, generator)
    return Decisions(
        row=np.arange(ROUND) % ROWS,
        features=features,
        log_base=offered.log_base,
        spendable_nats=spendable,
        choice=choice,
        log_probability=log_policy.gather(1, choice[:, None])[:, 0],
        cost_nats=cost,
        kl_demonstrator_nats=None,
        reward=np.random.default_rng(0).random(ROUND),
        turn=np.zeros(ROUND, dtype=np.int64),
    )


def lines() -> list[Line]:
    """Every comparison; one thread, shortest processor times of calls in turn."""
    torch.set_num_threads(1)
    actor, generator = Actor(WIDTH, TOKENS, ACCOUNT), torch.Generator().manual_seed(1)
    training, config = Training.fresh(actor, ProtectConfig()), ProtectConfig(passes=1, minibatches=1)
    played = decisions(actor)
    log_nu, hidden = played.log_base[:ROWS, :-1], played.features[:ROWS, :WIDTH]
    left = played.spendable_nats[:ROWS]

    @torch.no_grad()
    def play() -> None:
        offered = offer(log_nu, ACCOUNT)
        features = actor.features(hidden, left, offered.toll_nats)
        log_policy, _ = actor.policy(features, offered.log_base, ACCOUNT.spendable(left, offered.toll_nats))
        draw(log_policy, generator)

    def softmax_and_back() -> None:
        leaning = torch.zeros(ROUND, TOKENS + 1, dtype=torch.float64, requires_grad=True)
        (played.log_base + leaning).log_softmax(-1).sum().backward()  # type: ignore[no-untyped-call]

    playing, learning, softmax, both = best_seconds(
        play,
        lambda: learn(training, played, config, seed=0),
        lambda: log_nu.log_softmax(-1),
        softmax_and_back,
        repetitions=5,
    )
    choices = f"{ROWS} rows x {TOKENS + 1} choices"
    return [
        Line(
            f"to play a decision, {choices}", playing / ROWS * 1e3, softmax / ROWS * 1e3, "ms", "floor: one log-softmax"
        ),
        Line(
            f"to learn from a decision once, {ROUND} x {TOKENS + 1} choices",
            learning / ROUND * 1e3,
            both / ROUND * 1e3,
            "ms",
            "floor: one log-softmax and its gradient",
        ),
    ]
