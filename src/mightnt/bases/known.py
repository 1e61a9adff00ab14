"""The demonstrator itself as the base: possible only where it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mightnt.history import Step
from mightnt.prediction import Model, Prediction


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """The demonstrator mu as it is: the oracle that every other base is measured against.

    beta(x|h) = mu(x|h). Needs no theorem: KL(pi, base) is KL(pi, demonstrator).

    Kind: exact. Paper: mu. Cost: that of the demonstrator.
    """

    demonstrator: Model

    @property
    def n_symbols(self) -> int:
        """Size of the alphabet."""
        return self.demonstrator.n_symbols

    def start(self) -> Any:
        """The demonstrator's start."""
        return self.demonstrator.start()

    def predict(self, state: Any) -> Prediction:
        """What the demonstrator would do."""
        return self.demonstrator.predict(state)

    def advance(self, state: Any, step: Step) -> Any:
        """As the demonstrator advances."""
        return self.demonstrator.advance(state, step)
