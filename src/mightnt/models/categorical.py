"""A model without memory: the same prediction at every step."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from mightnt.history import Step
from mightnt.prediction import Prediction


@dataclass(frozen=True, slots=True, eq=False)
class Categorical:
    """The model that predicts ``prediction`` whatever happened.

    nu(x | h) = p(x). The probabilities may sum to less than one and are kept as given.

    Kind: exact. Paper: the Bernoulli example of the missing triangle inequality is of this kind. Cost: O(1) a step.
    """

    prediction: Prediction

    @classmethod
    def of(cls, probabilities: ArrayLike) -> Categorical:
        """The memoryless model with these probabilities, shape ``(n_symbols,)``, sum at most one."""
        return cls(Prediction.of(probabilities))

    @property
    def n_symbols(self) -> int:
        """Size of the alphabet."""
        return self.prediction.n_symbols

    def start(self) -> None:
        """There is nothing to remember."""

    def predict(self, state: None) -> Prediction:
        """Always the same."""
        return self.prediction

    def advance(self, state: None, step: Step) -> None:
        """There is nothing to remember."""
