"""What fine-tuning on a model would take, from its configuration alone: memory, passes, time. No weights are loaded.

Episodes are taken at their longest, so memory and passes are upper bounds; time is an estimate from below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from mightnt.errors import InputError
from mightnt.lm.account import Account
from mightnt.lm.actor import N_LEDGER_FEATURES, Actor
from mightnt.lm.finetune import FinetuneConfig
from mightnt.lm.run import EVALUATION_ROWS
from mightnt.lm.tokens import MARKS

BITS = {"float32": 32, "bfloat16": 16, "4 bits": 4}
"""Of a weight. 4 bits are for comparison: nothing here loads them, and what they need beside the weights is left out."""
LONGEST_OPENING_TOKENS = 80
"""Of :class:`~mightnt.lm.scenes.LanguageScene`."""
GIVEN_TOKENS_PER_TURN = 2
"""A turn's role mark, and its end where it is cut."""
ADAM_BYTES_PER_PARAMETER = 16
"""Weight, gradient and two moments, float32."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one run takes. Bytes of weights and cache are where the networks are, the others are the CPU's."""

    parameters: int
    """Of the model."""
    parameters_per_token: int
    """That a token is multiplied with: of experts those it is sent to; without the look-up of its embedding."""
    weights_bytes: int
    cache_bytes_per_token: int
    """Keys and values of one token of one episode."""
    episode_tokens: int
    """Of the longest episode, both speakers', opening and marks included."""
    cache_bytes: int
    """Of the most episodes that are side by side."""
    actor_bytes: int
    """The actor with its gradient and Adam's moments."""
    training_decisions_bytes: int
    """What a round keeps of its decisions to learn from; twice that while it is joined."""
    evaluation_decisions_bytes: int
    """The same for a batch of fresh episodes, which are measured and not learnt from."""
    passes: int
    """Forward passes of the model, one token a row each."""
    tokens_read: int
    """Over all rows and passes."""

    def hours(self, bytes_per_second: float, operations_per_second: float) -> float:
        """Hours of forward passes at these speeds of a device: the slower of reading and multiplying, each at its best.

        A pass reads all weights (with this many rows every expert is met) and, on average, half of the longest cache.
        Kind: estimate (from below; episodes at their longest). Real programs take several times this.
        """
        reading = self.passes * (self.weights_bytes + self.cache_bytes / 2) / bytes_per_second
        multiplying = 2 * self.parameters_per_token * self.tokens_read / operations_per_second
        return max(reading, multiplying) / 3600


def footprint(model: Any, run: FinetuneConfig, precision: str = "bfloat16") -> Footprint:
    """What ``mightnt finetune`` takes on a model of this shape, with bases that look at one network.

    Args:
        model: a ``transformers`` configuration of a causal language model, a mixture of experts or not.
        run: its lengths and numbers of episodes.
        precision: of the weights and the cache; ``4 bits`` leaves the cache in bfloat16.

    Left out: activations of a pass (a token a row), counts and situations, the reward's model, temporary copies.
    Kind: upper bound (episodes at their longest) on what is counted. Cost: the model's modules are made without numbers.
    """
    if precision not in BITS:
        raise InputError(f"unknown precision {precision!r}; allowed are {', '.join(BITS)}")
    parameters, per_token = count_parameters(model)
    text = model.get_text_config()
    bytes_per_number = max(16, BITS[precision]) // 8
    of_token = cache_numbers_per_token(text) * bytes_per_number
    longest = LONGEST_OPENING_TOKENS + 2 * run.turns * (run.turn_tokens + GIVEN_TOKENS_PER_TURN)
    measured_rows = min(EVALUATION_ROWS, run.evaluation_episodes)
    n_tokens = text.vocab_size + len(MARKS)
    decisions_bytes = run.turns * run.turn_tokens * decision_bytes(text.hidden_size, n_tokens)
    actor = Actor(text.hidden_size, n_tokens, Account(run.kl_budget_nats))
    return Footprint(
        parameters=parameters,
        parameters_per_token=per_token,
        weights_bytes=parameters * BITS[precision] // 8,
        cache_bytes_per_token=of_token,
        episode_tokens=longest,
        cache_bytes=of_token * longest * max(run.episodes, measured_rows),
        actor_bytes=ADAM_BYTES_PER_PARAMETER * sum(p.numel() for p in actor.parameters()),
        training_decisions_bytes=run.episodes * decisions_bytes,
        evaluation_decisions_bytes=measured_rows * decisions_bytes,
        passes=longest * (run.iterations + -(-run.evaluation_episodes // EVALUATION_ROWS)),
        tokens_read=longest * (run.iterations * run.episodes + run.evaluation_episodes),
    )


def count_parameters(model: Any) -> tuple[int, int]:
    """``(parameters, those a token is multiplied with)`` of a model of this configuration.

    Weights of experts have ``.experts.`` in their names, and a token is sent to ``num_experts_per_tok`` of them.
    """
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(model)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    of_experts = sum(size for name, size in sizes.items() if ".experts." in name)
    text = model.get_text_config()
    total, sent_to, of = sum(sizes.values()), *experts(text)
    looked_up = 0 if text.tie_word_embeddings else network.get_input_embeddings().weight.numel()
    return total, total - looked_up - of_experts + of_experts * sent_to // of


def experts(text: Any) -> tuple[int, int]:
    """``(experts a token is sent to, experts)``; one of one where the configuration names none."""
    n = getattr(text, "num_local_experts", None) or getattr(text, "num_experts", None) or 1
    return (int(getattr(text, "num_experts_per_tok", 1)) if n > 1 else 1), int(n)


def cache_numbers_per_token(text: Any) -> int:
    """Keys and values of a token in all layers: 2 x layers x key heads x width of a head."""
    key_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * int(text.num_hidden_layers) * int(key_heads) * int(head_width)


def decision_bytes(width: int, n_tokens: int) -> int:
    """What is kept of one decision (:class:`~mightnt.lm.ledgers.Decisions`): base in float64, what the actor saw, 7 numbers."""
    return 8 * (n_tokens + 1) + 4 * (width + N_LEDGER_FEATURES) + 8 * 7


def table(columns: Mapping[str, Footprint], devices: Mapping[str, tuple[float, float]]) -> str:
    """Footprints side by side in Markdown; ``devices`` are named bytes and operations a second."""
    rows: dict[str, list[str]] = {}
    for needed in columns.values():
        cells = {
            "parameters, and those a token is multiplied with": f"{billions(needed.parameters)}, "
            f"{billions(needed.parameters_per_token)}",
            "weights": gigabytes(needed.weights_bytes),
            "keys and values of a token": f"{needed.cache_bytes_per_token / 1024:.0f} KiB",
            "longest episode": f"{needed.episode_tokens} tokens",
            "keys and values of the most episodes side by side": gigabytes(needed.cache_bytes),
            "actor, gradient, Adam": gigabytes(needed.actor_bytes),
            "decisions of a round of training": gigabytes(needed.training_decisions_bytes),
            "decisions of the fresh episodes": gigabytes(needed.evaluation_decisions_bytes),
            "forward passes": f"{needed.passes:,}",
            "tokens read": f"{needed.tokens_read:,}",
            **{
                f"hours at the speed of one {n}, at least": f"{needed.hours(*speed):.2f}"
                for n, speed in devices.items()
            },
        }
        for name, cell in cells.items():
            rows.setdefault(name, []).append(cell)
    lines = [["", *columns], ["---"] + ["---:"] * len(columns), *([name, *cells] for name, cells in rows.items())]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def gigabytes(n_bytes: int) -> str:
    """So many bytes in units of 10^9."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e9:.2f} GB"


def billions(n: int) -> str:
    """So many in units of 10^9."""
    return f"{n / 1e9:.1f} billion"
