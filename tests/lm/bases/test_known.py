"""The demonstrator itself as base."""

import pytest
import torch

from mightnt.lm.bases.known import Known
from tests.lm.toys import said


def test_it_is_the_demonstrator_and_has_no_state():
    step = said([[[0.5, 0.5]]], demonstrator=[[0.25, 0.75]])
    base = Known()
    state = base.start(1)
    assert torch.equal(base.predict(state, step), step.demonstrator)
    assert base.advance(state, step, torch.tensor([0]), torch.tensor([True])).shape == (1, 0)


def test_a_scene_that_knows_no_demonstrator_does_not_fit():
    with pytest.raises(AssertionError, match="not known"):
        Known().predict(Known().start(1), said([[[0.5, 0.5]]]))
