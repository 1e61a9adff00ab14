"""One member as base."""

import torch

from mightnt.lm.bases.single import Single
from tests.lm.toys import said

STEP = said(
    networks=[[[0.5, 0.5], [0.1, 0.9]], [[0.3, 0.7], [0.2, 0.8]]],
    counts=[[0.4, 0.6], [1.0, 0.0]],
)


def test_it_is_the_first_network():
    base = Single()
    assert torch.equal(base.predict(base.start(2), STEP), STEP.networks[0])


def test_or_the_counts():
    base = Single("counts", of_counts=True)
    assert torch.equal(base.predict(base.start(2), STEP), STEP.counts)
    assert base.name == "counts"


def test_it_has_no_state():
    base = Single()
    state = base.start(3)
    assert state.shape == (3, 0)
    own = torch.tensor([True, False, True])
    assert base.advance(state, STEP, torch.tensor([0, 1, 0]), own).shape == (3, 0)
