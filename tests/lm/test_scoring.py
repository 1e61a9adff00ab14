"""Log-probabilities of whole dialogues, against one dialogue at a time."""

import math

import numpy as np
import pytest
import torch

from mightnt.dialogues import Message
from mightnt.errors import InputError
from mightnt.lm import scoring
from mightnt.lm.networks import NetworkShape, build_network
from mightnt.lm.scoring import log_loss, mean_loss, scores, token_log_probs
from mightnt.lm.tokens import encode, word_tokenizer
from mightnt.lm.windows import windows

WORDS = [f"w{i}" for i in range(12)]


def corpus(n=9, seed=0):
    """Dialogues of different lengths with user and assistant turns."""
    rng = np.random.default_rng(seed)

    def turn(role):
        return Message(role, " ".join(rng.choice(WORDS, rng.integers(0, 7))))

    dialogues = [tuple(turn(role) for role in ("user", "assistant") * rng.integers(1, 5)) for _ in range(n)]
    return encode(word_tokenizer(WORDS), dialogues)


def network_of(context=256, seed=0):
    network = build_network(NetworkShape(width=32, layers=1, heads=2, context=context), 16, seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(8)
    return network


def one_by_one(network, tokens):
    """log p of each token, the first 0: float64 softmax of the logits of one dialogue alone."""
    with torch.no_grad():
        rows = network(torch.from_numpy(tokens[None].astype(np.int64))).logits[0].double().log_softmax(-1).numpy()
    return np.concatenate([[0.0], rows[np.arange(tokens.size - 1), tokens[1:]]])


@pytest.mark.parametrize("max_tokens", [30, 8192])
def test_token_log_probs_are_those_of_each_dialogue_alone(max_tokens, monkeypatch):
    monkeypatch.setattr(scoring, "MAX_TOKENS", max_tokens)
    network, encoded = network_of(), corpus()
    got = token_log_probs(network, encoded)
    expected = [one_by_one(network, part) for part in np.split(encoded.tokens, encoded.starts[1:-1])]
    assert np.concatenate(expected).std() > 0.5
    np.testing.assert_allclose(got, np.concatenate(expected), atol=2e-5)
    assert got.dtype == np.float64
    assert (got[encoded.starts[:-1]] == 0).all()


def test_longer_than_the_context_each_token_is_scored_in_its_window():
    network, encoded = network_of(context=10), corpus()
    cut = windows(encoded, 10)
    assert cut.begin.size > encoded.n_dialogues
    expected = np.zeros(encoded.tokens.size)
    for begin, end, scored_from in zip(cut.begin, cut.end, cut.scored_from, strict=True):
        expected[scored_from:end] = one_by_one(network, encoded.tokens[begin:end])[scored_from - begin :]
    np.testing.assert_allclose(token_log_probs(network, encoded), expected, atol=2e-5)
    assert (np.flatnonzero(expected == 0) == encoded.starts[:-1]).all()


def test_scores_are_the_forward_pass_in_any_chunks(monkeypatch):
    network = network_of()
    tokens = torch.randint(0, 16, (7, 9))
    whole = scores(network, tokens)
    with torch.no_grad():
        torch.testing.assert_close(whole, network(tokens).logits.log_softmax(-1))
    torch.testing.assert_close(whole.exp().sum(-1), torch.ones(7, 9))
    monkeypatch.setattr(scoring, "MAX_LOGITS", 16 * 9 * 2)
    torch.testing.assert_close(scores(network, tokens), whole)
    assert not whole.requires_grad


def test_scores_refuse_what_exceeds_the_context():
    with pytest.raises(InputError, match="11 tokens do not fit the network's context of 10"):
        scores(network_of(context=10), torch.zeros(1, 11, dtype=torch.int64))


def test_log_loss_by_hand():
    network, encoded = network_of(), corpus()
    log_probs = token_log_probs(network, encoded)
    sums, n_turns = [], 0
    for begin, end in zip(encoded.starts[:-1], encoded.starts[1:], strict=True):
        sums.append(-log_probs[begin:end][encoded.is_action[begin:end]].sum())
        n_turns += len(set(encoded.turn[begin:end][encoded.is_action[begin:end]]))
    got = log_loss(network, encoded)
    assert got["nats_per_action_token"] == pytest.approx(sum(sums) / encoded.is_action.sum())
    assert got["nats_per_action_turn"] == pytest.approx(sum(sums) / n_turns)
    assert got["nats_per_dialogue"] == pytest.approx(np.mean(sums))
    assert got["nats_per_dialogue_standard_error"] == pytest.approx(np.std(sums, ddof=1) / np.sqrt(len(sums)))
    assert (got["n_dialogues"], got["n_action_turns"]) == (encoded.n_dialogues, n_turns)
    assert math.isinf(log_loss(network, encoded.rows([0]))["nats_per_dialogue_standard_error"])


def test_log_loss_needs_an_action():
    encoded = encode(word_tokenizer(WORDS), [(Message("user", "w1"),)])
    with pytest.raises(InputError, match="no action"):
        log_loss(network_of(), encoded)


def test_mean_loss_counts_both_speakers():
    network, encoded = network_of(), corpus()
    log_probs = token_log_probs(network, encoded)
    predicted = np.ones(log_probs.size, bool)
    predicted[encoded.starts[:-1]] = False
    assert mean_loss(network, encoded) == pytest.approx(-log_probs[predicted].mean())
