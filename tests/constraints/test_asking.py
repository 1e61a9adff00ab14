"""The two accounts of asking bound what the system does to the demonstrator; one term less and they do not."""

from math import inf, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.constraints.asking import (
    ACCOUNTS,
    ask_symbol_nats,
    asking_probability,
    floor_nats,
    given_no_ask,
    no_free_asks_nats,
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
def test_the_ask_symbol_account_bounds_the_distance_of_the_system(pair, policy):
    mu, base = pair
    system = with_answers(policy, mu)
    assert system.missing < 1e-9
    assert kl_step_nats(system, mu) <= ask_symbol_nats(policy, base) + 1e-9


@given(valid_bases(), predictions(complete=True))
def test_the_account_without_free_asks_bounds_the_distance_of_the_policy(pair, policy):
    mu, base = pair
    assert kl_step_nats(policy, mu) <= no_free_asks_nats(policy, base) + 1e-9


def test_without_the_correction_the_ask_symbol_is_free_and_no_bound():
    """mu = (.5, .5), nu = pi = (.5, 0): extended KL 0 against a true .131."""
    mu, base = Prediction.of([0.5, 0.5]), Prediction.of([0.5, 0.0])
    truth = kl_step_nats(with_answers(base, mu), mu)
    assert truth == pytest.approx(0.75 * log(1.5) + 0.25 * log(0.5))
    assert truth == pytest.approx(0.131, abs=5e-4)
    extended = ask_symbol_nats(base, base) - log(1.5)
    assert extended == pytest.approx(0, abs=1e-12)
    assert ask_symbol_nats(base, base) == pytest.approx(log(1.5))


def test_the_ask_symbol_account_by_hand():
    policy, base = Prediction.of([0.5, 0.0]), Prediction.of([0.5, 0.25])
    assert ask_symbol_nats(policy, base) == pytest.approx(0.5 * log(2) + log(1.25))
    assert ask_symbol_nats(Prediction.of([1, 0]), base) == pytest.approx(log(2) + log(1.25))
    assert ask_symbol_nats(policy, Prediction.of([0.5, 0.5])) == inf  # asks where the base never would
    with pytest.raises(InputError, match="predicts 1 symbols"):
        ask_symbol_nats(Prediction.of([1.0]), base)


@given(predictions())
def test_given_no_ask_is_the_cheapest_way_to_act_and_costs_the_floor(base):
    calm = given_no_ask(base)
    assert calm.missing < 1e-9
    assert no_free_asks_nats(calm, base) == pytest.approx(floor_nats(base), abs=1e-9)
    assert floor_nats(base) == pytest.approx(-log(1 - base.missing), abs=1e-9)


@given(predictions(), predictions(complete=True))
def test_no_policy_costs_less_than_the_floor(base, policy):
    assert no_free_asks_nats(policy, base) >= floor_nats(base) - 1e-12


def test_a_base_that_gives_nothing():
    nothing = Prediction.of([0, 0])
    assert floor_nats(nothing) == inf
    assert asking_probability(nothing) == 1
    with pytest.raises(InputError, match="nothing to do but ask"):
        given_no_ask(nothing)


def test_rounding_is_no_asking():
    almost = Prediction.of([0.5, 0.5 - 1e-12])
    assert asking_probability(almost) == 0
    assert ask_symbol_nats(almost, Prediction.of([0.5, 0.5])) == pytest.approx(0, abs=1e-9)
    assert with_answers(almost, Prediction.of([1, 0])) is almost


def test_the_accounts_go_by_name():
    assert set(ACCOUNTS) == {"no_free_asks", "ask_symbol"}
