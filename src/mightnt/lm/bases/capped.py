"""The tractable pessimistic base: a network capped by the counts on running ratios, with a support veto."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mightnt.errors import InputError
from mightnt.lm.bases.contract import pick
from mightnt.lm.members import MemberStep


@dataclass(frozen=True)
class Capped:
    """nu(x | h) = min(q(x | h), c P(x | h) / R(h)) where the demonstrations support x, and 0 elsewhere.

    q is the network, P the counts, and R >= 1 the greatest likelihood ratio prod nu / P of a stretch of the agent's own
    actions that ends here (a CUSUM: log R' = max(0, log R + log nu(x) / P(x)), no credit carried). So no contiguous
    stretch of own actions is ever more than c times as likely under nu as under P, hence

        KL(pi || P) <= KL(pi || nu) + log c     per episode, not per token.

    Steps of the demonstrator leave R as it is: only what the agent chose is charged against the cap.

    Kind: exact. Cost: one forward pass and a table look-up. Not in the paper.
    """

    log_cap_nats: float
    """log c, from held-out demonstrations (``lm.calibration``)."""
    against: Literal["counts", "situations"] = "counts"
    """P: the counts of suffixes, or of situations."""
    name: str = "pessimistic"

    def __post_init__(self) -> None:
        if not self.log_cap_nats < math.inf:
            raise InputError(f"log c is {self.log_cap_nats}; a number of nats below inf is needed")

    def start(self, rows: int) -> Tensor:
        """log R = 0, shape (rows, 1)."""
        return torch.zeros(rows, 1, dtype=torch.float64)

    def predict(self, state: Tensor, step: MemberStep) -> Tensor:
        """log nu, shape (rows, tokens)."""
        assert step.supported is not None, "this base needs the support of the demonstrations"
        capped = torch.minimum(step.networks[0], self.member(step) + (self.log_cap_nats - state))
        return capped.masked_fill(~step.supported, -torch.inf)

    def advance(self, state: Tensor, step: MemberStep, tokens: Tensor, own: Tensor) -> Tensor:
        """log R after these actions; unchanged where the demonstrator chose."""
        ratio = pick(self.predict(state, step), tokens) - pick(self.member(step), tokens)
        return torch.where(own[:, None], (state + ratio[:, None]).clamp(min=0.0), state)

    def member(self, step: MemberStep) -> Tensor:
        """What P says, shape (rows, tokens)."""
        said = getattr(step, self.against)
        assert isinstance(said, Tensor), f"this base needs the member {self.against}"
        return said
