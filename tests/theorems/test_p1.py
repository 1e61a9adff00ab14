"""P1: KL knows no triangle. Close to a base that is close to the demonstrator says nothing of the demonstrator.

For every eps > 0 there are pi, beta, tau with KL(pi, beta) <= eps, KL(tau, beta) <= eps and KL(pi, tau) infinite:
tau = Bern(0), pi = beta = Bern(min(eps, 1) / 2).
"""

from math import inf, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.constraints.kl import kl_step_nats
from mightnt.experiments.theory.no_triangle import farthest_triple
from mightnt.prediction import Prediction
from tests.strategies import predictions

tolerances = st.floats(1e-6, 5)


def bernoulli(p):
    return Prediction.of([1 - p, p])


def the_three(eps):
    half = bernoulli(min(eps, 1) / 2)
    return half, half, bernoulli(0)


@given(tolerances)
def test_it_holds_with_the_numbers_of_the_proof(eps):
    policy, base, demonstrator = the_three(eps)
    assert kl_step_nats(policy, base) == 0
    assert kl_step_nats(demonstrator, base) == pytest.approx(-log(1 - min(eps, 1) / 2))
    assert kl_step_nats(demonstrator, base) <= eps
    assert kl_step_nats(policy, demonstrator) == inf


@given(st.floats(1e-3, 1))
def test_it_is_tight(eps):
    """The two premises shrink with eps in proportion, so no smaller eps rescues the triangle; and infinity is the end of
    a road: with tau = Bern(delta) the distance grows past every bound as delta falls, the premises still kept."""
    policy, base, demonstrator = the_three(eps)
    assert kl_step_nats(demonstrator, base) >= eps / 2
    distances = [kl_step_nats(policy, bernoulli(10.0**-k)) for k in range(5, 300, 10)]
    assert all(kl_step_nats(bernoulli(10.0**-k), base) <= eps for k in range(5, 300, 10))
    assert (np.diff(distances) > 10 * log(10) * eps / 2 * 0.9).all()
    assert distances[-1] < inf


@given(predictions(complete=True), predictions(complete=True), st.floats(0.01, 1))
def test_it_needs_its_premise(policy, base, share):
    """The demonstrator must go almost nowhere where the base goes: with tau >= c beta, KL(pi, tau) <= KL(pi, beta) - log c."""
    other = np.eye(3)[0]
    demonstrator = Prediction.of(share * base.probabilities + (1 - share) * other)
    assert kl_step_nats(policy, demonstrator) <= kl_step_nats(policy, base) - log(share) + 1e-9


@given(predictions(complete=True), predictions(complete=True), predictions(complete=True))
def test_its_neighbor_fails(policy, base, demonstrator):
    """The same sentence about total variation is false: that is a distance, and the triangle holds."""

    def tvd(one, other):
        return 0.5 * np.abs(one.probabilities - other.probabilities).sum()

    assert tvd(policy, demonstrator) <= tvd(policy, base) + tvd(base, demonstrator) + 1e-12


# at finite values: how far, if the demonstrator leaves ``least`` to the policy's action


chances = st.floats(0, 1)


@given(st.floats(0.01, 3), st.floats(1e-9, 0.3), chances, chances)
def test_at_finite_values_no_coins_do_more(eps, least, share_of_base, share_of_policy):
    """Any base and policy above the demonstrator's coin that keep the two premises: never further than the farthest."""
    policy, base, demonstrator = farthest_triple(eps, least)
    assert max(kl_step_nats(policy, base), kl_step_nats(demonstrator, base)) <= eps * (1 + 1e-9)
    other_base = bernoulli(least + share_of_base * (float(base.probabilities[1]) - least))
    other_policy = bernoulli(least + share_of_policy * (1 - least))
    if kl_step_nats(other_policy, other_base) <= eps:
        assert kl_step_nats(other_policy, demonstrator) <= kl_step_nats(policy, demonstrator) * (1 + 1e-9)


@given(st.floats(0.01, 1), st.floats(1e-9, 0.3))
def test_at_finite_values_it_is_tight(eps, least):
    """One nat of tolerance more on either side is needed to go further: both are used up (or the policy is certain)."""
    policy, base, demonstrator = farthest_triple(eps, least)
    assert kl_step_nats(demonstrator, base) == pytest.approx(eps, rel=1e-6)
    assert policy.probabilities[1] == 1 or kl_step_nats(policy, base) == pytest.approx(eps, rel=1e-6)


def test_at_finite_values_it_needs_a_small_probability():
    """eps is a tenth; what the demonstrator leaves falls by the same factor each time, and the distance grows by as much."""
    distances = [kl_step_nats(*farthest_triple(0.1, 10.0**-k)[::2]) for k in range(3, 100, 8)]
    steps = np.diff(distances)
    assert (steps > 0).all()
    assert steps[-1] == pytest.approx(steps[-2], rel=1e-6)
    assert distances[-1] > 50 * 0.1


def test_at_finite_values_its_neighbor_fails():
    """With the same two premises turned around, KL(beta, pi) and KL(beta, tau), the policy need not even be near the base:
    the farthest triple itself is infinitely far in one of them once the policy is certain."""
    policy, base, _ = farthest_triple(1.0, 0.001)
    assert kl_step_nats(policy, base) <= 1
    assert kl_step_nats(base, policy) == inf
