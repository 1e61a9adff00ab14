"""The Bayes mixture: what I would do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mightnt.history import Evidence
from mightnt.lm.bases.contract import pick
from mightnt.lm.members import MemberStep


@dataclass(frozen=True)
class Mixture:
    """xi(x | h) = sum_i w(i | h) p_i(x | h): a mixture of *sequence* measures over networks and counts.

    The weights move with the actions of the episode. Evidence ``all`` (default) is what a predictor does: the agent's
    own odd actions raise the members that expect them. Weights that stay ``fixed`` make a mixture of single predictions
    instead, no posterior: nobody infers who is speaking, but the members within themselves. Never asks.

    Kind: exact. Paper: xi. Cost: one forward pass a network.
    """

    log_weights: tuple[float, ...]
    """Log weight of each network and, last, of the counts, at the start of an episode; they sum to one in the mean."""
    evidence: Evidence = "all"
    name: str = "mixture"
    fixed: bool = False
    """The weights stay where they start, whatever is said."""

    def start(self, rows: int) -> Tensor:
        """Log weights, shape (rows, members)."""
        return torch.tensor(self.log_weights, dtype=torch.float64).repeat(rows, 1)

    def predict(self, state: Tensor, step: MemberStep) -> Tensor:
        """log xi, shape (rows, tokens)."""
        return torch.logsumexp(state.T[:, :, None] + self.members(step), dim=0)

    def advance(self, state: Tensor, step: MemberStep, tokens: Tensor, own: Tensor) -> Tensor:
        """Posterior weights after these actions, where they are evidence; the same weights where they are fixed."""
        if self.fixed:
            return state
        moved = torch.log_softmax(state + pick(self.members(step), tokens).T, dim=1)
        return moved if self.evidence == "all" else torch.where(own[:, None], state, moved)

    def members(self, step: MemberStep) -> Tensor:
        """All members' log-probabilities, shape (members, rows, tokens)."""
        assert step.counts is not None, "a mixture over counts needs the count member"
        return torch.cat([step.networks, step.counts[None]])
