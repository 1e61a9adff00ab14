"""Worlds small enough to write out: every history a leaf, every leaf a utility."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from mightnt.errors import InputError
from mightnt.history import Chooser, Step
from mightnt.prediction import TOLERANCE, Model, Prediction

Path: TypeAlias = tuple[int, ...]
"""The symbols a1, o1, a2, o2, ... of a history, without who chose them."""


class World(Model, Protocol):
    """A model of observations that knows whose turn it is and what an episode was worth.

    ``predict`` gives the observation that comes next; where none comes next (an action is due, or the episode is over)
    every observation has probability zero.
    """

    @property
    def n_actions(self) -> int:
        """Size of the alphabet of actions; ``n_symbols`` is that of observations."""
        ...

    def turn(self, state: Any) -> Chooser | None:
        """Who is next: ``Chooser.AGENT``, ``Chooser.WORLD``, or ``None`` when the episode is over."""
        ...

    def utility(self, state: Any) -> float:
        """What the episode that ended in ``state`` was worth."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class TreeWorld:
    """A world of ``horizon`` rounds, each an action and then an observation. A state is the path so far.

    Args:
        observe: path that ends in an action -> probabilities of the observation, shape ``(n_observations,)``.
        utility_of: path of ``2 * horizon`` symbols -> utility, any finite number.

    Errors: :class:`~mightnt.errors.InputError` for sizes below one, observation probabilities that do not sum to one
    within 1e-9, a utility that is not finite, a symbol outside its alphabet, a step after the end.

    Kind: exact. Cost: that of the two functions; planners visit (n_actions * n_observations) ** horizon leaves.
    """

    n_actions: int
    n_observations: int
    horizon: int
    observe: Callable[[Path], ArrayLike]
    utility_of: Callable[[Path], float]

    def __post_init__(self) -> None:
        if min(self.n_actions, self.n_observations, self.horizon) < 1:
            raise InputError(
                f"got {self.n_actions} actions, {self.n_observations} observations, {self.horizon} rounds; "
                "at least one of each is needed"
            )

    @property
    def n_symbols(self) -> int:
        """Size of the alphabet of observations."""
        return self.n_observations

    def start(self) -> Path:
        """The empty path."""
        return ()

    def turn(self, state: Path) -> Chooser | None:
        """The agent acts, the world answers, ``horizon`` times."""
        if len(state) == 2 * self.horizon:
            return None
        return Chooser.WORLD if len(state) % 2 else Chooser.AGENT

    def predict(self, state: Path) -> Prediction:
        """The observation after an action; probability zero for all where no observation is due."""
        if self.turn(state) is not Chooser.WORLD:
            return Prediction(np.full(self.n_observations, -np.inf))
        prediction = Prediction.of(self.observe(state))
        if prediction.n_symbols != self.n_observations or prediction.missing > TOLERANCE:
            raise InputError(
                f"after {state} the world gives {prediction.n_symbols} observations a total of "
                f"{1 - prediction.missing:.12g}; {self.n_observations} that sum to 1 are needed"
            )
        return prediction

    def advance(self, state: Path, step: Step) -> Path:
        """The path with one more symbol."""
        turn = self.turn(state)
        if turn is None:
            raise InputError(f"the episode of {self.horizon} round(s) is over; there is no step after it")
        size = self.n_observations if turn is Chooser.WORLD else self.n_actions
        if step.is_action != (turn is Chooser.AGENT) or not 0 <= step.symbol < size:
            raise InputError(f"after {state} one of {size} symbols of the {turn} is due; got {step}")
        return (*state, step.symbol)

    def utility(self, state: Path) -> float:
        """The utility of a complete path."""
        value = float(self.utility_of(state)) if self.turn(state) is None else np.nan
        if not np.isfinite(value):
            raise InputError(f"the utility of {state} is {value}; a finite number at the end of an episode is needed")
        return value


def random_tree(rng: np.random.Generator, n_actions: int, n_observations: int, horizon: int) -> TreeWorld:
    """A world with observation probabilities and utilities drawn at random: uniform on the simplex, uniform on [0, 1].

    Everything is drawn here and looked up later, so the world is a value. Cost: every path is written out once.
    """

    def paths(length: int) -> itertools.product[Path]:
        sizes = (n_actions, n_observations)
        return itertools.product(*(range(sizes[i % 2]) for i in range(length)))

    acted = (path for t in range(horizon) for path in paths(2 * t + 1))
    observations = {path: rng.dirichlet(np.ones(n_observations)) for path in acted}
    utilities = {path: float(rng.uniform()) for path in paths(2 * horizon)}
    return TreeWorld(n_actions, n_observations, horizon, observations.__getitem__, utilities.__getitem__)
