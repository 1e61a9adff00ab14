"""The actor: a small network over the frozen base's hidden state and what is left of the budget.

It proposes logits (which way to lean) and the share of the remaining budget to spend on this token; the projection makes
that exact, so no parameters can overspend.
"""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn

from mightnt.errors import InputError
from mightnt.lm.account import Account
from mightnt.lm.bases.contract import pick
from mightnt.lm.full_kl import kl_step_nats
from mightnt.lm.projection import choices_after_tilt, tilt_to_kl

N_LEDGER_FEATURES = 3


class Policy(Protocol):
    """Whoever decides: sees features, is offered a base and a sum to spend, answers with a distribution and its cost."""

    def features(self, hidden: Tensor, left_nats: Tensor, toll_nats: Tensor) -> Tensor:
        """What it looks at, shape (rows, features)."""
        ...

    def policy(self, features: Tensor, log_base: Tensor, spendable_nats: Tensor) -> tuple[Tensor, Tensor]:
        """``(log pi, KL spent on top of the toll)``, shapes (rows, tokens + 1), (rows,)."""
        ...


class Stay:
    """The base itself as policy: no leaning, nothing spent, asking with exactly the mass that is missing."""

    def features(self, hidden: Tensor, left_nats: Tensor, toll_nats: Tensor) -> Tensor:
        """Nothing."""
        return hidden[:, :0]

    def policy(self, features: Tensor, log_base: Tensor, spendable_nats: Tensor) -> tuple[Tensor, Tensor]:
        """What is offered."""
        return log_base, torch.zeros_like(spendable_nats)


class Actor(nn.Module):
    """Hidden state and ledger in; leaning, share to spend and value out.

    Args:
        width: size of the base's hidden state.
        n_tokens: size of the vocabulary; asking is one more choice.
        account: the terms it plays under.
        hidden: units of each of its layers.
        first_share: share of the remaining budget it spends on a token before any learning.
        layers: of the body that leaning and share read; the critic has one.
    """

    def __init__(
        self,
        width: int,
        n_tokens: int,
        account: Account,
        hidden: int = 128,
        first_share: float = 0.02,
        layers: int = 2,
    ) -> None:
        super().__init__()
        if min(hidden, layers) < 1:
            raise InputError(f"an actor of {layers} layers of {hidden} units; at least 1 of each is needed")
        self.account = account
        n_in = width + N_LEDGER_FEATURES
        sizes = [n_in, *[hidden] * layers]
        self.body = nn.Sequential(*(part for n, m in pairwise(sizes) for part in (nn.Linear(n, m), nn.Tanh())))
        self.leaning = nn.Linear(hidden, n_tokens + 1)
        self.share = nn.Linear(hidden, 1)
        self.critic = nn.Sequential(nn.Linear(n_in, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        with torch.no_grad():
            self.leaning.weight.mul_(0.1)
            self.leaning.bias.zero_()
            self.share.weight.mul_(0.1)
            self.share.bias.fill_(float(torch.logit(torch.tensor(first_share))))

    def features(self, hidden: Tensor, left_nats: Tensor, toll_nats: Tensor) -> Tensor:
        """What the actor sees, float32, shape (rows, width + 3): hidden state, budget left (two scales), toll."""
        scale = self.account.budget_nats if self.account.constrained and self.account.budget_nats > 0 else 1.0
        left = torch.nan_to_num(left_nats, posinf=0.0)
        ledger = torch.stack([left / scale, torch.log1p(left) / 3.0, toll_nats.clamp(max=2.0)], dim=1)
        return torch.cat([hidden.float(), ledger.float()], dim=1)

    def policy(self, features: Tensor, log_base: Tensor, spendable_nats: Tensor) -> tuple[Tensor, Tensor]:
        """``(log pi over tokens and asking, KL spent on top of the toll)``, float64, shapes (rows, tokens + 1), (rows,).

        pi = base tilted along the proposed logits until KL(pi || normalized base) = share x ``spendable_nats``; without a
        constraint pi is proportional to base x exp(logits).
        """
        leaning, allotted_nats = self.proposal(features, spendable_nats)
        if allotted_nats is not None:
            log_policy = tilt_to_kl(log_base, leaning.double(), allotted_nats)
        else:
            log_policy = torch.log_softmax(log_base + leaning.double(), dim=1)
        return log_policy, kl_step_nats(log_policy, log_base)

    def proposal(self, features: Tensor, spendable_nats: Tensor) -> tuple[Tensor, Tensor | None]:
        """``(logits to lean by, nats to spend on it)``, shapes (rows, tokens + 1), (rows,); no number without a budget."""
        body = self.body(features)
        leaning = self.leaning(body)
        if not self.account.constrained:
            return leaning, None
        return leaning, torch.sigmoid(self.share(body)).squeeze(1).double() * spendable_nats

    def choices(
        self, features: Tensor, log_base: Tensor, spendable_nats: Tensor, choice: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``(log pi(choice), KL spent on top of the toll)``, float64, shapes (rows,), (rows,): :meth:`policy` to learn from."""
        leaning, allotted_nats = self.proposal(features, spendable_nats)
        if allotted_nats is not None:
            return choices_after_tilt(log_base, leaning, allotted_nats, choice)
        log_policy = torch.log_softmax(log_base + leaning.double(), dim=1)
        return pick(log_policy, choice), kl_step_nats(log_policy, log_base)

    def leaning_times(self, factor: float) -> Actor:
        """A copy that leans so many times as far, the same way: without a budget pi = base x exp(factor x logits), scaled."""
        copied = deepcopy(self)
        with torch.no_grad():
            copied.leaning.weight.mul_(factor)
            copied.leaning.bias.mul_(factor)
        return copied

    def value(self, features: Tensor) -> Tensor:
        """Expected proxy reward still to come, shape (rows,)."""
        value: Tensor = self.critic(features).squeeze(1)
        return value
