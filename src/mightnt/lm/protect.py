"""Protected reinforcement learning: PPO (Schulman et al. 2017) of an actor that cannot overspend its KL budget.

What a token costs follows from the parameters, not from the token drawn, so the likelihood-ratio gradient does not see what
spending takes away from later tokens. Every nat therefore has a price: the objective is reward - price x KL, the cost of a
decision enters its own gradient directly and that of later decisions through the returns, and the price moves until episodes
spend nearly all of their budget (dual ascent). The budget itself is kept by the projection, whatever the price. A policy that
buys everything at once leaves nothing however dear a nat is, so a price that has reached half of what a nat earns rises no more.

The same loop serves the other constraints of ``lm.account``, without projection: under ``penalty`` the price never moves,
under ``target`` it moves until the mean episode spends the target (dual ascent; near it, since the policy lags behind the
price: :func:`mightnt.lm.run.met` brings the trained policy the rest of the way), under ``none`` it is 0.

Left out on purpose: several actors in parallel environments (rows of one batch are enough), value clipping, entropy bonus
(the budget already keeps the policy near its base), learning-rate schedules, early stopping on KL to the old policy,
fine-tuning of the base (it is frozen, so its hidden states and log-probabilities are computed once, in the rollout).

Logged for every iteration:

==================  =====================================================================================================
proxy_reward        mean over episodes of the mean reward of the other speaker's replies
true_utility        mean over episodes, where the scene knows it
kl_base_nats        mean KL to the base spent by an episode, by its account (exact per decision, mean over sampled paths)
kl_base_max_nats    the most any episode spent; never above the budget
over_budget_episodes episodes that spent more than the budget; anything but 0 would have stopped the run
kl_demonstrator_nats mean KL of the system to the demonstrator per episode, where it is known
asks_per_turn       turns in which the demonstrator was asked, per turn of the agent
policy_loss         clipped surrogate, last pass
value_loss          squared error of the value, last pass
clip_fraction       share of decisions beyond the clip range, last pass
price_per_nat       what a nat cost this round, in units of the reward of an episode
==================  =====================================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mightnt.errors import InputError
from mightnt.lm.account import TOLERANCE_NATS, Account
from mightnt.lm.actor import Actor
from mightnt.lm.episodes import Cast, Episodes, play_episodes
from mightnt.lm.ledgers import Decisions, IntArray
from mightnt.prediction import FloatArray

Log = dict[str, float | None]
WORTH_SHARE = 0.5
"""A price does not rise above this share of what a nat earns."""


@dataclass(frozen=True)
class ProtectConfig:
    """Dials of the training loop. The one that matters is the budget, and it is in the account."""

    iterations: int = 50
    """Rounds of playing and learning."""
    episodes: int = 96
    """Episodes a round."""
    passes: int = 4
    """Passes over the decisions of a round."""
    minibatches: int = 2
    """Updates a pass."""
    learning_rate: float = 3e-3
    """Of Adam."""
    clip: float = 0.2
    """Range of the probability ratio."""
    trace: float = 0.95
    """lambda of generalized advantage estimation; nothing is discounted."""
    value_weight: float = 0.5
    """Of the value's squared error in the loss."""
    gradient_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    first_price: float = 0.005
    """Price of a nat in the first round, in units of an episode's reward; it never falls below a fifth of this. A penalty
    is its own price from the first round to the last."""
    unspent_target: float = 0.03
    """Share of the budget, its reserve apart, that episodes should leave; the price moves towards it."""
    price_step: float = 0.1
    """How fast the price moves."""
    price_step_limit: float = 0.15
    """Largest change of its logarithm in a round."""


@dataclass
class Training:
    """What learning has brought so far; saved whole, it continues as if never stopped."""

    actor: Actor
    optimizer: torch.optim.Adam
    price: float
    """Of a nat, in units of an episode's reward."""
    log: list[Log]

    @classmethod
    def fresh(cls, actor: Actor, config: ProtectConfig) -> Training:
        """Nothing learnt yet."""
        price = actor.account.penalty_per_nat or config.first_price
        return cls(actor, torch.optim.Adam(actor.parameters(), lr=config.learning_rate), price, [])


def protect(
    cast: Cast,
    training: Training,
    config: ProtectConfig,
    seed: int,
    on_iteration: Callable[[Training], None] | None = None,
) -> None:
    """Train the actor, in place, from wherever ``training`` stands to ``config.iterations``. Deterministic given ``seed``.

    ``cast.actor`` must be ``training.actor``. ``on_iteration`` is called after each iteration (to show, to save).

    Raises :class:`~mightnt.errors.InputError` when a loss is not a number, :class:`~mightnt.errors.BudgetError` should an
    episode exceed its budget.
    """
    while len(training.log) < config.iterations:
        draw_seed = round_seed(seed, len(training.log))
        episodes = play_episodes(cast, config.episodes, seed=draw_seed)
        training.log.append(summarize(episodes, cast.account) | learn(training, episodes.decisions, config, draw_seed))
        training.price = moved_price(training.price, training.log, cast.account, config)
        if on_iteration:
            on_iteration(training)


def round_seed(seed: int, iteration: int) -> int:
    """The seed of one round: distinct for every (seed, iteration)."""
    return int(np.random.SeedSequence([seed, iteration]).generate_state(1)[0])


def learn(training: Training, decisions: Decisions, config: ProtectConfig, seed: int) -> Log:
    """Several passes of clipped policy gradient over the decisions of one round."""
    actor, optimizer = training.actor, training.optimizer
    price = 0.0 if actor.account.constraint == "none" else training.price
    if not len(decisions.row):
        return {"policy_loss": None, "value_loss": None, "clip_fraction": None, "price_per_nat": price}
    with torch.no_grad():
        value = actor.value(decisions.features)
    gain = decisions.reward - price * decisions.cost_nats.numpy()
    advantage, target = advantages(decisions.row, gain, value.double().numpy(), config.trace)
    scale = float(advantage.std(correction=0)) + 1e-8
    advantage = (advantage - advantage.mean()) / scale
    generator = torch.Generator().manual_seed(seed)
    free = (decisions.log_base > -torch.inf).sum(1) > 1
    for _ in range(config.passes):
        order = torch.randperm(len(target), generator=generator)
        for batch in order.chunk(config.minibatches):
            last = surrogate(
                actor, decisions, batch, free[batch], advantage[batch], target[batch], price / scale, config
            )
            if not torch.isfinite(last[0]):
                raise InputError("the loss is not a number; is the reward finite? this iteration was not kept")
            optimizer.zero_grad()
            last[0].backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(actor.parameters(), config.gradient_norm)
            optimizer.step()
    _, policy_loss, value_loss, clipped = (float(term.detach()) for term in last)
    return {"policy_loss": policy_loss, "value_loss": value_loss, "clip_fraction": clipped, "price_per_nat": price}


def surrogate(
    actor: Actor,
    decisions: Decisions,
    batch: Tensor,
    free: Tensor,
    advantage: Tensor,
    target: Tensor,
    price: float,
    config: ProtectConfig,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``(loss, policy loss, value loss, clip fraction)`` of a minibatch.

    Loss = -E min(r A, clip(r) A) + price E KL(pi || base) + c E (V - target)^2, with r the probability ratio to the policy that
    played. Where the base leaves one choice alone (``free`` is false), r is 1 and the KL 0 whatever the actor proposes.
    """
    features, rows = decisions.features[batch], batch[free]
    offered = decisions.log_base[rows], decisions.spendable_nats[rows]
    said, tilt = actor.choices(features[free], *offered, decisions.choice[rows])
    ratio = torch.ones_like(advantage).masked_scatter(free, (said - decisions.log_probability[rows]).exp())
    bounded = ratio.clamp(1.0 - config.clip, 1.0 + config.clip)
    policy_loss = -torch.minimum(ratio * advantage, bounded * advantage).mean()
    value_loss = (actor.value(features).double() - target).square().mean()
    loss = policy_loss + (price * tilt.sum() / len(batch) if price else 0.0) + config.value_weight * value_loss
    return loss, policy_loss, value_loss, (ratio != bounded).double().mean()


def moved_price(price: float, log: list[Log], account: Account, config: ProtectConfig) -> float:
    """The price of a nat for the next round, after those in the log; only a budget and a target ever move it."""
    spent = [float(row["kl_base_nats"] or 0.0) for row in log[-2:]]
    if account.constraint == "target":
        return price_to_target(price, spent[-1] / account.target_nats, spent[0] / account.target_nats, config)
    to_lean_with = account.budget_nats - account.reserve_nats
    if account.constraint == "budget" and to_lean_with > 0:
        moved = next_price(price, spent[-1] / to_lean_with, config)
        return moved if moved < price else max(price, min(moved, WORTH_SHARE * worth_of_a_nat(log)))
    return price


def worth_of_a_nat(log: list[Log]) -> float:
    """What a nat earned in the last round: reward above that of the first round, by nats spent; never below 0."""
    gained = float(log[-1]["proxy_reward"] or 0.0) - float(log[0]["proxy_reward"] or 0.0)
    spent = float(log[-1]["kl_base_nats"] or 0.0)
    return max(gained, 0.0) / spent if spent > 0 else 0.0


def price_to_target(price: float, spent_share: float, before: float, config: ProtectConfig) -> float:
    """The price of a nat for the next round under a target: up when the mean episode spends more of it, down when less.

    log price += step x e + 2 (e - e before), e = clip(log(spent / target), -1, 1). The first part is dual ascent. The second
    adds up to price ~ spent^2, at once: a policy that has found a way to buy ever more at the same price doubles what it
    spends in a few rounds, while ascent alone still lowers the price for having spent too little before.
    """
    now, then = (min(max(math.log(max(share, 1e-9)), -1.0), 1.0) for share in (spent_share, before))
    return price * math.exp(config.price_step * now + 2 * (now - then))


def next_price(price: float, spent_share: float, config: ProtectConfig) -> float:
    """The price of a nat under a budget: up when episodes leave less of it unspent than they should, down when more.

    log price += step x log(target unspent / unspent), each step at most ``config.price_step_limit``. The floor keeps the price
    from vanishing while a young policy has not yet found anything to spend on.
    """
    unspent = min(max(1.0 - spent_share, 1e-3), 1.0)
    step = config.price_step * math.log(config.unspent_target / unspent)
    moved = price * math.exp(min(max(step, -config.price_step_limit), config.price_step_limit))
    return max(moved, config.first_price / 5)


def advantages(row: IntArray, gain: FloatArray, value: FloatArray, trace: float) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimates and value targets, undiscounted, each of shape (n,); decisions in order of time.

    delta_t = gain_t + V_{t+1} - V_t, A_t = delta_t + lambda A_{t+1} along each row, with V = A = 0 after its last decision.
    """
    advantage = np.zeros(len(value))
    rows = int(row.max(initial=-1)) + 1
    next_value, next_advantage = np.zeros(rows), np.zeros(rows)
    for i in range(len(value) - 1, -1, -1):
        r = row[i]
        delta = gain[i] + next_value[r] - value[i]
        advantage[i] = delta + trace * next_advantage[r]
        next_value[r], next_advantage[r] = value[i], advantage[i]
    return torch.from_numpy(advantage), torch.from_numpy(advantage + value)


def summarize(episodes: Episodes, account: Account) -> Log:
    """The means of one batch of episodes; see the module's glossary."""
    utility, demonstrator = episodes.true_utility, episodes.kl_demonstrator_nats
    return {
        "proxy_reward": float(episodes.proxy_reward.mean()),
        "true_utility": None if utility is None else float(utility.mean()),
        "kl_base_nats": float(episodes.spent_nats.mean()),
        "kl_base_max_nats": float(episodes.spent_nats.max()),
        "over_budget_episodes": int((episodes.spent_nats > account.budget_nats + TOLERANCE_NATS).sum()),
        "kl_demonstrator_nats": None if demonstrator is None else float(demonstrator.mean()),
        "asks_per_turn": float(episodes.asked_turns.sum() / max(1, episodes.turns.sum())),
    }
