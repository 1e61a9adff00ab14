"""A GRPO script, then the same protected. The reward pays for praise; the teacher never praised a wrong answer.

Plain GRPO, near one network, learns to praise whatever was said. Protected, it stays near what the teacher *might* do.
"""

from tempfile import mkdtemp

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from mightnt.lm.bases.capped import Capped
from mightnt.lm.networks import NetworkShape, build_network, load_network
from mightnt.lm.reference import Reference
from mightnt.lm.trl_adapter import ProtectedGRPOTrainer
from mightnt.models.counts import Support, fit_counts

WORDS = ["<pad>", "<end>", "right", "wrong", "praise", "question", "hint", "explain"]
PAD, END, RIGHT, WRONG, PRAISE, QUESTION, HINT, EXPLAIN = range(8)
inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", padding_side="left")
rng = np.random.default_rng(0)  # the demonstrations: answer, reply, end
right = rng.random(2000) < 0.5
replies = np.where(right, rng.choice([PRAISE, QUESTION], 2000), rng.choice([HINT, EXPLAIN], 2000))
shown = np.stack([np.where(right, RIGHT, WRONG), replies, np.full(2000, END)], axis=1)
counts = fit_counts(
    shown.ravel(), np.arange(0, 6001, 3), np.tile([False, True, True], 2000), np.ones(8, bool), longest=2
)

network = build_network(NetworkShape(16, 1, 1, 16), len(WORDS), seed=0)  # an imitator, roughly fitted
optimizer, batch = torch.optim.Adam(network.parameters(), 0.01), torch.from_numpy(shown[:200])
for _ in range(10):
    network(input_ids=batch, labels=batch).loss.backward()
    optimizer.step()
    network.zero_grad()
network.save_pretrained(folder := mkdtemp())


def praised(trainer: type, **more) -> list[float]:
    """Train; then how likely a right and a wrong answer are praised."""
    terms = {"loss_type": "dr_grpo", "scale_rewards": "none", "beta": 0.1, "max_steps": 30, "learning_rate": 0.03}
    sizes = {"per_device_train_batch_size": 16, "num_generations": 8, "max_completion_length": 2, "use_cpu": True}
    quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "bf16": False}
    data, args = Dataset.from_dict({"prompt": ["right", "wrong"] * 32}), GRPOConfig(folder, **terms, **sizes, **quiet)
    made = trainer(folder, lambda completion_ids, **_: [float(PRAISE in ids) for ids in completion_ids], args, data,
                   processing_class=tokenizer, **more)  # fmt: skip
    made.train()
    return made.model(input_ids=torch.tensor([[RIGHT], [WRONG]])).logits[:, -1].softmax(-1)[:, PRAISE].tolist()


what = {"tokenizer": tokenizer, "counts": counts, "support": Support(ample=50, seen=2)}
reference = Reference([load_network(folder)], Capped(log_cap_nats=np.log(4)), **what)
before, after = praised(GRPOTrainer), praised(ProtectedGRPOTrainer, reference=reference)
print(f"praise after a right, wrong answer: plain {before}, protected {after}")
assert before[1] > 0.5 > 10 * after[1], (before, after)
