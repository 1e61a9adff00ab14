"""One member as base: a network is what everybody does today; the counts alone show what they are worth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mightnt.lm.members import MemberStep


@dataclass(frozen=True)
class Single:
    """nu = the first network, or the counts. Never asks. Kind: exact. Cost: nothing beyond the member."""

    name: str = "single"
    of_counts: bool = False
    """The counts instead of the network."""

    def start(self, rows: int) -> Tensor:
        """No state."""
        return torch.empty(rows, 0, dtype=torch.float64)

    def predict(self, state: Tensor, step: MemberStep) -> Tensor:
        """The member's log-probabilities."""
        if not self.of_counts:
            return step.networks[0]
        assert step.counts is not None, "this base needs the count member"
        return step.counts

    def advance(self, state: Tensor, step: MemberStep, tokens: Tensor, own: Tensor) -> Tensor:
        """No state."""
        return state
