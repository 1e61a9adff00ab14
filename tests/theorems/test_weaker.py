"""Weaker assumptions, by hand: for each premise one number that holds with it and breaks without it."""

from math import log

import numpy as np
import pytest

from mightnt.bases.mixture import BayesMixture
from mightnt.bases.pessimistic import Pessimistic
from mightnt.constraints.kl import kl_adaptive_nats
from mightnt.experiments.theory.ingredients import charges_nats
from mightnt.experiments.theory.weaker import Cycle, only_actions, share_of_ones, spoken
from mightnt.history import demonstrated
from mightnt.models.after import After
from mightnt.models.categorical import Categorical
from mightnt.models.finite import ModelClass
from mightnt.models.switch import Switch
from mightnt.planners.least import least_kl_nats

MU, BOLD = Categorical.of([0.9, 0.1]), Categorical.of([0.0, 1.0])
HORIZON = 4


@pytest.mark.parametrize("n_shown", [1, 20])
def test_closed_under_switching_the_price_of_all_ones_is_that_of_the_switch(n_shown):
    """xi(1111) = (1-s) .1^4 + s .1 whatever was demonstrated before the world spoke; without the switch it is .1^4."""
    world, share = only_actions(HORIZON, share_of_ones), 1 / 16
    closed = BayesMixture(ModelClass.of([MU, Switch(MU, spoken, BOLD)], [1 - share, share]))
    unclosed = BayesMixture(ModelClass.of([MU, BOLD], [1 - share, share]))
    after = {}
    for name, base in (("closed", closed), ("open", unclosed)):
        silent = demonstrated([0, 0] * n_shown)[::2]  # the demonstrator alone: the world has not spoken yet
        after[name] = least_kl_nats(world, After(base, silent), 1.0)
    assert after["closed"] == pytest.approx(-log((1 - share) * 0.1**4 + share * 0.1))
    assert after["open"] == pytest.approx(-log(0.1**4))


def test_near_the_class_the_bound_fails_by_the_gap_at_every_decision_and_by_no_more():
    """The class has learned the coin .5; the demonstrator throws .55. A policy that always throws 0 is log(.5/.45) further a
    decision, and no policy more."""
    mu, base = Categorical.of([0.45, 0.55]), Pessimistic(ModelClass.of([Categorical.of([0.5, 0.5])]), 0.05)
    always = Categorical.of([1.0, 0.0])
    excess = kl_adaptive_nats(always, mu, 1, 6) - kl_adaptive_nats(always, base, 1, 6)
    assert excess == pytest.approx(6 * log(0.5 / 0.45))
    for p in np.linspace(0, 1, 11):
        policy = Categorical.of([1 - p, p])
        assert kl_adaptive_nats(policy, mu, 1, 6) <= kl_adaptive_nats(policy, base, 1, 6) + excess + 1e-9


def test_between_two_members_the_bound_holds_while_both_are_believed():
    mu, pair = Categorical.of([0.65, 0.35]), [Categorical.of([0.8, 0.2]), Categorical.of([0.5, 0.5])]
    both, one = (Pessimistic(ModelClass.of(members), 0.05) for members in (pair, pair[1:]))
    policy = Categorical.of([0.0, 1.0])
    assert kl_adaptive_nats(policy, mu, 1, 5) < kl_adaptive_nats(policy, both, 1, 5)
    assert kl_adaptive_nats(policy, mu, 1, 5) > kl_adaptive_nats(policy, one, 1, 5)


def test_alpha_too_large_listens_to_the_likeliest_alone():
    """After one 1 the coin .9 is likelier than the demonstrator .5; at alpha = 1 it alone decides, at .3 both do."""
    fair, nine = Categorical.of([0.5, 0.5]), Categorical.of([0.1, 0.9])
    shown, policy = demonstrated([1, 0]), Categorical.of([0.0, 1.0])
    model_class = ModelClass.of([fair, nine])
    loose, strict = (After(Pessimistic(model_class, level), shown) for level in (1.0, 0.3))
    assert kl_adaptive_nats(policy, loose, 1, 3) < kl_adaptive_nats(policy, fair, 1, 3)
    assert kl_adaptive_nats(policy, strict, 1, 3) == pytest.approx(kl_adaptive_nats(policy, fair, 1, 3))


def test_a_reward_that_simple_behavior_cannot_exploit_costs_what_it_costs_the_demonstrator():
    share, coin = 1 / 8, Categorical.of([0.5, 0.5])
    mixture = BayesMixture(ModelClass.of([coin, Cycle((1,))], [1 - share, share]))
    simple = only_actions(HORIZON, share_of_ones)
    odd = only_actions(HORIZON, lambda path: float(path[::2] == (0, 1, 1, 0)))
    assert least_kl_nats(simple, mixture, 1.0) == pytest.approx(-log((1 - share) / 16 + share))
    assert least_kl_nats(odd, mixture, 1.0) == pytest.approx(-log((1 - share) / 16))
    assert least_kl_nats(odd, coin, 1.0) == pytest.approx(log(16))


def test_own_actions_as_evidence_make_going_on_cheap():
    """After n odd actions a rival at .02 that does them half the time has outweighed mu, who does them one time in 100."""
    model_class = ModelClass.of([Categorical.of([0.99, 0.01]), Categorical.of([0.5, 0.5])], [0.98, 0.02])
    own, odd = 6 * log(100), [1] * 6
    totals = {
        rule: sum(charges_nats(Pessimistic(model_class, 0.01, evidence=rule), odd)) for rule in ("all", "demonstrated")
    }
    assert totals["demonstrated"] == pytest.approx(own)
    assert totals["all"] < own - 10
    mixture = charges_nats(BayesMixture(model_class, "all"), odd)
    assert mixture[0] == pytest.approx(-log(0.98 * 0.01 + 0.02 * 0.5))
    assert sum(mixture) == pytest.approx(-log(0.98 * 0.01**6 + 0.02 * 0.5**6))
