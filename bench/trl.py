"""What protection costs in TRL: whole steps with its own reference and with ours."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import datasets
import torch
import trl
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, TrainerCallback

from bench.lines import Line, best_seconds
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.networks import NetworkShape, build_network
from mightnt.lm.reference import Reference
from mightnt.lm.trl_adapter import attach

VOCABULARY, ROWS = 32_000, 8
REPLY, STEPS, ROUNDS = 48, 3, 3
SHAPE = NetworkShape(512, 8, 8, 256)


def network(seed: int) -> Any:
    """A network made from scratch, with a vocabulary as large as those of models that people fine-tune."""
    return build_network(SHAPE, VOCABULARY, seed)


def forward_of(one: Any, tokens: torch.Tensor) -> Callable[[], torch.Tensor]:
    """The reference forward everybody has: one network, logits of all places, log-softmax, the tokens' own."""

    def forward() -> torch.Tensor:
        with torch.no_grad():
            rows = one(input_ids=tokens, use_cache=False).logits.log_softmax(-1)
            return rows[:, :-1].gather(-1, tokens[:, 1:, None])

    return forward


class Clock(TrainerCallback):
    """Processor seconds of every optimizer step: generation, scoring, loss, gradient, update."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        self.started = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        self.seconds.append(time.process_time() - self.started)


def tokenizer() -> PreTrainedTokenizerFast:
    """As many words as the networks have rows."""
    words = ["<pad>", "<end>", *(f"w{i}" for i in range(VOCABULARY - 2))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", padding_side="left")


def steps(kind: str, members: int, folder: str, words: PreTrainedTokenizerFast) -> list[float]:
    """Processor seconds of the steps of a short run after its first: TRL's own reference (0 members), or ours."""
    more = {"loss_type": "dr_grpo", "scale_rewards": "none"} if kind == "GRPO" else {}
    clock = Clock()
    made = getattr(trl, f"{kind}Trainer")(
        folder,
        lambda completion_ids, **_: [float(sum(ids) % 2) for ids in completion_ids],
        getattr(trl, f"{kind}Config")(
            tempfile.mkdtemp(),
            beta=0.0 if members else 0.05,
            max_steps=STEPS,
            per_device_train_batch_size=ROWS,
            num_generations=2,
            max_completion_length=REPLY,
            learning_rate=1e-6,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            **more,
        ),
        datasets.Dataset.from_dict({"prompt": ["w1 w2 w3"] * 64}),
        processing_class=words,
        callbacks=[clock],
    )
    if members:
        base = Reference([network(seed) for seed in range(members)], Minimum(), tokenizer=words)
        attach(made, base, beta=0.05, exact_kl_every=0)
    made.generation_config.min_new_tokens = REPLY  # replies as long in every run
    made.train()
    return clock.seconds[1:]


def stepping() -> list[Line]:
    """A training step of TRL with its own reference (one network) and with ours: runs in turn, the shortest step of each.

    Floor of a minimum of two networks, and of GRPO, whose KL of a sequence needs the policy's log-probabilities before the
    update, which TRL leaves out: TRL's step and one more plain forward.
    """
    words, folder = tokenizer(), tempfile.mkdtemp()
    network(0).save_pretrained(folder)
    arms = [("RLOO", 0), ("RLOO", 1), ("RLOO", 2), ("GRPO", 0), ("GRPO", 1)]
    seconds: dict[tuple[str, int], list[float]] = {arm: [] for arm in arms}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for _ in range(ROUNDS):
            for arm in arms:
                seconds[arm] += steps(*arm, folder, words)
    best = {arm: min(found) * 1e3 for arm, found in seconds.items()}
    [forward] = best_seconds(forward_of(network(0), torch.randint(VOCABULARY, (ROWS, 3 + REPLY))), repetitions=5)
    goal, floor = "TRL with its own reference (goal 1.1)", "TRL's step and one more forward (floor)"
    rloo = best["RLOO", 0]
    return [
        Line("RLOO step, minimum of 1", best["RLOO", 1], rloo, "ms", goal),
        Line("RLOO step, minimum of 2", best["RLOO", 2], rloo, "ms", goal),
        Line("RLOO step, minimum of 2", best["RLOO", 2], rloo + forward * 1e3, "ms", floor),
        Line("GRPO step, minimum of 1", best["GRPO", 1], best["GRPO", 0], "ms", goal),
        Line("GRPO step, minimum of 1", best["GRPO", 1], best["GRPO", 0] + forward * 1e3, "ms", floor),
    ]


def lines() -> list[Line]:
    """Every comparison."""
    torch.set_num_threads(1)
    return stepping()
