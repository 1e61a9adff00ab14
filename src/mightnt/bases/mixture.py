"""What I would do: the Bayes mixture over a class of models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mightnt.history import Evidence, Step
from mightnt.models.finite import AnyClass, ClassState
from mightnt.prediction import Prediction


@dataclass(frozen=True, slots=True, eq=False)
class BayesMixture:
    """The Bayesian imitator: predictions averaged with weights that move with the evidence.

    xi(x|h) = sum_nu w(nu|h) nu(x|h). With ``evidence="all"`` the product of its predictions along a sequence is
    sum_nu w(nu) nu(x_1:n): its own odd steps raise the weight of the models that predict them, and going on becomes
    nearly free. With ``evidence="demonstrated"`` its own steps teach it nothing.

    Where the members or the prior sum to less than one, so does the mixture.

    Kind: exact (float64). Paper: xi. Cost: one prediction of every model a step.
    """

    model_class: AnyClass
    evidence: Evidence = "all"

    @property
    def n_symbols(self) -> int:
        """Size of the alphabet."""
        return self.model_class.n_symbols

    def start(self) -> Any:
        """The class at its prior."""
        return self.model_class.start()

    def predict(self, state: ClassState) -> Prediction:
        """xi( . |h)."""
        log_joint = state.log_posterior[:, None] + self.model_class.log_predictions(state)
        return Prediction(np.logaddexp.reduce(log_joint, axis=0))

    def advance(self, state: Any, step: Step) -> Any:
        """The class after ``step`` under this rule of evidence."""
        return self.model_class.advance(state, step, self.evidence)
