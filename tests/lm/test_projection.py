"""The projection meets its allotment, never exceeds it, and its gradients are those of finite differences.

The oracle is scipy's brentq on lambda, in numpy, from the definition alone.
"""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import logsumexp

from mightnt.errors import InputError
from mightnt.lm import projection
from mightnt.lm.bases.contract import pick
from mightnt.lm.full_kl import kl_step_nats
from mightnt.lm.projection import choices_after_tilt, tilt_to_kl

INF = float("inf")
EXCESS_NATS = 1e-6
DTYPES = [torch.float32, torch.float64]


def spent_nats(log_policy, log_base):
    """KL to the normalized base, in float64."""
    return kl_step_nats(log_policy.double(), log_base.double().log_softmax(-1))


def supremum_nats(log_base, direction):
    share = log_base.double().softmax(-1)
    seen = direction.masked_fill(log_base == -INF, -INF)
    return -(share * (seen == seen.amax(-1, keepdim=True))).sum(-1).log()


def oracle(log_base, direction, kl_nats):
    """The tilt of one row by brentq, in numpy; needs a reachable allotment."""
    log_base, direction = (np.asarray(x, dtype=np.float64) for x in (log_base, direction))
    support = np.isfinite(log_base)
    q = log_base[support] - logsumexp(log_base[support])
    d = direction[support] / np.ptp(direction[support])

    def tilted(tilt):
        return q + tilt * d - logsumexp(q + tilt * d)

    def excess(tilt):
        log_p = tilted(tilt)
        return np.exp(log_p) @ (log_p - q) - kl_nats

    top = 1.0
    while excess(top) < 0:
        top *= 2
    answer = np.full(log_base.shape, -np.inf)
    answer[support] = tilted(brentq(excess, 0, top, xtol=1e-14, rtol=1e-14))
    return answer


def random_case(rows, n_symbols, dtype, seed, *, base_scale=3.0, zeros=0.0):
    dice = torch.Generator().manual_seed(seed)
    base = torch.randn(rows, n_symbols, generator=dice, dtype=torch.float64) * base_scale
    base[:, 1:] = base[:, 1:].masked_fill(torch.rand(rows, n_symbols - 1, generator=dice) < zeros, -INF)
    direction = torch.randn(rows, n_symbols, generator=dice, dtype=torch.float64)
    kl_nats = 10 ** (torch.rand(rows, generator=dice, dtype=torch.float64) * 5 - 4)
    return base.log_softmax(-1).to(dtype), direction.to(dtype), kl_nats.to(dtype)


def check_contract(base, direction, kl_nats, log_policy):
    """What holds for every input: a distribution on the base's support, an allotment met from below."""
    assert torch.equal(log_policy == -INF, base == -INF) or not (log_policy[base == -INF] > -INF).any()
    assert log_policy.double().exp().sum(-1).sub(1).abs().max() < 1e-6
    allowed = kl_nats.double()
    spent = spent_nats(log_policy, base)
    assert (spent <= allowed + EXCESS_NATS).all(), f"exceeded by {(spent - allowed).max():.2g}"
    return spent


# The allotment is met


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_symbols", [2, 7, 100])
@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_spends_the_allotment_or_all_that_is_reachable(dtype, n_symbols, zeros):
    for seed, base_scale in enumerate((0.0, 1.0, 6.0)):
        base, direction, kl_nats = random_case(300, n_symbols, dtype, seed, base_scale=base_scale, zeros=zeros)
        spent = check_contract(base, direction, kl_nats, tilt_to_kl(base, direction, kl_nats))
        wanted = torch.minimum(kl_nats.double(), supremum_nats(base, direction).clamp(min=0))
        short = wanted - spent
        tolerance = 1e-6 if dtype == torch.float64 else 2e-6 * (1 + wanted)
        assert (short < tolerance).all(), f"short by {short.max():.2g}"


def test_agrees_with_brentq():
    base, direction, kl_nats = random_case(60, 12, torch.float64, 3, zeros=0.3)
    reachable = kl_nats < 0.99 * supremum_nats(base, direction)
    assert reachable.sum() > 30
    for row in reachable.nonzero().squeeze(-1).tolist():
        got = tilt_to_kl(base[row], direction[row], kl_nats[row]).numpy()
        np.testing.assert_allclose(got, oracle(base[row], direction[row], kl_nats[row].item()), rtol=1e-7, atol=1e-9)


def test_hand_computed_two_symbols():
    base = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    kl_nats = torch.tensor(math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1), dtype=torch.float64)
    for size in (1.0, 7.0, 1e-12, 1e12):
        policy = tilt_to_kl(base, torch.tensor([size, 0.0], dtype=torch.float64), kl_nats).exp()
        assert policy.tolist() == pytest.approx([0.9, 0.1], abs=1e-9)
    assert tilt_to_kl(base, torch.tensor([0.0, 1.0], dtype=torch.float64), kl_nats).exp()[1].item() == pytest.approx(
        0.9
    )


finite = st.floats(-1e3, 1e3, allow_nan=False, width=32)
log_share = st.one_of(st.just(-INF), st.floats(-900, 0), st.floats(-12, 0))


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(log_share, finite), min_size=1, max_size=8),
    st.one_of(st.just(0.0), st.floats(1e-12, 1e-6), st.floats(0, 3), st.floats(0, 1e6)),
    st.sampled_from([1.0, 1e-30, 1e30]),
    st.sampled_from(DTYPES),
)
def test_never_exceeds_and_never_nan(symbols, kl_nats, size, dtype):
    base = torch.tensor([b for b, _ in symbols], dtype=dtype)
    assume((base > -INF).any())
    direction = (torch.tensor([d for _, d in symbols], dtype=torch.float64) * size).to(dtype).requires_grad_()
    allotment = torch.tensor(kl_nats, dtype=dtype, requires_grad=True)
    log_policy = tilt_to_kl(base, direction, allotment)
    check_contract(base, direction.detach(), allotment.detach(), log_policy.detach())
    weights = torch.arange(len(symbols), dtype=dtype) - 1
    (log_policy.masked_fill(base == -INF, 0.0) * weights).sum().backward()
    assert direction.grad.isfinite().all()
    assert allotment.grad.isfinite()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.floats(1e-3, 1.0), st.floats(1.0, 3.0))
def test_a_larger_allotment_goes_further_the_same_way(seed, kl_nats, factor):
    base, direction, _ = random_case(1, 6, torch.float64, seed)
    little, much = (tilt_to_kl(base, direction, torch.tensor([kl_nats * f]).double()) for f in (1.0, factor))
    assert spent_nats(much, base) >= spent_nats(little, base) - 1e-9
    best = direction.argmax()
    assert much[0, best] >= little[0, best] - 1e-9


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.floats(-1e3, 1e3), st.floats(1e-6, 1e6))
def test_only_the_shape_of_a_direction_matters(seed, offset, size):
    base, direction, kl_nats = random_case(4, 6, torch.float64, seed)
    moved = tilt_to_kl(base, direction * size + offset * size, kl_nats)
    torch.testing.assert_close(moved, tilt_to_kl(base, direction, kl_nats), rtol=1e-6, atol=1e-6)


def test_directions_smaller_than_any_normal_number_have_finite_gradients():
    base = torch.zeros(3, dtype=torch.float64)
    direction = torch.tensor([3e-320, 1e-320, 0.0], dtype=torch.float64, requires_grad=True)
    policy = tilt_to_kl(base, direction, torch.tensor(0.3, dtype=torch.float64))
    torch.testing.assert_close(policy, tilt_to_kl(base, torch.tensor([3.0, 1.0, 0.0]).double(), torch.tensor(0.3)))
    for weight in (1.0, 0.0):
        (gradient,) = torch.autograd.grad(policy[1] * weight, direction, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient.any() == bool(weight)


# Edges


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_allotted_is_the_normalized_base_exactly(dtype):
    base, direction, kl_nats = random_case(5, 9, dtype, 0, zeros=0.3)
    direction.requires_grad_()
    nothing = torch.zeros_like(kl_nats, requires_grad=True)
    log_policy = tilt_to_kl(base - 0.7, direction, nothing)
    assert torch.equal(log_policy, (base - 0.7).double().log_softmax(-1).to(dtype))
    log_policy[base > -INF].square().sum().backward()
    assert not direction.grad.any()
    assert not nothing.grad.any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_missing_mass_of_the_base_changes_nothing_and_is_left_to_the_ledger(dtype):
    base, direction, kl_nats = random_case(50, 9, dtype, 1)
    floor = 0.3
    log_policy = tilt_to_kl(base - floor, direction, kl_nats)
    torch.testing.assert_close(log_policy, tilt_to_kl(base, direction, kl_nats), rtol=1e-5, atol=1e-6)
    charged = kl_step_nats(log_policy.double(), base.double() - floor)
    assert (charged <= floor + kl_nats + 2e-6).all()
    reachable = kl_nats < 0.9 * supremum_nats(base, direction)
    assert charged[reachable].double().tolist() == pytest.approx((floor + kl_nats)[reachable].tolist(), abs=3e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_constant_direction_or_a_single_symbol_gives_the_base_and_no_gradient(dtype):
    base = torch.tensor([[0.2, 0.3, 0.5], [0.4, 0.0, 0.0], [0.5, 0.5, 0.0]], dtype=dtype).log()
    direction = torch.tensor([[4.0, 4.0, 4.0], [1.0, 9.0, -3.0], [2.0, 2.0, 7.0]], dtype=dtype, requires_grad=True)
    kl_nats = torch.tensor([1.0, 2.0, 3.0], dtype=dtype, requires_grad=True)
    log_policy = tilt_to_kl(base, direction, kl_nats)
    torch.testing.assert_close(log_policy, base.log_softmax(-1))
    log_policy[base > -INF].sum().backward()
    assert not direction.grad.any()
    assert not kl_nats.grad.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kl_nats", [1.0, 50.0, 1e30])
def test_an_unreachable_allotment_goes_as_far_as_it_can(dtype, kl_nats):
    base = torch.tensor([0.5, 0.3, 0.2], dtype=dtype).log()
    direction = torch.tensor([1.0, 1.0, 0.0], dtype=dtype)
    allotment = torch.tensor(kl_nats, dtype=dtype, requires_grad=True)
    log_policy = tilt_to_kl(base, direction, allotment)
    assert spent_nats(log_policy.detach(), base).item() == pytest.approx(-math.log(0.8), abs=1e-6)
    assert log_policy.exp().tolist() == pytest.approx([0.625, 0.375, 0.0], abs=1e-6)
    assert log_policy[2] > -40, "lambda stays finite"
    log_policy[0].backward()
    assert allotment.grad == 0


def test_what_the_direction_says_where_the_base_has_no_mass_is_ignored():
    base = torch.tensor([0.4, 0.6, 0.0], dtype=torch.float64).log()
    kl_nats = torch.tensor(0.1, dtype=torch.float64)
    policies = []
    for silly in (0.0, 1e300, -INF, float("nan")):
        direction = torch.tensor([1.0, 0.0, silly], dtype=torch.float64, requires_grad=True)
        policy = tilt_to_kl(base, direction, kl_nats)
        policy[0].backward()
        assert direction.grad.isfinite().all()
        assert direction.grad[2] == 0
        policies.append(policy.detach())
    assert all(torch.equal(policy, policies[0]) for policy in policies)
    assert policies[0][2] == -INF


def test_a_symbol_too_faint_for_float64_is_carried_along_but_never_sought():
    base = torch.tensor([0.0, 0.0, -800.0], dtype=torch.float64)
    direction = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    policy = tilt_to_kl(base, direction, torch.tensor(0.1, dtype=torch.float64))
    without = tilt_to_kl(base[:2], direction[:2], torch.tensor(0.1, dtype=torch.float64))
    torch.testing.assert_close(policy[:2], without)
    assert -900 < policy[2] < -700
    policy[2].backward()
    assert direction.grad[2] == 0
    assert direction.grad[0] != 0


def test_gradients_that_come_in_where_the_policy_is_nothing_are_dropped():
    base = torch.tensor([0.4, 0.6, 0.0], dtype=torch.float64).log()
    direction = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    policy = tilt_to_kl(base, direction, torch.tensor(0.1, dtype=torch.float64))
    (got,) = torch.autograd.grad(
        policy, direction, torch.tensor([1.0, 0.0, INF], dtype=torch.float64), retain_graph=True
    )
    (wanted,) = torch.autograd.grad(policy, direction, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_empty_batches(dtype):
    for shape in ((0, 5), (3, 0, 5)):
        direction = torch.empty(shape, dtype=dtype, requires_grad=True)
        kl_nats = torch.empty(shape[:-1], dtype=dtype)
        log_policy = tilt_to_kl(torch.empty(shape, dtype=dtype), direction, kl_nats)
        assert log_policy.shape == shape
        log_policy.sum().backward()


def test_leading_shapes_are_rows():
    base, direction, kl_nats = random_case(12, 5, torch.float64, 4)
    flat = tilt_to_kl(base, direction, kl_nats)
    shaped = tilt_to_kl(base.reshape(3, 4, 5), direction.reshape(3, 4, 5), kl_nats.reshape(3, 4))
    assert torch.equal(shaped.reshape(12, 5), flat)
    assert torch.equal(tilt_to_kl(base[0], direction[0], kl_nats[0]), flat[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_large_vocabulary(dtype):
    base, direction, kl_nats = random_case(4, 32_000, dtype, 5)
    uniform = torch.full_like(base, -math.log(32_000))
    two_valued = (torch.arange(32_000) < 11_000).to(dtype).expand_as(base)
    for b, d in ((base, direction), (uniform, direction), (uniform, two_valued)):
        spent = check_contract(b, d, kl_nats, tilt_to_kl(b, d, kl_nats))
        short = torch.minimum(kl_nats.double(), supremum_nats(b, d)) - spent
        assert (short < (1e-6 if dtype == torch.float64 else 2e-6 * (1 + kl_nats))).all()


def test_float32_aims_lower_where_rounding_would_exceed_the_allotment():
    """A policy that is flat on hundreds of improbable symbols: all its log-probabilities are rounded the same way."""
    kl_nats, worst = torch.tensor(22.0), 0.0
    for n_sought in range(300, 700, 7):
        base = torch.cat([torch.zeros(1), torch.full((n_sought,), -28.0)]).log_softmax(-1)
        direction = (torch.arange(n_sought + 1) > 0).float()
        unrounded = tilt_to_kl(base.double(), direction, kl_nats)
        worst = max(worst, (spent_nats(unrounded.float(), base) - kl_nats).item())
        check_contract(base, direction, kl_nats, tilt_to_kl(base, direction, kl_nats))
    assert worst > 3e-6, "rounding alone would not have exceeded it, so this test shows nothing"


def test_a_symbol_that_carries_the_kl_alone_is_no_exception():
    base = torch.tensor([0.0, -205.0722])
    for kl_nats in torch.linspace(20, 25, 200):
        direction = torch.tensor([0.0, 1.0])
        check_contract(base, direction, kl_nats, tilt_to_kl(base, direction, kl_nats))


def test_rows_that_never_converge_stay_below_their_allotment(monkeypatch):
    base, direction, kl_nats = random_case(200, 20, torch.float64, 6)
    kl_nats[::4] = 1e-12
    exact = spent_nats(tilt_to_kl(base, direction, kl_nats), base)
    for steps in (1, 2, 3):
        monkeypatch.setattr(projection, "STEPS_MOST", steps)
        spent = check_contract(base, direction, kl_nats, tilt_to_kl(base, direction, kl_nats))
        assert (spent < exact - 1e-3).any(), "the cap was not felt, so this test shows nothing"
        assert (spent[::4] > 0.5e-12).all(), "rows that had converged keep their solution"


def test_root_finding_is_short(monkeypatch):
    passes = []
    counted = projection._cumulants
    monkeypatch.setattr(projection, "_cumulants", lambda *a: passes.append(len(a[2])) or counted(*a))
    for seed in range(5):
        base, direction, kl_nats = random_case(300, 100, torch.float64, seed)
        tilt_to_kl(base, direction, kl_nats)
    assert sum(passes) / 1500 < 4, "passes a row, those over rows that had been done included"
    assert len(passes) / 5 < 10, "passes of the slowest row"


def test_prints_and_warns_nothing(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for zeros in (0.0, 0.9):
            base, direction, kl_nats = random_case(300, 10, torch.float32, 7, zeros=zeros)
            tilt_to_kl(base, direction, kl_nats)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_rows_worked_on_a_few_at_a_time_come_to_the_same_bit_by_bit(dtype, zeros, monkeypatch):
    """One row at a time, three at a time (which leaves one over) and all at once: results, gradients, and who is refused."""
    base, direction, kl_nats = random_case(40, 9, dtype, 11, zeros=zeros)
    kl_nats[::5] = 0.0
    answers = []
    for at_once in (1, 27, 10_000):
        monkeypatch.setattr(projection, "NUMBERS_AT_ONCE", at_once)
        inputs = direction.clone().requires_grad_(), kl_nats.clone().requires_grad_()
        policy = tilt_to_kl(base, *inputs)
        weights = torch.arange(9, dtype=dtype) - 3
        gradients = torch.autograd.grad((policy.masked_fill(base == -INF, 0.0) * weights).sum(), inputs)
        answers.append((policy.detach(), *gradients))
        bad = kl_nats.clone()
        bad[38] = -1.0
        with pytest.raises(InputError, match="row 38: the allotment"):
            tilt_to_kl(base, direction, bad)
    for few in answers[:-1]:
        assert all(torch.equal(one, all_at_once) for one, all_at_once in zip(few, answers[-1], strict=True))


# Gradients


@pytest.mark.parametrize("zeros", [0.0, 0.4])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_gradients_agree_with_finite_differences(zeros, size):
    base, direction, kl_nats = random_case(40, 5, torch.float64, 8, base_scale=1.0, zeros=zeros)
    kl_nats = kl_nats.clamp(1e-2, 1.0)
    reachable = kl_nats < 0.9 * supremum_nats(base, direction)
    assert reachable.sum() > 15
    base, direction, kl_nats = base[reachable][:15], direction[reachable][:15], kl_nats[reachable][:15]
    supported = base > -INF

    def policy(unscaled, kl_nats):
        return tilt_to_kl(base, unscaled * size, kl_nats)[supported]

    inputs = direction.requires_grad_(), kl_nats.requires_grad_()
    assert torch.autograd.gradcheck(policy, inputs, eps=1e-5, atol=1e-4, rtol=1e-4)


def test_gradient_of_a_hand_computed_case():
    """Two symbols, base 1/2 each, result (p, 1 - p): dKL/dp = log(p / (1 - p)), whatever the direction's size."""
    base = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    direction = torch.tensor([3.0, 0.0], dtype=torch.float64, requires_grad=True)
    kl_nats = torch.tensor(math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1), dtype=torch.float64)
    kl_nats.requires_grad_()
    tilt_to_kl(base, direction, kl_nats)[0].exp().backward()
    assert kl_nats.grad.item() == pytest.approx(1 / math.log(9), abs=1e-7)
    assert direction.grad.tolist() == pytest.approx([0, 0], abs=1e-7), "the size of a direction does not matter"


def test_the_gradient_to_a_small_allotment_follows_the_root_and_is_damped_to_zero():
    base, direction, _ = random_case(1, 5, torch.float64, 9)

    def slope(kl_nats):
        allotment = torch.tensor([kl_nats], dtype=torch.float64, requires_grad=True)
        tilt_to_kl(base, direction, allotment)[0, 0].backward()
        return allotment.grad.item()

    assert slope(1e-7) / slope(1e-5) == pytest.approx(10, rel=0.05), "1 / sqrt(kl) above the damping"
    assert slope(1e-12) / slope(1e-10) == pytest.approx(0.1, rel=0.01), "kl / sqrt(kl) below it"
    assert slope(1e-8) == pytest.approx(slope(1.01e-8), rel=0.02), "continuous where it starts"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("zeros", [0.0, 0.5])
@pytest.mark.parametrize("at_once", [1, 27, 10_000])
def test_a_choice_after_the_tilt_is_picked_from_the_whole_of_it(dtype, zeros, at_once, monkeypatch):
    """Values and gradients are those of the long way round: with nothing to spend, beyond reach, and with one symbol left."""
    monkeypatch.setattr(projection, "NUMBERS_AT_ONCE", at_once)
    base, direction, kl_nats = random_case(60, 9, torch.float64, 12, zeros=zeros)
    base[:3, 1:] = -INF
    kl_nats[::5], kl_nats[1::7] = 0.0, 50.0
    choice = torch.multinomial(base.exp(), 1, generator=torch.Generator().manual_seed(0)).squeeze(1)
    weights = torch.linspace(-2, 3, 60, dtype=torch.float64), torch.linspace(1, -1, 60, dtype=torch.float64)
    answers = []
    for short in (False, True):
        inputs = direction.to(dtype).requires_grad_(), kl_nats.clone().requires_grad_()
        if short:
            said, spent = choices_after_tilt(base, *inputs, choice)
        else:
            policy = tilt_to_kl(base, *inputs)
            said, spent = pick(policy, choice), kl_step_nats(policy, base.log_softmax(-1))
        loss = (said * weights[0] + spent * weights[1]).sum()
        answers.append((said.detach(), spent.detach(), *torch.autograd.grad(loss, inputs)))
    for long, short in zip(*answers, strict=True):
        torch.testing.assert_close(short, long, atol=2e-6 if dtype == torch.float32 else 1e-7, rtol=1e-6)
    assert answers[1][2].abs().max() > 0.1
    assert answers[1][3].abs().max() > 0.1


def test_choices_after_a_tilt_have_the_shape_of_the_allotments():
    base, direction, kl_nats = random_case(6, 5, torch.float64, 13)
    said, spent = choices_after_tilt(
        base.view(2, 3, 5), direction.view(2, 3, 5), kl_nats.view(2, 3), torch.zeros(2, 3, dtype=torch.int64)
    )
    torch.testing.assert_close(said, tilt_to_kl(base, direction, kl_nats)[:, 0].view(2, 3))
    assert spent.shape == (2, 3)
    nothing = choices_after_tilt(base[:0], direction[:0], kl_nats[:0], torch.zeros(0, dtype=torch.int64))
    assert [part.shape for part in nothing] == [(0,), (0,)]
    with pytest.raises(InputError, match="got a base of shape"):
        choices_after_tilt(base, direction[:, :4], kl_nats, torch.zeros(6, dtype=torch.int64))


def test_a_gradient_step_can_learn_a_target_within_the_budget():
    """The use it is made for: logits and spending learned together come to what a larger allotment alone would not."""
    base = torch.zeros(6, dtype=torch.float64).log_softmax(-1)
    dice = torch.Generator().manual_seed(0)
    direction = torch.randn(6, generator=dice, dtype=torch.float64).requires_grad_()
    share = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([direction, share], lr=0.1)
    for _ in range(80):
        policy = tilt_to_kl(base, direction, torch.sigmoid(share) * 0.8).exp()
        loss = -policy[2]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    best = oracle(base, np.eye(6)[2], 0.8)
    assert policy[2].item() == pytest.approx(math.exp(best[2]), abs=0.02), "all spent, on the one symbol that pays"


# Refusals


@pytest.mark.parametrize("kl_nats", [-1e-9, float("nan"), INF])
def test_allotments_that_are_no_number_of_nats_are_refused(kl_nats):
    base, direction, allotments = random_case(3, 4, torch.float64, 0)
    allotments[1] = kl_nats
    with pytest.raises(InputError, match=r"row 1: the allotment is .* >= 0"):
        tilt_to_kl(base, direction, allotments)


@pytest.mark.parametrize("bad", [float("nan"), INF, -INF])
def test_directions_that_are_not_finite_where_it_counts_are_refused(bad):
    base, direction, kl_nats = random_case(3, 4, torch.float64, 0)
    direction[2, 1] = bad
    with pytest.raises(InputError, match="row 2: the direction"):
        tilt_to_kl(base, direction, kl_nats)


@pytest.mark.parametrize("bad", [[-INF] * 4, [float("nan"), 0.0, 0.0, 0.0], [INF, 0.0, 0.0, 0.0]])
def test_bases_without_mass_or_with_nan_are_refused(bad):
    base, direction, kl_nats = random_case(3, 4, torch.float64, 0)
    base[0] = torch.tensor(bad)
    with pytest.raises(InputError, match="row 0: the base"):
        tilt_to_kl(base, direction, kl_nats)


def test_shapes_and_dtypes_that_do_not_fit_are_refused():
    base, direction, kl_nats = random_case(3, 4, torch.float64, 0)
    for wrong in ((base[:, :3], direction, kl_nats), (base, direction, kl_nats[:2]), (base, direction, kl_nats[0])):
        with pytest.raises(InputError, match="needed are"):
            tilt_to_kl(*wrong)
    with pytest.raises(InputError, match="needed are"):
        tilt_to_kl(base[:, :0], direction[:, :0], kl_nats)
    with pytest.raises(InputError, match="float32 or float64"):
        tilt_to_kl(base.bfloat16(), direction.bfloat16(), kl_nats)
