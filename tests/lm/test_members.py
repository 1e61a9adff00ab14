"""Members read step by step say what they would say of the whole sequence at once."""

import math

import numpy as np
import pytest
import torch

from mightnt.lm.members import Members, over_actions
from mightnt.lm.networks import NetworkMember, NetworkShape, build_network
from mightnt.lm.scoring import scores
from mightnt.models.counts import BEFORE_START, suffixes_of


def members_of(imitators, counts=True, support=True):
    return Members(
        [NetworkMember(network) for network in imitators.networks],
        imitators.counts.is_action,
        imitators.counts if counts else None,
        imitators.support if support else None,
    )


def some_tokens(imitators, rows=3):
    """The beginnings of demonstrations, and one row of random tokens: shape (rows + 1, 30)."""
    rng = np.random.default_rng(0)
    encoded = [
        imitators.tokenizer.encode(" ".join(f"<|{m.role}|> {m.content} <|end|>" for m in dialogue))[:30]
        for dialogue in imitators.fitted[:rows]
    ]
    return torch.tensor([*encoded, rng.integers(len(imitators.counts.is_action), size=30).tolist()])


def test_step_by_step_is_all_at_once(imitators):
    tokens, members = some_tokens(imitators), members_of(imitators)
    whole = torch.stack([scores(network, tokens) for network in imitators.networks])
    is_action = torch.from_numpy(imitators.counts.is_action)
    members.start(len(tokens))
    rows = torch.tensor([3, 0, 2])
    for t in range(tokens.shape[1]):
        members.advance(tokens[:, t])
        step = members.predict(rows)
        expected = over_actions(whole[:, rows, t], is_action)
        torch.testing.assert_close(step.networks, expected, atol=1e-4, rtol=1e-4)
        suffixes = [[-1] * 4 + tokens[row, : t + 1].tolist() for row in rows]
        suffixes = np.array([suffix[-imitators.counts.longest :] for suffix in suffixes])
        assert torch.equal(step.counts, torch.from_numpy(imitators.counts.predict(suffixes)))
        supported = imitators.counts.supported(suffixes, imitators.support)
        assert torch.equal(step.supported, torch.from_numpy(supported))
    assert bool(step.supported.any())
    assert not bool(step.supported.all())


def test_recalling_a_dialogue_is_reading_it(imitators, monkeypatch):
    """Every second place, in blocks of 4, against reading token by token and against reading in pieces."""
    monkeypatch.setattr("mightnt.lm.members.RECALLED_AT_ONCE", 4)
    tokens, members, pieces = some_tokens(imitators)[0], members_of(imitators), members_of(imitators)
    places = list(range(1, len(tokens), 2))
    recalled = dict(zip(places, members.recall(tokens, places), strict=True))
    assert list(members.recall(tokens, [])) == []
    members.start(1)
    for place in range(1, len(tokens)):
        members.advance(tokens[None, place - 1])
        if place in recalled:
            step = members.predict(torch.tensor([0]))
            torch.testing.assert_close(recalled[place].networks, step.networks, atol=1e-4, rtol=1e-4)
            assert torch.equal(recalled[place].counts, step.counts)
            assert torch.equal(recalled[place].supported, step.supported)
    pieces.start(1)
    for piece in (tokens[:1], tokens[1:3], tokens[3:-1]):
        pieces.advance(piece[None])
    np.testing.assert_array_equal(pieces.suffixes, members.suffixes)
    torch.testing.assert_close(pieces.states[0].log_probs, members.states[0].log_probs, atol=1e-4, rtol=1e-4)


def test_suffixes_are_those_of_the_corpus(imitators):
    tokens, members = some_tokens(imitators), members_of(imitators)
    longest = imitators.counts.longest
    flat = torch.cat([tokens, torch.zeros(len(tokens), 1, dtype=torch.int64)], dim=1)
    expected = suffixes_of(flat.flatten().numpy(), np.arange(len(tokens) + 1) * flat.shape[1], longest)
    expected = expected.reshape(len(tokens), -1, longest)
    members.start(len(tokens))
    assert (members.suffixes == BEFORE_START).all()
    for t in range(tokens.shape[1]):
        members.advance(tokens[:, t])
        np.testing.assert_array_equal(members.suffixes, expected[:, t + 1])


def test_the_hidden_state_is_what_the_output_layer_of_the_first_network_reads(imitators):
    tokens, members = some_tokens(imitators), members_of(imitators)
    members.start(len(tokens))
    for t in range(5):
        members.advance(tokens[:, t])
    step = members.predict(torch.arange(len(tokens)))
    with torch.no_grad():
        logits = imitators.networks[0].get_output_embeddings()(step.hidden)
    torch.testing.assert_close(logits.log_softmax(-1), members.states[0].log_probs, atol=1e-4, rtol=1e-4)


def test_a_new_start_forgets_everything(imitators):
    members = members_of(imitators)
    said = []
    for first in (5, 9, 5):
        members.start(1)
        for token in (first, 7):
            members.advance(torch.tensor([token]))
        step = members.predict(torch.tensor([0]))
        said.append((step.networks.numpy().tobytes(), step.counts.numpy().tobytes()))
    assert said[0] == said[2] != said[1]


def test_who_is_not_asked_for_says_nothing(imitators):
    members = members_of(imitators, counts=False, support=False)
    members.start(2)
    members.advance(torch.tensor([1, 1]))
    mu = torch.zeros(1, 3)
    step = members.predict(torch.tensor([1]), mu)
    assert step.counts is step.supported is None
    assert step.demonstrator is mu
    without_rule = members_of(imitators, support=False)
    without_rule.start(1)
    without_rule.advance(torch.tensor([1]))
    step = without_rule.predict(torch.tensor([0]))
    assert step.counts is not None
    assert step.supported is None


def test_a_network_with_rows_to_spare_gives_them_nothing(imitators):
    spare = build_network(NetworkShape(16, 1, 1, 32), len(imitators.counts.is_action) + 5, seed=0)
    members = Members([NetworkMember(spare)], imitators.counts.is_action, imitators.counts)
    members.start(1)
    members.advance(torch.tensor([imitators.marks.assistant]))
    step = members.predict(torch.tensor([0]))
    assert step.networks[0].shape == step.counts.shape
    assert float(step.networks[0].exp().sum()) == pytest.approx(1.0)


def test_nobody_chooses_a_mark_that_is_given():
    """p = (.5, .3, .2) of which the first is no action: (0, .6, .4)."""
    found = over_actions(torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([False, True, True]))
    assert found.dtype == torch.float64
    assert found.exp()[0].tolist() == pytest.approx([0.0, 0.6, 0.4])
    assert float(found[0, 0]) == -math.inf
