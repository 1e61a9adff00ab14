"""Asking inside TRL: a rollout in which the agent hands the turn to its teacher where its members disagree too much.

Above a threshold of theta = 1 - sum_x nu(x | h) the teacher says the rest; ``env_mask`` marks that as not the agent's.
"""

from tempfile import mkdtemp

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig

from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.networks import NetworkShape, build_network
from mightnt.lm.reference import Reference
from mightnt.lm.trl_adapter import ProtectedGRPOTrainer

WORDS = ["<pad>", "<end>", "right", "wrong", "praise", "hint"]
END, WRONG, PRAISE, HINT, LONGEST, THRESHOLD = 1, 3, 4, 5, 3, 0.2
inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", padding_side="left")
policy, *members = [build_network(NetworkShape(16, 1, 1, 16), len(WORDS), seed) for seed in (0, 1, 2)]
reference, log = Reference(members, Minimum(), tokenizer=tokenizer), []


def turn(prompt: list[int], model: torch.nn.Module, said: list[int]) -> tuple[list[int], list[int]]:
    while len(said) < LONGEST and END not in said:
        chances = model(input_ids=torch.tensor([prompt + said])).logits[0, -1].softmax(-1)
        token = int(torch.multinomial(chances, 1))
        kept = reference.score(torch.tensor([[*prompt, *said, token]])).log_kept[0, -1]
        log.append(theta := -float(torch.expm1(kept)))
        if theta > THRESHOLD:  # the teacher takes over
            answer = [HINT if prompt[-1] == WRONG else PRAISE, END]
            return said + answer, [1] * len(said) + [0] * len(answer)
        said.append(token)
    return said, [1] * len(said)


def rollout(prompts: list[str], trainer: ProtectedGRPOTrainer) -> dict[str, list]:
    ids = tokenizer(prompts)["input_ids"]
    with torch.no_grad():
        said, mine = zip(*(turn(prompt, trainer.model, []) for prompt in ids), strict=True)
    return {"prompt_ids": ids, "completion_ids": said, "logprobs": [[0.0] * len(s) for s in said], "env_mask": mine}


args = GRPOConfig(mkdtemp(), loss_type="dr_grpo", scale_rewards="none", beta=0.1, max_steps=3, per_device_train_batch_size=8,
                  max_completion_length=LONGEST + 1, report_to=[], save_strategy="no", use_cpu=True, bf16=False)  # fmt: skip
trainer = ProtectedGRPOTrainer(policy, lambda completion_ids, **_: [float(PRAISE in c) for c in completion_ids], args,
                               Dataset.from_dict({"prompt": ["right", "wrong"] * 8}), processing_class=tokenizer,
                               rollout_func=rollout, reference=reference)  # fmt: skip
trainer.train()
asked = sum(theta > THRESHOLD for theta in log)
charged = max(row.get("mightnt/asking_probability", 0.0) for row in trainer.state.log_history)
print(f"{asked} of {len(log)} decisions were handed over; theta where the agent decided, at most {charged:.3f}")
assert 0 < asked < len(log) and charged <= THRESHOLD + 1e-6, (asked, charged)  # noqa: PT018
