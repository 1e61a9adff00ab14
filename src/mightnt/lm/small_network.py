"""Small networks that imitate in an ordinary reinforcement-learning world: from what is seen to what is done.

They are fitted here, with torch, and come out as tables (the world has finitely many observations), so that bases and
planners use them without torch. Several of them make a class::

    members = fit_small_networks(shown, features, n_actions, seeds=range(5))
    base = Pessimistic(ModelClass.of(members), top_set_level=0.01)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mightnt.errors import InputError
from mightnt.history import Step
from mightnt.models.tabular import ByObservation, demonstrated_pairs
from mightnt.prediction import FloatArray, Prediction


@dataclass(frozen=True, slots=True)
class SmallNetwork:
    """Size and fitting of one network: a hidden layer of tanh, then a softmax over actions."""

    width: int = 64
    """Hidden units."""
    steps: int = 500
    """Steps of Adam, each on all demonstrations at once (as counts, so their number costs nothing)."""
    learning_rate: float = 0.02
    """Of Adam."""
    made_up: float = 1.0
    """How many demonstrations each observation gets on top, all of one action drawn by the network's own seed. They weigh
    little where much was shown and decide where nothing was. 0: networks alone, which agree with confidence there."""

    def __post_init__(self) -> None:
        if min(self.width, self.steps) < 1 or not self.learning_rate > 0 or not self.made_up >= 0:
            raise InputError(
                f"{self}: width and steps must be at least 1, the learning rate above 0, made_up not below 0"
            )


def fit_small_networks(
    shown: Sequence[Step],
    features: FloatArray,
    n_actions: int,
    seeds: Sequence[int],
    shape: SmallNetwork | None = None,
) -> list[ByObservation]:
    """One imitator for each seed, fitted by maximum likelihood to its own resample of the demonstrations.

    They differ in first weights, in the resample, and in what is made up where little was shown: first weights and resample
    alone are not enough, such networks extrapolate alike and are sure of it. All of them give every action some probability,
    also what was never demonstrated: a softmax knows no zeros.

    Args:
        shown: a history; its demonstrated steps are learned.
        features: what a network sees of each observation, shape ``(n_observations, width)``, finite.
        seeds: one a network; the same seed gives the same network.
        shape: by default ``SmallNetwork()``.

    Errors: :class:`~mightnt.errors.InputError` where nothing was demonstrated, or a symbol lies outside features or actions.

    Kind: estimate (maximum likelihood by gradient, float32). Paper: an ensemble as a step towards nu_alpha. Cost: steps
    forward and backward passes over the observations a network.
    """
    seen, done = (torch.from_numpy(array) for array in demonstrated_pairs(shown))
    if not len(seen):
        raise InputError("the history holds no demonstrated step to learn from")
    if int(seen.max()) >= len(features) or int(done.max()) >= n_actions:
        raise InputError(
            f"demonstrated are observations up to {int(seen.max())} and actions up to {int(done.max())}; "
            f"there are {len(features)} rows of features and {n_actions} actions"
        )
    inputs = torch.as_tensor(features, dtype=torch.float32)
    if not inputs.isfinite().all():
        raise InputError("the features hold NaN or inf; finite numbers are allowed")
    return [fit_one(inputs, seen, done, n_actions, seed, shape or SmallNetwork()) for seed in seeds]


def fit_one(
    inputs: Tensor, seen: Tensor, done: Tensor, n_actions: int, seed: int, shape: SmallNetwork
) -> ByObservation:
    """The network of one seed, as a table; no other random state is touched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(inputs.shape[1], shape.width), nn.Tanh(), nn.Linear(shape.width, n_actions))
        resample = torch.randint(len(seen), (len(seen),))
        guesses = torch.randint(n_actions, (len(inputs),))
    weights = torch.zeros(len(inputs), n_actions)
    weights.index_put_((seen[resample], done[resample]), torch.ones(len(seen)), accumulate=True)
    weights[torch.arange(len(inputs)), guesses] += shape.made_up
    optimizer = torch.optim.Adam(network.parameters(), lr=shape.learning_rate)
    for _ in range(shape.steps):
        optimizer.zero_grad()
        torch.autograd.backward(-(weights * network(inputs).log_softmax(dim=-1)).sum() / weights.sum())
        optimizer.step()
    with torch.no_grad():
        table = network(inputs).double().log_softmax(dim=-1)
    return ByObservation(tuple(Prediction(row) for row in table.numpy()))
