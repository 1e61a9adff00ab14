"""A model that starts later: demonstrations first, then whatever is asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mightnt.history import History, Step
from mightnt.prediction import Model, Prediction, follow


@dataclass(frozen=True, slots=True, eq=False)
class After:
    """``model`` as it stands after ``history``: the same contract, with ``history`` already behind it.

    nu'(x | h) = nu(x | history h). This is how demonstrated steps come before an episode: wrap the base (and the
    demonstrator, if it remembers) once, and planners, players and audits see an ordinary model.

    Kind: exact. Paper: the k trusted steps that open a history. Cost: ``start`` follows the whole history.
    """

    model: Model
    history: History

    @property
    def n_symbols(self) -> int:
        """Size of the alphabet."""
        return self.model.n_symbols

    def start(self) -> Any:
        """The state of ``model`` after ``history``."""
        return follow(self.model, self.history)

    def predict(self, state: Any) -> Prediction:
        """What ``model`` predicts."""
        return self.model.predict(state)

    def advance(self, state: Any, step: Step) -> Any:
        """As ``model`` advances."""
        return self.model.advance(state, step)
