"""The posterior of a finite class against Bayes' rule from scratch, and the top set against its definition in fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.history import Chooser, Step, demonstrated, is_evidence
from mightnt.models.categorical import Categorical
from mightnt.models.finite import ModelClass, top_set
from tests.strategies import histories, model_classes, probability_of_actions


def posterior_after(model_class, history, evidence):
    state = model_class.start()
    for step in history:
        state = model_class.advance(state, step, evidence)
    return np.exp(state.log_posterior)


@given(model_classes(n_symbols=2, missing=0.5), histories(), st.sampled_from(["all", "demonstrated"]))
def test_the_posterior_is_bayes_rule_over_the_evidence(model_class, history, evidence):
    def counts(step):
        return is_evidence(step, evidence)

    joint = np.exp(model_class.log_prior) * [
        probability_of_actions(model, history, counts) for model in model_class.models
    ]
    # the evidence of nothing is 1: before it the weights are the prior, whatever that sums to
    total = joint.sum() if any(counts(step) for step in history) else 1.0
    np.testing.assert_allclose(posterior_after(model_class, history, evidence), joint / total, rtol=1e-9)


@given(model_classes(), histories())
def test_demonstrated_evidence_does_not_move_on_the_agents_own_steps(model_class, history):
    state = model_class.start()
    for step in history:
        after = model_class.advance(state, step, "demonstrated")
        moved = not np.array_equal(after.log_posterior, state.log_posterior)
        assert not moved or step.chooser is Chooser.DEMONSTRATOR
        state = after


def test_the_agents_own_steps_move_the_posterior_under_the_rule_all():
    pair = ModelClass.of([Categorical.of([0.9, 0.1]), Categorical.of([0.1, 0.9])])
    own = (Step(1, Chooser.AGENT),)
    np.testing.assert_allclose(posterior_after(pair, own, "all"), [0.1, 0.9])
    np.testing.assert_allclose(posterior_after(pair, own, "demonstrated"), [0.5, 0.5])


def test_a_prior_below_one_is_kept_until_there_is_evidence():
    half = ModelClass.of([Categorical.of([0.5, 0.5])] * 2, [0.25, 0.25])
    np.testing.assert_allclose(posterior_after(half, (), "all"), [0.25, 0.25])
    np.testing.assert_allclose(posterior_after(half, demonstrated([0]), "all"), [0.5, 0.5])


def test_after_evidence_that_no_model_allows_nothing_is_believed_any_more():
    sure = ModelClass.of([Categorical.of([1, 0])] * 2)
    assert posterior_after(sure, demonstrated([1]), "all").tolist() == [0, 0]
    assert posterior_after(sure, demonstrated([1, 0, 0]), "all").tolist() == [0, 0]


def test_equal_weights_are_the_default():
    np.testing.assert_allclose(np.exp(ModelClass.of([Categorical.of([1.0])] * 4).log_prior), 0.25)


@pytest.mark.parametrize(
    ("prior", "sentence"),
    [
        ([0.7, 0.7], "sums to 1.4"),
        ([0, 0], "sums to 0"),
        ([1.0], "one weight a model"),
        ([np.nan, 0.5], "NaN"),
        ([-0.1, 0.5], "negative"),
    ],
)
def test_a_prior_that_is_none_is_refused(prior, sentence):
    with pytest.raises(InputError, match=sentence):
        ModelClass.of([Categorical.of([1.0])] * 2, prior)


def test_classes_without_models_or_with_two_alphabets_are_refused():
    with pytest.raises(InputError, match="one weight a model"):
        ModelClass.of([])
    with pytest.raises(InputError, match=r"alphabets of sizes \[1, 2\]"):
        ModelClass.of([Categorical.of([1.0]), Categorical.of([0.5, 0.5])])


def test_an_action_outside_the_alphabet_is_refused():
    pair = ModelClass.of([Categorical.of([0.5, 0.5])])
    with pytest.raises(InputError, match=r"action -1 is none of 0\.\.1"):
        pair.advance(pair.start(), Step(-1, Chooser.DEMONSTRATOR), "all")


def top_set_by_definition(weights, level):
    """In exact fractions, model by model."""
    order = sorted(range(len(weights)), key=lambda i: (-weights[i], i))
    kept = []
    for n, index in enumerate(order):
        if weights[index] < level * sum(weights[j] for j in order[: n + 1]):
            break
        kept.append(index)
    return kept if any(weights) else []


@given(st.lists(st.integers(0, 12), min_size=1, max_size=7), st.integers(1, 16))
def test_the_top_set_is_its_definition(weights, sixteenths):
    level = Fraction(sixteenths, 16)
    with np.errstate(divide="ignore"):
        logs = np.log2(np.array([2.0 ** (w - 20) if w else 0.0 for w in weights])) * np.log(2)
    exact = [Fraction(2) ** (w - 20) if w else Fraction(0) for w in weights]
    assert top_set(logs, float(level)).tolist() == top_set_by_definition(exact, level)


def test_the_top_set_by_hand():
    logs = np.log([0.1, 0.6, 0.3])
    assert top_set(logs, 0.5).tolist() == [1]  # .3 < .5 * .9
    assert top_set(logs, 0.3).tolist() == [1, 2]  # .3 >= .3 * .9, .1 < .3 * 1
    assert top_set(logs, 0.09).tolist() == [1, 2, 0]


def test_ties_go_in_the_order_of_the_class():
    assert top_set(np.log([0.25] * 4), 0.5).tolist() == [0, 1]
    assert top_set(np.log([0.25] * 4), 1.0).tolist() == [0]


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.floats(0.01, 1))
def test_whoever_has_the_level_is_in_and_a_lower_level_keeps_more(weights, level):
    posterior = np.array(weights) / sum(weights)
    kept = set(top_set(np.log(posterior), level).tolist())
    assert kept >= set(np.flatnonzero(posterior >= level * (1 + 1e-9)).tolist())
    assert kept <= set(top_set(np.log(posterior), level / 2).tolist())
    assert kept


@pytest.mark.parametrize("level", [0, -0.1, 1.1, np.nan])
def test_a_level_outside_zero_and_one_is_refused(level):
    with pytest.raises(InputError, match="top-set level"):
        top_set(np.log([0.5, 0.5]), level)


def test_nothing_believed_gives_the_empty_set():
    assert top_set(np.full(3, -np.inf), 0.5).size == 0
