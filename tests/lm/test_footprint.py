"""The footprint: computed from a configuration alone, held against real tiny models, caches and episodes."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from mightnt.dialogues import Message
from mightnt.errors import InputError
from mightnt.lm.account import Account
from mightnt.lm.actor import Actor
from mightnt.lm.bases.single import Single
from mightnt.lm.episodes import Cast, play_episodes
from mightnt.lm.finetune import FinetuneConfig
from mightnt.lm.footprint import Footprint, count_parameters, decision_bytes, experts, footprint, table
from mightnt.lm.imitators import action_mask
from mightnt.lm.members import Members
from mightnt.lm.networks import NetworkMember, NetworkShape, build_network
from mightnt.lm.scenes import LanguageScene
from mightnt.lm.tokens import marks_of, train_bpe

WIDTH, INNER, LAYERS, HEADS, KEY_HEADS, EXPERTS, VOCABULARY = 32, 48, 2, 4, 2, 4, 50
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_HEADS,
}
MODELS = {
    "mixtral": (MixtralForCausalLM, MixtralConfig(**SIZES, num_local_experts=EXPERTS, num_experts_per_tok=2)),
    "llama, tied": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS)),
}
RUN = FinetuneConfig("single", turns=2, turn_tokens=5, iterations=3, episodes=4, evaluation_episodes=6)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_weights_are_those_of_the_real_model(name, precision, dtype):
    kind, config = MODELS[name]
    real = sum(p.numel() * p.element_size() for p in kind(config).to(dtype).parameters())
    assert footprint(config, RUN, precision).weights_bytes == real


@pytest.mark.parametrize("name", MODELS)
def test_the_cache_is_that_of_the_real_model(name):
    kind, config = MODELS[name]
    member = NetworkMember(kind(config).eval(), hugging_face=True)
    state = member.advance(member.start(3), torch.zeros(3, 7, dtype=torch.int64))
    layers = state.memory.cache.layers
    real = sum(part.numel() * part.element_size() for layer in layers for part in (layer.keys, layer.values))
    assert footprint(config, RUN, "float32").cache_bytes_per_token * 3 * 7 == real


def test_a_token_meets_two_experts_of_four():
    attention = WIDTH * WIDTH * 2 + WIDTH * (WIDTH * KEY_HEADS // HEADS) * 2
    one_expert, router, norms = 3 * WIDTH * INNER, EXPERTS * WIDTH, 2 * WIDTH
    layer = attention + router + norms
    head = VOCABULARY * WIDTH + WIDTH
    total = LAYERS * (layer + EXPERTS * one_expert) + head + VOCABULARY * WIDTH
    assert count_parameters(MODELS["mixtral"][1]) == (total, LAYERS * (layer + 2 * one_expert) + head)


def test_without_experts_a_token_meets_every_weight():
    total, per_token = count_parameters(MODELS["llama, tied"][1])
    assert total == per_token
    assert experts(MODELS["llama, tied"][1]) == (1, 1)


def test_mixtral_is_as_large_as_its_makers_say():
    """46.7 billion parameters, 12.9 billion for a token, its embedding among them."""
    config = MixtralConfig()
    total, per_token = count_parameters(config)
    assert round(total / 1e9, 1) == 46.7
    assert round((per_token + config.vocab_size * config.hidden_size) / 1e9, 1) == 12.9


class Counting(NetworkMember):
    """Counts its passes."""

    passes = 0

    def advance(self, state, tokens):
        self.passes += 1
        return super().advance(state, tokens)


@pytest.fixture(scope="module")
def played():
    """Episodes of one-word turns: ``(opening, passes, vocabulary, decisions)``."""
    dialogue = (Message("assistant", "Well?"), Message("user", "four"), Message("assistant", "No."))
    tokenizer = train_bpe([dialogue], 270)
    network = Counting(build_network(NetworkShape(16, 1, 1, 64), len(tokenizer), 0))
    scene = LanguageScene(tokenizer, [dialogue], lambda replies: [0.5] * len(replies), 3, 1, 1)
    account = Account(5.0)
    members = Members([network], action_mask(tokenizer))
    actor = Actor(16, len(tokenizer), account)
    episodes = play_episodes(Cast(members, Single(), account, actor, scene, marks_of(tokenizer)), 20, 0)
    return len(scene.openings[0]), network.passes, len(tokenizer), episodes.decisions


def test_an_episode_is_no_longer_than_is_said(played):
    opening, passes, _, _ = played
    run = FinetuneConfig("single", turns=3, turn_tokens=1, iterations=3, episodes=4, evaluation_episodes=251)
    needed = footprint(MODELS["mixtral"][1], run)
    unread = 2  # after the last reply nobody reads on
    assert passes == needed.episode_tokens - 80 + opening - unread
    assert needed.passes == (3 + 2) * needed.episode_tokens, "251 fresh episodes are two batches"
    assert needed.tokens_read == (3 * 4 + 251) * needed.episode_tokens


def test_openings_are_no_longer_than_is_said():
    long = tuple(Message(role, "so " * 30) for role in ("user", "assistant") * 4)
    tokenizer = train_bpe([long], 270)
    longest = max(len(opening) for opening in LanguageScene(tokenizer, [long[:-1], long], sum).openings)
    assert longest <= 80


def test_decisions_take_what_is_said(played):
    *_, n_tokens, decisions = played
    columns = [value for value in vars(decisions).values() if value is not None]
    real = sum(c.nbytes if isinstance(c, np.ndarray) else c.numel() * c.element_size() for c in columns)
    assert real == len(decisions.row) * decision_bytes(16, n_tokens)


def test_decisions_of_a_run_are_those_of_all_its_rows():
    needed = footprint(MODELS["mixtral"][1], RUN)
    one_episode = RUN.turns * RUN.turn_tokens * decision_bytes(WIDTH, VOCABULARY + 4)
    assert needed.training_decisions_bytes == RUN.episodes * one_episode
    assert needed.evaluation_decisions_bytes == RUN.evaluation_episodes * one_episode
    assert needed.cache_bytes == 6 * needed.episode_tokens * needed.cache_bytes_per_token


def needs(**changes):
    fields = dict.fromkeys(Footprint.__dataclass_fields__, 0)
    return Footprint(**{**fields, **changes})


def test_hours_are_those_of_the_slower_part():
    reading = needs(passes=10, weights_bytes=300, cache_bytes=120)
    assert reading.hours(1.0, 1.0) == 10 * (300 + 60) / 3600
    both = needs(passes=10, weights_bytes=300, parameters_per_token=50, tokens_read=720)
    assert both.hours(1.0, 1.0) == 2 * 50 * 720 / 3600
    assert both.hours(1.0, 1e9) == 3000 / 3600


def test_four_bits_are_a_quarter_and_leave_the_cache():
    config = MODELS["mixtral"][1]
    wide, narrow = footprint(config, RUN), footprint(config, RUN, "4 bits")
    assert narrow.weights_bytes * 4 == wide.weights_bytes
    assert narrow.cache_bytes == wide.cache_bytes


def test_an_unknown_precision_is_refused():
    with pytest.raises(InputError, match="unknown precision 'int3'; allowed are float32, bfloat16, 4 bits"):
        footprint(MODELS["mixtral"][1], RUN, "int3")


def test_the_table_has_a_column_each_and_a_row_a_device():
    lines = table({"one": footprint(MODELS["mixtral"][1], RUN)}, {"A": (1.0, 1.0), "B": (2.0, 2.0)}).splitlines()
    assert lines[0] == "|  | one |"
    assert all(line.count("|") == 3 for line in lines)
    assert sum("at the speed of one" in line for line in lines) == 2
