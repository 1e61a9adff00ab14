"""A base that begins anew with every turn."""

import pytest
import torch

from mightnt.lm.bases.trajectory import Trajectory
from mightnt.lm.bases.turn import Turn
from tests.lm.toys import said

END = 1


def test_the_state_is_fresh_after_the_end_of_a_turn_and_the_bases_before():
    """Three rows say 0, the end, and 0 again; the second row's turn is over and it alone starts anew."""
    inner, step = Trajectory(2), said([[[0.8, 0.2]] * 3], [[0.2, 0.8]] * 3)
    base = Turn(inner, END)
    tokens, own = torch.tensor([0, END, 0]), torch.tensor([True, True, False])
    state = base.advance(base.start(3), step, tokens, own)
    assert torch.equal(state[[0, 2]], inner.advance(inner.start(3), step, tokens, own)[[0, 2]])
    assert torch.equal(state[1], inner.start(1)[0])
    ended = base.advance(state, step, torch.full((3,), END), torch.tensor([True, False, True]))
    assert torch.equal(ended, base.start(3)), "also where the demonstrator ended it"
    assert torch.equal(base.predict(state, step), inner.predict(state, step))


def test_one_turn_earns_no_credit_for_the_next():
    """The turn "end" is .2 by one member and .8 by the other; then 0 is min(.8, 4 x .2) by episodes, .2 by turns."""
    inner, step = Trajectory(2), said([[[0.8, 0.2]]], [[0.2, 0.8]])
    for base, second in ((inner, 0.8), (Turn(inner, END), 0.2)):
        state = base.advance(base.start(1), step, torch.tensor([END]), torch.tensor([True]))
        assert float(base.predict(state, step)[0, 0].exp()) == pytest.approx(second)
