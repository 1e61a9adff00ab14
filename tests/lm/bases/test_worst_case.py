"""The worst member explains the demonstrations nearly as well as the best, and likes the agent's own tokens less."""

import dataclasses
import math

import pytest
import torch

from mightnt.errors import InputError
from mightnt.lm.bases.contract import pick
from mightnt.lm.bases.single import Single
from mightnt.lm.bases.worst_case import Demonstrations, Warm, WorstCase, WorstCaseConfig, chat, own_tokens, worst_case
from mightnt.lm.last_layer import OutputLayer, Shown, output_layer, shown_actions
from mightnt.lm.tokens import encode
from tests.lm.toys import said

QUICK = WorstCaseConfig(evaluations=40, episodes=4, rounds=4)


@pytest.fixture(scope="module")
def searched(imitators):
    """The demonstrations as a function of the layer, its optimum and some own tokens."""
    layer, corpus = output_layer(imitators), encode(imitators.tokenizer, imitators.fitted)
    demonstrated = Demonstrations(layer, shown_actions(imitators.networks[0], corpus, layer), QUICK)
    own = own_tokens([chat(imitators, corpus, Single(), QUICK, 2.0, seed=0)], layer)
    return demonstrated, demonstrated.climb(), own


def log_posterior(layer, start, shown, config):
    """Up to a constant, by the definition, in float64."""
    fit = pick(layer.log_probs(shown.hidden), shown.actions).sum()
    return float(fit - 0.5 * config.prior * (layer.weight - start.weight).square().sum() / start.weight.square().mean())


def test_the_loss_and_its_gradient_are_those_of_the_definition(searched):
    demonstrated, best, _ = searched
    shown = Shown(
        torch.cat([block.hidden for block in demonstrated.blocks]).double(),
        torch.cat([block.actions for block in demonstrated.blocks]),
    )
    v = best.clone().requires_grad_()
    found = demonstrated.add_loss(v, 2.0)
    expected = -log_posterior(demonstrated.at(best), demonstrated.layer, shown, QUICK)
    assert found == pytest.approx(expected, abs=0.02)
    direction = torch.randn(best.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ahead, behind = (
        -log_posterior(demonstrated.at(best + e * direction), demonstrated.layer, shown, QUICK) for e in (1e-4, -1e-4)
    )
    assert float((v.grad * direction).sum()) == pytest.approx(2 * (ahead - behind) / 2e-4, rel=1e-2, abs=0.1)


def test_it_stays_inside_and_pushes_the_own_tokens_down(searched):
    demonstrated, best, own = searched
    worst = demonstrated.descend(best, own)
    assert worst.given_up_nats <= -math.log(QUICK.level)
    after = pick(worst.layer.log_probs(own.hidden), own.actions).mean()
    assert float(after) < float(pick(demonstrated.at(best).log_probs(own.hidden), own.actions).mean()) - 1e-3


def test_behavior_that_was_shown_often_hardly_moves_and_what_was_not_moves_far():
    """One situation, shown action 0 400 times; in another, nothing. Own tokens: 0 in the first, 1 in the second."""
    layer = OutputLayer(torch.tensor([[0.1, 0.1], [-0.1, -0.1]]).double(), torch.zeros(2).double(), torch.arange(2))
    here, there = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double()
    actions = torch.tensor([0] * 200 + [1] * 200)
    shown = Shown(here.repeat(400, 1), actions)
    demonstrated = Demonstrations(layer, shown, WorstCaseConfig(prior=0.001))
    best = demonstrated.climb()
    own = Shown(torch.cat([here, there]), torch.tensor([0, 1]))
    worst = demonstrated.descend(best, own).layer
    before, after = (pick(one.log_probs(own.hidden), own.actions) for one in (demonstrated.at(best), worst))
    assert 0 <= float(before[0] - after[0]) < 0.2
    assert float(before[1] - after[1]) > 2.0


def test_the_base_is_the_minimum_over_everybody(imitators):
    layer = OutputLayer(torch.tensor([[0.0], [1.0]]).double(), torch.zeros(2).double(), torch.tensor([1, 2]))
    step = dataclasses.replace(said([[[0.0, 0.9, 0.1]]], [[0.0, 0.5, 0.5]]), hidden=torch.tensor([[math.log(3.0)]]))
    base = WorstCase(layer)
    assert base.predict(base.start(1), step).exp()[0].tolist() == pytest.approx([0.0, 0.25, 0.1])


SHORT = WorstCaseConfig(evaluations=20, episodes=3, rounds=2)


def test_the_whole_way_is_deterministic(imitators, monkeypatch):
    found = []
    for _ in range(2):
        monkeypatch.setattr("mightnt.lm.bases.worst_case.FOUND", {})
        found.append(worst_case(imitators, SHORT))
    assert found[0] is not found[1]
    assert torch.equal(found[0].layer.weight, found[1].layer.weight)
    assert found[0].given_up_nats <= -math.log(SHORT.level)


def test_it_is_sought_once_and_again_for_another_seed_other_demonstrations_or_another_search(imitators, monkeypatch):
    looked_for = []
    monkeypatch.setattr("mightnt.lm.bases.worst_case.FOUND", {})
    monkeypatch.setattr("mightnt.lm.bases.worst_case.sought", lambda *how: looked_for.append(how) or how)
    fewer = dataclasses.replace(imitators, fitted=imitators.fitted[:-1])
    for who, config, seed in ((imitators, SHORT, 0), (imitators, SHORT, 1), (fewer, SHORT, 0), (imitators, QUICK, 0)):
        assert worst_case(who, config, seed) is worst_case(who, config, seed)
    assert len(looked_for) == 4


def test_a_warm_policy_is_the_base_flattened_and_asks_only_where_there_is_nothing():
    log_base = torch.tensor([[0.64, 0.16, 0.2], [0.0, 0.0, 1.0]]).double().log()
    said_, spent = Warm(2.0).policy(torch.zeros(2, 1), log_base, torch.zeros(2).double())
    assert said_.exp().tolist() == [pytest.approx([2 / 3, 1 / 3, 0.0]), pytest.approx([0.0, 0.0, 1.0])]
    assert spent.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("wrong", [{"level": 0.0}, {"level": 1.1}, {"temperature": 0.0}, {"episodes": 0}])
def test_numbers_that_mean_nothing_are_refused(wrong):
    with pytest.raises(InputError, match="level is above 0"):
        WorstCaseConfig(**wrong)
