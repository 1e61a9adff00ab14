"""The ask symbol: asking is not one more action of the agent's; what it costs is log(1 + theta) a decision.

For nu <= mu pointwise, with theta = 1 - sum nu, and a policy that asks with its own missing mass:
KL(system, mu) <= KL_ext(pi, nu) + log(1 + theta), where KL_ext counts "ask" as a symbol of base probability theta.
Proof: KL(system, nu + theta mu) <= KL_ext by convexity (both mix over who decides), and nu + theta mu <= (1 + theta) mu.
"""

from math import inf, log

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mightnt.constraints.asking import charge_asking_nats, with_answers
from mightnt.constraints.kl import kl_step_nats
from mightnt.prediction import Prediction
from tests.strategies import predictions

shares = st.lists(st.floats(0, 1), min_size=3, max_size=3)


def extended_nats(policy, base):
    """KL with asking as one more action, written out here: sum over actions, and the symbol "ask"."""
    pi, nu = (np.append(p.probabilities, p.missing if p.missing > 1e-9 else 0) for p in (policy, base))
    used = pi > 0
    if (nu[used] == 0).any():
        return inf
    return float((pi[used] * (np.log(pi[used]) - np.log(nu[used]))).sum())


def truth_nats(policy, demonstrator):
    """KL of agent and answers together from the demonstrator."""
    return kl_step_nats(with_answers(policy, demonstrator), demonstrator)


def test_the_example():
    """mu = (.5, .5), nu = pi = (.5, 0): 0 as one more action, .131 in truth, log 1.5 charged."""
    mu, nu = Prediction.of([0.5, 0.5]), Prediction.of([0.5, 0.0])
    assert extended_nats(nu, nu) == 0
    assert truth_nats(nu, mu) == pytest.approx(0.75 * log(1.5) + 0.25 * log(0.5))
    assert truth_nats(nu, mu) == pytest.approx(0.1308, abs=5e-5)
    assert charge_asking_nats(nu, nu) == pytest.approx(log(1.5))


@given(predictions(complete=True), shares, predictions())
def test_it_holds(mu, kept, policy):
    """Any demonstrator, any base below it, any policy that may ask."""
    base = Prediction.of(mu.probabilities * kept)
    corrected = extended_nats(policy, base) + log(1 + base.missing)
    assert truth_nats(policy, mu) <= corrected + 1e-9
    assert charge_asking_nats(policy, base) == pytest.approx(corrected, abs=1e-7)


@given(predictions(complete=True), shares, predictions())
def test_it_holds_by_way_of_the_mixture(mu, kept, policy):
    """Both steps of the proof."""
    base = Prediction.of(mu.probabilities * kept)
    middle = base.probabilities + base.missing * mu.probabilities
    assert (middle <= (1 + base.missing) * mu.probabilities + 1e-12).all()
    system = with_answers(policy, mu).probabilities
    assume(not ((system > 0) & (middle == 0)).any())
    used = system > 0
    assert (system[used] * np.log(system[used] / middle[used])).sum() <= extended_nats(policy, base) + 1e-9


def test_it_is_tight():
    """A base that lacks one action of probability theta, played as it is: the truth comes to all of log(1 + theta) as theta
    falls; so no smaller multiple of the correction would do."""
    shares_of_it = []
    for theta in (0.3, 0.03, 0.003, 0.0003):
        mu, nu = Prediction.of([1 - theta, theta]), Prediction.of([1 - theta, 0])
        shares_of_it.append(truth_nats(nu, mu) / log(1 + theta))
        assert truth_nats(nu, mu) == pytest.approx((1 - theta**2) * log(1 + theta) + theta**2 * log(theta))
    assert shares_of_it == sorted(shares_of_it)
    assert 0.997 < shares_of_it[-1] <= 1


def test_it_needs_its_premise():
    """The base must lie below the demonstrator. Here it allows freely what the demonstrator hardly does."""
    mu, nu = Prediction.of([0.001, 0.999]), Prediction.of([0.5, 0.0])
    assert truth_nats(nu, mu) > charge_asking_nats(nu, nu) + 1
    below = Prediction.of([0.001, 0.0])
    assert truth_nats(below, mu) <= charge_asking_nats(below, below)


@given(st.floats(0.01, 0.99))
def test_its_neighbor_fails(theta):
    """Without the correction: 0 is claimed for a system that is not the demonstrator; likewise with log(1 + theta/2)."""
    mu, nu = Prediction.of([1 - theta, theta]), Prediction.of([1 - theta, 0])
    assert extended_nats(nu, nu) == pytest.approx(0, abs=1e-12)
    assert truth_nats(nu, mu) > 0
    small = theta / 100
    mu, nu = Prediction.of([1 - small, small]), Prediction.of([1 - small, 0])
    assert truth_nats(nu, mu) > extended_nats(nu, nu) + log(1 + small / 2)
