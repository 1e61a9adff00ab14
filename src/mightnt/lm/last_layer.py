"""The output layer of a network and what the demonstrations say of it: hidden states, curvature, a Gaussian posterior.

Everything here is over actions only: the rows of the layer that stand for what can be chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mightnt.errors import InputError
from mightnt.lm.imitators import Imitators, states_before_actions
from mightnt.lm.scoring import Network
from mightnt.lm.tokens import EncodedDialogues

MOST_ACTIONS = 8192
"""The curvature over actions is a dense matrix."""
MAX_CELLS = 2**22
"""Probabilities held at once: 32 MiB of float64."""


@dataclass(frozen=True, eq=False)
class Shown:
    """Every demonstrated action with the hidden state before it."""

    hidden: Tensor
    """Shape (n, width), float64."""
    actions: Tensor
    """Index among the actions, shape (n,)."""

    def blocks(self, n_actions: int) -> list[Shown]:
        """In blocks that bound the memory."""
        size = max(1, MAX_CELLS // n_actions)
        return [
            Shown(self.hidden[first : first + size], self.actions[first : first + size])
            for first in range(0, len(self.actions), size)
        ]


@dataclass(frozen=True, eq=False)
class OutputLayer:
    """Logits of the actions: W h + b."""

    weight: Tensor
    """W, shape (actions, width), float64."""
    bias: Tensor
    """b, shape (actions,)."""
    tokens: Tensor
    """Which token each action is, shape (actions,)."""

    def log_probs(self, hidden: Tensor) -> Tensor:
        """log p(action | hidden state), shape (n, actions)."""
        return torch.log_softmax(hidden.double() @ self.weight.T + self.bias, dim=-1)


def output_layer(imitators: Imitators) -> OutputLayer:
    """The output layer of the first network, actions only.

    Errors: :class:`~mightnt.errors.InputError` for more actions than a dense curvature is for.
    """
    tokens = torch.from_numpy(np.flatnonzero(imitators.counts.is_action))
    if len(tokens) > MOST_ACTIONS:
        raise InputError(f"{len(tokens)} actions; the curvature of an output layer is kept for {MOST_ACTIONS} at most")
    layer = imitators.networks[0].get_output_embeddings()
    bias = getattr(layer, "bias", None)
    weight = layer.weight.detach().double().cpu()[tokens]
    return OutputLayer(
        weight, torch.zeros(len(tokens)).double() if bias is None else bias.detach().double()[tokens], tokens
    )


def shown_actions(network: Network, corpus: EncodedDialogues, layer: OutputLayer) -> Shown:
    """Every action of these dialogues with the hidden state from which it was predicted.

    Kind: exact (float32 network). Cost: one forward pass over all tokens; (actions x width) numbers are kept.
    """
    actions = torch.from_numpy(corpus.tokens[corpus.is_action].astype(np.int64))
    hidden = torch.from_numpy(states_before_actions(network, corpus)).double()
    return Shown(hidden, torch.searchsorted(layer.tokens, actions))


@dataclass(frozen=True, eq=False)
class Curvature:
    """Kronecker-factored posterior covariance of the output layer's weights: ``over_actions`` (x) ``over_hidden``.

    The Hessian of the demonstrations' log loss, sum_t (diag p_t - p_t p_t') (x) h_t h_t', is taken for
    (sqrt(n) G) (x) (sqrt(n) A) with G, A the means of its factors, and sqrt(prior precision) is added to each.
    """

    over_actions: Tensor
    """(sqrt(n) G + sqrt(tau) I)^-1, shape (actions, actions)."""
    over_hidden: Tensor
    """(sqrt(n) A + sqrt(tau) I)^-1, shape (width, width)."""


def curvature(layer: OutputLayer, shown: Shown) -> Curvature:
    """The posterior's covariance; the prior's precision tau is one over the mean square of the layer's own weights.

    Kind: estimate (Kronecker factors, Gaussian). Cost: n (actions^2 + width^2), and two inversions.
    """
    n, n_actions = len(shown.actions), len(layer.tokens)
    outer = torch.zeros(n_actions, n_actions, dtype=torch.float64)
    mean = torch.zeros(n_actions, dtype=torch.float64)
    for block in shown.blocks(n_actions):
        p = layer.log_probs(block.hidden).exp()
        outer += p.T @ p
        mean += p.sum(dim=0)
    per_action = (torch.diag(mean) - outer) / n
    per_hidden = shown.hidden.T @ shown.hidden / n
    root_tau = float(layer.weight.square().mean()) ** -0.5
    inverses = [
        torch.linalg.inv(n**0.5 * factor + root_tau * torch.eye(len(factor), dtype=torch.float64))
        for factor in (per_action, per_hidden)
    ]
    return Curvature(inverses[0], inverses[1])
