"""A finite class of models with a prior: its posterior under an explicit rule of evidence, and its top set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mightnt.errors import InputError
from mightnt.history import Evidence, Step, is_evidence
from mightnt.prediction import TOLERANCE, FloatArray, Model


class AnyClass(Protocol):
    """What a base asks of a class of models; its states hold ``log_posterior``, shape ``(n_models,)``, nats."""

    @property
    def n_symbols(self) -> int:
        """Size of the alphabet."""
        ...

    @property
    def models(self) -> Sequence[Model]:
        """The models."""
        ...

    @property
    def log_prior(self) -> FloatArray:
        """log w(nu), shape ``(n_models,)``, nats."""
        ...

    def start(self) -> Any:
        """Every model at its start."""
        ...

    def log_predictions(self, state: Any) -> FloatArray:
        """log nu(x|h), shape ``(n_models, n_symbols)``."""
        ...

    def advance(self, state: Any, step: Step, evidence: Evidence) -> Any:
        """After ``step``; the posterior moves only by evidence."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ClassState:
    """Where every model stands, and how far it is believed.

    ``log_posterior`` has shape ``(n_models,)`` and is log w(nu|h) in nats.
    """

    member_states: tuple[Any, ...]
    log_posterior: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ModelClass:
    """Models that may be the demonstrator, with prior weights w(nu) that sum to at most one.

    w(nu | h) = w(nu) prod nu(x_t | x_<t) / xi(h) over the *evidence* steps of h, where xi(h) = sum_nu w(nu) prod ...
    and xi of no evidence is 1. A prior that sums to s < 1 is therefore kept as it is: before the first evidence the
    weights sum to s (the models that are not listed have the rest), after it they sum to 1.

    After evidence that no model allows the posterior is -inf for all and stays so: nothing is predicted any more.

    Args:
        models: at least one, all over the same alphabet.
        log_prior: shape ``(n_models,)``, nats, ``-inf`` allowed. NaN, +inf, a sum above 1 + 1e-9 or a prior that
            believes nothing is refused with :class:`~mightnt.errors.InputError`.

    Kind: exact (float64). Paper: w(nu|h). Cost: one prediction of every model a step.
    """

    models: Sequence[Model]
    log_prior: FloatArray

    def __post_init__(self) -> None:
        models, log_prior = tuple(self.models), np.array(self.log_prior, dtype=np.float64)
        if not models or log_prior.shape != (len(models),):
            raise InputError(f"got {len(models)} model(s) and a prior of shape {log_prior.shape}; one weight a model")
        sizes = sorted({model.n_symbols for model in models})
        if len(sizes) > 1:
            raise InputError(f"the models speak alphabets of sizes {sizes}; one is needed")
        if np.isnan(log_prior).any() or np.isposinf(log_prior).any():
            raise InputError("the prior holds NaN or +inf; log-weights are finite or -inf")
        total = float(np.exp(log_prior).sum())
        if not 0 < total <= 1 + TOLERANCE:
            raise InputError(f"the prior sums to {total:.12g}; more than 0 and at most 1 is allowed")
        log_prior.setflags(write=False)
        object.__setattr__(self, "models", models)
        object.__setattr__(self, "log_prior", log_prior)

    @classmethod
    def of(cls, models: Sequence[Model], prior: ArrayLike | None = None) -> ModelClass:
        """The class with these prior weights (probabilities, not logs); equal weights when none are given."""
        weights = np.asarray([1 / len(models) for _ in models] if prior is None else prior, dtype=np.float64)
        if (weights < 0).any():
            raise InputError(f"a prior weight is negative: {weights.min():.6g}")
        with np.errstate(divide="ignore"):
            return cls(models, np.log(weights))

    @property
    def n_symbols(self) -> int:
        """Size of the alphabet."""
        return self.models[0].n_symbols

    def start(self) -> ClassState:
        """Every model at its start, believed as the prior says."""
        return ClassState(tuple(model.start() for model in self.models), self.log_prior)

    def log_predictions(self, state: ClassState) -> FloatArray:
        """log nu(x|h) for every model and symbol, shape ``(n_models, n_symbols)``."""
        pairs = zip(self.models, state.member_states, strict=True)
        return np.stack([model.predict(member).log_probabilities for model, member in pairs])

    def advance(self, state: ClassState, step: Step, evidence: Evidence) -> ClassState:
        """Every model moves on; the posterior moves only if ``step`` is evidence under the rule ``evidence``."""
        pairs = zip(self.models, state.member_states, strict=True)
        members = tuple(model.advance(member, step) for model, member in pairs)
        if not is_evidence(step, evidence):
            return ClassState(members, state.log_posterior)
        if not 0 <= step.symbol < self.n_symbols:
            raise InputError(f"the action {step.symbol} is none of 0..{self.n_symbols - 1}")
        log_joint = state.log_posterior + self.log_predictions(state)[:, step.symbol]
        log_total = np.logaddexp.reduce(log_joint)
        return ClassState(members, log_joint - log_total if log_total > -np.inf else log_joint)


ROUNDING = 1e-12
"""Relative error of float64 sums that may not push a model out of the top set."""


def top_set(log_posterior: FloatArray, level: float) -> NDArray[np.intp]:
    """The indices of the models believed enough to be listened to, the most believed first.

    Sort by posterior; keep nu_n while w(nu_n|h) >= alpha * sum_{j<=n} w(nu_j|h), alpha = ``level``. Models of equal
    posterior are taken in the order of the class, so the result does not depend on how a sort breaks ties. Every model
    with posterior >= ``level`` is in; a model with posterior zero never is; with ``level`` = 1 only the first is. A model
    that misses the level by rounding alone (1 in 10^12) is kept: a larger set is never less pessimistic.

    Args:
        log_posterior: shape ``(n_models,)``, nats; need not sum to one. All ``-inf`` gives the empty set.
        level: in (0, 1]; else :class:`~mightnt.errors.InputError`.

    Kind: exact (float64). Paper: the top set at level alpha. Cost: O(n_models log n_models).
    """
    if not 0 < level <= 1:
        raise InputError(f"the top-set level is {level}; it must be more than 0 and at most 1")
    best = log_posterior.max()
    if best == -np.inf:
        return np.empty(0, dtype=np.intp)
    order = np.argsort(-log_posterior, kind="stable")
    weights = np.exp(log_posterior[order] - best)
    kept = weights >= level * np.cumsum(weights) * (1.0 - ROUNDING)
    return order[: len(kept) if kept.all() else int(np.argmin(kept))]
