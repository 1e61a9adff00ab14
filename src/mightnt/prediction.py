"""Predictions that may sum to less than one, and the one contract every model, base, world and policy obeys.

``start() -> State``, ``predict(state) -> Prediction``, ``advance(state, step) -> State``. A state is a value: advancing
returns a new one and leaves the old one as it was, so that a planner can branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mightnt.errors import ContractError, InputError
from mightnt.history import Step

FloatArray = NDArray[np.float64]

TOLERANCE = 1e-9
"""How far a float64 sum of probabilities may exceed one before it is refused."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Log-probabilities of the next symbol; what they leave out of one is ``missing`` and is never given back.

    Args:
        log_probabilities: shape ``(n_symbols,)``, nats, ``-inf`` allowed. NaN, +inf, an empty array or a total above
            1 + 1e-9 is refused with :class:`~mightnt.errors.InputError`.

    Kind: exact (float64). Paper: semi-distributions. Cost: O(n_symbols).
    """

    log_probabilities: FloatArray

    def __post_init__(self) -> None:
        values = np.array(self.log_probabilities, dtype=np.float64)
        if values.ndim != 1 or values.size == 0:
            raise InputError(f"a prediction needs a row of log-probabilities, got shape {values.shape}")
        if np.isnan(values).any() or np.isposinf(values).any():
            raise InputError("a prediction holds NaN or +inf; log-probabilities are finite or -inf")
        with np.errstate(over="ignore"):
            total = float(np.exp(values).sum())
        if total > 1.0 + TOLERANCE:
            raise InputError(f"probabilities sum to {total:.12g}, at most 1 is allowed; nothing here renormalizes")
        values.setflags(write=False)
        object.__setattr__(self, "log_probabilities", values)

    @classmethod
    def of(cls, probabilities: ArrayLike) -> Prediction:
        """The prediction with these probabilities, shape ``(n_symbols,)``; they may sum to less than one."""
        values = np.asarray(probabilities, dtype=np.float64)
        if (values < 0).any():
            raise InputError(f"a probability is negative: {values.min():.6g}")
        with np.errstate(divide="ignore"):
            return cls(np.log(values))

    @property
    def n_symbols(self) -> int:
        """Size of the alphabet."""
        return int(self.log_probabilities.size)

    @property
    def probabilities(self) -> FloatArray:
        """Probabilities, shape ``(n_symbols,)``."""
        return np.exp(self.log_probabilities)

    @property
    def missing(self) -> float:
        """The asking probability theta = 1 - sum_x nu(x), in [0, 1].

        A sum above one by rounding (at most 1e-9, else it was refused) leaves nothing missing: 0.
        """
        return max(0.0, 1.0 - float(self.probabilities.sum()))


class Model(Protocol):
    """The contract. ``State`` is any value; two predictions of one state are equal."""

    @property
    def n_symbols(self) -> int:
        """Size of the alphabet this model predicts."""
        ...

    def start(self) -> Any:
        """The state before anything happened."""
        ...

    def predict(self, state: Any) -> Prediction:
        """The prediction of the next symbol in ``state``."""
        ...

    def advance(self, state: Any, step: Step) -> Any:
        """The state after ``step``; ``state`` itself is unchanged."""
        ...


def follow(model: Model, history: Sequence[Step]) -> Any:
    """The state of ``model`` after ``history``. Cost: one ``advance`` a step."""
    state = model.start()
    for step in history:
        state = model.advance(state, step)
    return state


def check_model(model: Model, histories: Sequence[Sequence[Step]]) -> None:
    """Raise :class:`~mightnt.errors.ContractError` where ``model`` breaks the contract along ``histories``.

    Checked at the start and after every step of every history: the prediction is a :class:`Prediction` with ``n_symbols``
    entries; predicting twice gives the same; two fresh starts predict the same; advancing leaves the old state's
    prediction unchanged; advancing twice by the same step predicts the same.

    Cost: five predictions a step.
    """
    name = type(model).__name__
    first = _steady_prediction(model, model.start(), f"{name} at the start")
    for history in histories:
        state = model.start()
        if not _same(model.predict(state), first):
            raise ContractError(f"{name}: two fresh starts predict differently")
        for position, step in enumerate(history):
            before, after, again = model.predict(state), model.advance(state, step), model.advance(state, step)
            if not _same(model.predict(state), before):
                raise ContractError(
                    f"{name}: advancing at position {position} changed the old state; return a new state instead"
                )
            state = after
            if not _same(_steady_prediction(model, state, f"{name} after position {position}"), model.predict(again)):
                raise ContractError(
                    f"{name}: advancing twice at position {position} gives states that predict differently"
                )


def _steady_prediction(model: Model, state: Any, where: str) -> Prediction:
    """The prediction of ``state``, if it is one, has the right size and comes out the same twice."""
    prediction = model.predict(state)
    if not isinstance(prediction, Prediction):
        raise ContractError(f"{where}: predict returned a {type(prediction).__name__}, a Prediction is needed")
    if prediction.n_symbols != model.n_symbols:
        raise ContractError(f"{where}: predicts {prediction.n_symbols} symbols, its n_symbols is {model.n_symbols}")
    if not _same(model.predict(state), prediction):
        raise ContractError(f"{where}: predicts differently when asked twice about one state")
    return prediction


def _same(one: Prediction, other: Prediction) -> bool:
    return np.array_equal(one.log_probabilities, other.log_probabilities)
