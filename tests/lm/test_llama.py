"""The fast reader computes what the Hugging Face forward pass computes."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mightnt.lm.llama import FIRST_CAPACITY, LONGEST_PIECE, LlamaReader, is_plain_llama

VOCABULARY = 50
KINDS = {
    "plain": {},
    "grouped queries": {"num_key_value_heads": 2},
    "one key head": {"num_key_value_heads": 1},
    "wide heads": {"head_dim": 24},
    "tied": {"tie_word_embeddings": True},
    "large eps": {"rms_norm_eps": 0.3},
    "linear rotary": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
    "yarn rotary": {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0}},
    "llama3 rotary": {
        "rope_parameters": {
            "rope_type": "llama3",
            "factor": 8.0,
            "rope_theta": 10000.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
}


def network_of(seed=0, **changes):
    """A small Llama in which no weight is at its neutral value: scales differ from one, logits have some spread."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(**{"vocab_size": VOCABULARY, "max_position_embeddings": 256, **shape, **changes})
    torch.manual_seed(seed)
    network = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(
                torch.randn_like(parameter) * 0.15 if parameter.ndim > 1 else torch.rand_like(parameter) + 0.5
            )
    return network


def tokens_of(rows, n, seed=1):
    return torch.randint(0, VOCABULARY, (rows, n), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def oracle(network, tokens):
    """Log-probabilities and final hidden states at every position."""
    output = network(tokens, output_hidden_states=True, use_cache=False)
    return output.logits.log_softmax(-1), output.hidden_states[-1]


def assert_close(got, expected):
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_step_is_the_forward_pass(kind):
    network = network_of(**KINDS[kind])
    assert is_plain_llama(network)
    reader, tokens = LlamaReader(network), tokens_of(3, 20)
    log_probs, hidden = oracle(network, tokens)
    assert log_probs.std() > 0.3, "a flat network would prove little"
    cache = reader.start(3)
    for t in range(20):
        got = reader.read(cache, tokens[:, t : t + 1])
        assert_close(got[0], log_probs[:, t])
        assert_close(got[1], hidden[:, t])


@pytest.mark.parametrize("n", [2, LONGEST_PIECE, LONGEST_PIECE + 1, 2 * FIRST_CAPACITY + 5])
@pytest.mark.parametrize("heads", [4, 2])
@torch.no_grad()
def test_a_prompt_in_one_go_and_steps_after_it(n, heads):
    network = network_of(num_key_value_heads=heads)
    reader, tokens = LlamaReader(network), tokens_of(2, n + 3)
    log_probs, hidden = oracle(network, tokens)
    cache = reader.start(2)
    got = reader.read(cache, tokens[:, :n])
    assert_close(got[0], log_probs[:, n - 1])
    assert_close(got[1], hidden[:, n - 1])
    got = reader.read(cache, tokens[:, n : n + 2])
    assert_close(got[0], log_probs[:, n + 1])
    assert_close(reader.read(cache, tokens[:, n + 2 :])[0], log_probs[:, -1])


@torch.no_grad()
def test_buffers_grow_and_forget_nothing():
    network = network_of()
    reader, tokens = LlamaReader(network), tokens_of(2, 3 * FIRST_CAPACITY)
    cache = reader.start(2)
    for t in range(tokens.shape[1]):
        got = reader.read(cache, tokens[:, t : t + 1])[0]
    assert cache.keys[0].shape[2] == 4 * FIRST_CAPACITY
    assert_close(got, oracle(network, tokens)[0][:, -1])


@torch.no_grad()
def test_rows_do_not_touch_each_other():
    reader, tokens = LlamaReader(network_of()), tokens_of(4, 10)
    together = reader.read(reader.start(4), tokens)[0]
    alone = reader.read(reader.start(1), tokens[2:3])[0]
    assert_close(together[2:3], alone)


def test_the_reader_keeps_the_weights_it_was_made_with():
    network = network_of()
    reader, tokens = LlamaReader(network), tokens_of(1, 5)
    with torch.no_grad():
        before = reader.read(reader.start(1), tokens)[0]
        for parameter in network.parameters():
            parameter.mul_(0.5)
        assert_close(reader.read(reader.start(1), tokens)[0], before)


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_bias": True},
        {"mlp_bias": True},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}},
    ],
)
def test_other_networks_are_not_taken_for_plain(changes):
    assert not is_plain_llama(network_of(**changes))
    assert not is_plain_llama(network_of().double())
