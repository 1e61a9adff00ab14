"""What protection costs: scoring finished completions against one reference, and TRL steps with and without us."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from typing import Any

import torch

from bench.lines import Line, median_seconds
from mightnt.lm.bases.capped import Capped
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.networks import NetworkShape, build_network
from mightnt.lm.reference import Reference
from mightnt.models.counts import Support, fit_counts

VOCABULARY, ROWS, LENGTH, MEMBERS = 4096, 8, 128, 8
SHAPE = NetworkShape(128, 4, 4, 256)


def network(seed: int) -> Any:
    """A small network with a vocabulary large enough for its head to matter."""
    return build_network(SHAPE, VOCABULARY, seed)


def scoring() -> list[Line]:
    """Log-probabilities of completions by a base, against the plain reference forward: one network, logits, log-softmax."""
    import numpy as np

    tokens = torch.randint(VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    every = np.ones(VOCABULARY, dtype=np.bool_)
    corpus = np.random.default_rng(0).zipf(1.3, 50_000) % VOCABULARY
    counts = fit_counts(corpus, np.arange(0, 50_001, 100), corpus >= 0, every, longest=4)
    members = [network(seed) for seed in range(MEMBERS)]

    def plain() -> torch.Tensor:
        with torch.no_grad():
            rows = members[0](input_ids=tokens, use_cache=False).logits.log_softmax(-1)
            return rows[:, :-1].gather(-1, tokens[:, 1:, None])

    one = median_seconds(plain, 3)
    cases = {
        "minimum of 1 network": Reference(members[:1], Minimum(), is_action=every),
        f"minimum of {MEMBERS} networks": Reference(members, Minimum(), is_action=every),
        "network capped by counts": Reference(
            members[:1], Capped(1.0), is_action=every, counts=counts, support=Support(50, 2)
        ),
    }
    return [
        Line(
            f"scoring, {what}",
            median_seconds(lambda ours=ours: ours.score(tokens), 3) * 1e3,
            one * 1e3,
            "ms",
            "one reference",
        )
        for what, ours in cases.items()
    ]


def stepping() -> list[Line]:
    """A run of a few training steps: TRL with its own reference (one network), and with ours."""
    import datasets
    import trl
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from mightnt.lm.trl_adapter import attach

    words = ["<pad>", "<end>", *(f"w{i}" for i in range(VOCABULARY - 2))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", padding_side="left"
    )
    folder = tempfile.mkdtemp()
    network(0).save_pretrained(folder)
    steps = {"max_steps": 2, "per_device_train_batch_size": ROWS, "num_generations": 2, "max_completion_length": 48}
    quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "use_cpu": True}

    def run(members: int) -> None:
        beta = 0.0 if members else 0.05
        made = trl.RLOOTrainer(
            folder,
            lambda completion_ids, **_: [float(len(ids)) for ids in completion_ids],
            trl.RLOOConfig(tempfile.mkdtemp(), beta=beta, bf16=False, **steps, **quiet),
            datasets.Dataset.from_dict({"prompt": ["w1 w2 w3"] * 64}),
            processing_class=tokenizer,
        )
        if members:
            base = Reference([network(seed) for seed in range(members)], Minimum(), tokenizer=tokenizer)
            attach(made, base, beta=0.05, exact_kl_every=0)
        started[0] = made
        made.train()

    def seconds(members: int) -> float:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            times = []
            for _ in range(2):
                run(members)
                times.append(started[0].state.log_history[-1]["train_runtime"] / steps["max_steps"])
        return min(times)

    started: list[Any] = [None]
    run(0)
    theirs = seconds(0)
    return [
        Line(
            f"RLOO step, minimum of {n}", seconds(n) * 1e3, theirs * 1e3, "ms", "TRL with its own reference (goal 1.1)"
        )
        for n in (1, 2)
    ]


def lines() -> list[Line]:
    """Every comparison."""
    torch.set_num_threads(1)
    return [*scoring(), *stepping()]
