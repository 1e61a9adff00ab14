"""Generated tokens a second of a whole step, rollout and update: our loop beside TRL's RLOO trainer, turn and turn about.

Same network, prompt, reward, number of episodes and of new tokens, one process, one thread. A step of the trainer, then one of
ours, and so on; each pair has a ratio, the pair with the middle ratio is shown and the range is named. Processor time.

Compared with as many updates a step: one (TRL's default) and eight (ours: four passes, two minibatches), and, for whoever
changes nothing, each at its own default.

What each does that the other does not. TRL trains the network's own weights (or adapters in it): that takes a backward pass
through the network, a pass for the log-probabilities of the policy that played and one for the reference. Ours keeps the
network frozen and trains a small actor over its hidden states: one forward pass a token, in the rollout. It knows the KL to
the base over the whole vocabulary at every token, exactly, and keeps a hard budget with it. TRL sees the KL at the sampled
tokens only, as a penalty.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import datasets
import numpy as np
import torch
import trl
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, TrainerCallback

from bench.lines import Line, best_seconds
from mightnt.lm.account import Account
from mightnt.lm.actor import Actor
from mightnt.lm.bases.single import Single
from mightnt.lm.episodes import Cast, play_episodes
from mightnt.lm.members import Members
from mightnt.lm.networks import NetworkMember, NetworkShape, build_network
from mightnt.lm.protect import ProtectConfig, Training, learn
from mightnt.lm.tokens import Marks
from mightnt.prediction import FloatArray

MARKS = Marks(pad=0, user=1, assistant=2, end=3)
PROMPT = [MARKS.user, 4, 5, 6, 7, 8, MARKS.end, MARKS.assistant]
BUDGET_NATS = 10.0
GOAL = "goal 1.5"


@dataclass(frozen=True)
class Updates:
    """How the episodes of a step are learnt from."""

    passes: int
    minibatches: int

    def __int__(self) -> int:
        return self.passes * self.minibatches


ONE, EIGHT = Updates(1, 1), Updates(ProtectConfig().passes, ProtectConfig().minibatches)
COMPARED = ((ONE, ONE, "one update each"), (EIGHT, EIGHT, "eight updates each"), (EIGHT, ONE, "defaults: eight, one"))
"""``(our updates, the trainer's, in words)``."""


@dataclass(frozen=True)
class Size:
    """What is trained, on how much."""

    name: str
    shape: NetworkShape
    vocabulary: int
    episodes: int
    """A step."""
    new_tokens: int
    """Of every episode."""
    pairs: int
    """Steps of each side, an odd number."""


SIZES = (
    Size("128 wide, 4 layers, 4,096 words", NetworkShape(128, 4, 4, 128), 4096, 32, 48, pairs=5),
    Size("768 wide, 12 layers, 32,000 words", NetworkShape(768, 12, 12, 128), 32_000, 16, 24, pairs=3),
)


def worth(completions: Sequence[Sequence[int]]) -> list[float]:
    """The reward of both: the share of even tokens, in [0, 1]."""
    return [sum(token % 2 == 0 for token in tokens) / len(tokens) for tokens in completions]


class OneTurn:
    """A scene of one turn of a fixed length after a fixed prompt, as the trainer has it; nobody replies."""

    n_turns = 1
    max_reply_tokens = 1
    demonstrator_known = False

    def __init__(self, new_tokens: int) -> None:
        self.max_turn_tokens = new_tokens

    def start(self, rows: int, rng: np.random.Generator) -> list[list[int]]:
        """The prompt."""
        return [list(PROMPT) for _ in range(rows)]

    def replies(self, rows: np.ndarray, turns: Sequence[list[int]]) -> list[list[int]]:
        """Nothing; what was said is kept for its reward."""
        self.said = [list(turn) for turn in turns]
        return [[MARKS.end] for _ in turns]

    def score(self, rows: np.ndarray, replies: Sequence[list[int]]) -> FloatArray:
        """The reward of the turn."""
        return np.array(worth(self.said))

    def nothing(self, *_: Any) -> None:
        """Not known, or nothing to do."""

    begin_turn = hear = listen = demonstrator = user = utility = nothing


class Ours:
    """Our loop around a frozen network: ``step()`` plays and learns."""

    def __init__(self, size: Size, network: Any) -> None:
        is_action = np.ones(size.vocabulary, dtype=np.bool_)
        is_action[list(vars_of(MARKS))] = False  # a turn never ends early
        torch.manual_seed(0)
        account = Account(BUDGET_NATS, "floor")
        actor = Actor(size.shape.width, size.vocabulary, account)
        members = Members([NetworkMember(network)], is_action)
        self.cast = Cast(members, Single(), account, actor, OneTurn(size.new_tokens), MARKS)
        self.size, self.steps = size, 0
        self.training = Training.fresh(actor, ProtectConfig())

    def step(self, updates: Updates) -> None:
        """One iteration."""
        config = ProtectConfig(passes=updates.passes, minibatches=updates.minibatches)
        self.steps += 1
        episodes = play_episodes(self.cast, self.size.episodes, seed=self.steps)
        assert len(episodes.decisions.row) == self.size.episodes * self.size.new_tokens
        assert float(episodes.spent_nats.max()) <= BUDGET_NATS + 1e-6
        learn(self.training, episodes.decisions, config, seed=self.steps)


def vars_of(marks: Marks) -> tuple[int, ...]:
    """Their ids."""
    return marks.pad, marks.user, marks.assistant, marks.end


class Turns(TrainerCallback):
    """Times every generation of the trainer with all its updates, then lets ours make a step: pairs of processor seconds,
    the first of which is warm-up."""

    def __init__(self, ours: Callable[[], None], updates: int) -> None:
        self.ours, self.updates, self.pairs = ours, updates, list[tuple[float, float]]()
        self.seconds, self.done = 0.0, 0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """The trainer's turn."""
        self.started = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Ours, after its last update."""
        self.seconds += time.process_time() - self.started
        self.done += 1
        if self.done % self.updates == 0:
            [ours] = seconds_of(self.ours)
            self.pairs.append((ours, self.seconds))
            self.seconds = 0.0


def seconds_of(*calls: Callable[[], object]) -> list[float]:
    """Processor seconds of each call, made once, in turn."""
    found = []
    for call in calls:
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return found


def tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A word for every row of the embedding; ``w4`` has the id 4."""
    words = ["<pad>", "<user>", "<assistant>", "<end>", *(f"w{i}" for i in range(4, vocabulary))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", padding_side="left")


def trainer(size: Size, folder: str, lora: bool, updates: Updates, callback: TrainerCallback) -> Any:
    """TRL's RLOO on the saved network: defaults, but no gradient checkpointing (which would cost it a forward pass more)."""
    words = tokenizer(size.vocabulary)
    made = trl.RLOOTrainer(
        folder,
        lambda completion_ids, **_: worth(completion_ids),
        trl.RLOOConfig(
            tempfile.mkdtemp(),
            max_steps=(1 + size.pairs) * int(updates),
            per_device_train_batch_size=size.episodes // updates.minibatches,
            steps_per_generation=updates.minibatches,
            num_iterations=updates.passes,
            max_completion_length=size.new_tokens,
            learning_rate=1e-5,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
        ),
        datasets.Dataset.from_dict({"prompt": [words.decode(PROMPT)] * (size.episodes * (1 + size.pairs))}),
        processing_class=words,
        peft_config=LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None,
        callbacks=[callback],
    )
    made.generation_config.min_new_tokens = size.new_tokens  # as many in every episode
    return made


def generating(size: Size, network: Any, generation: Any) -> Callable[[], None]:
    """What is left of the trainer's step where nothing is learnt: generation by the frozen network, as the trainer does it."""
    prompts = torch.tensor([PROMPT] * size.episodes)

    def generate() -> None:
        with torch.no_grad():
            said = network.generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=generation)
        assert said.shape[1] == len(PROMPT) + size.new_tokens

    return generate


def beside(what: str, pairs: Sequence[tuple[float, float]], tokens: int, other: str) -> Line:
    """Tokens a second of the pair with the middle ratio; the range of all ratios in words."""
    ratios = sorted((theirs / ours, ours, theirs) for ours, theirs in pairs)
    _, ours, theirs = ratios[len(ratios) // 2]
    low, high = ratios[0][0], ratios[-1][0]
    return Line(what, tokens / ours, tokens / theirs, "tokens/s", f"{other}; pairs {low:.2f} to {high:.2f}")


def ceiling(size: Size, network: Any, seconds: float) -> Line:
    """Against the floor: every given or new token once through the network's matrices, at the measured rate of a product.

    operations = 2 x (multiplications of layers and output layer + keys and values of the mean past) x tokens
    """
    layers = sum(p.numel() for p in network.base_model.layers.parameters() if p.ndim == 2)
    head, length = network.get_output_embeddings().weight.numel(), len(PROMPT) + size.new_tokens
    a_token = layers + head + size.shape.layers * size.shape.width * length
    a = torch.randn(768, 768)
    [product] = best_seconds(lambda: a @ a, repetitions=9)
    floor = 2 * a_token * length * size.episodes / (2 * 768**3 / product)
    tokens = size.episodes * size.new_tokens
    what = "floor: operations of one forward pass a token / measured rate"
    return Line(f"step, {size.name}", tokens / seconds, tokens / floor, "tokens/s", what)


def of_size(size: Size) -> list[Line]:
    """Every comparison of one size."""
    network, folder = build_network(size.shape, size.vocabulary, 0), tempfile.mkdtemp()
    network.save_pretrained(folder)
    ours, tokens = Ours(size, network), size.episodes * size.new_tokens
    lines, seconds = list[Line](), 0.0
    for mine, theirs, words in COMPARED:
        for kind in ("all weights", "LoRA of rank 16"):
            turns = Turns(partial(ours.step, mine), int(theirs))
            made = trainer(size, folder, kind != "all weights", theirs, turns)
            made.train()
            seconds = sorted(own for own, _ in turns.pairs[1:])[size.pairs // 2]
            lines.append(beside(f"step, {words}, {size.name}", turns.pairs[1:], tokens, f"TRL RLOO, {kind} ({GOAL})"))
    play = generating(size, network, made.generation_config)
    seconds_of(play)

    def rollout() -> None:
        play_episodes(ours.cast, size.episodes, seed=0)

    alone = [(mine, theirs) for mine, theirs in (seconds_of(rollout, play) for _ in range(size.pairs))]
    lines.append(beside(f"rollout, {size.name}", alone, tokens, "transformers generate alone, frozen network"))
    return [*lines, ceiling(size, network, seconds)]


def lines() -> list[Line]:
    """Every comparison; one thread."""
    torch.set_num_threads(1)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return [line for size in SIZES for line in of_size(size)]
