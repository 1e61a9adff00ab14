"""The conditional of a minimum over whole episodes, against the minimum over whole episodes itself."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mightnt.lm.bases.contract import log_kept
from mightnt.lm.bases.trajectory import Trajectory
from tests.lm.toys import said
from tests.strategies import seeds

N_MEMBERS, N_TOKENS = 3, 4


@st.composite
def walks(draw):
    """Steps (probabilities of two networks and the counts, some of them 0; token; who chose) of one episode."""
    rng = np.random.default_rng(draw(seeds))
    steps = []
    for _ in range(draw(st.integers(1, 8))):
        p = rng.dirichlet(np.full(N_TOKENS, 0.5), size=N_MEMBERS)
        p[rng.random(p.shape) < 0.1] = 0.0
        steps.append((p, int(rng.integers(N_TOKENS)), bool(rng.random() < 0.7)))
    return steps


def walk(base, steps):
    """``(nu over tokens, likelihoods of own tokens so far, p)`` at each step; own tokens that nu forbids end the walk."""
    state, likelihoods, seen = base.start(1), np.ones(N_MEMBERS), []
    for p, token, own in steps:
        step = said(p[:-1, None], p[-1:])
        nu = base.predict(state, step)
        assert not nu.isnan().any()
        seen.append((nu.exp()[0].numpy(), likelihoods, p))
        new = base.advance(state, step, torch.tensor([token]), torch.tensor([own]))
        assert new.isfinite().all()
        if not own:
            assert torch.equal(new, state), "the demonstrator's tokens are no evidence"
        elif nu[0, token] > -math.inf:
            likelihoods = likelihoods * p[:, token]
        else:
            break
        state = new
    return seen


@given(walks())
def test_it_is_the_conditional_of_the_minimum_over_episodes(steps):
    for nu, likelihoods, p in walk(Trajectory(N_MEMBERS), steps):
        expected = (likelihoods[:, None] * p).min(axis=0) / likelihoods.min()
        np.testing.assert_allclose(nu, expected, rtol=1e-9, atol=1e-300)


@given(walks())
def test_it_sums_to_one_at_most_and_lies_above_the_token_minimum(steps):
    for nu, _, p in walk(Trajectory(N_MEMBERS), steps):
        assert nu.sum() <= 1 + 1e-9
        assert (nu >= p.min(axis=0) * (1 - 1e-9)).all()


def test_by_hand():
    """p = (.8, .2) and (.2, .8): nu = (.2, .2). After own 0 (credit 4 and 1): min(4 x .8, .2), min(4 x .2, .8) = (.2, .8)."""
    base, step = Trajectory(2), said([[[0.8, 0.2]]], [[0.2, 0.8]])
    assert base.predict(base.start(1), step).exp()[0].tolist() == pytest.approx([0.2, 0.2])
    state = base.advance(base.start(1), step, torch.tensor([0]), torch.tensor([True]))
    assert state.exp()[0].tolist() == pytest.approx([4.0, 1.0])
    assert base.predict(state, step).exp()[0].tolist() == pytest.approx([0.2, 0.8])


def test_what_everybody_forbids_leaves_numbers():
    base, step = Trajectory(2), said([[[1.0, 0.0]]], [[0.0, 1.0]])
    nu = base.predict(base.start(1), step)
    assert nu.isneginf().all()
    assert float(log_kept(nu)) == -math.inf
    assert torch.equal(base.advance(base.start(1), step, torch.tensor([0]), torch.tensor([True])), base.start(1))
