"""Tiny trainers built in code: nine words, one layer, random weights, no network access."""

import tempfile

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.networks import NetworkShape, build_network
from mightnt.lm.reference import Reference

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

WORDS = ["<pad>", "<end>", "a", "b", "c", "d", "e", "f", "g"]
PROMPTS = ["a b", "c", "d e f", "g"]
GRPO = {"loss_type": "dr_grpo", "scale_rewards": "none"}


def tokenizer(words=WORDS):
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<end>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def network(seed=0, rows=None):
    return build_network(NetworkShape(16, 1, 1, 32), rows or len(WORDS), seed)


def no_pad():
    """Everything but padding can be chosen."""
    return np.array([False, *[True] * (len(WORDS) - 1)])


def reference(base=None, seeds=(0, 1), **settings):
    base = Minimum() if base is None else base
    return Reference([network(seed) for seed in seeds], base, **({"tokenizer": tokenizer()} | settings))


def likes_a(completion_ids, **kwargs):
    """One for each `a`."""
    return [float(sum(token == 2 for token in ids)) for ids in completion_ids]


def config(kind="RLOO", path=None, **changed):
    settings = {
        "output_dir": str(path or tempfile.mkdtemp()),
        "beta": 0.0,
        "per_device_train_batch_size": 4,
        "num_generations": 2,
        "max_completion_length": 5,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "seed": 0,
    }
    return (trl.RLOOConfig if kind == "RLOO" else trl.GRPOConfig)(
        **(settings | (GRPO if kind == "GRPO" else {}) | changed)
    )


def trainer(
    kind="RLOO", path=None, model=None, cls=None, more=None, words=WORDS, prompts=PROMPTS, reward=likes_a, **changed
):
    """A trainer of TRL; ``words`` are a vocabulary or a tokenizer, ``more`` arguments of TRL's, the others settings."""
    torch.manual_seed(0)
    cls = cls or (trl.RLOOTrainer if kind == "RLOO" else trl.GRPOTrainer)
    return cls(
        model=model or network(),
        reward_funcs=reward,
        args=config(kind, path, **changed),
        train_dataset=datasets.Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        eval_dataset=datasets.Dataset.from_list([{"prompt": prompt} for prompt in prompts[:2]]),
        processing_class=tokenizer(words) if isinstance(words, list) else words,
        **(more or {}),
    )


def logged(made, name):
    """All values of one metric."""
    return [row[name] for row in made.state.log_history if name in row]


KL = ("mightnt/sequence_kl_nats", "mightnt/exact_kl_nats", "mightnt/over_budget_share", "mightnt/beta")
