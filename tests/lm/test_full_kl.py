"""The full-vocabulary KL: a loop in plain Python as its oracle, the edges 0 and inf, gradients without NaN."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.lm.full_kl import kl_step_nats

INF = float("inf")


def kl_by_hand(policy, base):
    total = 0.0
    for p, b in zip(policy, base, strict=True):
        if p > 0:
            total += INF if b == 0 else p * (math.log(p) - math.log(b))
    return total


def logs(probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_hand_computed_numbers():
    assert kl_step_nats(logs([0.5, 0.5]), logs([0.25, 0.75])).item() == pytest.approx(0.5 * math.log(4 / 3))
    assert kl_step_nats(logs([0.3, 0.7]), logs([0.3, 0.7])).item() == 0


def test_missing_mass_of_the_base_is_charged():
    policy, base = logs([0.3, 0.7]), logs([0.15, 0.35])
    assert kl_step_nats(policy, base).item() == pytest.approx(math.log(2)), "the floor -log(1 - theta), theta = 1/2"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=6))
def test_agrees_with_a_loop(weights):
    policy, base = ([w[i] / (sum(x[i] for x in weights) + 1) for w in weights] for i in (0, 1))
    assert kl_step_nats(logs(policy), logs(base)).item() == pytest.approx(kl_by_hand(policy, base), abs=1e-12)


@pytest.mark.parametrize("shape", [(4,), (2, 4), (3, 2, 4), (0, 4)])
def test_any_leading_shape(shape):
    policy = torch.randn(shape, dtype=torch.float64).log_softmax(-1)
    base = torch.randn(shape, dtype=torch.float64).log_softmax(-1)
    kl = kl_step_nats(policy, base)
    assert kl.shape == shape[:-1]
    rows = zip(policy.reshape(-1, 4).exp().tolist(), base.reshape(-1, 4).exp().tolist(), strict=True)
    assert kl.reshape(-1).tolist() == pytest.approx([kl_by_hand(p, b) for p, b in rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_log_zero_is_zero_and_policy_on_nothing_is_inf(dtype):
    policy = torch.tensor(
        [[0.0, -INF, -INF], [-1.0, math.log(1 - math.exp(-1)), -INF], [-800.0, 0.0, -INF]], dtype=dtype
    )
    base = torch.tensor([[math.log(0.5), -INF, math.log(0.5)], [-INF, 0.0, -INF], [-INF, 0.0, -INF]], dtype=dtype)
    kl = kl_step_nats(policy, base)
    assert kl.dtype == dtype
    assert kl[0].item() == pytest.approx(math.log(2))
    assert kl[1].item() == INF
    assert kl[2].item() == INF, "a probability that underflows is still above zero"


def test_gradients_are_those_of_finite_differences_and_never_nan():
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    base = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([False, False, False, True, True])

    def kl(logits, base):
        policy = logits.masked_fill(mask, -INF).log_softmax(-1)
        return kl_step_nats(policy, base.masked_fill(torch.arange(5) == 4, -INF))

    assert torch.autograd.gradcheck(kl, (logits, base))


def test_a_row_that_is_inf_has_zero_gradient_and_leaves_the_others_alone():
    policy = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log().requires_grad_()
    base = torch.tensor([[1.0, 0.0], [0.25, 0.75]]).log().requires_grad_()
    kl_step_nats(policy, base).sum().backward()
    assert policy.grad[0].tolist() == base.grad[0].tolist() == [0, 0]
    assert base.grad[1].tolist() == pytest.approx([-0.5, -0.5])
    assert policy.grad[1].tolist() == pytest.approx([0.5 * (math.log(2) + 1), 0.5 * (math.log(2 / 3) + 1)])


@pytest.mark.parametrize("bad", [float("nan"), INF])
def test_nan_and_plus_inf_are_refused(bad):
    good = torch.tensor([0.5, 0.5]).log()
    with pytest.raises(InputError, match="NaN"):
        kl_step_nats(torch.tensor([bad, 0.0]), good)
    with pytest.raises(InputError, match="NaN"):
        kl_step_nats(good, torch.tensor([bad, 0.0]))
