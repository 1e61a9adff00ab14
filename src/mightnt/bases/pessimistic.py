"""What I might do: the least that any believed model allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from mightnt.errors import InputError
from mightnt.history import Evidence, Step, is_evidence
from mightnt.models.finite import AnyClass, ClassState, top_set
from mightnt.prediction import FloatArray, Prediction

Granularity: TypeAlias = Literal["token", "trajectory"]
"""Over what the minimum is taken: each action by itself, or the agent's actions since the last evidence."""


@dataclass(frozen=True, slots=True, eq=False)
class PessimisticState:
    """The class, and log prod_s nu(a_s|h_<s) of every model over the agent's actions since the last evidence.

    ``log_running`` has shape ``(n_models,)``, nats; at granularity ``token`` it stays zero.
    """

    of_class: ClassState
    log_running: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Pessimistic:
    """The pessimistic imitator: each action gets the least probability that a model of the top set gives it.

    ``token``: nu_alpha(a|h) = min over nu in the top set of nu(a|h); an episode has the product of these minima.

    ``trajectory``: with r_nu = prod_s nu(a_s|h_<s) over the agent's actions since the last evidence (given the
    observations), nu_min(a|h) = min_nu r_nu nu(a|h) / min_nu r_nu, both minima over the same top set. That set cannot
    move between two pieces of evidence, so the conditionals multiply to min_nu prod_s nu(a_s|h_<s), and
    sum_a min_nu r_nu nu(a|h) <= min_nu r_nu makes each of them sum to at most one. Evidence may change the set; the
    products then begin again at 1, because a ratio between minima over two different sets bounds nothing. It never lies
    below the token minimum at the same history. Once some top model has given the agent's own actions probability zero
    (0/0) nothing is predicted until the next evidence.

    What is missing is the asking probability theta(h). An empty top set (evidence that no model allows) predicts
    nothing.

    Which theorem needs which:
        KL(pi, demonstrator) <= KL(pi, base) while the demonstrator is in the top set: either granularity.
        It stays there for ever with probability >= 1 - alpha / w(mu): either, but only with evidence "demonstrated".
        The expected sum of cubed asking probabilities is finite: either, again with evidence "demonstrated" only
        (``trajectory`` never asks more at the same history).

    Errors: :class:`~mightnt.errors.InputError` for a level outside (0, 1], and for ``trajectory`` with evidence "all":
    the agent's own actions would move the top set inside the product.

    Kind: exact (float64). Paper: nu_alpha; ``trajectory`` is this project's. Cost: one prediction of every
    model a step.
    """

    model_class: AnyClass
    top_set_level: float
    granularity: Granularity = "token"
    evidence: Evidence = "demonstrated"

    def __post_init__(self) -> None:
        top_set(self.model_class.log_prior, self.top_set_level)
        if self.granularity == "trajectory" and self.evidence == "all":
            raise InputError(
                'granularity "trajectory" needs evidence "demonstrated": with the agent\'s own actions as evidence the '
                "top set moves inside the trajectory"
            )

    @property
    def n_symbols(self) -> int:
        """Size of the alphabet."""
        return self.model_class.n_symbols

    def start(self) -> PessimisticState:
        """The class at its prior, no action yet."""
        return PessimisticState(self.model_class.start(), np.zeros(len(self.model_class.models)))

    def predict(self, state: PessimisticState) -> Prediction:
        """nu_alpha( . |h), never renormalized."""
        top = top_set(state.of_class.log_posterior, self.top_set_level)
        running = state.log_running[top]
        if running.size == 0 or running.min() == -np.inf:
            return Prediction(np.full(self.n_symbols, -np.inf))
        log_products = running[:, None] + self.model_class.log_predictions(state.of_class)[top]
        return Prediction(log_products.min(axis=0) - running.min())

    def advance(self, state: PessimisticState, step: Step) -> PessimisticState:
        """Evidence moves the class and begins the products again; an action of the agent's own extends them."""
        running = state.log_running
        if is_evidence(step, self.evidence):
            running = np.zeros_like(running)
        elif step.is_action and self.granularity == "trajectory":
            running = running + self.model_class.log_predictions(state.of_class)[:, step.symbol]
        return PessimisticState(self.model_class.advance(state.of_class, step, self.evidence), running)
