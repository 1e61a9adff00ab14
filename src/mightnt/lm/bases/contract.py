"""The contract of a base over many episodes, and the asking mass it leaves."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from mightnt.lm.logs import log_sums
from mightnt.lm.members import MemberStep

State = Tensor
"""Whatever a base carries along an episode, one row an episode; possibly with no columns."""


class Base(Protocol):
    """What to stay close to."""

    @property
    def name(self) -> str:
        """Its name on the command line and in records."""
        ...

    def start(self, rows: int) -> State:
        """The state at the start of ``rows`` episodes, shape (rows, columns)."""
        ...

    def predict(self, state: State, step: MemberStep) -> Tensor:
        """log nu of the next action, float64, shape (rows, tokens); ``-inf`` allowed."""
        ...

    def advance(self, state: State, step: MemberStep, tokens: Tensor, own: Tensor) -> State:
        """The state after the actions ``tokens``, shape (rows,); ``own`` is true where the agent chose, not the demonstrator."""
        ...


def log_kept(log_nu: Tensor) -> Tensor:
    """log sum_x nu(x) = log(1 - theta), shape (...,); ``-inf`` when nothing is vouched for.

    Totals above one by rounding (float64) count as one. Kind: exact.
    """
    return log_sums(log_nu).clamp(max=0.0)


def pick(log_probabilities: Tensor, tokens: Tensor) -> Tensor:
    """log p(token) of each row; ``log_probabilities`` (..., rows, tokens), result (..., rows)."""
    index = tokens.expand(log_probabilities.shape[:-1]).unsqueeze(-1)
    return log_probabilities.gather(-1, index).squeeze(-1)
