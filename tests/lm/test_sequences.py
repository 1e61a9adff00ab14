"""Finished sequences scored in blocks: what the slow loop over tokens says, for every base, padding and ownership."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.errors import InputError, MightntError
from mightnt.lm.bases.capped import Capped
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.bases.mixture import Mixture
from mightnt.lm.bases.single import Single
from mightnt.lm.bases.slack import Slack
from mightnt.lm.bases.trajectory import Trajectory
from mightnt.lm.bases.turn import Turn
from mightnt.lm.heads import TwoParts
from mightnt.lm.members import MemberStep, over_actions
from mightnt.lm.networks import NetworkShape, build_network
from mightnt.lm.reference import Reference, score_by_hand
from mightnt.lm.scoring import scores
from mightnt.lm.sequences import Asked, led, score_sequences, some_rows
from mightnt.models.counts import Support, fit_counts
from mightnt.models.situations import Clusters, fit_situations, with_farthest
from tests.lm.high_water import HighWater

N, LENGTH = 9, 12
NETWORKS = [build_network(NetworkShape(16, 1, 1, 16), N + spare, seed) for seed, spare in enumerate((0, 3, 0))]
IS_ACTION = np.array([False, *[True] * (N - 1)])
CORPUS = np.random.default_rng(0).choice(N, 400, p=[0.1, 0.4, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02, 0.0])
COUNTS = fit_counts(CORPUS, np.arange(0, 401, 20), CORPUS > 0, IS_ACTION, longest=2)
SUPPORT = Support(ample=20, seen=2)
HIDDEN = NETWORKS[0].base_model(input_ids=torch.from_numpy(CORPUS.reshape(-1, 8))).last_hidden_state.detach()
SITUATIONS = with_farthest(
    fit_situations(HIDDEN.flatten(0, 1).numpy(), np.maximum(CORPUS, 1), IS_ACTION, Clusters(places=40, levels=2)),
    HIDDEN.flatten(0, 1).numpy(),
    np.arange(400),
    0.05,
)
WEIGHTS = tuple(np.log([0.5, 0.2, 0.2, 0.1]).tolist())


def reference(base, temperature=1.0):
    counts = None if base in (Minimum(), Single()) else COUNTS
    support = SUPPORT if isinstance(base, Capped) else None
    situations = SITUATIONS if getattr(base, "against", "") == "situations" else None
    settings = {"is_action": IS_ACTION, "counts": counts, "support": support, "situations": situations}
    settings["temperature"] = temperature
    return Reference(NETWORKS, base, **settings)


BASES = [
    Capped(0.7),
    Capped(0.0),
    Capped(0.7, "situations"),
    Capped(-1.0),
    Capped(60.0, "situations"),
    Capped(100.0, "situations"),
    Capped(-60.0, "situations"),
    Mixture(WEIGHTS),
    Mixture(WEIGHTS, evidence="demonstrated"),
    Single(),
    Single(of_counts=True),
    Minimum(),
    Slack(0.5),
    Trajectory(len(NETWORKS) + 1),
    Turn(Trajectory(len(NETWORKS) + 1), end=3),
]


@st.composite
def batches(draw):
    """input_ids, attention_mask, own, answered: padding anywhere, everybody's tokens mixed."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = draw(st.integers(1, 4))
    ids = torch.from_numpy(rng.integers(0 if draw(st.booleans()) else 1, N, size=(rows, LENGTH)))
    mask = torch.from_numpy(rng.random((rows, LENGTH)) < draw(st.sampled_from([0.3, 0.8, 1.0])))
    who = torch.from_numpy(rng.choice(3, size=(rows, LENGTH), p=[0.3, 0.4, 0.3]))
    first = mask.int().cumsum(1) == 1
    return ids, mask.long(), (who == 1) & ~first, (who == 2) & ~first


def agree(found, expected):
    torch.testing.assert_close(found.log_nu, expected.log_nu, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(found.log_kept, expected.log_kept, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("base", BASES, ids=str)
@settings(max_examples=5)
@given(batch=batches(), temperature=st.sampled_from([1.0, 0.6]))
def test_it_is_the_slow_loop(base, batch, temperature):
    ours = reference(base, temperature)
    agree(ours.score(*batch), score_by_hand(ours, *batch))


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.7, 5.0, -1.0]))
def test_a_capped_base_is_led_as_its_own_steps_lead_it(seed, log_cap_nats):
    """Places in any mix of rows; zeros of the network, of the counts, of both, no support, others' tokens between."""
    rng = np.random.default_rng(seed)
    n, rows, base = 40, 3, Capped(log_cap_nats)
    row = np.sort(rng.integers(0, rows, n))
    number = np.arange(n) - np.searchsorted(row, row)
    order = np.argsort(number, kind="stable")
    row, number = torch.from_numpy(row[order]), torch.from_numpy(number[order])
    q, p = (np.where(rng.random(n) < 0.1, -np.inf, rng.normal(-3, 2, n)) for _ in range(2))
    said = MemberStep(
        torch.from_numpy(q)[None, :, None],
        torch.from_numpy(p)[:, None],
        torch.from_numpy(rng.random((n, 1)) < 0.9),
        None,
        torch.zeros(n, 1),
    )
    own, start = torch.from_numpy(rng.random(n) < 0.8), torch.from_numpy(rng.random((rows, 1)) * max(log_cap_nats, 0.0))
    states, last = led(base, start, said, row, number, torch.zeros(n, dtype=torch.int64), own)
    expected = start.clone()
    for i in range(n):
        here = row[i : i + 1]
        assert states[i, 0].item() == pytest.approx(expected[here].item(), abs=1e-12)
        step = some_rows(said, slice(i, i + 1))
        moved = base.advance(expected[here], step, torch.zeros(1, dtype=torch.int64), own[i : i + 1])
        expected[here] = expected[here] if bool(moved.isnan().any()) else moved
    torch.testing.assert_close(last, expected)


@pytest.mark.parametrize("base", [Capped(0.7), Mixture(WEIGHTS), Minimum()], ids=str)
@pytest.mark.parametrize(("block", "swept"), [(1, 1), (7 * 4 * 4 * N, 3 * 4 * N), (10**6, 4 * 4 * N)])
def test_blocks_and_chunks_change_nothing(base, block, swept, monkeypatch):
    rng = np.random.default_rng(1)
    ids = torch.from_numpy(rng.integers(1, N, size=(5, LENGTH)))
    ours = reference(base)
    expected = score_by_hand(ours, ids)
    monkeypatch.setattr("mightnt.lm.vocabulary.BLOCK_BYTES", block)
    monkeypatch.setattr("mightnt.lm.vocabulary.CACHE_BYTES", swept)
    monkeypatch.setattr("mightnt.lm.sequences.MAX_TOKENS", 2 * LENGTH)
    agree(ours.score(ids), expected)


def bytes_held(base, places, many=2000):
    """The most that scoring so many places holds, with blocks of four places and sweeps over one."""
    network, every = build_network(NetworkShape(16, 1, 1, 256), many, 0), np.ones(many, dtype=np.bool_)
    corpus = np.random.default_rng(0).integers(0, many, 500)
    counts = fit_counts(corpus, np.array([0, 500]), corpus >= 0, every, longest=2)
    ours = Reference([network], base, is_action=every, counts=counts, support=Support(10**6))
    ids = torch.from_numpy(corpus[None, : places + 1])
    with HighWater(*network.parameters()) as water:
        ours.score(ids)
    return water.most


@pytest.mark.parametrize("base", [Capped(0.7), Slack()], ids=str)
def test_memory_is_a_block_of_places_however_many_there_are(base, monkeypatch):
    """Two rows of logits for each place of a block, and a few rows more for the place that is swept over."""
    row = 4 * 2000
    monkeypatch.setattr("mightnt.lm.vocabulary.BLOCK_BYTES", 4 * 2 * row)
    monkeypatch.setattr("mightnt.lm.vocabulary.CACHE_BYTES", row)
    few, many = bytes_held(base, 20), bytes_held(base, 200)
    assert 4 * row < few < (4 * 2 + 14) * row
    assert many < few + 200 * 2000, "hidden states and a few numbers a place, not its row of logits"
    assert many < 200 * row / 4


def test_padding_changes_nothing():
    """The same six tokens, padded left, right, both and inside."""
    alone = torch.tensor([[3, 1, 2, 5, 1, 4]])
    where = torch.tensor([[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [3, 4, 5, 6, 7, 8], [0, 2, 3, 7, 10, 11]])
    ids = torch.full((4, LENGTH), 8).scatter(1, where, alone.repeat(4, 1))
    mask = torch.zeros(4, LENGTH, dtype=torch.int64).scatter(1, where, 1)
    for base in (Capped(0.7), Minimum()):
        ours = reference(base)
        expected, found = ours.score(alone), ours.score(ids, mask)
        for name in ("log_nu", "log_kept"):
            padded = getattr(found, name)
            torch.testing.assert_close(padded.gather(1, where), getattr(expected, name).repeat(4, 1))
            assert bool((padded[mask == 0] == 0).all())


def test_the_minimum_over_three_networks_by_brute_force():
    ids = torch.from_numpy(np.random.default_rng(2).integers(1, N, size=(3, LENGTH)))
    found = reference(Minimum(), 0.7).score(ids)
    rows = torch.stack([over_actions(scores(n, ids) / 0.7, torch.from_numpy(IS_ACTION)) for n in NETWORKS]).amin(0)
    expected = rows[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(found.log_nu[:, 1:], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.log_kept[:, 1:], rows[:, :-1].exp().sum(-1).log(), atol=1e-5, rtol=1e-5)
    assert float(found.log_kept[:, 1:].max()) < -0.01, "members that agree show nothing"


def test_what_nobody_chose_is_read_and_not_charged():
    """Another first half, said by others, changes what is said of the second half and charges nothing itself."""
    ids = torch.tensor([[1, 2, 3, 4, 1, 2, 3, 4], [1, 7, 7, 7, 1, 2, 3, 4]])
    own = torch.zeros(2, 8, dtype=torch.bool)
    own[:, 4:] = True
    found = reference(Minimum()).score(ids, own=own)
    assert bool((found.log_nu[:, :4] == 0).all())
    assert bool((found.log_nu[0, 4:] != found.log_nu[1, 4:]).all())
    none = reference(Minimum()).score(ids, own=torch.zeros_like(own))
    assert not bool(none.log_nu.any())
    assert not bool(none.log_kept.any())


def test_forbidden_tokens_are_minus_infinity_and_what_follows_is_a_number():
    """Token 0 is no action and 8 was never demonstrated: the cap's state survives both."""
    ids = torch.tensor([[1, 2, 0, 1, 8, 1, 2, 1]])
    for base in (Capped(0.7), Mixture(WEIGHTS)):
        found = reference(base).score(ids)
        assert float(found.log_nu[0, 2]) == -math.inf
        assert not bool(found.log_nu.isnan().any() | found.log_kept.isnan().any())
        assert bool(found.log_nu[0, [3, 5, 6, 7]].isfinite().all())
    assert float(reference(Capped(0.7)).score(ids).log_nu[0, 4]) == -math.inf


@pytest.mark.parametrize("base", [Capped(0.7), Minimum()], ids=str)
def test_the_policys_exact_kl_is_a_sum_over_the_vocabulary(base):
    """A policy with two rows to spare; the base raised to -20, also where it forbids."""
    policy = build_network(NetworkShape(16, 1, 1, 16), N + 2, 5)
    ids = torch.from_numpy(np.random.default_rng(3).integers(1, N, size=(2, 7)))
    own = torch.tensor([[0, 0, 1, 1, 0, 1, 1], [0, 1, 0, 0, 0, 0, 1]]).bool()
    ours = reference(base, 0.8)
    found = score_sequences(ours.panel, base, ids, own=own, asked=Asked(TwoParts(policy), -20.0))
    agree(found, ours.score(ids, own=own))
    log_policy = (scores(policy, ids) / 0.8).double().log_softmax(-1)
    for row, t in own.nonzero().tolist():
        nu = [float(ours.score(replaced(ids, row, t, x), own=own).log_nu[row, t]) for x in range(N)]
        nu = torch.tensor([max(v, -20.0) for v in nu] + [-20.0] * 2, dtype=torch.float64)
        p = log_policy[row, t - 1]
        assert float(found.kl_nats[row, t]) == pytest.approx(float((p.exp() * (p - nu)).sum()), abs=1e-5)
    assert not bool(found.kl_nats[~own].any())
    infinite = score_sequences(ours.panel, base, ids, own=own, asked=Asked(TwoParts(policy)))
    assert bool(infinite.kl_nats[own].isinf().all()), "rows to spare are forbidden"


def replaced(ids, row, t, token):
    other = ids.clone()
    other[row, t] = token
    return other


@dataclass(frozen=True)
class Nothing:
    """A base that vouches for nothing."""

    name: str = "nothing"

    def start(self, rows):
        return torch.empty(rows, 0, dtype=torch.float64)

    def predict(self, state, step):
        return torch.full_like(step.networks[0], -torch.inf)

    def advance(self, state, step, tokens, own):
        return state


def test_a_base_that_vouches_for_nothing_keeps_nothing():
    found = Reference(NETWORKS[:1], Nothing(), is_action=IS_ACTION).score(torch.tensor([[1, 2, 3]]))
    assert found.log_nu[0].tolist() == found.log_kept[0].tolist() == [0.0, -math.inf, -math.inf]


def test_empty_batches():
    ours = reference(Capped(0.7))
    assert ours.score(torch.zeros(0, 5, dtype=torch.int64)).log_nu.shape == (0, 5)
    assert ours.score(torch.zeros(2, 0, dtype=torch.int64)).log_nu.shape == (2, 0)
    nobody = ours.score(torch.ones(2, 4, dtype=torch.int64), torch.zeros(2, 4))
    assert not bool(nobody.log_nu.any())


@pytest.mark.parametrize(
    ("what", "batch"),
    [
        ("share one vocabulary", {"input_ids": torch.tensor([[1, N]])}),
        ("share one vocabulary", {"input_ids": torch.tensor([[1, -100]])}),
        ("of integers", {"input_ids": torch.tensor([1, 2])}),
        ("of integers", {"input_ids": torch.tensor([[1.0, 2.0]])}),
        ("own has shape", {"input_ids": torch.tensor([[1, 2]]), "own": torch.tensor([[True]])}),
        ("first token of a row", {"input_ids": torch.tensor([[1, 2]]), "own": torch.tensor([[True, True]])}),
        ("17 tokens do not fit", {"input_ids": torch.ones(1, 17, dtype=torch.int64)}),
    ],
)
def test_refusals(what, batch):
    for base in (Capped(0.7), Minimum()):
        with pytest.raises(InputError, match=what):
            reference(base).score(**batch)


def test_a_padded_row_may_hold_any_number_in_its_padding():
    ids, mask = torch.tensor([[-100, 1, 2, 999]]), torch.tensor([[0, 1, 1, 0]])
    assert math.isfinite(float(reference(Minimum()).score(ids, mask).log_nu.sum()))


@pytest.mark.parametrize("base", [Capped(0.7), Minimum()], ids=str)
def test_a_network_that_says_nan_is_refused(base):
    sick = build_network(NetworkShape(16, 1, 1, 16), N, 0)
    counts = COUNTS if base != Minimum() else None
    ours = Reference([sick], base, is_action=IS_ACTION, counts=counts, support=SUPPORT if counts else None)
    with torch.no_grad():
        sick.get_input_embeddings().weight[3, 0] = torch.nan
    with pytest.raises(MightntError, match="NaN"):
        ours.score(torch.tensor([[1, 3, 2]]))
