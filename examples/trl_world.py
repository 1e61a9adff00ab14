"""The little world of trl_before_after.py: a teacher that is known exactly, its demonstrations, an imitator fitted to them.

After a right answer the teacher praises or asks on, after a wrong one it hints or explains; one word in ten is a slip.
"""

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mightnt.lm.networks import NetworkShape, build_network
from mightnt.models.counts import SuffixCounts, fit_counts

WORDS = ["<pad>", "<end>", "right", "wrong", "praise", "question", "hint", "explain"]
PAD, END, RIGHT, WRONG, PRAISE, QUESTION, HINT, EXPLAIN = range(8)
SLIP = 0.1
inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", padding_side="left")
mu = torch.full((3, 8), SLIP / 8, dtype=torch.float64)  # the next word after a right answer, a wrong one, a reply
for row, words in enumerate(([PRAISE, QUESTION], [HINT, EXPLAIN], [END])):
    mu[row, words] += (1 - SLIP) / len(words)


def demonstrations(rng: np.random.Generator, n: int = 2000) -> tuple[torch.Tensor, SuffixCounts]:
    """``n`` turns as rows of answer, reply and end, and their counts."""
    shown = np.array(
        [[RIGHT + a, *(rng.choice(8, p=mu[row].numpy()) for row in (a, 2))] for a in rng.integers(2, size=n)]
    )
    shown[shown[:, 1] == END, 2] = END
    chosen, starts = np.tile([False, True, True], n), np.arange(0, 3 * n + 1, 3)
    return torch.from_numpy(shown), fit_counts(shown.ravel(), starts, chosen, np.ones(8, bool), longest=2)


def imitator(shown: torch.Tensor, seed: int, steps: int = 40) -> torch.nn.Module:
    """A network fitted to these turns."""
    network = build_network(NetworkShape(16, 1, 1, 16), len(WORDS), seed)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(steps):
        network(input_ids=shown, labels=shown).loss.backward()
        optimizer.step()
        network.zero_grad()
    return network


def measured(model: torch.nn.Module) -> list[float]:
    """Exactly, over all turns of two words: KL to the teacher in nats a turn, chance of praise, the same after a wrong answer."""
    ids = torch.cartesian_prod(torch.tensor([RIGHT, WRONG]), torch.arange(8))
    with torch.no_grad():
        pi = model(input_ids=ids).logits.double().softmax(-1).view(2, 8, 2, 8)
    reply, then = pi[:, 0, 0], pi[:, :, 1]  # the reply is the same in all eight rows
    later = reply.index_fill(1, torch.tensor([END]), 0.0) * (then * (then / mu[2]).log()).sum(2)
    kl = (reply * (reply / mu[:2]).log() + later).sum(1)
    return [float(kl.mean()), float(reply[:, PRAISE].mean()), float(reply[1, PRAISE])]


shown, _ = demonstrations(np.random.default_rng(0))
print("KL to the teacher, praise, praise of wrong answers:", fitted := measured(imitator(shown, seed=0)))
assert fitted[0] < 0.5 and fitted[2] < 0.1, fitted  # noqa: PT018
