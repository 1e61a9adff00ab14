"""A tiny set of imitators of the chat world, fitted once a session, and one thread for all."""

import pytest
import torch

from mightnt.dialogues import split_dialogues
from mightnt.experiments.chat import chat_tokenizer
from mightnt.lm.fitting import FitConfig, fit
from mightnt.lm.imitators import ImitatorsConfig, calibrate, fit_suffix_counts
from mightnt.lm.networks import NetworkShape, build_network
from mightnt.lm.scenes import ChatScene
from mightnt.lm.tokens import encode
from mightnt.worlds.chat.corpus import demonstrations


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Networks of this size are slower on two."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def imitators(one_thread):
    """Two networks of width 16 and the counts, from 60 demonstrations; they fit badly and differ much."""
    tokenizer, config = chat_tokenizer(), ImitatorsConfig(held_out_fraction=0.2)
    fitted, held_out = split_dialogues(demonstrations(60, seed=0), config.held_out_fraction, seed=0)
    networks = [build_network(NetworkShape(16, 1, 1, 192), len(tokenizer), seed) for seed in range(2)]
    for seed, network in enumerate(networks):
        fit(network, encode(tokenizer, fitted), FitConfig(40, learning_rate=0.03, warmup_steps=5), seed)
    counts = fit_suffix_counts(tokenizer, fitted, config)
    return calibrate(tokenizer, networks, counts, fitted, held_out, config)


@pytest.fixture
def short_chat():
    """The chat world with two turns instead of six."""
    scene = ChatScene()
    scene.n_turns = 2
    return scene
