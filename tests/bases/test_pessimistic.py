"""The pessimistic imitator against its definitions: the least over the top set, by action and by trajectory."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mightnt.bases.mixture import BayesMixture
from mightnt.bases.pessimistic import Pessimistic
from mightnt.errors import InputError
from mightnt.history import Chooser, Step, demonstrated, is_evidence
from mightnt.models.categorical import Categorical
from mightnt.models.finite import ModelClass
from mightnt.prediction import check_model, follow
from tests.models.test_finite import top_set_by_definition
from tests.strategies import agent_paths, histories, model_classes, probability_of_actions

levels = st.sampled_from([0.02, 0.2, 0.6, 1.0])
kinds = st.sampled_from([("token", "demonstrated"), ("token", "all"), ("trajectory", "demonstrated")])


def believed(model_class, history, level, evidence="demonstrated"):
    """The top set from scratch: prior times the probability of the evidence, sorted, cut by definition."""
    joint = np.exp(model_class.log_prior) * [
        probability_of_actions(model, history, lambda step: is_evidence(step, evidence)) for model in model_class.models
    ]
    joint = joint / joint.sum()
    falling = np.sort(joint)[::-1]
    assume((abs(falling / (level * np.cumsum(falling)) - 1) > 1e-6).all())  # rounding may decide exact ties
    return [model_class.models[i] for i in top_set_by_definition(joint.tolist(), level)]


@given(model_classes(n_symbols=3, missing=0.5, zeros=0.3), histories(n_actions=3), levels, kinds)
def test_it_obeys_the_contract(model_class, history, level, kind):
    base = Pessimistic(model_class, level, *kind)
    check_model(base, [history])
    assert base.n_symbols == 3


@given(model_classes(n_symbols=3), histories(n_actions=3), levels, st.sampled_from(["demonstrated", "all"]))
def test_by_token_it_is_the_least_that_a_believed_model_allows(model_class, history, level, evidence):
    base = Pessimistic(model_class, level, "token", evidence)
    top = believed(model_class, history, level, evidence)
    least = np.min([model.predict(follow(model, history)).probabilities for model in top], axis=0)
    prediction = base.predict(follow(base, history))
    np.testing.assert_allclose(prediction.probabilities, least, rtol=1e-9)
    assert prediction.missing == pytest.approx(1 - least.sum(), abs=1e-9)


@given(model_classes(n_symbols=2), st.lists(st.integers(0, 1), max_size=6), levels)
@settings(deadline=None, max_examples=25)
def test_by_trajectory_its_product_is_the_least_product_of_a_believed_model(model_class, shown, level):
    base = Pessimistic(model_class, level, "trajectory")
    before = demonstrated(shown[: 2 * (len(shown) // 2)])
    top = believed(model_class, before, level)
    for path in agent_paths(2, 2, 3):
        history = before + path

        def own(step):
            return step.chooser is Chooser.AGENT

        least = min(probability_of_actions(model, history, own) for model in top)
        assert probability_of_actions(base, history, own) == pytest.approx(least, rel=1e-9)


@given(model_classes(n_symbols=2, zeros=0.2), histories(), levels)
def test_by_trajectory_it_never_lies_below_the_token_minimum_nor_sums_to_more_than_one(model_class, history, level):
    base, token = Pessimistic(model_class, level, "trajectory"), Pessimistic(model_class, level)
    longer, least = base.predict(follow(base, history)), token.predict(follow(token, history))
    running = follow(base, history).log_running
    assume(np.isfinite(running).all())  # where 0/0 is left, nothing is predicted: the next test
    assert (longer.probabilities >= least.probabilities * (1 - 1e-9)).all()
    assert longer.probabilities.sum() <= 1 + 1e-9


def test_by_trajectory_by_hand():
    """Two models believed alike: after a 0 of the agent's own the running products are .8 and .4."""
    base = Pessimistic(ModelClass.of([Categorical.of([0.8, 0.2]), Categorical.of([0.4, 0.6])]), 0.1, "trajectory")
    assert base.predict(base.start()).probabilities.tolist() == pytest.approx([0.4, 0.2])
    after = base.predict(follow(base, (Step(0, Chooser.AGENT),)))
    assert after.probabilities.tolist() == pytest.approx([0.16 / 0.4, 0.16 / 0.4])
    answered = base.predict(follow(base, (Step(0, Chooser.AGENT), *demonstrated([0]))))
    assert answered.probabilities.tolist() == pytest.approx([0.4, 0.2])  # evidence begins the products again


def test_where_a_believed_model_is_left_behind_nothing_is_predicted_until_the_next_evidence():
    base = Pessimistic(ModelClass.of([Categorical.of([1, 0]), Categorical.of([0.5, 0.5])]), 0.1, "trajectory")
    off = (Step(1, Chooser.AGENT),)
    assert base.predict(follow(base, off)).missing == 1
    assert base.predict(follow(base, (*off, *demonstrated([0])))).probabilities.tolist() == [0.5, 0]


def test_its_own_steps_teach_it_nothing():
    pair = ModelClass.of([Categorical.of([0.999, 0.001]), Categorical.of([0.1, 0.9])])
    base = Pessimistic(pair, 0.05)
    before = base.predict(base.start()).probabilities
    after = base.predict(follow(base, (Step(1, Chooser.AGENT),) * 20)).probabilities
    np.testing.assert_array_equal(before, after)
    assert before.tolist() == pytest.approx([0.1, 0.001])


def test_a_model_that_is_no_longer_believed_has_no_say():
    """After two demonstrated 0 the second model has 1/82 < .05 of the belief; over *all* models the least were (.1, .1)."""
    pair = ModelClass.of([Categorical.of([0.9, 0.1]), Categorical.of([0.1, 0.9])])
    base = Pessimistic(pair, 0.05)
    assert base.predict(follow(base, demonstrated([0, 0, 0, 0]))).probabilities.tolist() == pytest.approx([0.9, 0.1])


@given(model_classes(n_symbols=3), histories(n_actions=3))
def test_a_lower_level_never_allows_more(model_class, history):
    many, few = (Pessimistic(model_class, level) for level in (0.05, 0.5))
    lower = many.predict(follow(many, history)).probabilities
    assert (lower <= few.predict(follow(few, history)).probabilities * (1 + 1e-12)).all()


@given(model_classes(n_symbols=3), histories(n_actions=3))
def test_one_model_alone_is_that_model_and_the_mixture(model_class, history):
    single = ModelClass.of(model_class.models[:1])
    base, mixture = Pessimistic(single, 0.5), BayesMixture(single)
    expected = mixture.predict(follow(mixture, history)).probabilities
    np.testing.assert_allclose(base.predict(follow(base, history)).probabilities, expected, rtol=1e-9)


def test_after_evidence_that_no_model_allows_it_predicts_nothing():
    base = Pessimistic(ModelClass.of([Categorical.of([1, 0])]), 0.5)
    assert base.predict(follow(base, demonstrated([1]))).missing == 1


def test_what_is_not_well_defined_is_refused():
    pair = ModelClass.of([Categorical.of([0.5, 0.5])])
    with pytest.raises(InputError, match='needs evidence "demonstrated"'):
        Pessimistic(pair, 0.5, "trajectory", "all")
    with pytest.raises(InputError, match="top-set level"):
        Pessimistic(pair, 0.0)
