"""The terms of protected training with TRL, and the numbers of one generation: KL of sequences, floors, who is over."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mightnt.errors import BudgetError, InputError
from mightnt.lm.reference import raised
from mightnt.lm.sequences import Scored

MOST_CHANGE = 1000.0
"""beta stays between its first value divided and multiplied by this."""


@dataclass(frozen=True)
class Protection:
    """The terms. What they promise:

    - ``beta`` and ``kl_target_nats`` are soft: the objective is E[reward] - beta KL(pi, nu) of whole sequences, and beta moves
      until the *mean* sequence KL is near the target. No single episode is bounded by that.
    - ``kl_budget_nats`` is hard on what is *learnt*: an episode that passes it, or holds a token the base forbids, is never
      reinforced. Its advantage becomes the lowest of the generation, and 0 at most; the share of such episodes is logged.
    - That no episode passes the budget is *not* promised: TRL samples first and scores afterwards. ``lm.protect`` projects
      every decision before it is sampled; there the budget holds in every episode.
    """

    beta: float = 0.05
    """Price of a nat of sequence KL, in units of reward, at the start. Above 0."""
    kl_target_nats: float | None = None
    """Mean sequence KL that beta is moved to reach; ``None``: beta stays."""
    kl_budget_nats: float = math.inf
    """Most log pi - log nu of one episode, summed and running along it: one sample of its KL, not the KL itself."""
    beta_step: float = 0.1
    """Most that log beta moves after a generation."""
    exact_kl_every: int = 10
    """Generations between two measurements of the KL over the whole vocabulary; 0: never, not in evaluations either."""

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise InputError(
                f"beta is {self.beta}; a finite number above 0 is needed, a price of a nat in units of reward"
            )
        if self.kl_target_nats is not None and not 0 < self.kl_target_nats < math.inf:
            raise BudgetError(f"a target of {self.kl_target_nats} nats; a finite number above 0, or None, is needed")
        if not self.kl_budget_nats > 0:
            raise BudgetError(f"a budget of {self.kl_budget_nats} nats; a number above 0 is needed")
        if not 0 <= self.beta_step < math.inf or self.exact_kl_every < 0:
            raise InputError(f"beta_step {self.beta_step}, exact_kl_every {self.exact_kl_every}; 0 or more are needed")


@dataclass(frozen=True)
class Generation:
    """Numbers of the episodes of one generation, each of shape (episodes,)."""

    sequence_kl_nats: Tensor
    floor_nats: Tensor
    asking_mass: Tensor
    """Sum of theta over the agent's own tokens."""
    own_tokens: Tensor
    forbidden_tokens: Tensor
    over_budget: Tensor
    """1 where over, else 0."""


def measured(log_policy: Tensor, scored: Scored, own: Tensor, forbidden_nats: float, budget_nats: float) -> Generation:
    """The numbers of each episode, from log pi and what the base says of the agent's own tokens.

    KL of a sequence: sum_t log pi(x_t) - log nu(x_t) with forbidden tokens raised to -forbidden_nats (named so, and counted);
    over budget: some running sum of it above the budget, or a forbidden token, whatever that was raised to.

    Args:
        log_policy: log pi of each token, shape (episodes, length).
        scored: of the same tokens, shape (episodes, length).
        own: which of them the agent chose, bool, same shape.

    Errors: :class:`~mightnt.errors.InputError` where log pi of an own token is NaN: TRL would go on without a gradient.
    Kind: estimate (k1, one sample an episode); floor and theta exact. Cost: O(episodes x length).
    """
    log_policy = log_policy.masked_fill(~own, 0.0)
    if bool(log_policy.isnan().any()):
        raise InputError("the policy says NaN of its own tokens; is the loss still a number?")
    log_nu, log_kept = (values.masked_fill(~own, 0.0) for values in (scored.log_nu, scored.log_kept))
    token_kl = log_policy.double() - raised(log_nu, forbidden_nats)
    forbidden = log_nu.isneginf().sum(1)
    running = token_kl.cumsum(1)
    worst = running.amax(1) if running.shape[1] else running.sum(1)
    return Generation(
        sequence_kl_nats=token_kl.sum(1),
        floor_nats=-raised(log_kept, forbidden_nats).sum(1),
        asking_mass=-torch.expm1(log_kept).sum(1),
        own_tokens=own.sum(1).double(),
        forbidden_tokens=forbidden.double(),
        over_budget=((worst > budget_nats) | (forbidden > 0)).double(),
    )


def columns(generation: Generation) -> Tensor:
    """All numbers as one tensor, shape (episodes, 6): one gather for all of them."""
    return torch.stack(list(vars(generation).values()), dim=1)


def from_columns(table: Tensor) -> Generation:
    """The generation of these columns."""
    return Generation(*table.unbind(1))


def summary(generation: Generation) -> dict[str, float]:
    """Means over episodes (theta: over tokens), under the names of the package's glossary."""
    return {
        "mightnt/sequence_kl_nats": float(generation.sequence_kl_nats.mean()),
        "mightnt/sequence_kl_max_nats": float(generation.sequence_kl_nats.max()),
        "mightnt/floor_nats": float(generation.floor_nats.mean()),
        "mightnt/asking_probability": float(generation.asking_mass.sum() / generation.own_tokens.sum().clamp(min=1.0)),
        "mightnt/forbidden_tokens_per_episode": float(generation.forbidden_tokens.mean()),
        "mightnt/over_budget_share": float(generation.over_budget.mean()),
    }


def never_reinforced(advantages: Tensor, over_budget: Tensor, lowest: Tensor) -> Tensor:
    """Advantages with ``lowest``, but at most 0, for the episodes over budget; the others as they are."""
    return torch.where(over_budget.bool(), lowest.clamp(max=0.0), advantages)


def next_beta(beta: float, kl_nats: float, protection: Protection) -> float:
    """The price after a generation whose mean sequence KL was ``kl_nats``: up when above the target, down when below.

    log beta += step x clip((KL - target) / target, -1, 1), within a thousandfold of where it began. Unchanged without a target.
    """
    target = protection.kl_target_nats
    if target is None:
        return beta
    if math.isnan(kl_nats):
        raise InputError("the sequence KL is NaN; is the policy's loss still a number?")
    moved = beta * math.exp(protection.beta_step * min(max((kl_nats - target) / target, -1.0), 1.0))
    return min(max(moved, protection.beta / MOST_CHANGE), protection.beta * MOST_CHANGE)
