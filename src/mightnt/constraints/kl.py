"""How far a policy is from a base, in nats: at one step, in expectation, at most.

All of them are KL(policy, base) in this order, with the base as it is: where it sums to less than one, the missing mass
costs at least -log(1 - theta) and is never given back.

For one policy and base: kl_expected_nats <= kl_adaptive_nats <= kl_pathwise_nats, and kl_max_observations_nats <=
kl_adaptive_nats. Where observations do not depend on actions, also kl_expected_nats <= kl_max_observations_nats; in a
world that reacts to actions this fails, because one sequence fixed in advance need not fit every action.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from mightnt.errors import InputError
from mightnt.history import Chooser, Step
from mightnt.prediction import TOLERANCE, FloatArray, Model, Prediction
from mightnt.worlds.tree import World


def kl_step_nats(policy: Prediction, base: Prediction) -> float:
    """The divergence of one prediction from another, at one step.

    KL(pi, beta) = sum_x pi(x) log(pi(x) / beta(x)), with 0 log 0 = 0. A base that misses theta gives
    KL(pi, beta / (1-theta)) - log(1-theta). ``inf`` where pi > 0 = beta. Never negative: rounding below 0 is read as 0.

    Errors: :class:`~mightnt.errors.InputError` for different alphabets, and for a policy that itself misses more than
    1e-9: without knowing who answers, its distance to anything is undefined (see
    :mod:`mightnt.constraints.asking`).

    Kind: exact (float64). Paper: one step of KL_{h,m}. Cost: O(n_symbols).
    """
    if policy.n_symbols != base.n_symbols:
        raise InputError(f"the policy predicts {policy.n_symbols} symbols, the base {base.n_symbols}")
    if policy.missing > TOLERANCE:
        raise InputError(
            f"the policy misses probability {policy.missing:.6g}; say who decides then: "
            "use the charged account, or a policy that sums to one"
        )
    return max(0.0, sum_log_ratio_nats(policy.log_probabilities, base.log_probabilities))


def sum_log_ratio_nats(log_policy: FloatArray, log_base: FloatArray) -> float:
    """sum_x pi(x) log(pi(x) / beta(x)) over the x with pi(x) > 0, shape ``(n,)`` both; may be negative or ``inf``."""
    possible = log_policy > -np.inf
    log_pi, log_beta = log_policy[possible], log_base[possible]
    if np.isneginf(log_beta).any():
        return np.inf
    return float(np.sum(np.exp(log_pi) * (log_pi - log_beta)))


def kl_expected_nats(policy: Model, base: Model, world: World) -> float:
    """The divergence of an episode in this world, averaged over its observations.

    E_{a ~ pi, o ~ world} sum_t KL(pi( . |h_t), beta( . |h_t)).

    Kind: exact. Paper: less strict than KL_{h,m}. Cost: one prediction each at every node.
    """

    def below(at_world: Any, at_policy: Any, at_base: Any) -> float:
        turn = world.turn(at_world)
        if turn is None:
            return 0.0
        ahead = policy.predict(at_policy) if turn is Chooser.AGENT else world.predict(at_world)
        total = kl_step_nats(ahead, base.predict(at_base)) if turn is Chooser.AGENT else 0.0
        for symbol, probability in possible(ahead):
            step = Step(symbol, turn)
            total += probability * below(
                world.advance(at_world, step), policy.advance(at_policy, step), base.advance(at_base, step)
            )
        return total

    return below(world.start(), policy.start(), base.start())


def kl_max_observations_nats(policy: Model, base: Model, n_observations: int, horizon: int) -> float:
    """The divergence of an episode under the worst observations that are fixed before it begins.

    KL_{h,m}(pi, beta) = max over o_{1:m} of sum over a_{1:m} of prod_t pi(a_t|h_<t) log [prod_t pi / prod_t beta].

    Args:
        horizon: the number of actions m; the observation after the last one decides nothing and is left out.

    Kind: exact. Paper: KL_{h,m}. Cost: n_observations ** (horizon-1) times a tree of actions.
    """

    def along(at_policy: Any, at_base: Any, observations: tuple[int, ...]) -> float:
        ahead = policy.predict(at_policy)
        total = kl_step_nats(ahead, base.predict(at_base))
        if observations:
            for action, probability in possible(ahead):
                after = both_advanced(policy, base, at_policy, at_base, action, observations[0])
                total += probability * along(*after, observations[1:])
        return total

    sequences = itertools.product(range(n_observations), repeat=horizon - 1)
    return max(along(policy.start(), base.start(), sequence) for sequence in sequences)


def kl_adaptive_nats(policy: Model, base: Model, n_observations: int, horizon: int) -> float:
    """The divergence of an episode under the worst observations, each chosen after seeing the actions before it.

    D(h) = KL(pi( . |h), beta( . |h)) + sum_a pi(a|h) max_o D(hao).

    Kind: exact. Paper: stricter than KL_{h,m}. Cost: (n_actions * n_observations) ** (horizon-1).
    """

    def below(at_policy: Any, at_base: Any, rounds: int) -> float:
        ahead = policy.predict(at_policy)
        total = kl_step_nats(ahead, base.predict(at_base))
        if rounds > 1:
            for action, probability in possible(ahead):
                after = [both_advanced(policy, base, at_policy, at_base, action, o) for o in range(n_observations)]
                total += probability * max(below(*states, rounds - 1) for states in after)
        return total

    return below(policy.start(), base.start(), horizon)


def kl_pathwise_nats(policy: Model, base: Model, n_observations: int, horizon: int) -> float:
    """The most that an episode can be charged: the sum of its per-step divergences along the worst path.

    D(h) = KL(pi( . |h), beta( . |h)) + max over o and over a with pi(a|h) > 0 of D(hao). A ledger that is never
    overdrawn keeps this one, and with it all the others.

    Kind: exact. Paper: the strictest reading of KL_{h,m}. Cost: as kl_adaptive_nats.
    """

    def below(at_policy: Any, at_base: Any, rounds: int) -> float:
        ahead = policy.predict(at_policy)
        total = kl_step_nats(ahead, base.predict(at_base))
        if rounds > 1:
            pairs = itertools.product([action for action, _ in possible(ahead)], range(n_observations))
            after = [both_advanced(policy, base, at_policy, at_base, action, o) for action, o in pairs]
            total += max(below(*states, rounds - 1) for states in after)
        return total

    return below(policy.start(), base.start(), horizon)


def possible(prediction: Prediction) -> Iterator[tuple[int, float]]:
    """Pairs (symbol, probability) of the symbols whose probability is not zero."""
    for symbol, probability in enumerate(prediction.probabilities.tolist()):
        if probability > 0:
            yield symbol, probability


def both_advanced(
    policy: Model, base: Model, at_policy: Any, at_base: Any, action: int, observation: int
) -> tuple[Any, Any]:
    """Where policy and base stand after one action of the agent's and one observation."""
    for step in (Step(action, Chooser.AGENT), Step(observation, Chooser.WORLD)):
        at_policy, at_base = policy.advance(at_policy, step), base.advance(at_base, step)
    return at_policy, at_base
