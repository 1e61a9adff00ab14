"""Reading plain Llama networks token by token, fast: the same numbers as the Hugging Face forward pass.

One step of a tiny network is bounded by overhead, not arithmetic, so this path does less of everything: weights are fused
and laid out once, keys and values go into buffers that double when full, and a step is a few dozen tensor operations.

Three identities save work. Norm scales fold into the matrix that follows: W (g * u) = (W g) u. RMS normalization is
x sqrt(n) / hypot(|x|, sqrt(n eps)), and sqrt(n) folds in too. Rotary embedding turns pairs (i, i + d/2); with the rows of
the query and key matrices permuted so that pairs are neighbors it is one complex product, and inner products do not notice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

FIRST_CAPACITY = 64
"""Tokens the buffers hold at first."""
LONGEST_PIECE = 32
"""Longer prompts are read in pieces of so many tokens, to bound the memory of attention."""
FIXED_ROTARY = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose frequencies do not depend on the length read."""


def is_plain_llama(network: Any) -> bool:
    """Whether :class:`LlamaReader` can read this network: a Llama in float32 without biases, on the CPU."""
    if type(network) is not LlamaForCausalLM:
        return False
    config = network.config
    return (
        config.hidden_act == "silu"
        and not config.attention_bias
        and not config.mlp_bias
        and config.rope_parameters["rope_type"] in FIXED_ROTARY
        and all(p.dtype == torch.float32 and p.device.type == "cpu" for p in network.parameters())
    )


@dataclass(frozen=True, slots=True)
class Layer:
    """One block's matrices, transposed for ``x @ W``, with norm scales and the attention scale folded in."""

    query_key_value: Tensor
    output: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor


@dataclass(slots=True)
class Cache:
    """Keys and values of every layer, (rows, key heads, capacity, head width), and the rotation at each position."""

    keys: list[Tensor]
    values: list[Tensor]
    rotation: Tensor
    length: int = 0


class LlamaReader:
    """Reads with a plain Llama's weights as they are now (a copy)."""

    def __init__(self, network: Any) -> None:
        config = network.config
        self.n_heads, self.n_key_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_width, self.width = config.head_dim, config.hidden_size
        self.root_width = math.sqrt(config.hidden_size)
        self.floor = torch.tensor(math.sqrt(config.hidden_size * config.rms_norm_eps))
        self.frequencies = network.model.rotary_emb.inv_freq.detach().float()
        self.rotary_scale = float(network.model.rotary_emb.attention_scaling)
        with torch.no_grad():
            self.layers = [self.fold(layer) for layer in network.model.layers]
            self.final_scale = network.model.norm.weight * self.root_width
        self.embedding = network.model.embed_tokens.weight.detach().clone()
        self.head = network.lm_head.weight.detach().clone()

    def fold(self, layer: Any) -> Layer:
        """The matrices of one block as this reader uses them."""
        attention, mlp = layer.self_attn, layer.mlp
        before_attention = layer.input_layernorm.weight * self.root_width
        before_mlp = layer.post_attention_layernorm.weight * self.root_width
        query = self.pairs_together(attention.q_proj.weight) / math.sqrt(self.head_width)
        parts = torch.cat([query, self.pairs_together(attention.k_proj.weight), attention.v_proj.weight])
        return Layer(
            query_key_value=(parts * before_attention).t().contiguous(),
            output=attention.o_proj.weight.t().contiguous(),
            gate=(mlp.gate_proj.weight * before_mlp).t().contiguous(),
            up=(mlp.up_proj.weight * before_mlp).t().contiguous(),
            down=mlp.down_proj.weight.t().contiguous(),
        )

    def pairs_together(self, matrix: Tensor) -> Tensor:
        """The rows of each head in the order 0, d/2, 1, d/2 + 1, ...: pairs that rotate together are neighbors."""
        return matrix.view(-1, 2, self.head_width // 2, self.width).transpose(1, 2).reshape(matrix.shape)

    def rotations(self, capacity: int) -> Tensor:
        """exp(i position * frequency), complex, shape (capacity, 1, head width / 2)."""
        angles = torch.outer(torch.arange(capacity, dtype=torch.float32), self.frequencies)
        return torch.polar(torch.full_like(angles, self.rotary_scale), angles)[:, None]

    def start(self, rows: int) -> Cache:
        """An empty cache for so many rows."""
        shape = (rows, self.n_key_heads, FIRST_CAPACITY, self.head_width)
        keys, values = ([torch.empty(shape) for _ in self.layers] for _ in range(2))
        return Cache(keys, values, self.rotations(FIRST_CAPACITY))

    def make_room(self, cache: Cache, n_more: int) -> None:
        """Double the buffers, in place of the old ones, until ``n_more`` tokens fit."""
        capacity = cache.keys[0].shape[2]
        while capacity < cache.length + n_more:
            capacity *= 2
        if capacity == cache.keys[0].shape[2]:
            return
        for buffers in (cache.keys, cache.values):
            for i, old in enumerate(buffers):
                buffers[i] = old.new_empty(*old.shape[:2], capacity, old.shape[3])
                buffers[i][:, :, : cache.length] = old[:, :, : cache.length]
        cache.rotation = self.rotations(capacity)

    def read(self, cache: Cache, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the next token (rows, vocabulary) and the hidden state (rows, width) after ``tokens``.

        Args:
            tokens: shape (rows, n); appended to ``cache``.
        """
        for piece in torch.split(tokens, LONGEST_PIECE, dim=1):
            last = self.read_piece(cache, piece)
        hidden = self.unit(last) * self.final_scale
        return functional.linear(hidden, self.head).log_softmax(dim=-1), hidden

    def read_piece(self, cache: Cache, tokens: Tensor) -> Tensor:
        """The residual stream at the last of ``tokens``, shape (rows, width), before the final norm."""
        rows, n = tokens.shape
        self.make_room(cache, n)
        past = cache.length
        mask = torch.full((n, past + n), -torch.inf).triu_(past + 1) if n > 1 else None
        stream = functional.embedding(tokens.reshape(-1), self.embedding)
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            mixed = self.attend(self.unit(stream) @ layer.query_key_value, keys, values, cache, rows, mask)
            stream = torch.addmm(stream, mixed, layer.output)
            inner = self.unit(stream)
            gated = functional.silu(inner @ layer.gate, inplace=True).mul_(inner @ layer.up)
            stream = torch.addmm(stream, gated, layer.down)
        cache.length += n
        return stream.view(rows, n, self.width)[:, -1]

    def unit(self, stream: Tensor) -> Tensor:
        """x / hypot(|x|, sqrt(n eps)): RMS normalization without its factor sqrt(n)."""
        return stream / torch.hypot(torch.linalg.vector_norm(stream, dim=-1, keepdim=True), self.floor)

    def attend(
        self, projected: Tensor, keys: Tensor, values: Tensor, cache: Cache, rows: int, mask: Tensor | None
    ) -> Tensor:
        """Append the new keys and values to the buffers, and attend; shape (rows * n, heads * head width)."""
        n = projected.shape[0] // rows
        past, now = cache.length, cache.length + n
        rotating = self.n_heads + self.n_key_heads
        parts = projected.view(rows, n, -1, self.head_width)
        pairs = torch.view_as_complex(parts[:, :, :rotating].view(rows, n, rotating, -1, 2))
        rotated = torch.view_as_real(pairs * cache.rotation[past:now]).flatten(-2)
        keys[:, :, past:now] = rotated[:, :, self.n_heads :].transpose(1, 2)
        values[:, :, past:now] = parts[:, :, rotating:].transpose(1, 2)

        batch, per_key = rows * self.n_key_heads, self.n_heads // self.n_key_heads
        query = rotated[:, :, : self.n_heads].view(rows, n, self.n_key_heads, per_key, -1).permute(0, 2, 3, 1, 4)
        scores = torch.bmm(query.reshape(batch, per_key * n, -1), keys.flatten(0, 1)[:, :now].transpose(1, 2))
        if mask is not None:
            scores.view(batch, per_key, n, now).add_(mask)
        mixed = torch.bmm(scores.softmax(dim=-1), values.flatten(0, 1)[:, :now])
        by_head = mixed.view(rows, self.n_heads, n, self.head_width)
        return by_head.transpose(1, 2).reshape(rows * n, -1)
