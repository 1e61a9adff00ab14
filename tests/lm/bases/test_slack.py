"""The first network, capped at each token by c times every member."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.lm.bases.slack import Slack
from tests.lm.toys import random_rows, said
from tests.strategies import seeds


@given(seeds, st.integers(1, 3), st.booleans(), st.sampled_from([0.0, 0.7, 3.0]))
def test_it_is_the_largest_below_the_first_network_and_c_times_everybody(seed, n_networks, with_counts, log_slack):
    rng = np.random.default_rng(seed)
    networks = np.stack([np.exp(random_rows(rng, 3, zeros=0.2)) for _ in range(n_networks)])
    counts = np.exp(random_rows(rng, 3, zeros=0.2)) if with_counts else None
    base = Slack(log_slack)
    nu = base.predict(base.start(3), said(networks, counts)).exp().numpy()
    for row in range(3):
        for token in range(nu.shape[1]):
            everybody = [network[row, token] for network in networks] + ([counts[row, token]] if with_counts else [])
            expected = min(networks[0][row, token], *(math.exp(log_slack) * p for p in everybody))
            assert nu[row, token] == pytest.approx(expected, rel=1e-12)


def test_by_hand_with_a_true_zero():
    """q = (.5, .3, .2), second (.1, .8, .1), counts (.6, 0, .4), c = 2: (.2, 0, .2)."""
    step = said([[[0.5, 0.3, 0.2]], [[0.1, 0.8, 0.1]]], counts=[[0.6, 0.0, 0.4]])
    assert Slack(math.log(2)).predict(Slack().start(1), step).exp()[0].tolist() == pytest.approx([0.2, 0.0, 0.2])
    assert Slack().predict(Slack().start(1), step).exp()[0].tolist() == pytest.approx([0.1, 0.0, 0.1])


def test_everybody_forbids_everything():
    step = said([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert Slack().predict(Slack().start(1), step).isneginf().all()
