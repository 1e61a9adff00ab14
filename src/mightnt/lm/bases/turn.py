"""A base that begins anew with every turn of the agent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mightnt.lm.bases.contract import Base
from mightnt.lm.members import MemberStep


@dataclass(frozen=True)
class Turn:
    """What another base says, with its state reset when the token that ends a turn has passed, whoever said it.

    Over a base that is bounded over whole episodes (:class:`~mightnt.lm.bases.trajectory.Trajectory`) it is bounded over
    turns: no turn is more likely than under the member that finds that turn least likely. A turn that is cut off at its
    longest, without its end, goes on into the next.

    Kind: exact, as the base. Cost: as the base. Not in the paper.
    """

    base: Base
    end: int
    """The token that ends a turn."""
    name: str = "turn"

    def start(self, rows: int) -> Tensor:
        """The base's."""
        return self.base.start(rows)

    def predict(self, state: Tensor, step: MemberStep) -> Tensor:
        """log nu, shape (rows, tokens)."""
        return self.base.predict(state, step)

    def advance(self, state: Tensor, step: MemberStep, tokens: Tensor, own: Tensor) -> Tensor:
        """The base's state after these actions, and a fresh one after the end of a turn."""
        moved = self.base.advance(state, step, tokens, own)
        return torch.where((tokens == self.end)[:, None], self.base.start(len(tokens)), moved)
