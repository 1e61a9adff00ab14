"""What everybody says at many places: lists and blocks against members asked place by place."""

import numpy as np
import pytest
import torch

from mightnt.errors import InputError
from mightnt.lm.bases.lower_bound import lower_counts
from mightnt.lm.bases.single import Single
from mightnt.lm.members import with_counts
from mightnt.lm.panel import Asks, suffixes_at
from mightnt.lm.reference import Reference
from mightnt.models.counts import BEFORE_START
from tests.lm.test_sequences import COUNTS, IS_ACTION, LENGTH, NETWORKS, SITUATIONS, SUPPORT, N

TOKENS = torch.from_numpy(np.random.default_rng(4).integers(0, N, size=(3, LENGTH)))
ROW, PLACE = torch.tensor([0, 2, 1, 1, 2]), torch.tensor([1, 3, 3, 7, 11])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("counts", [COUNTS, lower_counts(COUNTS, ample=20)], ids=["counts", "lower bounds"])
@torch.no_grad()
def test_blocks_and_lists_say_what_members_say(dtype, counts):
    """Also counts of a kind of their own, which have no lists."""
    ours = Reference(NETWORKS, Single(), is_action=IS_ACTION, counts=counts, support=SUPPORT, situations=SITUATIONS)
    panel = ours.panel
    read = panel.read(TOKENS)
    heard = panel.hear(read, TOKENS, ROW, PLACE, Asks(dtype))
    expected = with_counts(
        torch.stack(panel.spoken([states[ROW, PLACE - 1] for states in read], torch.float64)),
        suffixes_at(TOKENS, ROW, PLACE, counts.longest),
        read[0][ROW, PLACE - 1],
        counts,
        SUPPORT,
        SITUATIONS,
    )
    some = torch.tensor([0, 2, 3])
    step, close = heard.written_out(some), {"atol": 2e-6, "rtol": 2e-6, "check_dtype": False}
    assert step.networks.dtype == step.counts.dtype == step.situations.dtype == dtype
    torch.testing.assert_close(step.networks, expected.networks[:, some], **close)
    torch.testing.assert_close(step.counts, expected.counts[some], **close)
    torch.testing.assert_close(step.situations, expected.situations[some], **close)
    assert torch.equal(step.supported, expected.supported[some])
    assert torch.equal(step.hidden, expected.hidden[some])
    codes = np.array([3, N + 1, N + 2, 4 * N])
    one, place, token = heard.at(codes), codes // N, codes % N
    assert one.networks.dtype == torch.float64
    torch.testing.assert_close(one.networks[..., 0], expected.networks[:, place, token], **close)
    torch.testing.assert_close(one.counts[:, 0], expected.counts[place, token], **close)
    torch.testing.assert_close(one.situations[:, 0], expected.situations[place, token], **close)
    assert torch.equal(one.supported[:, 0], expected.supported[place, token])
    assert torch.equal(one.hidden, expected.hidden[place])


def test_suffixes_do_not_reach_before_the_start():
    tokens = torch.tensor([[5, 6, 7, 8]])
    found = suffixes_at(tokens, torch.tensor([0, 0]), torch.tensor([1, 3]), 2)
    assert found.tolist() == [[BEFORE_START, 5], [6, 7]]


def test_nan_is_refused_by_the_number_of_the_network():
    panel = Reference(NETWORKS[:1], Single(), is_action=IS_ACTION).panel
    with pytest.raises(InputError, match="network 0 says NaN"):
        panel.spoken([torch.full((2, 16), torch.nan)], torch.float32)
