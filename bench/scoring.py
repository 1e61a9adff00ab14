"""Finished completions scored by a base, against one forward pass of the reference network that a trainer makes anyway.

The peer makes logits only where the agent chose, in float32, and takes log-softmax and the said token: what TRL does. Times
are the shortest processor times of calls that take turns, one thread; floors are counted operations (multiplications), in
passes of the peer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.lines import Line, best_seconds
from mightnt.dialogues import split_dialogues
from mightnt.experiments.chat import chat_tokenizer
from mightnt.lm.adapters import Adapters, AdapterShape, fresh_adapters
from mightnt.lm.bases.capped import Capped
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.bases.single import Single
from mightnt.lm.imitators import ImitatorsConfig, calibrate, fit_suffix_counts
from mightnt.lm.networks import NetworkShape, build_network
from mightnt.lm.reference import Reference
from mightnt.lm.tokens import encode
from mightnt.models.counts import Support, fit_counts, sum_pairs
from mightnt.models.situations import SituationCounts
from mightnt.worlds.chat.corpus import demonstrations

MEMBERS, SHARED = 8, 0.5
"""Networks of an ensemble; share of the layers that adapters leave alone."""
GOAL = "one plain forward (goal 1.25)"


@dataclass(frozen=True)
class Case:
    """What is scored, and by whom."""

    name: str
    shape: NetworkShape
    network: Any
    tokens: Tensor
    own: Tensor
    references: dict[str, Reference]
    """Bases that look at one network, by name."""
    repetitions: int

    def plain(self) -> Tensor:
        """One forward pass, logits where the agent chose, log-softmax, the said token."""
        with torch.no_grad():
            row, place = self.own.nonzero(as_tuple=True)
            hidden = self.network.base_model(input_ids=self.tokens, use_cache=False).last_hidden_state
            logits = self.network.get_output_embeddings()(hidden[row, place - 1])
            return logits.log_softmax(-1).gather(-1, self.tokens[row, place, None])

    def work(self) -> tuple[int, int]:
        """Multiplications of the layers and of the output layer in one plain forward."""
        rows, length = self.tokens.shape
        matrices = sum(p.numel() for p in self.network.base_model.layers.parameters() if p.ndim == 2)
        attention = self.shape.layers * self.shape.width * length  # keys and values, half of the places at a time
        head = self.network.get_output_embeddings().weight.numel()
        return rows * length * (matrices + attention), int(self.own.sum()) * head


def tiny() -> Case:
    """The chat world: 87 words, dialogues of about 100 tokens, half of them the teacher's; everything fitted to 300 of them."""
    tokenizer, config, shape = chat_tokenizer(), ImitatorsConfig(), NetworkShape(64, 2, 2, 192)
    fitted, held_out = split_dialogues(demonstrations(300, seed=0), config.held_out_fraction, seed=0)
    network = build_network(shape, len(tokenizer), 0)  # as it is: speed does not depend on what was learnt
    counts = fit_suffix_counts(tokenizer, fitted, config)
    imitators = calibrate(tokenizer, [network], counts, fitted, held_out, config)
    corpus, length = encode(tokenizer, held_out[:16]), 96
    tokens, own = torch.zeros(16, length, dtype=torch.int64), torch.zeros(16, length, dtype=torch.bool)
    for row, first in enumerate(corpus.starts[:-1]):
        part = slice(first, min(corpus.starts[row + 1], first + length))
        n = part.stop - part.start
        tokens[row, :n] = torch.from_numpy(corpus.tokens[part].astype(np.int64))
        own[row, :n] = torch.from_numpy(corpus.is_action[part])
    names = ("single", "pessimistic", "situations")
    references = {name: Reference.of_imitators(imitators, name) for name in names}
    return Case("64 wide, 87 words", shape, network, tokens, own, references, repetitions=15)


def large() -> Case:
    """768 wide, 12 layers, 32,000 words; 8 rows of 256 tokens of which the agent chose 192; made-up demonstrations.

    Words follow each other in a chain with a few hundred thousand suffixes; situations are 1024 hidden states and fewer, each
    with the words of some hundred places. A place is closed where the demonstrations veto all but a list of words: then only
    those are looked at, else the whole vocabulary. How many are closed is the demonstrator's nature; here are both ends.
    """
    vocabulary, rows, length, prompt = 32_000, 8, 256, 64
    shape = NetworkShape(768, 12, 12, length)
    network, rng = build_network(shape, vocabulary, 0), np.random.default_rng(0)
    corpus = chain(rng, 1000 + rows, length, vocabulary)
    demonstrated, scored = corpus[rows:].ravel(), corpus[:rows]
    every, starts = np.ones(vocabulary, dtype=np.bool_), np.arange(0, demonstrated.size + 1, length)
    counts = fit_counts(demonstrated, starts, demonstrated >= 0, every, longest=4)
    tokens = torch.from_numpy(scored)
    own = (torch.arange(length) >= prompt).repeat(rows, 1)
    with torch.no_grad():
        hidden = network.base_model(input_ids=torch.from_numpy(corpus[rows : rows + 8])).last_hidden_state
    hidden = hidden.flatten(0, 1).numpy()
    centers, tables = (
        [],
        [sum_pairs(np.zeros(demonstrated.size, dtype=np.uint64), demonstrated, np.ones(demonstrated.size))],
    )
    for clusters in (64, 128, 256, 512, 1024):
        centers.append(hidden[rng.choice(len(hidden), clusters, replace=False)])
        keys = (demonstrated * 7919 + rng.integers(0, 4, demonstrated.size)) % clusters
        tables.append(sum_pairs(keys.astype(np.uint64), demonstrated, np.ones(demonstrated.size)))
    often, never = Support(20, 1, 0.3), Support(1, 1, 0.0)

    def situations(rule: Support) -> Reference:
        """The default base: its suffixes veto where they are closed, its situations where ``rule`` says."""
        found = SituationCounts(tuple(centers), tuple(tables), every, 4.0, rule)
        suffixes = {"counts": counts, "support": often if rule.missing else never}
        return Reference([network], Capped(1.0, "situations"), is_action=every, situations=found, **suffixes)

    references = {
        "single": Reference([network], Single(), is_action=every),
        "pessimistic": Reference([network], Capped(1.0), is_action=every, counts=counts, support=often),
        "situations, all closed": situations(Support(1, 1, 1.0)),
        "situations, none closed": situations(never),
    }
    return Case("768 wide, 12 layers, 32,000 words", shape, network, tokens, own, references, repetitions=5)


def chain(rng: np.random.Generator, rows: int, length: int, vocabulary: int) -> np.ndarray:
    """Rows of words: after each usually one of a few others, rare ones and surprises included."""
    fresh = np.minimum(rng.zipf(1.2, (rows, length)) - 1, vocabulary - 1)
    stays, branch = rng.random((rows, length)) < 0.8, rng.zipf(2.0, (rows, length)) % 16
    words = np.empty((rows, length), dtype=np.int64)
    words[:, 0] = fresh[:, 0]
    for t in range(1, length):
        follows = (words[:, t - 1] * 31 + branch[:, t] * branch[:, t]) % vocabulary
        words[:, t] = np.where(stays[:, t], follows, fresh[:, t])
    return words


def one_network(case: Case) -> list[Line]:
    """Bases that look at one network and at counts: the floor is one plain forward."""
    calls: list[Callable[[], object]] = [case.plain]
    calls += [lambda r=r: r.score(case.tokens, own=case.own) for r in case.references.values()]
    plain, *ours = best_seconds(*calls, repetitions=case.repetitions)
    return [
        Line(f"{name}, {case.name}", seconds * 1e3, plain * 1e3, "ms", GOAL)
        for name, seconds in zip(case.references, ours, strict=True)
    ]


def many_networks(case: Case) -> list[Line]:
    """The minimum over 8 networks, and over 8 adapters on half of the layers of one."""
    vocabulary = case.network.config.vocab_size
    every = np.ones(vocabulary, dtype=np.bool_)
    networks = [build_network(case.shape, vocabulary, seed) for seed in range(MEMBERS)]
    shared = int(case.shape.layers * SHARED)
    fresh = fresh_adapters(case.network, MEMBERS, 0, AdapterShape(8, shared))
    up = tuple(0.1 * torch.randn(b.shape, generator=torch.Generator().manual_seed(0)) for b in fresh.up)
    adapters = Adapters(fresh.names, fresh.down, up, fresh.weights)
    separate = Reference(networks, Minimum(), is_action=every)
    trunk = Reference(adapters.networks(case.network), Minimum(), is_action=every)
    calls = [lambda r=r: r.score(case.tokens, own=case.own) for r in (separate, trunk)]
    plain, *ours = best_seconds(case.plain, *calls, repetitions=max(1, case.repetitions // 3))
    layers, head = case.work()
    parts = sum(a.numel() + b.numel() for a, b in zip(adapters.down, adapters.up, strict=True))
    passes = SHARED + MEMBERS * (1 - SHARED)
    floor = (passes * layers + parts * case.tokens.numel() + MEMBERS * head) / (layers + head)
    return [
        line
        for what, seconds, least in (("networks", ours[0], float(MEMBERS)), ("adapters", ours[1], floor))
        for line in (
            Line(f"minimum of {MEMBERS} {what}, {case.name}", seconds * 1e3, plain * 1e3, "ms", "one plain forward"),
            Line(
                f"minimum of {MEMBERS} {what}, {case.name}",
                seconds * 1e3,
                least * plain * 1e3,
                "ms",
                f"floor: {least:.3g}",
            ),
        )
    ]


def lines() -> list[Line]:
    """Every comparison; one thread."""
    torch.set_num_threads(1)
    return [line for case in (tiny(), large()) for part in (one_network, many_networks) for line in part(case)]
