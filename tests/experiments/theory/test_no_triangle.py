"""The chapter P1: its claims hold, it has no dice, it draws; and its triples are what they say."""

import json
from math import inf, log

import pytest

from mightnt.constraints.kl import kl_step_nats
from mightnt.experiments.theory.no_triangle import THEOREM, farthest_triple, total_variation, triple_of_the_proof
from mightnt.files import plain
from mightnt.prediction import Prediction

QUICK = THEOREM.profiles["quick"]


@pytest.fixture(scope="module")
def computed():
    return THEOREM.compute(QUICK, 0, lambda done, of: None)


def test_every_claim_holds_and_there_are_no_dice(computed):
    assert [row.claim for row in computed.rows if row.holds is False] == []
    assert sum(row.holds is True for row in computed.rows) >= 3 * len(QUICK.tolerances)
    assert THEOREM.compute(QUICK, 7, lambda done, of: None) == computed


def test_it_draws_from_its_record(computed):
    panels = THEOREM.draw(json.loads(json.dumps(plain(computed.curves))))
    assert len(panels) == 2
    assert all(panel.svg.startswith("<svg") for panel in panels)


def test_the_triple_of_the_proof_by_hand():
    policy, base, demonstrator = triple_of_the_proof(0.5)
    assert policy.probabilities.tolist() == base.probabilities.tolist() == [0.75, 0.25]
    assert demonstrator.probabilities.tolist() == [1, 0]
    assert triple_of_the_proof(9)[0].probabilities.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(("eps", "least"), [(0.01, 1e-6), (0.1, 1e-3), (0.4, 1e-12)])
def test_the_farthest_triple_uses_up_both_tolerances(eps, least):
    policy, base, demonstrator = farthest_triple(eps, least)
    assert kl_step_nats(policy, base) == pytest.approx(eps)
    assert kl_step_nats(demonstrator, base) == pytest.approx(eps)
    assert demonstrator.probabilities[1] == pytest.approx(least)


def test_a_large_tolerance_ends_at_certainty():
    policy, base, demonstrator = farthest_triple(2.0, 0.001)
    assert policy.probabilities.tolist() == [0, 1]
    assert kl_step_nats(policy, demonstrator) == pytest.approx(log(1000))
    assert kl_step_nats(demonstrator, base) == pytest.approx(2)
    assert 0 < farthest_triple(50, 0.5)[1].probabilities[0] < 1e-9  # a base that gave 0 would be infinitely far
    assert kl_step_nats(Prediction.of([0.5, 0.5]), Prediction.of([0, 1])) == inf


def test_total_variation_by_hand():
    assert total_variation(Prediction.of([0.2, 0.8]), Prediction.of([0.5, 0.5])) == pytest.approx(0.3)
