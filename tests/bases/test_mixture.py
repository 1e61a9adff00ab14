"""The Bayes mixture: a sequence measure whose weights move, and nothing renormalized."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mightnt.bases.mixture import BayesMixture
from mightnt.history import Chooser, Step, demonstrated, is_evidence
from mightnt.models.categorical import Categorical
from mightnt.models.finite import ModelClass
from mightnt.prediction import check_model, follow
from tests.strategies import histories, model_classes, probability_of_actions


@given(model_classes(missing=0.5, zeros=0.3), histories(), st.sampled_from(["all", "demonstrated"]))
def test_it_obeys_the_contract(model_class, history, evidence):
    check_model(BayesMixture(model_class, evidence), [history])


@given(model_classes(missing=0.5, zeros=0.2), histories())
def test_the_product_of_its_predictions_is_the_mixture_of_the_sequence_probabilities(model_class, history):
    """xi(x_1:n) = sum_nu w(nu) nu(x_1:n), for any prior that sums to at most one; of the empty sequence it is 1."""
    assume(history)
    base = BayesMixture(model_class, "all")
    assert base.n_symbols == model_class.n_symbols
    each = [probability_of_actions(model, history) for model in model_class.models]
    assert probability_of_actions(base, history) == pytest.approx(np.exp(model_class.log_prior) @ each, rel=1e-9)


@given(model_classes(missing=0.5), histories(), st.sampled_from(["all", "demonstrated"]))
def test_each_prediction_is_the_posterior_average(model_class, history, evidence):
    base = BayesMixture(model_class, evidence)
    joint = np.exp(model_class.log_prior) * [
        probability_of_actions(model, history, lambda step: is_evidence(step, evidence)) for model in model_class.models
    ]
    weights = joint / joint.sum() if any(is_evidence(step, evidence) for step in history) else joint
    rows = [model.predict(follow(model, history)).probabilities for model in model_class.models]
    np.testing.assert_allclose(base.predict(follow(base, history)).probabilities, weights @ rows, rtol=1e-9)


def test_fixed_weights_are_another_object():
    """After 1 1 the weights have moved: .5 * .1 + .5 * .9 is not what comes next."""
    base = BayesMixture(ModelClass.of([Categorical.of([0.9, 0.1]), Categorical.of([0.1, 0.9])]))
    after = base.predict(follow(base, demonstrated([1, 0, 1, 0])))
    assert after.probabilities[1] == pytest.approx((0.1**3 + 0.9**3) / (0.1**2 + 0.9**2))


def test_its_own_odd_steps_become_cheap_only_when_they_are_evidence():
    pair = ModelClass.of([Categorical.of([0.999, 0.001]), Categorical.of([0.1, 0.9])], [0.99, 0.01])
    own = (Step(1, Chooser.AGENT), Step(0, Chooser.WORLD)) * 2
    learns, stays = BayesMixture(pair, "all"), BayesMixture(pair, "demonstrated")
    assert learns.predict(follow(learns, own)).probabilities[1] > 0.89
    assert stays.predict(follow(stays, own)).probabilities[1] == pytest.approx(0.99 * 0.001 + 0.01 * 0.9)


def test_missing_mass_of_members_and_prior_stays_missing():
    half = BayesMixture(ModelClass.of([Categorical.of([0.5, 0.25]), Categorical.of([0.5, 0.5])], [0.4, 0.4]))
    assert half.predict(half.start()).probabilities.tolist() == pytest.approx([0.4, 0.3])
    assert half.predict(half.start()).missing == pytest.approx(0.3)


def test_after_the_impossible_it_predicts_nothing():
    sure = BayesMixture(ModelClass.of([Categorical.of([1, 0])]))
    assert sure.predict(follow(sure, demonstrated([1]))).missing == 1
