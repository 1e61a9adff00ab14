"""A network in two parts says what it says whole, and one that cannot be divided is taken whole."""

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel, GPT2Model

from mightnt.errors import InputError
from mightnt.lm.heads import TwoParts, read_all, shared_readings
from mightnt.lm.networks import NetworkShape, build_network
from mightnt.lm.scoring import logits_of
from tests.lm.adapted import bloom, network_of, random_adapters, tokens_of

TOKENS = torch.tensor([[3, 1, 4, 1, 5], [2, 6, 5, 3, 0]])


def soft_capped(cap):
    config = Gemma2Config(
        vocab_size=11,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=16,
        final_logit_softcapping=cap,
        initializer_range=1.0,
    )
    torch.manual_seed(0)
    return Gemma2ForCausalLM(config).eval()


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=16, n_embd=16, n_layer=1, n_head=2)).eval()


@pytest.mark.parametrize(
    ("network", "divides"),
    [
        (build_network(NetworkShape(16, 1, 1, 16), 11, 0), True),
        (gpt2(), True),
        (soft_capped(None), True),
        (soft_capped(1.0), False),
    ],
    ids=["llama", "gpt2", "gemma", "soft-capped"],
)
@torch.no_grad()
def test_both_ways_say_the_same(network, divides):
    """A soft cap bends the logits after the output layer: hidden states and head alone would be silently wrong."""
    parts = TwoParts(network)
    assert parts.divides is divides
    read = parts.read(TOKENS)
    assert read.shape == (2, 5, parts.width)
    torch.testing.assert_close(parts.logits(read[:, 2]), logits_of(network, TOKENS)[:, 2])
    assert parts.rows == 11


@torch.no_grad()
def test_an_adapted_network_speaks_with_its_adapter():
    peft = pytest.importorskip("peft")
    network = peft.get_peft_model(gpt2(), peft.LoraConfig(r=2, init_lora_weights=False, fan_in_fan_out=True)).eval()
    parts = TwoParts(network)
    assert parts.divides
    adapted = logits_of(network, TOKENS)
    torch.testing.assert_close(parts.logits(parts.read(TOKENS)[:, 3]), adapted[:, 3])
    with network.disable_adapter():
        assert not torch.allclose(logits_of(network, TOKENS), adapted, atol=1e-3)


@pytest.mark.parametrize("trunk", [network_of("llama"), network_of("gpt2"), bloom()], ids=["llama", "gpt2", "bloom"])
@torch.no_grad()
def test_adapters_on_one_network_are_read_together(trunk):
    """A network of its own among them; bloom's members cannot share a pass, and say the same."""
    adapted, other = random_adapters(trunk, shared_layers=2).networks(trunk), network_of("qwen2")
    parts = [TwoParts(network) for network in (adapted[0], other, *adapted[1:])]
    (shared,) = shared_readings(parts)
    assert shared.members == (0, 2, 3)
    tokens = tokens_of(2, 7)
    for _ in range(2):
        for found, part in zip(read_all(parts, [shared], tokens), parts, strict=True):
            torch.testing.assert_close(found, part.read(tokens), rtol=1e-4, atol=1e-4)
        adapted[1].matrices[-1].add_(0.5)  # as they are now, not as they were


@torch.no_grad()
def test_shared_layers_run_once_and_the_others_once_for_all():
    trunk, rows = network_of("llama"), []
    parts = [TwoParts(network) for network in random_adapters(trunk, shared_layers=2).networks(trunk)]
    shared = shared_readings(parts)
    for layer in trunk.base_model.layers:
        layer.register_forward_pre_hook(lambda _layer, inputs: rows.append(len(inputs[0])))
    read_all(parts, shared, tokens_of(2, 7))
    assert len(rows) == 4
    assert rows[-1] == 3 * rows[0] == 6


def test_one_adapter_and_networks_that_do_not_divide_are_read_alone():
    trunk = network_of("llama")
    assert shared_readings([TwoParts(random_adapters(trunk, 1).networks(trunk)[0]), TwoParts(network_of("gpt2"))]) == ()
    bent = network_of("gemma2")
    assert shared_readings([TwoParts(network) for network in random_adapters(bent).networks(bent)]) == ()


def test_refusals():
    with pytest.raises(InputError, match="gives no logits"):
        TwoParts(GPT2Model(GPT2Config(vocab_size=11, n_positions=16, n_embd=16, n_layer=1, n_head=2)))
    with pytest.raises(InputError, match="17 tokens do not fit"):
        TwoParts(gpt2()).read(torch.zeros(1, 17, dtype=torch.int64))
