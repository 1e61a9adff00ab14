"""What an episode may cost: the constraint, the toll of a sub-normalized base, and the two honest ways to ask.

Constraints. ``budget``: no episode spends more than so many nats, by projection. ``penalty``: a nat costs a constant price
in reward, the ordinary way to fine-tune; no episode is bounded. ``target``: a price that moves until the *mean* episode
spends so many nats (dual ascent of the Lagrangian); no episode is bounded either. ``none``: nothing.

Asking, under each of them:

``floor``: asking is not an action. The agent pays -log(1 - theta), the KL it cannot avoid, and the demonstrator takes the
turn only when the toll is more than what is left. Then KL(pi || mu) <= KL(pi || nu).

``charged``: where theta exceeds a threshold, asking is an action with base mass theta. The extended KL alone does not bound
the distance of the *system* to mu (asking hands the decision to mu), so log(1 + theta) is charged as well: each decision
then obeys KL(system || mu) <= KL_extended + log(1 + theta) + sum pi log(nu / mu), for every nu (``constraints.asking``).
Below the threshold the floor is paid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mightnt.errors import BudgetError
from mightnt.lm.bases.contract import log_kept
from mightnt.lm.logs import exp_of

Asking = Literal["floor", "charged"]
Constraint = Literal["none", "budget", "penalty", "target"]

TOLERANCE_NATS = 1e-6
"""Rounding allowed on a budget, for a whole episode."""


@dataclass(frozen=True)
class Account:
    """The terms of an episode: at most one of budget, penalty and target, and how asking is paid."""

    budget_nats: float = 10.0
    """Most KL to the base that an episode may spend; ``inf`` for no constraint."""
    asking: Asking = "charged"
    """Which account; see the module."""
    ask_threshold: float = 0.1
    """``charged`` only: the asking mass above which asking becomes an action."""
    penalty_per_nat: float = 0.0
    """What a nat of KL to the base costs, in units of an episode's reward, throughout; 0 for no penalty."""
    target_nats: float = math.inf
    """Mean KL to the base of an episode that the price of a nat is to bring about; ``inf`` for no target."""
    reserve: float = 0.025
    """Share of a budget that nobody can lean with: it pays the tolls of an episode that has leant with all the rest, which
    would otherwise have to ask at the smallest of them."""

    def __post_init__(self) -> None:
        if math.isnan(self.budget_nats) or self.budget_nats < 0:
            raise BudgetError(f"a budget of {self.budget_nats} nats; 0 or more is needed")
        if self.asking not in ("floor", "charged"):
            raise BudgetError(f"asking {self.asking!r}; allowed are floor, charged")
        if not 0 <= self.ask_threshold <= 1:
            raise BudgetError(f"ask threshold {self.ask_threshold}; a probability is needed")
        if not 0 <= self.penalty_per_nat < math.inf:
            raise BudgetError(f"a penalty of {self.penalty_per_nat} a nat; a finite number of 0 or more is needed")
        if not self.target_nats > 0:
            raise BudgetError(f"a target of {self.target_nats} nats; a number above 0 is needed")
        if not 0 <= self.reserve <= 1:
            raise BudgetError(f"a reserve of {self.reserve}; a share of the budget, from 0 to 1, is needed")
        if self.constrained + (self.penalty_per_nat > 0) + math.isfinite(self.target_nats) > 1:
            raise BudgetError(f"{self}; one of budget (else inf), penalty (else 0) and target (else inf) is allowed")

    @property
    def constrained(self) -> bool:
        """False when the budget is infinite: no episode is bounded."""
        return math.isfinite(self.budget_nats)

    def spendable(self, left_nats: Tensor, toll_nats: Tensor) -> Tensor:
        """What a decision may lean with, shape (rows,): what is left after its toll and the reserve, never below 0."""
        return (left_nats - toll_nats - self.reserve_nats).clamp(min=0.0)

    @property
    def reserve_nats(self) -> float:
        """What an episode keeps for tolls; 0 where no episode is bounded."""
        return self.reserve * self.budget_nats if self.constrained else 0.0

    @property
    def constraint(self) -> Constraint:
        """Which of them holds."""
        if self.constrained:
            return "budget"
        return "penalty" if self.penalty_per_nat else "target" if math.isfinite(self.target_nats) else "none"

    @property
    def strength(self) -> float | None:
        """Of the constraint: nats (``budget``, ``target``) or reward per nat (``penalty``); ``None`` without one."""
        strengths = {"budget": self.budget_nats, "penalty": self.penalty_per_nat, "target": self.target_nats}
        return strengths.get(self.constraint)


def account_under(
    constraint: Constraint, strength: float, asking: Asking = "charged", ask_threshold: float = 0.1
) -> Account:
    """The account under this constraint; ``strength`` as in :attr:`Account.strength`, ignored for ``none``.

    Errors: :class:`~mightnt.errors.BudgetError` for an unknown constraint or an impossible strength.
    """
    if constraint not in get_args(Constraint):
        raise BudgetError(f"constraint {constraint!r}; allowed are {', '.join(get_args(Constraint))}")
    free = Account(math.inf, asking, ask_threshold)
    fields = {"budget": "budget_nats", "penalty": "penalty_per_nat", "target": "target_nats"}
    chosen: dict[str, Any] = {} if constraint == "none" else {fields[constraint]: strength}
    return replace(free, **chosen)


@dataclass(frozen=True)
class Offer:
    """What the agent may choose from at a decision, and what being there costs."""

    log_base: Tensor
    """Normalized log-probabilities of the actions and, last, of asking; float64, shape (rows, tokens + 1)."""
    toll_nats: Tensor
    """What the decision costs before any deviation, shape (rows,); ``inf`` where nothing is vouched for."""
    asking_probability: Tensor
    """theta, shape (rows,)."""


def offer(log_nu: Tensor, account: Account) -> Offer:
    """The choices that ``log_nu`` (rows, tokens) leaves open under this account.

    Kind: exact. Paper: asking with the missing mass; the charge is ours. Cost: O(rows x tokens).
    """
    log_total = log_kept(log_nu)
    theta = -torch.expm1(log_total)
    is_open = (
        theta > account.ask_threshold if account.asking == "charged" else torch.zeros_like(theta, dtype=torch.bool)
    )
    log_ask = torch.where(is_open, theta.log(), torch.full_like(theta, -torch.inf))
    extended = torch.cat([log_nu, log_ask[:, None]], dim=1)
    toll = torch.where(is_open, torch.log1p(theta), -log_total)
    log_normalizer = torch.where(is_open, torch.zeros_like(log_total), log_total)
    log_base = torch.where(log_normalizer.isneginf()[:, None], extended, extended - log_normalizer[:, None])
    return Offer(log_base, toll, theta)


def must_ask(toll_nats: Tensor, left_nats: Tensor) -> Tensor:
    """True where even staying at the base costs more than what is left: the demonstrator takes the turn. Free, exact.

    Where nothing is vouched for (an infinite toll) there is nothing to choose from, whatever is left.
    """
    return (toll_nats > left_nats + TOLERANCE_NATS / 1000) | toll_nats.isinf()


def system_kl_nats(log_policy: Tensor, log_demonstrator: Tensor) -> Tensor:
    """KL of the whole system (who asks hands the token to mu) to mu at each decision, shape (rows,).

    KL(pi + pi(ask) mu || mu) with ``log_policy`` (rows, tokens + 1), ask last. Summed along an episode in which an asked
    turn is finished by mu, it bounds the KL of the episode's tokens from above (who asked is one more thing observed).

    Kind: exact per decision. Cost: O(rows x tokens).
    """
    policy, mu = exp_of(log_policy), exp_of(log_demonstrator)
    system = policy[:, :-1] + policy[:, -1:] * mu
    never = system == 0
    terms = system * (system.masked_fill(never, 1.0).log() - log_demonstrator)
    return terms.masked_fill_(never, 0.0).sum(dim=1)
