"""The minimum over a large vocabulary: sums in plain Python as its oracle, memory counted byte by byte, refusals."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mightnt.errors import ContractError, InputError
from mightnt.lm import vocabulary
from mightnt.lm.full_kl import kl_step_nats
from mightnt.lm.vocabulary import vouched_by_heads, vouched_by_logits, vouched_kl_nats
from tests.lm.high_water import HighWater

INF = float("inf")
LARGE = 152_064
"""As many tokens as large models have."""


def log_sum(logs):
    top = max(logs, default=-INF)
    return -INF if top == -INF else top + math.log(math.fsum(math.exp(number - top) for number in logs))


def log_nu_by_hand(rows, slack, temperature, is_action):
    """log nu over the vocabulary of one position; ``rows`` holds each member's logits."""
    result = [INF] * len(is_action)
    for logits, nats in zip(rows, slack, strict=True):
        top = max((x for x, allowed in zip(logits, is_action, strict=True) if allowed), default=-INF)
        shifted = [
            (x - top) / temperature if allowed and x > -INF else -INF
            for x, allowed in zip(logits, is_action, strict=True)
        ]
        total = log_sum(shifted)
        result = [min(least, -INF if x == -INF else x - total + nats) for least, x in zip(result, shifted, strict=True)]
    return result


@st.composite
def cases(draw):
    """(members' logits, targets, slack, temperature, is_action) with zeros, ties and extremes."""
    members, positions, tokens = draw(st.integers(1, 4)), draw(st.integers(0, 3)), draw(st.integers(1, 6))
    number = st.one_of(st.sampled_from([-INF, -1e4, 0.0, 1.0, 1e4]), st.floats(-30, 30, width=16))
    logits = draw(
        st.lists(
            st.lists(
                st.lists(number, min_size=tokens, max_size=tokens),
                min_size=positions,
                max_size=positions,
            ),
            min_size=members,
            max_size=members,
        )
    )
    targets = draw(st.lists(st.integers(0, tokens - 1), min_size=positions, max_size=positions))
    slack = [draw(st.floats(-2, 0)), *(draw(st.floats(-2, 4)) for _ in range(members - 1))]
    allowed = draw(st.lists(st.booleans(), min_size=tokens, max_size=tokens).filter(any))
    return logits, targets, slack, draw(st.sampled_from([0.5, 0.7, 1.0, 3.0])), allowed


def as_tensors(logits, tokens, dtype):
    return [torch.tensor(rows, dtype=dtype).reshape(-1, tokens) for rows in logits]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@given(case=cases())
def test_agrees_with_plain_python(dtype, tolerance, case):
    logits, targets, slack, temperature, allowed = case
    said = vouched_by_logits(
        as_tensors(logits, len(allowed), dtype),
        torch.tensor(targets, dtype=torch.int64),
        log_slack_nats=slack,
        temperature=temperature,
        is_action=torch.tensor(allowed),
    )
    assert said.log_nu.dtype == said.log_kept.dtype == dtype
    oracle = [log_nu_by_hand(rows, slack, temperature, allowed) for rows in zip(*logits, strict=True)]
    close = {"rel": tolerance, "abs": 10 * tolerance}
    assert said.log_nu.tolist() == pytest.approx([row[x] for row, x in zip(oracle, targets, strict=True)], **close)
    assert said.log_kept.tolist() == pytest.approx([log_sum(row) for row in oracle], **close)
    assert (said.log_kept <= 0).all()


def logs(*probabilities):
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_hand_computed_numbers():
    two = [logs(0.5, 0.5), logs(0.9, 0.1)]
    said = vouched_by_logits(two, torch.tensor([1]))
    assert said.log_nu.exp().item() == pytest.approx(0.1)
    assert said.log_kept.exp().item() == pytest.approx(0.6), "nu = (.5, .1)"
    said = vouched_by_logits(two, torch.tensor([1]), log_slack_nats=[0.0, math.log(2)])
    assert said.log_kept.exp().item() == pytest.approx(0.7), "nu = (.5, .2)"
    said = vouched_by_logits(two, torch.tensor([0]), temperature=0.5)
    assert said.log_nu.exp().item() == pytest.approx(0.5), "squares: (.5, .5) and (81, 1) / 82"
    assert said.log_kept.exp().item() == pytest.approx(0.5 + 1 / 82)
    three = [logs(0.2, 0.3, 0.5), logs(0.4, 0.2, 0.4)]
    said = vouched_by_logits(three, torch.tensor([2]), is_action=torch.tensor([True, True, False]))
    assert said.log_kept.exp().item() == pytest.approx(0.4 + 1 / 3), "(.4, .6) and (2/3, 1/3)"
    assert said.log_nu.item() == -INF, "what is no action cannot be chosen"


def test_one_member_keeps_everything_and_no_more():
    logits = torch.randn(300, 40, generator=torch.Generator().manual_seed(0))
    said = vouched_by_logits([logits], torch.arange(300) % 40)
    torch.testing.assert_close(said.log_nu, logits.log_softmax(-1)[range(300), torch.arange(300) % 40])
    assert said.log_kept.min() > -1e-6
    assert said.log_kept.max() <= 0, "rounding alone would pass 0 here"


def test_zeros_of_one_member_are_zeros_of_all_and_nothing_at_all_is_no_error():
    said = vouched_by_logits(
        [torch.tensor([[0.0, -INF], [-INF, 0.0], [-INF, -INF]]), torch.zeros(3, 2)], torch.tensor([1, 1, 1])
    )
    assert said.log_nu.tolist() == pytest.approx([-INF, math.log(0.5), -INF])
    assert said.log_kept.tolist() == pytest.approx([math.log(0.5), math.log(0.5), -INF])
    disjoint = [torch.tensor([[0.0, -INF]]), torch.tensor([[-INF, 0.0]])]
    assert vouched_by_logits(disjoint, torch.tensor([0])).log_kept.tolist() == [-INF]


def large_logits(members, dtype, positions=3):
    generator = torch.Generator().manual_seed(0)
    return [4 * torch.randn(positions, LARGE, generator=generator).to(dtype) for _ in range(members)]


def oracle_of(logits):
    return torch.stack([each.double().log_softmax(-1) for each in logits]).amin(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("offset", [0.0, 8192.0])
def test_a_large_vocabulary_in_float32_against_float64(dtype, offset):
    logits = large_logits(3, dtype)
    if dtype == torch.float32:
        logits = [(each * 1024).round() / 1024 + offset for each in logits]  # exact, also this far from zero
    targets = torch.tensor([0, 17, LARGE - 1])
    said, oracle = vouched_by_logits(logits, targets), oracle_of(logits)
    assert said.log_nu.dtype == torch.float32
    torch.testing.assert_close(said.log_nu.double(), oracle[range(3), targets], rtol=0, atol=3e-6)
    torch.testing.assert_close(said.log_kept.double(), oracle.logsumexp(-1), rtol=0, atol=3e-6)


def heads_of(members, positions, tokens, dtype=torch.float32, widths=(5, 8, 5, 4)):
    generator = torch.Generator().manual_seed(1)
    chosen = [widths[k % len(widths)] for k in range(members)]
    hidden = [torch.randn(positions, width, generator=generator).to(dtype) for width in chosen]
    heads = [torch.randn(tokens, width, generator=generator).to(dtype) for width in chosen]
    return hidden, heads


@given(
    members=st.integers(1, 4),
    positions=st.integers(0, 7),
    tokens=st.integers(1, 20),
    block_positions=st.none() | st.integers(1, 9),
    block_vocabulary=st.none() | st.integers(1, 25),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    biased=st.booleans(),
    restricted=st.booleans(),
)
def test_heads_in_any_blocks_say_what_their_logits_say(
    members, positions, tokens, block_positions, block_vocabulary, dtype, biased, restricted
):
    hidden, heads = heads_of(members, positions, tokens, dtype)
    biases = [torch.linspace(-1, 1, tokens).to(dtype) if biased and k % 2 == 0 else None for k in range(members)]
    targets = torch.arange(positions) % tokens
    rest = {
        "temperature": 0.8,
        "log_slack_nats": [0.5 * k for k in range(members)],
        "is_action": torch.arange(tokens) % 3 != 1 if restricted else None,
    }
    by_heads = vouched_by_heads(
        hidden,
        heads,
        targets,
        biases=biases,
        block_positions=block_positions,
        block_vocabulary=block_vocabulary,
        **rest,
    )
    long = [h.double() @ w.double().T for h, w in zip(hidden, heads, strict=True)]
    long = [x if b is None else x + b.double() for x, b in zip(long, biases, strict=True)]
    by_logits = vouched_by_logits(long, targets, **rest)
    # bfloat16 inputs too: products and sums are made in float32
    torch.testing.assert_close(by_heads.log_nu.double(), by_logits.log_nu, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(by_heads.log_kept.double(), by_logits.log_kept, rtol=1e-5, atol=1e-5)


TOKENS = 5000


def bytes_held(members, positions, block_positions):
    hidden, heads = heads_of(members, positions, TOKENS)
    with HighWater(*hidden, *heads) as water:
        vouched_by_heads(hidden, heads, torch.zeros(positions, dtype=torch.int64), block_positions=block_positions)
    return water.most


def test_memory_is_two_blocks_however_many_members_and_positions(monkeypatch):
    monkeypatch.setattr(vocabulary, "CACHE_BYTES", 4 * TOKENS)
    block = 4 * TOKENS * 16
    few = bytes_held(2, 32, 16)
    assert 2 * block <= few < 2.3 * block
    assert bytes_held(8, 32, 16) == few
    assert bytes_held(2, 160, 16) < 1.05 * few, "two more numbers a position"


def test_the_caller_chooses_the_block_or_the_budget_does(monkeypatch):
    monkeypatch.setattr(vocabulary, "BLOCK_BYTES", 2 * 4 * TOKENS * 3)
    assert bytes_held(2, 32, None) == bytes_held(2, 32, 3)


def test_nobody_learns_and_nothing_is_changed():
    logits = [torch.randn(3, 6, requires_grad=True) for _ in range(2)]
    before = [each.detach().clone() for each in logits]
    said = vouched_by_logits(logits, torch.tensor([0, 1, 2]), temperature=2.0, is_action=torch.arange(6) < 4)
    assert not said.log_nu.requires_grad
    assert not said.log_kept.requires_grad
    assert not vouched_kl_nats(logits[0], logits).requires_grad
    assert torch.is_grad_enabled()
    assert all(torch.equal(a, b) for a, b in zip(before, logits, strict=True))


@given(case=cases())
def test_kl_agrees_with_plain_python(case):
    logits, _, slack, temperature, allowed = case
    tensors = as_tensors(logits, len(allowed), torch.float64)
    policy = torch.arange(len(allowed), dtype=torch.float64).expand(len(tensors[0]), -1)
    rest = {"log_slack_nats": slack, "temperature": temperature, "is_action": torch.tensor(allowed)}
    kl = vouched_kl_nats(policy, tensors, **rest)
    expected = []
    for rows, own in zip(zip(*logits, strict=True), policy.tolist(), strict=True):
        log_pi = log_nu_by_hand([own], [0.0], temperature, allowed)
        log_nu = log_nu_by_hand(rows, slack, temperature, allowed)
        pairs = [(p, b) for p, b in zip(log_pi, log_nu, strict=True) if p > -INF]
        expected.append(INF if any(b == -INF for _, b in pairs) else sum(math.exp(p) * (p - b) for p, b in pairs))
    assert kl.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    log_kept = vouched_by_logits(tensors, torch.zeros(len(policy), dtype=torch.int64), **rest).log_kept
    assert (kl >= -log_kept - 1e-9).all(), "no policy is closer than the toll"


def test_kl_of_a_large_vocabulary_and_of_nu_itself():
    logits = large_logits(4, torch.float32)
    policy, members = logits[0], logits[1:]
    expected = kl_step_nats(policy.double().log_softmax(-1), oracle_of(members))
    torch.testing.assert_close(vouched_kl_nats(policy, members).double(), expected, rtol=1e-5, atol=1e-5)
    log_kept = oracle_of(members).logsumexp(-1)
    closest = vouched_kl_nats(oracle_of(members), members)
    torch.testing.assert_close(closest, -log_kept, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("logits", [torch.tensor([[0.0, math.nan]]), torch.tensor([[-INF, -INF]])])
def test_kl_refuses_a_policy_that_is_none(logits):
    with pytest.raises(InputError, match="policy's logits"):
        vouched_kl_nats(logits, [torch.zeros(1, 2)])


@pytest.mark.parametrize("bad", [math.nan, INF])
@pytest.mark.parametrize("token", [0, 1])
def test_a_member_that_says_nan_or_inf_is_named(bad, token):
    logits = [torch.zeros(40, 2) for _ in range(3)]
    logits[1][37, token] = bad
    targets, only_first = torch.zeros(40, dtype=torch.int64), torch.tensor([True, False])
    for is_action in (None, only_first):
        with pytest.raises(ContractError, match="member 1 of 3"):
            vouched_by_logits(logits, targets, is_action=is_action)
        with pytest.raises(ContractError, match="member 1 of 3"):
            vouched_kl_nats(logits[0], logits, is_action=is_action)
    hidden, heads = heads_of(3, 40, 2)
    hidden[2][5, 0] = bad
    heads[2][:, 0] = -1.0  # every product with inf is -inf: no true zeros, but a broken member
    with pytest.raises(ContractError, match="member 2 of 3"):
        vouched_by_heads(hidden, heads, targets, block_positions=7)


GOOD = torch.zeros(2, 3)
TARGETS = torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("logits", "targets", "rest", "sentence"),
    [
        ([], TARGETS, {}, "at least one member"),
        ([torch.zeros(3)], TARGETS, {}, "two dimensions"),
        ([GOOD.long()], TARGETS, {}, "floating"),
        ([GOOD, torch.zeros(2, 4)], TARGETS, {}, r"differ in vocabulary: \[3, 4\]"),
        ([GOOD, torch.zeros(1, 3)], TARGETS, {}, "differ in positions"),
        ([torch.zeros(2, 0)], TARGETS, {}, "vocabulary of 0"),
        ([GOOD], TARGETS[:1], {}, r"shape \(2,\)"),
        ([GOOD], TARGETS.double(), {}, "integers"),
        ([GOOD], torch.tensor([0, 3]), {}, "from 0 to 3; the members' vocabulary has 0 to 2"),
        ([GOOD], torch.tensor([-100, 0]), {}, "from -100"),
        ([GOOD], TARGETS, {"temperature": 0.0}, "temperature of 0"),
        ([GOOD], TARGETS, {"temperature": math.nan}, "temperature of nan"),
        ([GOOD], TARGETS, {"log_slack_nats": [0.0, 0.0]}, "for 1 members"),
        ([GOOD], TARGETS, {"log_slack_nats": [math.nan]}, "finite"),
        ([GOOD, GOOD], TARGETS, {"log_slack_nats": [0.1, 0.2]}, "more than one"),
        ([GOOD], TARGETS, {"is_action": torch.ones(2, dtype=torch.bool)}, r"shape \(3,\)"),
        ([GOOD], TARGETS, {"is_action": torch.ones(3)}, "bool"),
        ([GOOD], TARGETS, {"is_action": torch.zeros(3, dtype=torch.bool)}, "allows no token"),
    ],
)
def test_what_does_not_fit_is_refused(logits, targets, rest, sentence):
    with pytest.raises(InputError, match=sentence):
        vouched_by_logits(logits, targets, **rest)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"heads": [torch.zeros(3, 5), torch.zeros(4, 8)]}, r"differ in vocabulary: \[3, 4\]"),
        ({"heads": [torch.zeros(3, 5), torch.zeros(3, 7)]}, "member 1"),
        ({"heads": [torch.zeros(3, 5)]}, "one of each a member"),
        ({"biases": [None]}, "one of each a member"),
        ({"biases": [None, torch.zeros(2)]}, "member 1"),
        ({"block_positions": 0}, "block_positions is 0"),
        ({"block_vocabulary": 0}, "block_vocabulary is 0"),
    ],
)
def test_heads_that_do_not_fit_are_refused(change, sentence):
    hidden, heads = heads_of(2, 2, 3)
    with pytest.raises(InputError, match=sentence):
        vouched_by_heads(**{"hidden": hidden, "heads": heads, "targets": TARGETS, **change})
