"""Two honest accounts of asking: pay the floor and never ask at random, or ask and pay for the right to.

A forced question (nothing can be paid any more, so the demonstrator decides for certain) is free under both: the
system's action is then the demonstrator's own.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log1p
from typing import Literal, TypeAlias

import numpy as np

from mightnt.constraints.kl import kl_step_nats, sum_log_ratio_nats
from mightnt.errors import InputError
from mightnt.prediction import TOLERANCE, FloatArray, Prediction

AskAccount: TypeAlias = Literal["floor", "charged"]
"""How one decision is charged."""


def charge_floor_nats(policy: Prediction, base: Prediction) -> float:
    """What a decision costs when the agent may not ask at random: KL to the base as it is, floor included.

    KL(pi, nu) >= -log(1-theta). If nu <= mu pointwise then KL(pi, mu) <= KL(pi, nu).

    The policy must sum to one; ``inf`` where it goes where the base does not.

    Kind: exact. Paper: the pessimistic base. Cost: O(n_symbols).
    """
    return kl_step_nats(policy, base)


def charge_asking_nats(policy: Prediction, base: Prediction) -> float:
    """What a decision costs when asking is one more action, with the base's missing mass theta as its base probability.

    KL_ext + log(1+theta), KL_ext = sum_x pi(x) log(pi(x)/nu(x)) + theta_pi log(theta_pi/theta). When the demonstrator
    answers, then for every nu

        KL(system, mu) <= this + sum_x pi(x) log(nu(x)/mu(x)),

    by the log-sum inequality at each symbol, with mu(x) split into mu(x)/(1+theta) and theta mu(x)/(1+theta); the last
    sum is at most 0 where nu <= mu. KL_ext alone is no bound: mu = (.5, .5), nu = pi = (.5, 0) gives 0 where the truth
    is .131.

    Missing mass up to 1e-9 on either side is read as rounding: 0. ``inf`` where the policy asks and the base never
    does.

    Kind: exact. Paper: this project's. Cost: O(n_symbols).
    """
    if policy.n_symbols != base.n_symbols:
        raise InputError(f"the policy predicts {policy.n_symbols} symbols, the base {base.n_symbols}")
    extended = sum_log_ratio_nats(_with_charged(policy), _with_charged(base))
    return max(0.0, extended) + log1p(asking_probability(base))


ACCOUNTS: dict[AskAccount, Callable[[Prediction, Prediction], float]] = {
    "floor": charge_floor_nats,
    "charged": charge_asking_nats,
}


def asking_probability(prediction: Prediction) -> float:
    """theta, with missing mass up to 1e-9 read as rounding: 0."""
    return prediction.missing if prediction.missing > TOLERANCE else 0.0


def floor_nats(base: Prediction) -> float:
    """The least that acting without asking costs at this step: -log(1-theta); ``inf`` where the base gives nothing."""
    return max(0.0, -float(np.logaddexp.reduce(base.log_probabilities)))


def given_no_ask(base: Prediction) -> Prediction:
    """The base given that it does not ask: nu / (1-theta), the cheapest way to act, at exactly the floor.

    A conditional distribution, renormalized because that is what it is for; a base that gives nothing is refused with
    :class:`~mightnt.errors.InputError`.
    """
    log_total = np.logaddexp.reduce(base.log_probabilities)
    if log_total == -np.inf:
        raise InputError("the base gives no action any probability; there is nothing to do but ask")
    return Prediction(base.log_probabilities - log_total)


def with_answers(policy: Prediction, demonstrator: Prediction) -> Prediction:
    """What policy and demonstrator do together: pi + theta_pi mu, the demonstrator deciding whenever it is asked."""
    theta = asking_probability(policy)
    if theta == 0:
        return policy
    return Prediction(np.logaddexp(policy.log_probabilities, np.log(theta) + demonstrator.log_probabilities))


def _with_charged(prediction: Prediction) -> FloatArray:
    with np.errstate(divide="ignore"):
        return np.append(prediction.log_probabilities, np.log(asking_probability(prediction)))
