"""No stretch of the agent's own tokens is more than c times as likely under the capped base as under the counts."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.lm.bases.capped import Capped
from tests.lm.toys import said
from tests.strategies import seeds

N_TOKENS = 5
ROUNDING = 1e-9


@st.composite
def walks(draw, everything_supported=False):
    """log c and steps (network, counts, support, who chooses) of one episode; the network is sure of other things."""
    rng = np.random.default_rng(draw(seeds))
    log_cap = draw(st.sampled_from([0.0, 0.3, 1.4, 5.0]))
    steps = []
    for _ in range(draw(st.integers(1, 12))):
        network, counts = rng.dirichlet(np.full(N_TOKENS, 0.3)), rng.dirichlet(np.ones(N_TOKENS))
        supported = np.ones(N_TOKENS, dtype=bool) if everything_supported else rng.random(N_TOKENS) < 0.8
        steps.append((network, counts, supported, bool(rng.random() < 0.75)))
    return log_cap, steps, rng


def walk(base, steps, rng):
    """Own tokens as (log nu, log P) and, at each step, (log nu over tokens, own tokens so far, network, counts, support).

    The agent draws from nu, the demonstrator (and everybody where nu is nothing) says anything.
    """
    state, own_tokens, seen = base.start(1), [], []
    for network, counts, supported, own in steps:
        step = said([[network]], [counts], [supported])
        nu = base.predict(state, step)[0].exp().numpy()
        seen.append((nu, list(own_tokens), network, counts, supported))
        own = own and nu.sum() > 0
        token = rng.choice(N_TOKENS, p=nu / nu.sum()) if own else rng.integers(N_TOKENS)
        new = base.advance(state, step, torch.tensor([token]), torch.tensor([own]))
        if own:
            own_tokens.append((math.log(nu[token]), math.log(counts[token])))
        else:
            assert torch.equal(new, state), "the demonstrator's tokens are not charged against the cap"
        state = new
    return own_tokens, seen


def stretches(tokens):
    """log nu - log P of every contiguous stretch of own tokens."""
    for first in range(len(tokens)):
        for last in range(first, len(tokens)):
            yield sum(nu - p for nu, p in tokens[first : last + 1])


@given(walks())
def test_no_stretch_of_own_tokens_exceeds_the_cap(case):
    log_cap, steps, rng = case
    own_tokens, _ = walk(Capped(log_cap), steps, rng)
    assert all(ratio <= log_cap + ROUNDING for ratio in stretches(own_tokens))


@given(walks())
def test_it_is_the_largest_such_base_below_the_network_and_zero_without_support(case):
    """Where nu < network on a supported token, some stretch that ends with this token reaches c exactly."""
    log_cap, steps, rng = case
    _, seen = walk(Capped(log_cap), steps, rng)
    for nu, before, network, counts, supported in seen:
        assert (nu[~supported] == 0).all()
        assert (nu <= network * (1 + ROUNDING)).all()
        for token in np.flatnonzero(supported & (nu < network * (1 - ROUNDING))):
            path = [*before, (math.log(nu[token]), math.log(counts[token]))]
            endings = [sum(a - b for a, b in path[first:]) for first in range(len(path))]
            assert max(endings) == pytest.approx(log_cap, abs=1e-9)


def test_by_hand():
    """q = (.8, .2), P = (.2, .8), c = 2: nu = (.4, .2), and after own 0 (ratio 2 = c): (.2, .2); own 1 wins .25 back."""
    base = Capped(math.log(2))
    step = said([[[0.8, 0.2]]], [[0.2, 0.8]], [[True, True]])
    zero, one, own = torch.tensor([0]), torch.tensor([1]), torch.tensor([True])
    state = base.start(1)
    assert base.predict(state, step).exp()[0].tolist() == pytest.approx([0.4, 0.2])
    state = base.advance(state, step, zero, own)
    assert base.predict(state, step).exp()[0].tolist() == pytest.approx([0.2, 0.2])
    state = base.advance(state, step, one, own)
    assert float(state) == 0.0
    assert base.predict(state, step).exp()[0].tolist() == pytest.approx([0.4, 0.2])


def test_no_credit_is_carried():
    """Ten tokens at which nu is far below P do not buy one at which it is far above."""
    base = Capped(math.log(2))
    modest, bold = said([[[0.1, 0.9]]], [[0.9, 0.1]], [[True] * 2]), said([[[0.9, 0.1]]], [[0.1, 0.9]], [[True] * 2])
    state = base.start(1)
    for _ in range(10):
        state = base.advance(state, modest, torch.tensor([0]), torch.tensor([True]))
    assert base.predict(state, bold).exp()[0].tolist() == pytest.approx([0.2, 0.1])


def test_rows_have_states_of_their_own():
    base = Capped(math.log(2))
    step = said([[[0.8, 0.2], [0.8, 0.2]]], [[0.2, 0.8], [0.2, 0.8]], [[True, True], [True, False]])
    state = base.advance(base.start(2), step, torch.tensor([0, 0]), torch.tensor([True, False]))
    assert state.exp().flatten().tolist() == pytest.approx([2.0, 1.0])
    assert base.predict(state, step).exp().flatten().tolist() == pytest.approx([0.2, 0.2, 0.4, 0.0])


@pytest.mark.parametrize("log_cap", [math.inf, math.nan])
def test_a_cap_that_caps_nothing_is_refused(log_cap):
    with pytest.raises(InputError, match="below inf"):
        Capped(log_cap)


def test_either_counts_can_be_what_caps():
    """The same step: capped by the suffix counts, or by the counts of situations."""
    step = replace(said([[[0.6, 0.3, 0.1]]], [[0.1, 0.2, 0.7]], [[True, True, True]]))
    step = replace(step, situations=torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log())
    for against, expected in (("counts", [0.1, 0.2, 0.1]), ("situations", [0.5, 0.25, 0.1])):
        base = Capped(0.0, against)
        np.testing.assert_allclose(base.predict(base.start(1), step)[0].exp(), expected, atol=1e-12)
