"""The fused kernel against the way without it, in float64. Without a GPU its programs are interpreted, one after the other:
that needs TRITON_INTERPRET=1 from the start, since transformers loads triton where it is installed.
"""

import os
import subprocess
import sys
import threading
import time
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.errors import ContractError, InputError
from mightnt.lm import fused
from mightnt.lm.fused import kl_by_kernel_nats, vouched_by_kernel
from mightnt.lm.vocabulary import Vouched, vouched_by_logits, vouched_kl_nats

pytest.importorskip("triton", reason='triton is not installed: pip install "mightnt[triton]"')

import triton
import triton.language as tl

from mightnt.lm import kernels

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.*")  # numpy's, of infinities in an interpreter
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and not kernels.INTERPRETED:
    pytest.skip("no GPU, and triton was loaded without TRITON_INTERPRET=1", allow_module_level=True)

INF = float("inf")
LARGE = 152_064
"""As many tokens as large models have."""
TYPES = torch.float32, torch.bfloat16, torch.float16


def in_slices_of(tokens, programs=1):
    """Slices of the vocabulary so small that tests have several, and a lag of so many programs."""
    return patch.multiple(kernels, LEAST_TOKENS=tokens, PIECE_BYTES=1, PROGRAMS=programs)


def by_itself():
    """The way without the kernel steps in where the kernel saw NaN or +inf; here it must not."""
    return patch.multiple(fused, vouched=None, vouched_kl_nats=None)


def laid_out(logits, layout):
    """The same numbers, lying differently in memory."""
    if layout == "by token":
        return logits.T.contiguous().T
    if layout == "with gaps":
        return torch.stack([logits, torch.full_like(logits, torch.nan)], -1).flatten(1)[:, ::2]
    if layout == "one row for all":
        return logits[:1].expand(len(logits), -1)
    return logits


def tensor(generator, positions, tokens, dtype, scale, zeros, layout):
    """Logits, some of them -inf, in one position out of four all."""
    logits = scale * torch.randn(positions, tokens, generator=generator)
    logits[torch.rand(positions, tokens, generator=generator) < zeros] = -INF
    if zeros:
        logits[torch.rand(positions, generator=generator) < 0.25] = -INF
    return laid_out(logits.to(DEVICE, dtype), layout)


@st.composite
def cases(draw):
    """(members' logits, a policy's, targets, the rest) of shapes that are no multiples of slices."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    positions, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    layouts = st.sampled_from(["by position", "by token", "with gaps", "one row for all"])

    def one():
        scale, zeros = draw(st.sampled_from([1.0, 8.0, 8e3])), draw(st.sampled_from([0.0, 0.3, 0.9]))
        return tensor(generator, positions, tokens, draw(st.sampled_from(TYPES)), scale, zeros, draw(layouts))

    logits = [one() for _ in range(draw(st.integers(1, 4)))]
    targets = torch.randint(tokens, (positions,), generator=generator).to(DEVICE)
    allowed = torch.rand(tokens, generator=generator) < 0.7
    allowed[draw(st.integers(0, tokens - 1))] = True
    rest = {
        "log_slack_nats": draw(st.none() | st.just([0.0, 2.5, -1.0, 0.5][: len(logits)])),
        "temperature": draw(st.sampled_from([1.0, 0.7, 3.0])),
        "is_action": draw(st.none() | st.just(allowed.to(DEVICE))),
    }
    policy = torch.randn(positions, tokens, generator=generator).to(DEVICE, draw(st.sampled_from(TYPES)))
    return logits, policy, targets, rest


def in_double(logits):
    return [each.double() for each in logits]


def assert_same(ours, oracle, tolerance=2e-6):
    for name in ("log_nu", "log_kept"):
        mine, theirs = getattr(ours, name), getattr(oracle, name)
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine.double(), theirs, rtol=tolerance, atol=tolerance)
    assert (ours.log_kept <= 0).all()


@given(case=cases(), width=st.sampled_from([16, 64]), programs=st.integers(0, 3))
@settings(max_examples=30)
def test_agrees_with_the_way_without_it(case, width, programs):
    logits, _, targets, rest = case
    with in_slices_of(width, programs), by_itself():
        ours = vouched_by_kernel(logits, targets, **rest)
    assert_same(ours, vouched_by_logits(in_double(logits), targets, **rest))


@given(case=cases(), width=st.sampled_from([16, 64]))
@settings(max_examples=20)
def test_kl_agrees_with_the_way_without_it(case, width):
    logits, policy, _, rest = case
    with in_slices_of(width), by_itself():
        ours = kl_by_kernel_nats(policy, logits, **rest)
    oracle = vouched_kl_nats(policy.double(), in_double(logits), **rest)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), oracle, rtol=2e-6, atol=2e-6)


def logs(*probabilities):
    return torch.tensor([probabilities], device=DEVICE).log()


def test_hand_computed_numbers():
    two, second = [logs(0.5, 0.5), logs(0.9, 0.1)], torch.tensor([1], device=DEVICE)
    found = vouched_by_kernel(two, second)
    assert found.log_nu.exp().item() == pytest.approx(0.1)
    assert found.log_kept.exp().item() == pytest.approx(0.6), "nu = (.5, .1)"
    found = vouched_by_kernel(two, second, log_slack_nats=[0.0, torch.tensor(2.0).log().item()])
    assert found.log_kept.exp().item() == pytest.approx(0.7), "nu = (.5, .2)"
    assert vouched_by_kernel(two, second - 1, temperature=0.5).log_kept.exp().item() == pytest.approx(0.5 + 1 / 82)
    kl = kl_by_kernel_nats(logs(1.0, 0.0), two)
    assert kl.exp().item() == pytest.approx(2), "log(1 / .5)"
    assert kl_by_kernel_nats(logs(0.5, 0.5), [logs(1.0, 0.0)]).tolist() == [INF]


@pytest.mark.parametrize("offset", [-8192.0, 8192.0])
def test_a_large_vocabulary_against_float64(offset):
    generator = torch.Generator().manual_seed(0)
    logits = [4 * torch.randn(1, LARGE, generator=generator) for _ in range(2)]
    logits = [((each * 1024).round() / 1024 + offset).to(DEVICE) for each in logits]  # exact, also this far from zero
    last = torch.tensor([LARGE - 1], device=DEVICE)
    assert kernels.slice_tokens(LARGE, 8) * 37 < LARGE, "many slices, the last one half empty"
    assert_same(vouched_by_kernel(logits, last), vouched_by_logits(in_double(logits), last), 4e-6)


def test_one_member_keeps_everything_and_no_more():
    logits = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    with in_slices_of(16):
        found = vouched_by_kernel([logits], torch.arange(6, device=DEVICE))
    assert found.log_kept.min() > -2e-6
    assert found.log_kept.max() <= 0, "rounding alone would pass 0 here"


def test_nothing_at_all_is_no_error():
    disjoint = [torch.tensor([[0.0, -INF]], device=DEVICE), torch.tensor([[-INF, 0.0]], device=DEVICE)]
    with by_itself():
        found = vouched_by_kernel(disjoint, torch.tensor([0], device=DEVICE))
        nobody = vouched_by_kernel([torch.full((1, 2), -INF, device=DEVICE)], torch.tensor([0], device=DEVICE))
    assert nobody.log_nu.tolist() == nobody.log_kept.tolist() == [-INF]
    assert found.log_nu.tolist() == found.log_kept.tolist() == [-INF]
    empty = vouched_by_kernel([torch.zeros(0, 3, device=DEVICE)], torch.zeros(0, dtype=torch.int64, device=DEVICE))
    assert empty.log_nu.shape == empty.log_kept.shape == (0,)
    assert kl_by_kernel_nats(torch.zeros(0, 3, device=DEVICE), [torch.zeros(0, 3, device=DEVICE)]).shape == (0,)


def test_nobody_learns_and_nothing_is_changed():
    logits = [torch.randn(2, 20, device=DEVICE, requires_grad=True) for _ in range(2)]
    before = [each.detach().clone() for each in logits]
    found = vouched_by_kernel(logits, torch.tensor([0, 19], device=DEVICE), is_action=torch.arange(20) < 20)
    assert not found.log_nu.requires_grad
    assert not found.log_kept.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(before, logits, strict=True))


@pytest.mark.parametrize("bad", [torch.nan, INF])
@pytest.mark.parametrize("token", [0, 39])
@pytest.mark.parametrize("only_first", [False, True])
def test_a_member_that_says_nan_or_inf_is_named(bad, token, only_first):
    logits = [torch.zeros(2, 40, device=DEVICE) for _ in range(3)]
    logits[1][1, token] = bad
    is_action = torch.arange(40, device=DEVICE) == 0 if only_first else None
    with in_slices_of(16):
        with pytest.raises(ContractError, match="member 1 of 3"):
            vouched_by_kernel(logits, torch.zeros(2, dtype=torch.int64, device=DEVICE), is_action=is_action)
        with pytest.raises(ContractError, match="member 1 of 3"):
            kl_by_kernel_nats(logits[0], logits, is_action=is_action)
        with pytest.raises(InputError, match="policy's logits"):
            kl_by_kernel_nats(logits[1], logits[:1], is_action=is_action)


def test_a_policy_that_may_do_nothing_is_refused():
    with pytest.raises(InputError, match="policy's logits"):
        kl_by_kernel_nats(torch.full((1, 2), -INF, device=DEVICE), [torch.zeros(1, 2, device=DEVICE)])


def test_blocks_of_a_head_give_the_same(monkeypatch):
    from mightnt.lm.vocabulary import minimum_rule, said_by_heads

    monkeypatch.setattr(fused, "kernel_serves", lambda tensors, temperature=1.0: True)
    generator = torch.Generator().manual_seed(0)
    hidden = [torch.randn(5, 4, generator=generator).to(DEVICE) for _ in range(3)]
    heads = [torch.randn(20, 4, generator=generator).to(DEVICE) for _ in range(3)]
    said = said_by_heads(hidden, heads, None, None)
    rule = minimum_rule(said, [0.0, 0.5, 0.0], 0.8, torch.arange(20) < 15)
    targets = torch.arange(5, device=DEVICE)
    logits = [h.double() @ w.double().T for h, w in zip(hidden, heads, strict=True)]
    rest = {"log_slack_nats": [0.0, 0.5, 0.0], "temperature": 0.8, "is_action": torch.arange(20, device=DEVICE) < 15}
    oracle = vouched_by_logits(logits, targets, **rest)
    for block in (1, 3, 100):
        assert_same(fused.vouched_in_blocks(said, rule, targets, block), oracle)
    hidden[1][4] = torch.nan
    with pytest.raises(ContractError, match="member 1 of 3"):
        fused.vouched_in_blocks(said, rule, targets, 3)


@pytest.mark.parametrize(
    ("logits", "rest", "sentence"),
    [
        ([torch.zeros(1, 3, dtype=torch.float64)], {}, r"float64.*reads float32, float16 and bfloat16"),
        ([torch.zeros(1, 3), torch.zeros(1, 3, device="meta")], {}, "one device"),
        ([torch.zeros(1, 3)], {"temperature": 1e-40}, "temperature of 1e-40"),
        ([torch.zeros(1, 3)], {"log_slack_nats": [0.1]}, "more than one"),
    ],
)
def test_what_the_kernel_cannot_serve_is_refused(logits, rest, sentence):
    with pytest.raises(InputError, match=sentence):
        vouched_by_kernel(logits, torch.zeros(1, dtype=torch.int64), **rest)


def test_a_cpu_is_refused_where_nothing_is_interpreted(monkeypatch):
    monkeypatch.setattr(kernels, "INTERPRETED", False)
    with pytest.raises(InputError, match="logits are on cpu; the fused kernel needs a GPU"):
        vouched_by_kernel([torch.zeros(1, 3)], torch.zeros(1, dtype=torch.int64))


def logits_read(logits, targets):
    """The addresses of logits in the order in which the interpreted programs load them."""
    from triton.runtime.interpreter import InterpreterBuilder

    read, load = [], InterpreterBuilder.create_masked_load
    size = logits[0].element_size()
    ours = {each.data_ptr() + size * i for each in logits for i in range(each.numel())}

    def recorded(self, pointers, mask, *rest):
        read.extend(a for a, m in zip(pointers.data.ravel(), mask.data.ravel(), strict=True) if m and int(a) in ours)
        return load(self, pointers, mask, *rest)

    with patch.object(InterpreterBuilder, "create_masked_load", recorded):
        vouched_by_kernel(logits, targets)
    return list(map(int, read))


@pytest.mark.skipif(DEVICE != "cpu", reason="loads are only seen where programs are interpreted")
@pytest.mark.parametrize("programs", [0, 2])
def test_each_logit_is_loaded_twice_and_soon_after(programs):
    members, positions, tokens, width = 2, 6, 40, 16
    logits = [torch.randn(positions, tokens) for _ in range(members)]
    with in_slices_of(width, programs):
        read = logits_read(logits, torch.zeros(positions, dtype=torch.int64))
    first, again = {}, {}
    for place, address in enumerate(read):
        assert address not in again, "a third time"
        (again if address in first else first)[address] = place
    assert len(first) == len(again) == members * positions * tokens
    lag = 3 + programs  # the slices of a row, and then some
    between = max(again[address] - first[address] for address in first)
    assert between <= 2 * (lag + 1) * members * width, "pieces taken meanwhile, each read or read again"


@triton.jit
def wait_and_add(pairs, result, n, ROOM: tl.constexpr):
    tops, totals = kernels.numbers_of(kernels.written(pairs, n, ROOM))
    tl.store(result, tl.sum(tops, 0))
    tl.store(result + 1, tl.sum(totals, 0))


@triton.jit
def make_pairs(tops, totals, pairs, n, ROOM: tl.constexpr):
    lane = tl.arange(0, ROOM)
    made = kernels.pair_of(tl.load(tops + lane, lane < n), tl.load(totals + lane, lane < n))
    tl.store(pairs + lane, made, lane < n)


def test_two_numbers_travel_as_one_and_none_is_the_sign_for_not_yet():
    tops = torch.tensor([-3.4e38, -1.5, 0.0, 3.4e38, INF, 1.0], device=DEVICE)
    totals = torch.tensor([0.0, 7.25, 1e-30, 1.0, torch.nan, -1.0], device=DEVICE)
    pairs, back = torch.zeros(6, dtype=torch.int64, device=DEVICE), torch.zeros(2, device=DEVICE)
    make_pairs[(1,)](tops, totals, pairs, 6, ROOM=8)
    assert kernels.NOT_YET.value not in pairs.tolist()
    for i in (0, 1, 2, 3, 5):
        wait_and_add[(1,)](pairs[i : i + 1], back, 1, ROOM=1)
        assert back.tolist() == [tops[i].item(), totals[i].item()]
    assert pairs.view(torch.float32).unflatten(0, (6, 2))[:, 0].isnan().tolist() == totals.isnan().tolist()


@pytest.mark.skipif(DEVICE != "cpu", reason="another thread writes into memory that a program looks at")
def test_a_program_waits_until_the_last_sum_is_written():
    pairs, result = torch.full((5,), kernels.NOT_YET.value), torch.zeros(2)
    tops, totals, whole = torch.arange(5.0), torch.ones(5), torch.zeros(5, dtype=torch.int64)
    make_pairs[(1,)](tops, totals, whole, 5, ROOM=8)
    pairs[:4] = whole[:4]
    finished = threading.Thread(target=lambda: wait_and_add[(1,)](pairs, result, 5, ROOM=8), daemon=True)
    finished.start()
    time.sleep(0.3)
    assert finished.is_alive()
    assert result.tolist() == [0.0, 0.0]
    pairs[4] = whole[4]
    finished.join(timeout=20)
    assert result.tolist() == [10.0, 5.0]


@triton.jit
def read_far(logits, strides, far, result, SLICE: tl.constexpr):
    row, behind, tokens = tl.load(far), tl.load(far + 1), tl.arange(0, SLICE)
    members = kernels.Members((logits - behind,), (strides,), (), None, SLICE, 1.0)
    tl.store(result + tokens, kernels.logits_of(members, 0, row, tokens, 0.0))


def test_rows_may_lie_further_away_than_32_bits_count():
    logits, found = torch.arange(8.0, device=DEVICE), torch.zeros(8, device=DEVICE)
    far = torch.tensor([2**20, 2**32], device=DEVICE)
    read_far[(1,)](logits, (2**12, 1), far, found, SLICE=8)
    assert torch.equal(found, logits)
    zeros = torch.zeros(1, 3, device=DEVICE)
    said = kernels.compared([zeros], None, torch.zeros(1, dtype=torch.int64, device=DEVICE), [0.0], 1.0, None)
    assert said.tickets.dtype == torch.int64, "rows are counted in this type"


COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from mightnt.lm import kernels

class Nothing:
    def get_current_target(self): return GPUTarget("cuda", {architecture}, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0

triton.runtime.driver.set_active(Nothing())
built = []

class Built:
    def __getitem__(self, grid):
        return lambda *a, **k: built.append(turn.warmup(*a, grid=grid, **k))

turn, kernels.one_turn = kernels.one_turn, Built()
targets, action = torch.zeros(2, dtype=torch.int64), torch.ones({tokens}, dtype=torch.bool)
logits = [torch.zeros(2, {tokens}, dtype=torch.{dtype}) for _ in range({members})]
kernels.compared(logits, None, targets, [0.0] * {members}, 1.0, None)
kernels.compared(logits, logits[0], targets, [0.0] * {members}, 0.7, action)
print(*(each.asm["ptx"].count("ld.volatile.global") > 0 and len(each.asm["cubin"]) > 0 for each in built))
"""


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_it_compiles_for_gpus_that_are_not_here(architecture):
    code = COMPILE.format(architecture=architecture, tokens=LARGE, dtype="bfloat16", members=4)
    rest = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", code], env=rest, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True"], done.stderr[-2000:]


def test_an_answer_of_the_kernel_is_an_answer_like_the_others():
    assert isinstance(vouched_by_kernel([torch.zeros(1, 3, device=DEVICE)], torch.zeros(1, dtype=torch.int64)), Vouched)
