import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mightnt.lm.logs import exp_of, log_sums

INF = math.inf
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@BOTH
def test_exp_of_is_that_of_torch_down_to_the_smallest_normal_numbers(dtype):
    least = math.log(torch.finfo(dtype).tiny) + 2.2
    logs = torch.linspace(least, 5.0, 1001, dtype=dtype)
    torch.testing.assert_close(exp_of(logs), logs.exp(), rtol=4 * torch.finfo(dtype).eps, atol=0)


@BOTH
def test_exp_of_what_is_smaller_is_zero(dtype):
    nothing = math.log(torch.finfo(dtype).tiny)
    logs = torch.tensor([-INF, 10 * nothing, nothing - 3, nothing, nothing + 0.9], dtype=dtype)
    assert (exp_of(logs) == 0).all()


def test_exp_of_leaves_its_argument_alone_and_nan_nan():
    logs = torch.tensor([-INF, 0.0, math.nan, INF])
    before = logs.clone()
    found = exp_of(logs)
    torch.testing.assert_close(logs, before, equal_nan=True)
    assert found.tolist()[:2] == [0.0, 1.0]
    assert found[2].isnan()
    assert found[3] == INF


@given(st.lists(st.lists(st.sampled_from([-INF, -1e4, -90.0, -3.0, 0.0, 50.0]), min_size=3, max_size=3), max_size=4))
def test_log_sums_are_those_of_torch(rows):
    for dtype in (torch.float32, torch.float64):
        logs = torch.tensor(rows, dtype=dtype).reshape(-1, 3)
        torch.testing.assert_close(log_sums(logs), logs.logsumexp(-1), rtol=1e-6, atol=1e-6)
    assert log_sums(torch.tensor([[0.0, math.nan]])).isnan().all()
