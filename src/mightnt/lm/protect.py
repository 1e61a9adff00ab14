"""Protected reinforcement learning: PPO (Schulman et al. 2017) of an actor that cannot overspend its KL budget.

Left out on purpose: several actors in parallel environments (rows of one batch are enough), value clipping, entropy bonus
(the budget already keeps the policy near its base), learning-rate schedules, early stopping on KL to the old policy,
fine-tuning of the base (it is frozen, so its hidden states and log-probabilities are computed once, in the rollout).

Logged for every iteration:

==================  =====================================================================================================
proxy_reward        mean over episodes of the mean reward of the other speaker's replies
true_utility        mean over episodes, where the scene knows it
kl_base_nats        mean KL to the base spent by an episode, by its account (exact per decision, mean over sampled paths)
kl_base_max_nats    the most any episode spent; never above the budget
kl_demonstrator_nats mean KL of the system to the demonstrator per episode, where it is known
asks_per_turn       turns in which the demonstrator was asked, per turn of the agent
policy_loss         clipped surrogate, last pass
value_loss          squared error of the value, last pass
clip_fraction       share of decisions beyond the clip range, last pass
==================  =====================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mightnt.errors import InputError
from mightnt.lm.actor import Actor
from mightnt.lm.bases.contract import pick
from mightnt.lm.episodes import Cast, Episodes, play_episodes
from mightnt.lm.ledgers import Decisions
from mightnt.prediction import FloatArray

Log = dict[str, float | None]


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


@dataclass
class Training:
    """What learning has brought so far; saved whole, it continues as if never stopped."""

    actor: Actor
    optimizer: torch.optim.Adam
    log: list[Log]

    @classmethod
    def fresh(cls, actor: Actor, config: ProtectConfig) -> Training:
        """Nothing learnt yet."""
        return cls(actor, torch.optim.Adam(actor.parameters(), lr=config.learning_rate), [])


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
        learnt = learn(training.actor, training.optimizer, episodes.decisions, config, draw_seed)
        training.log.append(summarize(episodes) | learnt)
        if on_iteration:
            on_iteration(training)


def round_seed(seed: int, iteration: int) -> int:
    """The seed of one round: distinct for every (seed, iteration)."""
    return int(np.random.SeedSequence([seed, iteration]).generate_state(1)[0])


def learn(
    actor: Actor, optimizer: torch.optim.Optimizer, decisions: Decisions, config: ProtectConfig, seed: int
) -> Log:
    """Several passes of clipped policy gradient over the decisions of one round."""
    if not len(decisions.row):
        return {"policy_loss": None, "value_loss": None, "clip_fraction": None}
    with torch.no_grad():
        value = actor.value(decisions.features)
    advantage, target = advantages(decisions, value.double().numpy(), config.trace)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(config.passes):
        order = torch.randperm(len(target), generator=generator)
        for batch in order.chunk(config.minibatches):
            last = surrogate(actor, decisions, batch, advantage[batch], target[batch], config)
            if not torch.isfinite(last[0]):
                raise InputError(
                    "the loss is not a number; is the reward finite? nothing was saved from this iteration"
                )
            optimizer.zero_grad()
            last[0].backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(actor.parameters(), config.gradient_norm)
            optimizer.step()
    _, policy_loss, value_loss, clipped = (float(term.detach()) for term in last)
    return {"policy_loss": policy_loss, "value_loss": value_loss, "clip_fraction": clipped}


def surrogate(
    actor: Actor, decisions: Decisions, batch: Tensor, advantage: Tensor, target: Tensor, config: ProtectConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``(loss, policy loss, value loss, clip fraction)`` of a minibatch: -E min(r A, clip(r) A) + c E (V - target)^2."""
    features, settled = decisions.features[batch], decisions.settled[batch]
    log_policy, _ = actor.policy(features, decisions.log_base[batch], settled, decisions.spendable_nats[batch])
    log_probability = pick(log_policy, decisions.choice[batch]) + actor.log_settle(features, settled)
    ratio = (log_probability - decisions.log_probability[batch]).exp()
    bounded = ratio.clamp(1.0 - config.clip, 1.0 + config.clip)
    policy_loss = -torch.minimum(ratio * advantage, bounded * advantage).mean()
    value_loss = (actor.value(features).double() - target).square().mean()
    return policy_loss + config.value_weight * value_loss, policy_loss, value_loss, (ratio != bounded).double().mean()


def advantages(decisions: Decisions, value: FloatArray, trace: float) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimates and value targets, undiscounted, shape (n,): decisions of a row follow each other.

    delta_t = r_t + V_{t+1} - V_t, A_t = delta_t + lambda A_{t+1}, with V = A = 0 after a row's last decision.
    """
    advantage = np.zeros(len(value))
    rows = int(decisions.row.max(initial=-1)) + 1
    next_value, next_advantage = np.zeros(rows), np.zeros(rows)
    for i in range(len(value) - 1, -1, -1):
        row = decisions.row[i]
        delta = decisions.reward[i] + next_value[row] - value[i]
        advantage[i] = delta + trace * next_advantage[row]
        next_value[row], next_advantage[row] = value[i], advantage[i]
    return torch.from_numpy(advantage), torch.from_numpy(advantage + value)


def summarize(episodes: Episodes) -> Log:
    """The means of one batch of episodes; see the module's glossary."""
    utility, demonstrator = episodes.true_utility, episodes.kl_demonstrator_nats
    return {
        "proxy_reward": float(episodes.proxy_reward.mean()),
        "true_utility": None if utility is None else float(utility.mean()),
        "kl_base_nats": float(episodes.spent_nats.mean()),
        "kl_base_max_nats": float(episodes.spent_nats.max()),
        "kl_demonstrator_nats": None if demonstrator is None else float(demonstrator.mean()),
        "asks_per_turn": float(episodes.asked_turns.sum() / max(1, episodes.turns.sum())),
    }
