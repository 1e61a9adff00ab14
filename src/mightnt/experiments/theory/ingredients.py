"""What several chapters share: random classes, demonstrations, what a base charges for actions, and rows with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mightnt.audits.intervals import share_interval
from mightnt.audits.summary import CONFIDENCE, over_seeds
from mightnt.errors import InputError
from mightnt.experiments.theory.theorem import Row
from mightnt.history import Chooser, History, Step, demonstrated
from mightnt.models.categorical import Categorical
from mightnt.models.finite import ModelClass
from mightnt.models.switch import Switch
from mightnt.prediction import Model


@dataclass(frozen=True, slots=True)
class Answered:
    """The event that the world answers ``action`` with ``observation``."""

    action: int
    observation: int

    def __call__(self, history: History) -> bool:
        """Whether the last two steps are these."""
        return len(history) > 1 and (history[-2].symbol, history[-1].symbol) == (self.action, self.observation)


def random_class(rng: np.random.Generator, n_models: int, n_actions: int, n_observations: int) -> ModelClass:
    """Models that change their ways once a certain answer was seen; every row and the prior uniform on the simplex.

    Kind: exact. Cost: O(n_models * n_actions).
    """

    def row() -> Categorical:
        return Categorical.of(rng.dirichlet(np.ones(n_actions)))

    def event() -> Answered:
        return Answered(int(rng.integers(n_actions)), int(rng.integers(n_observations)))

    return ModelClass.of([Switch(row(), event(), row()) for _ in range(n_models)], rng.dirichlet(np.ones(n_models)))


def demonstrations(model: Model, n_rounds: int, n_observations: int, rng: np.random.Generator) -> History:
    """``n_rounds`` rounds of ``model`` acting, each followed by a uniform observation.

    Kind: exact sample. Cost: one prediction a round.
    """
    state, symbols = model.start(), list[int]()
    for _ in range(n_rounds):
        action = int(rng.choice(model.n_symbols, p=model.predict(state).probabilities))
        symbols += [action, int(rng.integers(n_observations))]
        for step in demonstrated(symbols[-2:]):
            state = model.advance(state, step)
    return demonstrated(symbols)


def charges_nats(base: Model, actions: Sequence[int]) -> list[float]:
    """-log beta(a|h) of each of the agent's own ``actions`` in turn, ``inf`` where the base gives zero.

    Kind: exact. Cost: one prediction an action.
    """
    state, charges = base.start(), list[float]()
    for action in actions:
        charges.append(-float(base.predict(state).log_probabilities[action]))
        state = base.advance(state, Step(action, Chooser.AGENT))
    return charges


def mean_row(claim: str, values: Sequence[float], unit: str, of: str, holds: bool | None = None) -> Row:
    """The row of a mean over seeds, with its 95% Student t interval; at least two finite values.

    Kind: estimate (Student t over seeds). Cost: O(n).
    """
    spread = over_seeds(values)
    if spread is None or spread.low is None or spread.high is None:
        raise InputError(f"{claim}: {len(values)} value(s), at least two finite ones are needed for an interval")
    how = f"95% Student t over {spread.n_seeds} {of}"
    return Row(
        claim, spread.mean, unit, "estimate", min(spread.low, spread.mean), max(spread.high, spread.mean), how, holds
    )


def share_row(claim: str, n_hits: int, n_runs: int, of: str, holds: bool | None = None) -> Row:
    """The row of a probability, with its 95% Clopper-Pearson interval.

    Kind: estimate. Cost: O(1).
    """
    low, high = share_interval(n_hits, n_runs, 1 - CONFIDENCE)
    return Row(
        claim, n_hits / n_runs, "probability", "estimate", low, high, f"95% Clopper-Pearson, {n_runs} {of}", holds
    )
