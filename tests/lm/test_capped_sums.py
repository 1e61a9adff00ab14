"""What a capped base keeps, by lists and in one sweep: the sums of what it says written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.lm.bases.capped import Capped
from mightnt.lm.capped_sums import LARGEST_FACTOR, LEAST_SUM, grouped_log_sums, kept_by_lists
from mightnt.lm.panel import Heard
from mightnt.models.spread import EVERYTHING, NOTHING, WHOLE, Allowed, Spread

N, PLACES = 7, 12


def entries(rng, share):
    """Some entries of a table of places and tokens, ascending."""
    return np.flatnonzero(rng.random(PLACES * N) < share)


def heard_at_random(seed, digits):
    """One network, counts as a few lists, two rules of support: places of every kind, and a token that nobody can choose."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 3, (PLACES, N))).to(digits)
    logits[:, 0] = -torch.inf
    common = np.append(0.0, rng.dirichlet(np.ones(N - 1)))
    lists = tuple(entries(rng, share) for share in (0.2, 0.1))
    sets = np.array([[False] + [True] * (N - 1), [False, *(rng.random(N - 1) < 0.5)], [False] * N])
    rules = tuple(
        Allowed(sets, rng.choice([EVERYTHING, WHOLE, NOTHING], PLACES, p=[0.5, 0.3, 0.2]), entries(rng, 0.3))
        for _ in range(2)
    )
    spread = Spread(common, rng.random(PLACES), lists, tuple(rng.random(len(listed)) for listed in lists))
    return Heard((logits.log_softmax(-1),), torch.zeros(PLACES, 1), None, spread, rules), rng


@pytest.mark.parametrize("digits", [torch.float32, torch.float64])
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), log_cap_nats=st.sampled_from([-2.0, 0.0, 3.0, 60.0]))
def test_it_is_the_sum_of_what_is_written_out(digits, seed, log_cap_nats):
    heard, rng = heard_at_random(seed, digits)
    base, tokens = Capped(log_cap_nats, "situations"), rng.integers(1, N, PLACES)
    states = torch.from_numpy(rng.random((PLACES, 1)) * 3)
    settled, (log_nu, log_kept) = kept_by_lists(base, states, heard, heard.at(np.arange(PLACES) * N + tokens))
    written = base.predict(states, heard.written_out(torch.arange(PLACES))).double()
    exact = 1e-5 if digits == torch.float32 else 1e-9
    torch.testing.assert_close(log_kept, written.logsumexp(1).clamp(max=0.0)[settled], atol=exact, rtol=exact)
    said = written[torch.arange(PLACES), torch.from_numpy(tokens)]
    torch.testing.assert_close(log_nu, said[settled], atol=exact, rtol=exact)
    assert (written.exp().sum(1)[~settled] < 2 * LEAST_SUM).all()


@pytest.mark.parametrize("log_cap_nats", [np.log(LARGEST_FACTOR) + 1.0, np.log(LEAST_SUM) - 5.0])
def test_what_float32_cannot_tell_is_left_to_be_written_out(log_cap_nats):
    heard, _ = heard_at_random(0, torch.float32)
    states, said = torch.zeros(PLACES, 1, dtype=torch.float64), heard.at(np.arange(PLACES) * N + 1)
    settled, _ = kept_by_lists(Capped(float(log_cap_nats), "situations"), states, heard, said)
    closed = np.logical_or.reduce([rule.which == NOTHING for rule in heard.allowed])
    assert 0 < closed.sum() < PLACES
    assert settled.tolist() == closed.tolist()


def test_sums_of_groups_are_stable_and_empty_ones_are_nothing():
    logs = torch.tensor([-1000.0, -1000.0, 3.0, -torch.inf], dtype=torch.float64)
    found = grouped_log_sums(logs, torch.tensor([0, 0, 1, 3]), 4)
    assert found.tolist() == pytest.approx([-1000 + np.log(2), 3.0, -np.inf, -np.inf])
