"""How far a policy is from a base in total variation: at one step, at the worst step, in trajectories.

All of them are TVD(policy, base) = the largest difference pi(A) - beta(A) over events A = sum of max(0, pi - beta). Where
the base sums to one this is half the L1 distance. Mass that the base misses counts as one more outcome, which the policy
never takes: a base that misses theta is at least theta away from every policy, and nothing is given back. A
probability always: 0 is equality, 1 no common outcome.

An action to which the base gives zero costs what it gets, where KL is infinite. For the same trajectories
TVD <= sqrt(KL / 2) (Pinsker; true with missing mass as well).
"""

from __future__ import annotations

import itertools
from typing import Any

from mightnt.constraints.kl import both_advanced, possible
from mightnt.errors import InputError
from mightnt.history import Chooser, Step
from mightnt.prediction import TOLERANCE, Model, Prediction
from mightnt.worlds.tree import World


def tvd_step(policy: Prediction, base: Prediction) -> float:
    """The distance of one prediction from another, at one step: sum_x max(0, pi(x) - beta(x)), a probability.

    Half the L1 distance where the base sums to one; never less than what the base misses.

    Errors: :class:`~mightnt.errors.InputError` for different alphabets, and for a policy that itself misses more than
    1e-9: without knowing who answers it has no distance.

    Kind: exact (float64). Paper: one step of TVD_{h,m}. Cost: O(n_symbols).
    """
    if policy.n_symbols != base.n_symbols:
        raise InputError(f"the policy predicts {policy.n_symbols} symbols, the base {base.n_symbols}")
    _refuse_missing(policy)
    return float((policy.probabilities - base.probabilities).clip(min=0).sum())


def tvd_largest_step(policy: Model, base: Model, n_observations: int, horizon: int) -> float:
    """The distance at the worst single decision that the policy and some observations can lead to.

    max over h with pi(a_<t | h) > 0 of TVD(pi( . |h), beta( . |h)); what a step-wise budget limits. A whole episode
    may be further: up to 1 - (1 - d) ** horizon.

    Kind: exact. Paper: the step-wise constraint. Cost: (n_actions * n_observations) ** (horizon-1).
    """

    def below(at_policy: Any, at_base: Any, rounds: int) -> float:
        ahead = policy.predict(at_policy)
        here = tvd_step(ahead, base.predict(at_base))
        if rounds == 1:
            return here
        pairs = itertools.product([action for action, _ in possible(ahead)], range(n_observations))
        after = (both_advanced(policy, base, at_policy, at_base, action, o) for action, o in pairs)
        return max(here, *(below(*states, rounds - 1) for states in after))

    return below(policy.start(), base.start(), horizon)


def tvd_max_observations(policy: Model, base: Model, n_observations: int, horizon: int) -> float:
    """The distance of whole trajectories under the worst observations that are fixed before the episode begins.

    TVD_{h,m}(pi, beta) = max over o_{1:m} of sum over a_{1:m} of max(0, prod pi(a_t|h_<t) - prod beta(a_t|h_<t)).

    Args:
        horizon: the number of actions m; the observation after the last one decides nothing and is left out.

    Kind: exact. Paper: TVD_{h,m}. Cost: n_observations ** (horizon-1) times a tree of actions.
    """

    def along(at_policy: Any, at_base: Any, ours: float, theirs: float, told: tuple[int, ...]) -> float:
        ahead, expected = policy.predict(at_policy), base.predict(at_base).probabilities
        _refuse_missing(ahead)
        total = 0.0
        for action, probability in possible(ahead):
            pi, beta = ours * probability, theirs * float(expected[action])
            if told:
                total += along(*both_advanced(policy, base, at_policy, at_base, action, told[0]), pi, beta, told[1:])
            else:
                total += max(0.0, pi - beta)
        return total

    sequences = itertools.product(range(n_observations), repeat=horizon - 1)
    return max(along(policy.start(), base.start(), 1.0, 1.0, sequence) for sequence in sequences)


def tvd_expected(policy: Model, base: Model, world: World) -> float:
    """The distance of whole episodes in this world: sum over histories of max(0, P_pi(h) - P_beta(h)).

    The world's observations are the same for both, so this is its mean over them where they do not depend on actions.

    Kind: exact. Paper: less strict than TVD_{h,m}. Cost: one prediction each at every node.
    """

    def below(at_world: Any, at_policy: Any, at_base: Any, ours: float, theirs: float) -> float:
        turn = world.turn(at_world)
        if turn is None:
            return max(0.0, ours - theirs)
        ahead = policy.predict(at_policy) if turn is Chooser.AGENT else world.predict(at_world)
        _refuse_missing(ahead)
        other = base.predict(at_base).probabilities if turn is Chooser.AGENT else ahead.probabilities
        total = 0.0
        for symbol, probability in possible(ahead):
            step = Step(symbol, turn)
            states = world.advance(at_world, step), policy.advance(at_policy, step), base.advance(at_base, step)
            total += below(*states, ours * probability, theirs * float(other[symbol]))
        return total

    return below(world.start(), policy.start(), base.start(), 1.0, 1.0)


def _refuse_missing(policy: Prediction) -> None:
    if policy.missing > TOLERANCE:
        raise InputError(
            f"the policy misses probability {policy.missing:.6g}; a policy that sums to one is needed to measure a distance"
        )
