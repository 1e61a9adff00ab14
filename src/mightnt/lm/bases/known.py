"""The known demonstrator itself as base: the oracle that pessimism is measured against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mightnt.lm.members import MemberStep


@dataclass(frozen=True)
class Known:
    """nu = mu. Only in a scene whose demonstrator is known. Never asks. Kind: exact."""

    name: str = "known"

    def start(self, rows: int) -> Tensor:
        """No state."""
        return torch.empty(rows, 0, dtype=torch.float64)

    def predict(self, state: Tensor, step: MemberStep) -> Tensor:
        """mu's log-probabilities."""
        assert step.demonstrator is not None, "this scene's demonstrator is not known"
        return step.demonstrator

    def advance(self, state: Tensor, step: MemberStep, tokens: Tensor, own: Tensor) -> Tensor:
        """No state: the scene follows its demonstrator."""
        return state
