"""The actor spends exactly the share that it chose, whatever its parameters; the base stays itself."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.lm.account import Account
from mightnt.lm.actor import Actor, Stay
from mightnt.lm.full_kl import kl_step_nats
from tests.lm.toys import N_TOKENS, WIDTH, random_rows
from tests.strategies import seeds


def actor_of(budget=10.0, seed=0, **arguments):
    torch.manual_seed(seed)
    return Actor(WIDTH, N_TOKENS, Account(budget), hidden=8, **arguments)


def situation(seed, rows=5):
    """Hidden states and bases over tokens and asking, the last never open at the first row."""
    rng = np.random.default_rng(seed)
    base = np.exp(random_rows(rng, rows, zeros=0.3))
    theta = np.where(np.arange(rows) == 0, 0.0, rng.random(rows))[:, None]
    with np.errstate(divide="ignore"):
        log_base = np.log(np.concatenate([base * (1 - theta), theta], axis=1))
    return torch.from_numpy(rng.normal(size=(rows, WIDTH))).float(), torch.from_numpy(log_base)


@given(seeds, st.sampled_from([1e-3, 0.1, 3.0, 50.0]))
def test_it_spends_its_share_of_what_is_spendable_or_all_there_is_to_spend(seed, left):
    actor, (hidden, log_base) = actor_of(seed=seed), situation(seed)
    spendable = torch.full((5,), left, dtype=torch.float64)
    features = actor.features(hidden, spendable, torch.zeros(5))
    with torch.no_grad():
        log_policy, spent = actor.policy(features, log_base, spendable)
        share = torch.sigmoid(actor.share(actor.body(features))).squeeze(1).double()
        leaning = actor.leaning(actor.body(features)).double().masked_fill(log_base.isneginf(), -torch.inf)
    most = -log_base.gather(1, leaning.argmax(1, keepdim=True)).squeeze(1)
    assert spent.tolist() == pytest.approx(torch.minimum(share * left, most).tolist(), abs=2e-6)
    torch.testing.assert_close(spent, kl_step_nats(log_policy, log_base))
    assert log_policy.exp().sum(1).tolist() == pytest.approx([1.0] * 5)
    assert bool((log_policy.isneginf() | ~log_base.isneginf()).all())


@given(seeds, st.sampled_from([0.0, 1e-3, 1.0, 10.0]), st.floats(-60, 60), st.sampled_from([1.0, 30.0, 1e4]))
def test_no_parameters_can_spend_more_than_is_spendable(seed, left, share_bias, size):
    actor, (hidden, log_base) = actor_of(seed=seed), situation(seed)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.mul_(size)
        actor.share.bias.fill_(share_bias)
        spendable = torch.full((5,), left, dtype=torch.float64)
        log_policy, spent = actor.policy(actor.features(hidden, spendable, torch.zeros(5)), log_base, spendable)
    assert bool((spent <= left + 1e-8).all())
    assert not bool(log_policy.isnan().any())


def test_without_a_constraint_the_policy_is_the_base_times_the_exponential_of_the_leaning():
    actor, (hidden, log_base) = actor_of(math.inf), situation(0)
    left = torch.full((5,), math.inf, dtype=torch.float64)
    features = actor.features(hidden, left, torch.zeros(5))
    log_policy, spent = actor.policy(features, log_base, left)
    weights = (log_base + actor.leaning(actor.body(features)).double()).exp()
    torch.testing.assert_close(log_policy.exp(), weights / weights.sum(1, keepdim=True))
    torch.testing.assert_close(spent, kl_step_nats(log_policy, log_base))


def test_before_learning_it_spends_about_the_first_share():
    actor, (hidden, log_base) = actor_of(first_share=0.02), situation(1)
    spendable = torch.full((5,), 0.5, dtype=torch.float64)
    _, spent = actor.policy(actor.features(hidden, spendable, torch.zeros(5)), log_base, spendable)
    assert bool(((spent > 0.006) & (spent < 0.016)).all())


def test_nothing_spendable_is_the_base_itself():
    actor, (hidden, log_base) = actor_of(), situation(2)
    nothing = torch.zeros(5, dtype=torch.float64)
    log_policy, spent = actor.policy(actor.features(hidden, nothing, nothing), log_base, nothing)
    torch.testing.assert_close(log_policy, log_base, atol=1e-12, rtol=1e-12)
    assert spent.tolist() == pytest.approx([0.0] * 5, abs=1e-12)


@pytest.mark.parametrize(
    ("budget", "left", "toll", "expected"),
    [
        (10.0, 5.0, 0.25, [0.5, math.log(6) / 3, 0.25]),
        (10.0, 10.0, math.inf, [1.0, math.log(11) / 3, 2.0]),
        (0.0, 0.0, 0.0, [0.0, 0.0, 0.0]),
        (math.inf, math.inf, 0.5, [0.0, 0.0, 0.5]),
    ],
)
def test_it_sees_the_hidden_state_and_the_ledger(budget, left, toll, expected):
    hidden = torch.arange(WIDTH, dtype=torch.float64)[None]
    features = actor_of(budget).features(hidden, torch.tensor([left]).double(), torch.tensor([toll]).double())
    assert features.dtype == torch.float32
    assert features[0].tolist() == pytest.approx([*range(WIDTH), *expected])


def test_every_parameter_of_the_policy_learns_from_it_and_the_critic_from_the_value():
    actor, (hidden, log_base) = actor_of(), situation(3)
    spendable = torch.full((5,), 0.5, dtype=torch.float64)
    features = actor.features(hidden, spendable, torch.zeros(5))
    log_policy, _ = actor.policy(features, log_base, spendable)
    (log_policy[:, 3].sum() + actor.value(features).sum()).backward()
    for name, parameter in actor.named_parameters():
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name


def test_its_first_parameters_are_those_of_two_layers_made_in_this_order():
    """The usual actor for a seed never changes: checkpoints and records are of it."""
    actor = actor_of(seed=5)
    torch.manual_seed(5)
    linears = [
        torch.nn.Linear(WIDTH + 3, 8),
        torch.nn.Linear(8, 8),
        torch.nn.Linear(8, N_TOKENS + 1),
        torch.nn.Linear(8, 1),
    ]
    linears += [torch.nn.Linear(WIDTH + 3, 8), torch.nn.Linear(8, 1)]
    weights = [linear.weight * (0.1 if i in (2, 3) else 1.0) for i, linear in enumerate(linears)]
    mine = [value for name, value in actor.state_dict().items() if name.endswith("weight")]
    assert all(torch.equal(a, b) for a, b in zip(mine, weights, strict=True))
    assert list(actor.state_dict())[:4] == ["body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias"]


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_a_more_capable_actor_has_more_layers_of_more_units(layers):
    torch.manual_seed(0)
    actor = Actor(WIDTH, N_TOKENS, Account(10.0), hidden=32, layers=layers)
    shapes = [part.weight.shape for part in actor.body if isinstance(part, torch.nn.Linear)]
    assert shapes == [(32, WIDTH + 3), *[(32, 32)] * (layers - 1)]
    hidden, log_base = situation(3)
    left = torch.full((5,), 0.5, dtype=torch.float64)
    log_policy, spent = actor.policy(actor.features(hidden, left, torch.zeros(5)), log_base, left)
    assert bool((spent <= 0.5 + 1e-8).all())
    assert log_policy.exp().sum(1).tolist() == pytest.approx([1.0] * 5)


@pytest.mark.parametrize("size", [{"hidden": 0}, {"layers": 0}])
def test_an_actor_of_nothing_is_refused(size):
    with pytest.raises(InputError, match="at least 1 of each"):
        Actor(WIDTH, N_TOKENS, Account(10.0), **size)


@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0])
def test_leaning_so_many_times_as_far_is_the_base_tilted_by_so_much(factor):
    actor, (hidden, log_base) = actor_of(math.inf, seed=2), situation(0)
    torch.nn.init.normal_(actor.leaning.bias)
    before = [parameter.clone() for parameter in actor.parameters()]
    left = torch.full((5,), math.inf, dtype=torch.float64)
    features = actor.features(hidden, left, torch.zeros(5))
    log_policy, _ = actor.leaning_times(factor).policy(features, log_base, left)
    weights = (log_base + factor * actor.leaning(actor.body(features)).double()).exp()
    torch.testing.assert_close(log_policy.exp(), weights / weights.sum(1, keepdim=True))
    assert all(torch.equal(a, b) for a, b in zip(before, actor.parameters(), strict=True))


def test_staying_is_the_base_and_free():
    hidden, log_base = situation(4)
    left = torch.full((5,), 2.0, dtype=torch.float64)
    features = Stay().features(hidden, left, left)
    log_policy, spent = Stay().policy(features, log_base, left)
    assert features.shape == (5, 0)
    assert torch.equal(log_policy, log_base)
    assert spent.tolist() == [0.0] * 5
