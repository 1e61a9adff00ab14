"""A policy written out: one row of probabilities for every history of a tree."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from mightnt.constraints.budget import KLBudget, TVDBudget
from mightnt.history import Chooser, Step
from mightnt.planners.levels import LogPolicy
from mightnt.prediction import Model, Prediction
from mightnt.worlds.tree import Path, TreeWorld


@dataclass(frozen=True, slots=True, eq=False)
class TablePolicy:
    """The planned policy, for the base as it stood when the plan was made.

    Off the plan, after an action it never takes, it plays the cheapest policy: the base where that sums to one. Who chose
    the steps of a history makes no difference to it; an answered question that moves the base does not move the plan
    (:class:`~mightnt.planners.soft.SoftPolicy` replans). Where no action is due every action has probability zero.

    ``value`` is the expected utility and ``divergence`` the distance to the base in the reading of ``constraint`` (nats
    for KL, probability for TVD), both measured on this policy from the start.

    Kind: exact. Paper: the constrained optimum. Cost: O(horizon) a prediction.
    """

    world: TreeWorld
    base: Model
    constraint: KLBudget | TVDBudget
    value: float
    divergence: float
    log_policy: LogPolicy

    @property
    def budget(self) -> KLBudget:
        """The limit in nats that a ledger keeps when this is played; no limit where the constraint is a TVD."""
        return self.constraint if isinstance(self.constraint, KLBudget) else KLBudget(inf)

    @property
    def n_symbols(self) -> int:
        """Number of actions."""
        return self.world.n_actions

    def start(self) -> Path:
        """Nothing happened."""
        return self.world.start()

    def predict(self, state: Path) -> Prediction:
        """The row of this history."""
        if self.world.turn(state) is not Chooser.AGENT:
            return Prediction(np.full(self.n_symbols, -inf))
        node = 0
        for action, observation in zip(state[::2], state[1::2], strict=True):
            node = (node * self.world.n_actions + action) * self.world.n_observations + observation
        return Prediction(self.log_policy[len(state) // 2][node])

    def advance(self, state: Path, step: Step) -> Path:
        """The path with one more symbol."""
        return self.world.advance(state, step)
