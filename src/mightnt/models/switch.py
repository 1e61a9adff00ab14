"""A model that changes its mind once: one model until an event, another afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mightnt.history import History, Step
from mightnt.prediction import Model, Prediction


@dataclass(frozen=True, slots=True, eq=False)
class SwitchState:
    """What has happened, whether the event was in it, and where both models stand."""

    history: History
    happened: bool
    before: Any
    afterwards: Any


@dataclass(frozen=True, slots=True, eq=False)
class Switch:
    """``before`` until ``event`` has happened, ``afterwards`` from then on.

    nu_E(x | h) = nu(x | h) while E has not happened in h, rho(x | h) once it has. A class that holds nu_E beside every
    nu, for every simple event E, is what makes a Bayes mixture cheap to leave in novel situations: until E the two
    predict the same, so no data can tell them apart.

    Args:
        event: tells of a history whether the event is complete at its end; it is asked at every step and the answer
            "yes" is for ever. It may be true of the empty history.

    Kind: exact. Paper: the proof of theorem 1. Cost: O(length of the history) a step.
    """

    before: Model
    event: Callable[[History], bool]
    afterwards: Model

    @property
    def n_symbols(self) -> int:
        """Size of the alphabet."""
        return self.before.n_symbols

    def start(self) -> SwitchState:
        """Both models at their start."""
        return SwitchState((), self.event(()), self.before.start(), self.afterwards.start())

    def predict(self, state: SwitchState) -> Prediction:
        """The prediction of the model that is in force."""
        if state.happened:
            return self.afterwards.predict(state.afterwards)
        return self.before.predict(state.before)

    def advance(self, state: SwitchState, step: Step) -> SwitchState:
        """Both models see every step, so ``afterwards`` knows the whole history when its time comes."""
        history = (*state.history, step)
        return SwitchState(
            history,
            state.happened or self.event(history),
            self.before.advance(state.before, step),
            self.afterwards.advance(state.afterwards, step),
        )
