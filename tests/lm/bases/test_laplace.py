"""The lower bound from the output layer's posterior: its deviation against samples, never above the network."""

import dataclasses
import math

import pytest
import torch

from mightnt.errors import InputError
from mightnt.lm.bases.laplace import Laplace, laplace
from mightnt.lm.last_layer import Curvature
from tests.lm.toys import said


def spread(n, seed):
    """A covariance."""
    root = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 0.01 * (root @ root.T + torch.eye(n))


def test_the_deviation_is_that_of_log_q_over_drawn_layers():
    """W + R Z S' with standard normal Z: log q of drawn layers spreads like s, for small covariances."""
    covariance = Curvature(spread(3, 0), 0.1 * spread(2, 1))
    hidden, weight = torch.tensor([[0.7, -1.2]]).double(), torch.tensor([[0.3, 0.1], [-0.5, 0.2], [0.9, 0.4]]).double()
    z = torch.randn(40_000, 3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    factors = [torch.linalg.cholesky(c) for c in (covariance.over_actions, covariance.over_hidden)]
    drawn = weight + factors[0] @ z @ factors[1].T
    samples = torch.log_softmax(drawn @ hidden[0], dim=-1)
    base = Laplace(covariance, torch.arange(3))
    found = base.deviation(hidden, torch.softmax(hidden @ weight.T, dim=-1))[0]
    torch.testing.assert_close(samples.std(dim=0), found, rtol=0.02, atol=0.0)


def test_by_hand():
    """C = S = I, h = (1), q = (.5, .5): s^2 = (1 - .5)^2 + .5^2 = .5, z = 1.6449 at 5%, 0 at 50%."""
    step = dataclasses.replace(said([[[0.5, 0.5]]]), hidden=torch.ones(1, 1))
    eye = Curvature(torch.eye(2).double(), torch.eye(1).double())
    for level, z in ((0.05, 1.6448536269514722), (0.5, 0.0)):
        base = Laplace(eye, torch.arange(2), level)
        expected = math.log(0.5) - z * math.sqrt(0.5)
        assert base.predict(base.start(1), step)[0].tolist() == pytest.approx([expected] * 2)


def test_what_is_no_action_or_impossible_stays_so():
    step = dataclasses.replace(said([[[0.0, 1.0, 0.0]]]), hidden=torch.ones(1, 1))
    base = Laplace(Curvature(torch.eye(2).double(), torch.eye(1).double()), torch.tensor([1, 2]))
    nu = base.predict(base.start(1), step)
    assert nu[0, [0, 2]].isneginf().all()
    assert nu[0, 1] <= 0


def test_more_demonstrations_make_it_surer(imitators):
    """The bound of all demonstrations lies above that of the first ten, on the whole."""
    few = dataclasses.replace(imitators, fitted=imitators.fitted[:10])
    sums = [laplace(one).covariance.over_actions.diagonal().sum() for one in (few, imitators)]
    assert sums[0] > sums[1]


@pytest.mark.parametrize("level", [0.0, 0.6, math.nan])
def test_no_such_level(level):
    with pytest.raises(InputError, match="level"):
        Laplace(Curvature(torch.eye(1), torch.eye(1)), torch.arange(1), level)
