"""The pessimistic minimum with slack: the first network, capped at each token by c times every member."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mightnt.lm.members import MemberStep


@dataclass(frozen=True)
class Slack:
    """nu(x | h) = min(q(x | h), c min_i p_i(x | h)) over all networks and the counts, where there are any.

    q is the first network. With c = 1 it is the paper's minimum over {networks, counts}: an ensemble where all are
    networks, a heterogeneous set with counts. A cap that spares a share of the demonstrator's turns on running ratios
    (``lm.calibration``) spares at least as many here, since a token's ratio is no more than the running ratio; but log c
    is given away at every token, not once an episode:

        KL(pi || p_i) <= KL(pi || nu) + (own tokens) log c.

    Kind: exact. Paper: nu_alpha over a finite set (c = 1). Cost: a forward pass for each network and a table look-up.
    """

    log_slack_nats: float = 0.0
    """log c, 0 or more."""
    name: str = "slack"

    def start(self, rows: int) -> Tensor:
        """No state."""
        return torch.empty(rows, 0, dtype=torch.float64)

    def predict(self, state: Tensor, step: MemberStep) -> Tensor:
        """log nu, shape (rows, tokens)."""
        return torch.minimum(step.networks[0], every_member(step).amin(dim=0) + self.log_slack_nats)

    def advance(self, state: Tensor, step: MemberStep, tokens: Tensor, own: Tensor) -> Tensor:
        """No state."""
        return state


def every_member(step: MemberStep) -> Tensor:
    """Log-probabilities of all networks and, last, the counts where there are any, shape (members, rows, tokens)."""
    return step.networks if step.counts is None else torch.cat([step.networks, step.counts[None]])
