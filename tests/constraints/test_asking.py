"""The two accounts of asking bound what the system does to the demonstrator; one term less and they do not."""

from math import inf, log

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mightnt.constraints.asking import (
    ACCOUNTS,
    asking_probability,
    charge_asking_nats,
    charge_floor_nats,
    floor_nats,
    given_no_ask,
    with_answers,
)
from mightnt.constraints.kl import kl_step_nats
from mightnt.errors import InputError
from mightnt.prediction import Prediction
from tests.strategies import predictions


@st.composite
def valid_bases(draw):
    """A demonstrator and a base that lies below it everywhere."""
    mu = draw(predictions(complete=True))
    shares = np.array(draw(st.lists(st.floats(0, 1), min_size=3, max_size=3)))
    return mu, Prediction.of(mu.probabilities * shares)


@given(valid_bases(), predictions())
def test_the_charged_account_bounds_the_distance_of_the_system(pair, policy):
    mu, base = pair
    system = with_answers(policy, mu)
    assert system.missing < 1e-9
    assert kl_step_nats(system, mu) <= charge_asking_nats(policy, base) + 1e-9


@given(predictions(complete=True), predictions(), predictions())
def test_for_any_base_the_charge_bounds_it_up_to_the_gap(mu, base, policy):
    """KL(system, mu) <= charge + sum_x pi(x) log(nu(x) / mu(x)), whether or not nu <= mu."""
    assume((mu.probabilities > 1e-12).all())
    pi, log_nu = policy.probabilities, base.log_probabilities
    gap = sum(p * (n - m) for p, n, m in zip(pi, log_nu, mu.log_probabilities, strict=True) if p > 0)
    system, charge = with_answers(policy, mu), charge_asking_nats(policy, base)
    assert charge == inf or kl_step_nats(system, mu) <= charge + gap + 1e-9


@given(valid_bases(), predictions(complete=True))
def test_the_account_without_free_asks_bounds_the_distance_of_the_policy(pair, policy):
    mu, base = pair
    assert kl_step_nats(policy, mu) <= charge_floor_nats(policy, base) + 1e-9


def test_without_the_correction_the_charged_is_free_and_no_bound():
    """mu = (.5, .5), nu = pi = (.5, 0): extended KL 0 against a true .131."""
    mu, base = Prediction.of([0.5, 0.5]), Prediction.of([0.5, 0.0])
    truth = kl_step_nats(with_answers(base, mu), mu)
    assert truth == pytest.approx(0.75 * log(1.5) + 0.25 * log(0.5))
    assert truth == pytest.approx(0.131, abs=5e-4)
    extended = charge_asking_nats(base, base) - log(1.5)
    assert extended == pytest.approx(0, abs=1e-12)
    assert charge_asking_nats(base, base) == pytest.approx(log(1.5))


def test_the_charged_account_by_hand():
    policy, base = Prediction.of([0.5, 0.0]), Prediction.of([0.5, 0.25])
    assert charge_asking_nats(policy, base) == pytest.approx(0.5 * log(2) + log(1.25))
    assert charge_asking_nats(Prediction.of([1, 0]), base) == pytest.approx(log(2) + log(1.25))
    assert charge_asking_nats(policy, Prediction.of([0.5, 0.5])) == inf  # asks where the base never would
    with pytest.raises(InputError, match="predicts 1 symbols"):
        charge_asking_nats(Prediction.of([1.0]), base)


@given(predictions())
def test_given_no_ask_is_the_cheapest_way_to_act_and_costs_the_floor(base):
    calm = given_no_ask(base)
    assert calm.missing < 1e-9
    assert charge_floor_nats(calm, base) == pytest.approx(floor_nats(base), abs=1e-9)
    assert floor_nats(base) == pytest.approx(-log(1 - base.missing), abs=1e-9)


@given(predictions(), predictions(complete=True))
def test_no_policy_costs_less_than_the_floor(base, policy):
    assert charge_floor_nats(policy, base) >= floor_nats(base) - 1e-12


def test_a_base_that_gives_nothing():
    nothing = Prediction.of([0, 0])
    assert floor_nats(nothing) == inf
    assert asking_probability(nothing) == 1
    with pytest.raises(InputError, match="nothing to do but ask"):
        given_no_ask(nothing)


def test_rounding_is_no_asking():
    almost = Prediction.of([0.5, 0.5 - 1e-12])
    assert asking_probability(almost) == 0
    assert charge_asking_nats(almost, Prediction.of([0.5, 0.5])) == pytest.approx(0, abs=1e-9)
    assert with_answers(almost, Prediction.of([1, 0])) is almost


def test_the_accounts_go_by_name():
    assert set(ACCOUNTS) == {"floor", "charged"}
