"""The token-wise minimum over the first network and the counts."""

import numpy as np
import pytest
import torch
from hypothesis import given

from mightnt.lm.bases.minimum import Minimum
from tests.lm.toys import random_rows, said
from tests.strategies import seeds


@given(seeds)
def test_it_is_the_smaller_of_the_first_network_and_the_counts(seed):
    rng = np.random.default_rng(seed)
    network, counts = (np.exp(random_rows(rng, 4, zeros=0.2)) for _ in range(2))
    nu = Minimum().predict(Minimum().start(4), said([network, np.zeros_like(network)], counts)).exp().numpy()
    np.testing.assert_allclose(nu, np.where(network < counts, network, counts), rtol=1e-12)


def test_by_hand_with_a_true_zero():
    step = said([[[0.5, 0.3, 0.2]]], counts=[[0.6, 0.0, 0.4]])
    assert Minimum().predict(Minimum().start(1), step).exp().tolist() == [pytest.approx([0.5, 0.0, 0.2])]


def test_it_has_no_state():
    base = Minimum()
    step = said([[[0.5, 0.5]]], [[0.5, 0.5]])
    moved = base.advance(base.start(1), step, torch.tensor([0]), torch.tensor([True]))
    assert moved.shape == base.start(1).shape == (1, 0)
