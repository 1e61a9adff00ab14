"""The paper's own form at full size: what Mixtral-8x7B as base and student would take. No weights are loaded.

Its public shape, numbers of episodes as in docs/paper-form.md, and the published speeds of two GPUs; the page shows this table.
"""

from transformers import MixtralConfig

from mightnt.lm.finetune import FinetuneConfig
from mightnt.lm.footprint import footprint, table

MIXTRAL = MixtralConfig(
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    num_local_experts=8,
    num_experts_per_tok=2,
    tie_word_embeddings=False,
)
H100 = 3.35e12, 989e12
"""Bytes and bfloat16 operations a second, as published, dense."""
H200 = 4.8e12, 989e12
H200_BYTES = 141e9
LENGTHS = {"256 tokens": 3, "512 tokens": 6}
"""Turns of 40 tokens, each answered by as many."""

columns = {}
for precision in ("bfloat16", "4 bits"):
    for name, turns in LENGTHS.items():
        run = FinetuneConfig("single", kl_budget_nats=20.0, turns=turns, turn_tokens=40)
        columns[f"{name}, {precision}"] = footprint(MIXTRAL, run, precision)
print(table(columns, {"H100": H100, "H200": H200}), end="")

longest = columns["512 tokens, bfloat16"]
assert longest.weights_bytes + longest.cache_bytes < H200_BYTES, "one H200 holds it, without what was left out"
