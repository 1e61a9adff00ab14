"""A lower bound on what one network says, from how sure the demonstrations make its output layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist

import torch
from torch import Tensor

from mightnt.errors import InputError
from mightnt.lm.imitators import Imitators
from mightnt.lm.last_layer import Curvature, curvature, output_layer, shown_actions
from mightnt.lm.members import MemberStep
from mightnt.lm.tokens import encode


@dataclass(frozen=True)
class Laplace:
    """log nu(x | h) = log q(x | h) - z s(x | h), with s the standard deviation of the logit of x against the mean logit.

    Under a Gaussian posterior of the output layer, covariance C (x) S over actions and hidden states,
    s^2 = (e_x - p)' C (e_x - p) (h' S h): that of log q to first order. Never above q; true zeros stay, no others come.

    Kind: estimate of a lower bound (Laplace, Kronecker factors, first order). Paper: Ritter, Botev, Barber 2018 (scalable
    Laplace). Cost: one forward pass, width^2 and actions^2 a row.
    """

    covariance: Curvature = field(repr=False)
    tokens: Tensor = field(repr=False)
    """Which token each action is, shape (actions,)."""
    level: float = 0.05
    """How often the logit lies below its bound, under the posterior; above 0, .5 at most. z is the normal quantile."""
    name: str = "laplace"

    def __post_init__(self) -> None:
        if not 0 < self.level <= 0.5:
            raise InputError(f"a level of {self.level}; above 0 and at most 0.5 is needed")

    def start(self, rows: int) -> Tensor:
        """No state."""
        return torch.empty(rows, 0, dtype=torch.float64)

    def predict(self, state: Tensor, step: MemberStep) -> Tensor:
        """log nu, shape (rows, tokens)."""
        q = step.networks[0]
        z = -NormalDist().inv_cdf(self.level)
        bound = torch.full_like(q, -torch.inf)
        bound[:, self.tokens] = q[:, self.tokens] - z * self.deviation(step.hidden.double(), q[:, self.tokens].exp())
        return bound

    def deviation(self, hidden: Tensor, p: Tensor) -> Tensor:
        """s of every action, from hidden states (rows, width) and probabilities (rows, actions); shape (rows, actions)."""
        c = self.covariance.over_actions
        cp = p @ c
        over_actions = c.diagonal() - 2 * cp + (p * cp).sum(dim=1, keepdim=True)
        over_hidden = ((hidden @ self.covariance.over_hidden) * hidden).sum(dim=1, keepdim=True)
        return (over_actions * over_hidden).clamp(min=0.0).sqrt()

    def advance(self, state: Tensor, step: MemberStep, tokens: Tensor, own: Tensor) -> Tensor:
        """No state."""
        return state


def laplace(imitators: Imitators, level: float = 0.05) -> Laplace:
    """The bound from the demonstrations of these imitators. Cost: a forward pass over them."""
    layer = output_layer(imitators)
    shown = shown_actions(imitators.networks[0], encode(imitators.tokenizer, imitators.fitted), layer)
    return Laplace(curvature(layer, shown), layer.tokens, level)
