"""The plain pessimistic base: the token-wise minimum over {network, counts}."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mightnt.lm.members import MemberStep


@dataclass(frozen=True)
class Minimum:
    """nu(x | h) = min(p_network(x | h), p_counts(x | h)); theta = 1 - sum_x nu(x | h).

    Lies below the demonstrator wherever one of the two does. Kind: exact. Paper: nu_alpha over two members. Cost: one
    forward pass and a table look-up.
    """

    name: str = "pessimistic-minimum"

    def start(self, rows: int) -> Tensor:
        """No state."""
        return torch.empty(rows, 0, dtype=torch.float64)

    def predict(self, state: Tensor, step: MemberStep) -> Tensor:
        """Elementwise minimum, shape (rows, tokens)."""
        assert step.counts is not None, "this base needs the count member"
        return torch.minimum(step.networks[0], step.counts)

    def advance(self, state: Tensor, step: MemberStep, tokens: Tensor, own: Tensor) -> Tensor:
        """No state."""
        return state
