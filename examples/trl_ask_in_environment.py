"""Asking by turns, in an environment of TRL: the agent has a token that hands its turn to the teacher, and it has a price.

Two teachers fit the demonstrations, all of easy questions; after hard ones they disagree, so there asking is open.
"""

from tempfile import mkdtemp

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig

from mightnt.desk.demonstrators import Function
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.networks import NetworkShape, build_network
from mightnt.lm.reference import Reference
from mightnt.lm.trl_adapter import AskEnvironment, AskToken, ProtectedGRPOTrainer, ask_template

WORDS = ["<pad>", "<end>", "<ask>", "easy", "hard", "yes", "no"]
PAD, END, ASK, EASY, HARD, YES, NO = range(len(WORDS))
inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", padding_side="left")
tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {{ m.tool_calls }} {% endfor %}"
tokenizer.response_template = ask_template("<ask>")


def speaker(seed: int, rows: list[list[int]]) -> torch.nn.Module:
    """A network fitted to go on as these rows do; generation ends with its turn, or where it asks."""
    network, ids = build_network(NetworkShape(16, 1, 1, 16), len(WORDS), seed), torch.tensor(rows)
    network.generation_config.eos_token_id = [END, ASK]
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(60):
        network(input_ids=ids, labels=ids.masked_fill(ids == PAD, -100)).loss.backward()
        optimizer.step()
        network.zero_grad()
    return network


shown = [[EASY, YES, END, PAD], *([q, ASK, a, END] for q, a in ((EASY, YES), (HARD, YES), (HARD, NO)))]
guesses = [[[HARD, answer, END, PAD]] for answer in (YES, NO)]
can_say, asked = np.isin(WORDS, ["<end>", "yes", "no"]), []
members = [speaker(seed, shown + guess) for seed, guess in enumerate(guesses, 1)]
reference = Reference(members, AskToken(Minimum(), ASK), tokenizer=tokenizer, is_action=can_say)
knows = Function(lambda inquiry: asked.append(inquiry) or {"easy": "yes", "hard": "no"}[inquiry.messages[0].content])
chats = [{"prompt": [{"role": "user", "content": q}], "right": a} for q, a in (("easy", YES), ("hard", NO))]
args = GRPOConfig(mkdtemp(), loss_type="dr_grpo", scale_rewards="none", beta=0.1, max_steps=24, learning_rate=0.02,
                  per_device_train_batch_size=16, max_completion_length=4, logging_steps=1, report_to=[],
                  save_strategy="no", use_cpu=True, bf16=False)  # fmt: skip
trainer = ProtectedGRPOTrainer(
    speaker(0, sum(guesses, shown)), lambda right, completion_ids, **_: [float(r in c) for r, c in zip(right, completion_ids)],  # noqa: B905
    args, Dataset.from_list(chats * 16), processing_class=tokenizer, reference=reference,
    environment_factory=lambda: AskEnvironment(knows, reference))  # fmt: skip
trainer.train()
counted = sum(16 * row.get("mightnt/asks_per_episode", 0) for row in trainer.state.log_history)
print(f"{len(asked)} asks; theta", {inquiry.messages[0].content: inquiry.asking_probability for inquiry in asked})
assert counted == len(asked) and "easy" not in [inquiry.messages[0].content for inquiry in asked[-32:]]  # noqa: PT018
