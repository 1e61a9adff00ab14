"""Small networks of several architectures, random adapters for them, and the slow oracle: weights with the adapter merged in."""

from __future__ import annotations

import copy

import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from mightnt.lm.adapters import Adapters, AdapterShape, fresh_adapters

VOCABULARY, CONTEXT, DEPTH = 20, 40, 4
NO_ENDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    **NO_ENDS,
}
GPT2 = {"vocab_size": VOCABULARY, "n_positions": CONTEXT, "n_embd": 32, "n_layer": DEPTH, "n_head": 4, **NO_ENDS}
MAKERS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=2)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_key_value_heads=2)),
    "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE)),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SHAPE, num_key_value_heads=2, head_dim=8, sliding_window=4, final_logit_softcapping=2.0)
    ),
}


def network_of(name="llama", seed=0):
    """A random network, its weights large enough that predictions differ visibly."""
    return spread(MAKERS[name], seed)


def bloom():
    """A network whose masks have a row for every head: members cannot share a pass."""
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": DEPTH, "n_head": 4}
    return spread(lambda: BloomForCausalLM(BloomConfig(**sizes, **NO_ENDS)), 0)


def spread(make, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1.3)
    return network.eval()


def random_adapters(network, n_members=3, shared_layers=2, rank=4, seed=0):
    """Members that differ visibly."""
    fresh = fresh_adapters(network, n_members, seed, AdapterShape(rank, shared_layers))
    generator = torch.Generator().manual_seed(seed)
    up = tuple(0.3 * torch.randn(b.shape, generator=generator) for b in fresh.up)
    return Adapters(fresh.names, fresh.down, up, fresh.weights)


def merged(network, adapters, member):
    """The oracle: a copy of the network with B A of this member added to its matrices."""
    alone = copy.deepcopy(network)
    with torch.no_grad():
        for name, down, up in zip(adapters.names, adapters.down, adapters.up, strict=True):
            weight = alone.get_submodule(name).weight
            change = up[member].double() @ down[member].double()
            as_kept = isinstance(alone.get_submodule(name), torch.nn.Linear)  # (out, in); in others (in, out)
            weight += (change if as_kept else change.T).to(weight.dtype)
    return alone


def tokens_of(rows, n, seed=0):
    return torch.randint(0, VOCABULARY, (rows, n), generator=torch.Generator().manual_seed(seed))
