"""What is kept of one, and one token's log-probability."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mightnt.lm.bases.contract import log_kept, pick
from tests.strategies import seeds


@pytest.mark.parametrize(
    ("nu", "kept"),
    [([0.5, 0.25], 0.75), ([0.5, 0.5], 1.0), ([0.0, 0.0], 0.0), ([1.0, 0.0], 1.0), ([1e-300, 0], 1e-300)],
)
def test_what_is_kept_by_hand(nu, kept):
    log_nu = torch.tensor([nu], dtype=torch.float64).log()
    assert float(log_kept(log_nu).exp()) == pytest.approx(kept, rel=1e-12)


def test_nothing_kept_is_minus_infinity_and_more_than_one_is_one():
    assert float(log_kept(torch.full((1, 3), -torch.inf))) == -math.inf
    assert float(log_kept(torch.tensor([0.5, 0.5 + 1e-12]).double().log())) == 0.0


@given(seeds, st.integers(1, 4), st.integers(1, 5), st.integers(1, 6))
def test_pick_takes_each_rows_token_from_every_member(seed, members, rows, n_tokens):
    rng = np.random.default_rng(seed)
    table, tokens = rng.normal(size=(members, rows, n_tokens)), rng.integers(n_tokens, size=rows)
    picked = pick(torch.from_numpy(table), torch.from_numpy(tokens))
    assert picked.tolist() == [[member[row, tokens[row]] for row in range(rows)] for member in table]
    assert pick(torch.from_numpy(table[0]), torch.from_numpy(tokens)).tolist() == picked[0].tolist()
