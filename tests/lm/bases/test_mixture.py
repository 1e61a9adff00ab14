"""The mixture is one measure over sequences, and what moves its weights is a choice."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mightnt.lm.bases.mixture import Mixture
from tests.lm.toys import said
from tests.strategies import seeds

N_MEMBERS, ROWS, N_TOKENS = 3, 2, 4


@st.composite
def walks(draw):
    """Log weights, and steps (probabilities of two networks and the counts, tokens, who chose) of two episodes at once."""
    rng = np.random.default_rng(draw(seeds))
    weights = rng.dirichlet(np.ones(N_MEMBERS))
    steps = [
        (
            rng.dirichlet(np.full(N_TOKENS, 0.5), size=(N_MEMBERS, ROWS)),
            rng.integers(N_TOKENS, size=ROWS),
            rng.random(ROWS) < 0.6,
        )
        for _ in range(draw(st.integers(1, 8)))
    ]
    return weights, steps


def walk(base, steps):
    """log nu of each step, (steps, rows, tokens), and the state afterwards."""
    state, predictions = base.start(ROWS), []
    for p, tokens, own in steps:
        step = said(p[:-1], p[-1])
        predictions.append(base.predict(state, step).numpy())
        state = base.advance(state, step, torch.from_numpy(tokens), torch.from_numpy(own))
    return np.array(predictions), state


@given(walks())
def test_the_product_of_its_predictions_is_the_mixture_of_sequence_probabilities(case):
    """xi(x_1:n) = sum_i w_i prod_t p_i(x_t), whoever chose the tokens."""
    weights, steps = case
    predictions, _ = walk(Mixture(tuple(np.log(weights))), steps)
    for row in range(ROWS):
        each = [math.prod(p[i, row, tokens[row]] for p, tokens, _ in steps) for i in range(N_MEMBERS)]
        said_of_it = sum(log_nu[row, tokens[row]] for log_nu, (_, tokens, _) in zip(predictions, steps, strict=True))
        assert said_of_it == pytest.approx(math.log(weights @ each), rel=1e-9, abs=1e-9)


@given(walks(), st.sampled_from(["all", "demonstrated"]))
def test_every_prediction_is_the_average_under_the_weights_that_the_evidence_gives(case, evidence):
    weights, steps = case
    predictions, _ = walk(Mixture(tuple(np.log(weights)), evidence), steps)
    for row in range(ROWS):
        joint = weights.copy()
        for log_nu, (p, tokens, own) in zip(predictions, steps, strict=True):
            np.testing.assert_allclose(np.exp(log_nu[row]), joint / joint.sum() @ p[:, row], rtol=1e-9)
            if evidence == "all" or not own[row]:
                joint = joint * p[:, row, tokens[row]]


@given(walks())
def test_fixed_weights_average_the_members_at_every_token_whatever_was_said(case):
    weights, steps = case
    log_weights = tuple(np.log(weights))
    predictions, state = walk(Mixture(log_weights, name="mixture-fixed", fixed=True), steps)
    assert torch.equal(state, Mixture(log_weights).start(ROWS))
    for log_nu, (p, _, _) in zip(predictions, steps, strict=True):
        np.testing.assert_allclose(np.exp(log_nu), np.einsum("m,mrt->rt", weights, p), rtol=1e-9)


def test_its_own_odd_words_become_cheap_only_when_they_are_evidence():
    """Networks (.999, .001) and (.1, .9), weights .99 and .01: after the agent's own two odd tokens a third costs little."""
    log_weights = tuple(np.log([0.99, 0.01 - 1e-12, 1e-12]))
    step = said([[[0.999, 0.001]], [[0.1, 0.9]]], [[0.5, 0.5]])
    odd, own = torch.tensor([1]), torch.tensor([True])
    after = {}
    for evidence in ("all", "demonstrated"):
        base = Mixture(log_weights, evidence)
        state = base.start(1)
        for _ in range(2):
            state = base.advance(state, step, odd, own)
        after[evidence] = float(base.predict(state, step)[0, 1].exp())
    assert after["all"] > 0.89
    assert after["demonstrated"] == pytest.approx(0.99 * 0.001 + 0.01 * 0.9, rel=1e-6)


def test_a_demonstrators_token_is_evidence_under_both_rules():
    step, token, own = said([[[0.9, 0.1]]], [[0.5, 0.5]]), torch.tensor([1]), torch.tensor([False])
    posteriors = [
        base.advance(base.start(1), step, token, own).exp().tolist()[0]
        for base in (Mixture((math.log(0.5),) * 2, rule) for rule in ("all", "demonstrated"))
    ]
    assert posteriors[0] == posteriors[1] == pytest.approx([0.1 / 0.6, 0.5 / 0.6])
