"""The reference as trainers read it: TRL's convention without TRL, finite where the base is not, refusals in a sentence."""

import math

import numpy as np
import pytest
import torch

from mightnt.errors import InputError
from mightnt.lm.bases.capped import Capped
from mightnt.lm.bases.known import Known
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.bases.single import Single
from mightnt.lm.networks import NetworkShape, build_network
from mightnt.lm.reference import IGNORED, Reference, response_log_probs, score_by_hand
from mightnt.lm.tokens import encode

N = 10
EVERY = np.ones(N, dtype=np.bool_)


def network(seed=0, rows=N):
    return build_network(NetworkShape(16, 1, 1, 16), rows, seed)


def a_batch():
    """Prompts padded on the left, completions on the right; labels on the completions alone."""
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, N, size=(3, 8)))
    mask = torch.ones_like(ids)
    mask[1, :2] = mask[2, :1] = 0
    mask[0, 6:] = mask[2, 7:] = 0
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[:, :4] = IGNORED
    return ids, mask, labels


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_one_network_is_the_reference_that_trl_itself_would_use(temperature):
    """Shape, shift, zeros, temperature: exactly what TRL's own patched forward returns."""
    utils = pytest.importorskip("trl.trainer.utils")
    ids, mask, labels = a_batch()
    theirs = network()
    utils.add_fused_lm_head(theirs, temperature=temperature)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True).log_probs
    for base in (Single(), Minimum()):
        ours = Reference([network()], base, is_action=EVERY, temperature=temperature)
        output = ours(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
        assert output.log_probs.dtype == torch.float32
        torch.testing.assert_close(output.log_probs, expected, atol=1e-5, rtol=1e-5)


def test_nothing_is_renormalized():
    """Two networks that disagree: the sum over the vocabulary of what forward says is 1 - theta, not 1."""
    ours = Reference([network(0), network(1)], Minimum(), is_action=EVERY)
    ids = torch.stack([torch.tensor([1, 2, x]) for x in range(N)])
    labels = ids.clone()
    labels[:, :2] = IGNORED
    output = ours(ids, torch.ones_like(ids), labels)
    kept = float(output.log_probs[:, 1].exp().sum())
    assert kept == pytest.approx(float(output.scored.log_kept[0, 2].exp()), abs=1e-6)
    assert kept < 0.99


def test_forbidden_tokens_are_raised_in_forward_alone_and_counted():
    mask = EVERY.copy()
    mask[3] = False
    ours = Reference([network()], Single(), is_action=mask, forbidden_nats=40.0)
    ids = torch.tensor([[1, 3, 2, 3, 3]])
    assert ours.score(ids).log_nu[0].isneginf().tolist() == [False, True, False, True, True]
    labels = torch.tensor([[IGNORED, 3, 2, 3, IGNORED]])
    output = ours(ids, torch.ones_like(ids), labels)
    assert output.log_probs[0, [0, 2, 3]].tolist() == [-40.0, -40.0, 0.0]
    assert math.isfinite(float(output.log_probs[0, 1]))
    assert ours.forbidden_tokens == 2
    ours(ids, torch.ones_like(ids), labels)
    assert ours.forbidden_tokens == 4


def test_the_functional_form_gives_the_responses_tokens():
    """What a loop calls ref_log_prob: the last tokens, 0 where the agent did not choose."""
    ours = Reference([network(0), network(1)], Minimum(), is_action=EVERY)
    ids, mask, labels = a_batch()
    response = labels[:, 4:] != IGNORED
    found = response_log_probs(ours, ids, mask, response.long())
    assert found.shape == (3, 4)
    torch.testing.assert_close(found, ours(ids, mask, labels).log_probs[:, 3:])
    assert bool((found[~response] == 0).all())
    for shape in ((3, 8), (2, 4), (3,)):
        with pytest.raises(InputError, match="response_mask has shape"):
            response_log_probs(ours, ids, mask, torch.ones(shape))


@pytest.mark.parametrize(
    "name", ["pessimistic", "pessimistic-minimum", "situations", "mixture", "single", "counts", "network-1"]
)
def test_the_bases_of_a_set_of_imitators(imitators, name):
    ours = Reference.of_imitators(imitators, name)
    corpus = encode(imitators.tokenizer, imitators.held_out[:2])
    rows = [slice(a, min(b, a + 40)) for a, b in zip(corpus.starts[:-1], corpus.starts[1:], strict=True)]
    ids = torch.zeros(2, 40, dtype=torch.int64)
    mask, own = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, part in enumerate(rows):
        n = part.stop - part.start
        ids[row, -n:], mask[row, -n:] = torch.from_numpy(corpus.tokens[part].astype(np.int64)), 1
        own[row, -n:] = torch.from_numpy(corpus.is_action[part]).long()
    found, expected = ours.score(ids, mask, own), score_by_hand(ours, ids, mask, own)
    torch.testing.assert_close(found.log_nu, expected.log_nu, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.log_kept, expected.log_kept, atol=1e-4, rtol=1e-4)
    assert bool((found.log_nu[own == 1] < 0).all())
    assert ours.tokenizer is imitators.tokenizer


def test_it_has_no_gradients_and_no_dropout():
    ours = Reference([network()], Single(), is_action=EVERY)
    assert not ours.train().networks[0].training
    ids = torch.tensor([[1, 2]])
    assert not ours.score(ids).log_nu.requires_grad


def test_autocast_does_not_make_it_coarse():
    ours = Reference([network(0), network(1)], Minimum(), is_action=EVERY)
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ours.score(ids)
    torch.testing.assert_close(inside.log_nu, ours.score(ids).log_nu)


@pytest.mark.parametrize("base", [Single(), Minimum()], ids=str)
def test_members_in_bfloat16_say_nearly_the_same(base):
    ids = torch.tensor([[1, 2, 3, 4], [4, 4, 1, 9]])
    exact = Reference([network(0), network(1)], base, is_action=EVERY).score(ids)
    short = Reference([n.to(torch.bfloat16) for n in (network(0), network(1))], base, is_action=EVERY).score(ids)
    torch.testing.assert_close(short.log_nu, exact.log_nu, atol=0.05, rtol=0.0)


def made(**changed):
    return Reference(**({"networks": [network()], "base": Single(), "is_action": EVERY} | changed))


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("no network is given", {"networks": []}),
        ("network 1 speaks 8 tokens of 10", {"networks": [network(), network(1, rows=8)]}),
        ("neither a tokenizer nor is_action", {"is_action": None}),
        ("some of them true", {"is_action": np.zeros(N, dtype=np.bool_)}),
        ("is_action is int64", {"is_action": np.ones(N, dtype=np.int64)}),
        ("a temperature of 0", {"temperature": 0.0}),
        ("a temperature of nan", {"temperature": math.nan}),
        ("forbidden_nats is inf", {"forbidden_nats": math.inf}),
        ("this base needs the", {"base": Capped(1.0)}),
        ("demonstrator is not known", {"base": Known()}),
    ],
)
def test_refusals(what, changed):
    with pytest.raises(InputError, match=what):
        made(**changed)


def test_more_refusals(imitators):
    twice = network()
    with pytest.raises(InputError, match="given twice"):
        made(networks=[twice, twice])
    with pytest.raises(InputError, match=r"tokenizer has \d+ tokens and is_action 10"):
        made(tokenizer=imitators.tokenizer)
    with pytest.raises(InputError, match="they must share a tokenizer"):
        made(base=Single(of_counts=True), counts=imitators.counts)
    ids = torch.tensor([[1, 2]])
    with pytest.raises(InputError, match="no logits"):
        made()(ids)
    with pytest.raises(InputError, match="no logits"):
        made()(ids, labels=ids, fused_lm_head=False)
    with pytest.raises(InputError, match="got pixel_values"):
        made()(ids, labels=ids, pixel_values=ids)
