"""What a decision costs: both accounts against the definitions, and the bounds they promise on the distance to mu."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from mightnt.errors import BudgetError
from mightnt.lm.account import Account, account_under, must_ask, offer, system_kl_nats
from mightnt.lm.full_kl import kl_step_nats

INF = math.inf
probability = st.one_of(st.just(0.0), st.just(1.0), st.floats(1e-6, 1.0))


def logs(*rows):
    return torch.tensor(rows, dtype=torch.float64).log()


def kl(p, q):
    """sum p log(p / q) by the definition."""
    return sum(x * math.log(x / y) if y > 0 else INF for x, y in zip(p, q, strict=True) if x > 0)


@st.composite
def cases(draw):
    """A demonstrator mu, a base nu <= mu and a leaning over tokens and asking, with zeros now and then: three rows of logs."""
    n = draw(st.integers(1, 5))
    weights = draw(st.lists(st.one_of(st.just(0.0), st.floats(1e-3, 1.0)), min_size=n, max_size=n))
    assume(sum(weights) > 0)
    mu = np.array(weights) / sum(weights)
    nu = mu * draw(st.lists(probability, min_size=n, max_size=n))
    leaning = draw(st.lists(st.one_of(st.floats(-8, 8), st.just(-INF)), min_size=n + 1, max_size=n + 1))
    return logs(mu.tolist()), logs(nu.tolist()), torch.tensor([leaning], dtype=torch.float64)


def leaned(offered, leaning):
    """The policy proportional to base x exp(leaning)."""
    raw = offered.log_base + leaning
    assume(not raw.isneginf().all())
    return raw.log_softmax(dim=1)


@given(cases(), st.sampled_from([0.0, 0.1, 0.5]))
def test_charged_the_system_stays_within_the_extended_kl_plus_the_charge(case, threshold):
    """For nu <= mu: KL(pi + pi(ask) mu || mu) <= KL(pi || nu, theta) + log(1 + theta), at every decision."""
    log_mu, log_nu, leaning = case
    offered = offer(log_nu, Account(10.0, "charged", threshold))
    log_policy = leaned(offered, leaning)
    cost = offered.toll_nats + kl_step_nats(log_policy, offered.log_base)
    assert system_kl_nats(log_policy, log_mu) <= cost + 1e-9


weights = st.lists(st.floats(1e-3, 1.0), min_size=4, max_size=4)


@given(weights, weights, weights, st.floats(0.0, 1.0), st.sampled_from([0.0, 0.1, 0.5]))
def test_charged_any_base_is_off_by_no_more_than_it_overstates(mu, nu, leaning, kept, threshold):
    """For every nu: KL(system || mu) <= KL_extended + log(1 + theta) + sum pi log(nu / mu)."""
    log_mu = torch.tensor([mu]).double().log().log_softmax(1)
    log_nu = (torch.tensor([nu]).double() / sum(nu) * kept).log()
    offered = offer(log_nu, Account(10.0, "charged", threshold))
    log_policy = leaned(offered, torch.tensor([[*leaning, 0.5]]).double() * 10)
    cost = offered.toll_nats + kl_step_nats(log_policy, offered.log_base)
    pi = log_policy[:, :-1].exp()
    overstated = torch.where(pi > 0, pi * (log_nu - log_mu), 0.0).sum(1)
    assert system_kl_nats(log_policy, log_mu) <= cost + overstated + 1e-9


def test_the_charge_is_tight():
    """theta = .25, pi = mu / 1.25 and pi(ask) = .2: the system is mu itself, and cost plus overstatement come to 0."""
    mu, nu = logs([0.4, 0.6]), logs([0.25, 0.5])
    offered = offer(nu, Account(10.0, "charged", 0.1))
    log_policy = logs([0.32, 0.48, 0.2])
    cost = offered.toll_nats + kl_step_nats(log_policy, offered.log_base)
    overstated = (log_policy[:, :-1].exp() * (nu - mu)).sum(1)
    assert float(system_kl_nats(log_policy, mu)) == pytest.approx(0.0, abs=1e-12)
    assert float(cost + overstated) == pytest.approx(0.0, abs=1e-12)


@given(cases())
def test_on_the_floor_the_policy_stays_within_its_kl_to_the_base(case):
    """For nu <= mu: KL(pi || mu) <= KL(pi || nu), which is the toll plus the KL to the normalized base."""
    log_mu, log_nu, leaning = case
    offered = offer(log_nu, Account(10.0, "floor"))
    log_policy = leaned(offered, leaning)
    policy, mu, nu = (row.exp()[0].tolist() for row in (log_policy[:, :-1], log_mu, log_nu))
    cost = offered.toll_nats + kl_step_nats(log_policy, offered.log_base)
    assert float(cost) == pytest.approx(kl(policy, nu), rel=1e-9, abs=1e-9)
    assert float(system_kl_nats(log_policy, log_mu)) == pytest.approx(kl(policy, mu), rel=1e-9, abs=1e-9)
    assert system_kl_nats(log_policy, log_mu) <= cost + 1e-9


def test_the_floor_is_tight():
    """mu = (.5, .5), nu = (.5, 0), pi = (1, 0): both KLs are log 2."""
    offered = offer(logs([0.5, 0.0]), Account(10.0, "floor"))
    assert offered.log_base.exp().tolist() == [[1.0, 0.0, 0.0]]
    assert float(offered.toll_nats) == pytest.approx(math.log(2))
    assert float(system_kl_nats(offered.log_base, logs([0.5, 0.5]))) == pytest.approx(math.log(2))


def test_without_the_charge_asking_would_break_the_bound():
    """mu = (.5, .5), nu = (.5, 0), pi = nu: an extended KL of 0, while the system is .131 from mu. So log 1.5 is charged."""
    offered = offer(logs([0.5, 0.0]), Account(10.0, "charged", 0.1))
    assert offered.log_base.exp().tolist() == [[0.5, 0.0, 0.5]]
    assert float(kl_step_nats(offered.log_base, offered.log_base)) == 0.0
    assert float(system_kl_nats(offered.log_base, logs([0.5, 0.5]))) == pytest.approx(kl([0.75, 0.25], [0.5, 0.5]))
    assert float(system_kl_nats(offered.log_base, logs([0.5, 0.5]))) == pytest.approx(0.1308, abs=1e-4)
    assert float(offered.toll_nats) == pytest.approx(math.log(1.5))


@pytest.mark.parametrize(
    ("nu", "account", "base", "toll", "theta"),
    [
        ([0.5, 0.25], Account(1, "floor"), [2 / 3, 1 / 3, 0.0], -math.log(0.75), 0.25),
        ([0.5, 0.25], Account(1, "charged", 0.1), [0.5, 0.25, 0.25], math.log(1.25), 0.25),
        ([0.5, 0.25], Account(1, "charged", 0.25), [2 / 3, 1 / 3, 0.0], -math.log(0.75), 0.25),
        ([0.5, 0.5], Account(1, "floor"), [0.5, 0.5, 0.0], 0.0, 0.0),
        ([0.5, 0.5], Account(1, "charged", 0.0), [0.5, 0.5, 0.0], 0.0, 0.0),
        ([0.0, 0.0], Account(1, "charged", 0.1), [0.0, 0.0, 1.0], math.log(2), 1.0),
        ([0.0, 0.0], Account(1, "floor"), [0.0, 0.0, 0.0], INF, 1.0),
        ([0.0, 0.0], Account(1, "charged", 1.0), [0.0, 0.0, 0.0], INF, 1.0),
        ([0.0, 1.0], Account(1, "charged", 0.1), [0.0, 1.0, 0.0], 0.0, 0.0),
    ],
)
def test_offers_by_hand(nu, account, base, toll, theta):
    offered = offer(logs(nu), account)
    assert offered.log_base.exp()[0].tolist() == pytest.approx(base)
    assert float(offered.toll_nats) == pytest.approx(toll)
    assert float(offered.asking_probability) == pytest.approx(theta)


@given(
    st.lists(st.lists(probability, min_size=4, max_size=4), min_size=1, max_size=4),
    st.sampled_from(["floor", "charged"]),
    st.floats(0, 1),
)
def test_rows_are_offered_alone_and_what_is_offered_sums_to_one_unless_nothing_is(weights, asking, threshold):
    nu = np.array(weights) / np.maximum(1.0, np.sum(weights, axis=1, keepdims=True))
    with np.errstate(divide="ignore"):
        log_nu = torch.from_numpy(np.log(nu))
    account = Account(1.0, asking, threshold)
    offered = offer(log_nu, account)
    assert offered.log_base.shape == (len(nu), 5)
    for row, base in enumerate(offered.log_base.exp()):
        alone = offer(log_nu[row : row + 1], account)
        assert torch.equal(alone.log_base[0], offered.log_base[row])
        assert torch.equal(alone.toll_nats[0], offered.toll_nats[row])
        assert float(base.sum()) == pytest.approx(0.0 if offered.toll_nats[row] == INF else 1.0)
        assert float(offered.toll_nats[row]) >= 0
        opened = asking == "charged" and float(offered.asking_probability[row]) > threshold
        assert (float(base[-1]) > 0) == opened
        expected = nu[row] if opened else nu[row] / max(nu[row].sum(), 1e-300)
        assert base[:-1].tolist() == pytest.approx(expected.tolist())


def test_a_total_above_one_by_rounding_misses_nothing():
    offered = offer(logs([0.1] * 10) + 1e-15, Account(1.0, "floor"))
    assert float(offered.toll_nats) == 0.0
    assert float(offered.asking_probability) == 0.0


@given(cases())
def test_system_kl_by_the_definition(case):
    log_mu, log_nu, leaning = case
    log_policy = leaned(offer(log_nu, Account(10.0, "charged", 0.0)), leaning)
    policy, mu = log_policy.exp()[0], log_mu.exp()[0]
    expected = kl((policy[:-1] + policy[-1] * mu).tolist(), mu.tolist())
    assert float(system_kl_nats(log_policy, log_mu)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_system_kl_edges():
    mu = logs([0.5, 0.5, 0.0])
    assert float(system_kl_nats(logs([0.0, 0.0, 1.0, 0.0]), mu)) == INF
    assert float(system_kl_nats(logs([0.0, 0.0, 0.0, 1.0]), mu)) == pytest.approx(0.0)
    assert float(system_kl_nats(logs([1.0, 0.0, 0.0, 0.0]), mu)) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("toll", "left", "asks"),
    [
        (0.0, 0.0, False),
        (0.1, 0.0, True),
        (0.1, 0.1, False),
        (0.1, 0.0999, True),
        (INF, 5.0, True),
        (INF, INF, True),
        (3.0, INF, False),
        (0.0, -1e-12, False),
    ],
)
def test_must_ask_when_even_the_base_is_too_dear_or_vouches_for_nothing(toll, left, asks):
    assert bool(must_ask(torch.tensor([toll]), torch.tensor([left]))) is asks


@pytest.mark.parametrize(
    ("account", "left", "toll", "spendable"),
    [
        (Account(10.0, reserve=0.1), 10.0, 0.5, 8.5),
        (Account(10.0, reserve=0.1), 1.2, 0.5, 0.0),
        (Account(10.0, reserve=0.0), 1.2, 0.5, 0.7),
        (Account(10.0, reserve=1.0), 10.0, 0.0, 0.0),
        (Account(0.0), 0.0, 0.0, 0.0),
        (Account(INF), INF, 0.5, INF),
    ],
)
def test_what_a_decision_may_lean_with_leaves_its_toll_and_the_reserve(account, left, toll, spendable):
    got = account.spendable(*torch.tensor([[left], [toll]], dtype=torch.float64))
    assert got.tolist() == pytest.approx([spendable])


@pytest.mark.parametrize("reserve", [-0.1, 1.1, math.nan])
def test_a_reserve_is_a_share(reserve):
    with pytest.raises(BudgetError, match="a reserve of"):
        Account(10.0, reserve=reserve)


@pytest.mark.parametrize(
    "terms", [(-1.0,), (math.nan,), (1.0, "free"), (1.0, "charged", 1.5), (1.0, "charged", math.nan)]
)
def test_impossible_terms_are_refused(terms):
    with pytest.raises(BudgetError):
        Account(*terms)


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"penalty_per_nat": 0.1}, "one of budget"),
        ({"target_nats": 5.0}, "one of budget"),
        ({"budget_nats": INF, "penalty_per_nat": 0.1, "target_nats": 5.0}, "one of budget"),
        ({"budget_nats": INF, "penalty_per_nat": -0.1}, "a penalty of -0.1 a nat"),
        ({"budget_nats": INF, "penalty_per_nat": INF}, "a penalty of inf a nat"),
        ({"budget_nats": INF, "penalty_per_nat": math.nan}, "a penalty of nan a nat"),
        ({"budget_nats": INF, "target_nats": 0.0}, "a target of 0.0 nats"),
        ({"budget_nats": INF, "target_nats": math.nan}, "a target of nan nats"),
    ],
)
def test_two_constraints_or_impossible_ones_are_refused(terms, words):
    with pytest.raises(BudgetError, match=words):
        Account(**terms)


def test_an_infinite_budget_is_no_constraint():
    assert not Account(INF).constrained
    assert Account(0.0).constrained


@pytest.mark.parametrize(
    ("account", "constraint", "strength"),
    [
        (Account(10.0), "budget", 10.0),
        (Account(0.0), "budget", 0.0),
        (Account(INF), "none", None),
        (Account(INF, penalty_per_nat=0.02), "penalty", 0.02),
        (Account(INF, target_nats=12.0), "target", 12.0),
    ],
)
def test_an_account_says_its_constraint_and_how_strong_it_is(account, constraint, strength):
    assert (account.constraint, account.strength) == (constraint, strength)
    assert account.constrained == (constraint == "budget")
    made = account_under(constraint, 99.0 if strength is None else strength, "floor", 0.3)
    assert made == replace(account, asking="floor", ask_threshold=0.3)


def test_an_unknown_constraint_is_refused_with_those_there_are():
    with pytest.raises(BudgetError, match="constraint 'soft'; allowed are none, budget, penalty, target"):
        account_under("soft", 1.0)
