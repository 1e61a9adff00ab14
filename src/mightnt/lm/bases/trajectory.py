"""The pessimistic minimum of whole episodes: no more likely than under the member that finds all of it least likely."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mightnt.lm.bases.contract import pick
from mightnt.lm.bases.slack import every_member
from mightnt.lm.members import MemberStep


@dataclass(frozen=True)
class Trajectory:
    """nu(h x) = min_i L_i(h x), with L_i(h) the product of member i's probabilities of the agent's own tokens in h.

    Its conditional is nu(x | h) = min_i L_i(h) p_i(x | h) / min_i L_i(h): a semimeasure (sum_x min_i <= L_j for the
    member j that was the minimum), never below the product of token minima, and not above any member over the whole
    episode. At one token it may well be above some member: a member that found earlier tokens likely has credit to lose.

    Tokens of the demonstrator are no evidence and are not charged. State: log L_i(h) - log nu(h) >= 0, one column a
    member. Where the agent is made to say what nu forbids there is no conditional, and the state stays as it is.

    Kind: exact. Cost: a forward pass for each network and a table look-up. Not in the paper.
    """

    n_members: int
    """Networks, and the counts if they take part."""
    name: str = "trajectory"

    def start(self, rows: int) -> Tensor:
        """Nothing said: no member has credit, shape (rows, members)."""
        return torch.zeros(rows, self.n_members, dtype=torch.float64)

    def predict(self, state: Tensor, step: MemberStep) -> Tensor:
        """log nu, shape (rows, tokens)."""
        return (state.T[:, :, None] + every_member(step)).amin(dim=0)

    def advance(self, state: Tensor, step: MemberStep, tokens: Tensor, own: Tensor) -> Tensor:
        """Each member's credit after these actions; unchanged where the demonstrator chose."""
        joint = state.T + pick(every_member(step), tokens)
        least = joint.amin(dim=0)
        moves = own & ~least.isneginf()
        return torch.where(moves[:, None], (joint - least).T, state)
