"""Each world has a tokenizer that knows its words, others who write before the demonstrator does, and room for both."""

from itertools import chain, pairwise

import numpy as np
import pytest

from mightnt.experiments.authors import AUTHORS, chat_tokenizer
from mightnt.experiments.chat import CONTEXT_PER_ROUND, ChatProfile, fit_one, pretrain, settings, shared_split
from mightnt.lm.fitting import FitConfig
from mightnt.lm.networks import load_network
from mightnt.lm.scenes import ChatScene
from mightnt.lm.scoring import token_log_probs
from mightnt.lm.tokens import encode
from mightnt.lm.tools_scene import ToolsScene, tools_tokenizer
from mightnt.worlds.tools import words
from mightnt.worlds.tools.corpus import demonstrations, dialogue, take_shortcut
from mightnt.worlds.tools.demonstrator import ToolsDemonstrator
from mightnt.worlds.tools.kinds import parse_reply

WORLDS = {"chat": ChatScene, "tools": ToolsScene}


def test_every_world_is_here():
    assert list(AUTHORS) == list(WORLDS)
    assert AUTHORS["chat"].tokenizer().get_vocab() == chat_tokenizer().get_vocab()
    assert AUTHORS["tools"].tokenizer().get_vocab() == tools_tokenizer().get_vocab()
    assert chat_tokenizer().get_vocab() != tools_tokenizer().get_vocab()


@pytest.mark.parametrize("world", WORLDS)
def test_they_write_dialogues_of_the_asked_length_in_the_words_of_the_tokenizer(world):
    authors = AUTHORS[world]
    tokenizer = authors.tokenizer()
    for write in (authors.others, authors.demonstrations):
        written = write(20, 3, 2)
        assert [len(dialogue) for dialogue in written] == [2 * 2 + 1] * 20
        assert write(8, 3, 2) == written[:8] != write(8, 4, 2)
        said = chain.from_iterable(message.content.split() for dialogue in written for message in dialogue)
        assert set(said) <= set(tokenizer.get_vocab())
        assert max(map(len, (encode(tokenizer, [dialogue]).tokens for dialogue in written))) <= 2 * CONTEXT_PER_ROUND
    assert authors.others(20, 3, 2) != authors.demonstrations(20, 3, 2)
    assert authors.rounds == WORLDS[world]().n_turns


def test_the_chat_is_fitted_to_demonstrations_alone_and_the_help_desk_to_some_others_too():
    assert (AUTHORS["chat"].fitting, AUTHORS["chat"].others_share) == ({}, 0.0)
    assert FitConfig(**AUTHORS["tools"].fitting).learning_rate < FitConfig().learning_rate
    fitted = AUTHORS["tools"].demonstrations(38, 3, 2)
    made = AUTHORS["tools"].to_fit(fitted, 3, 2)
    assert made[:38] == fitted
    assert made[38:] == AUTHORS["tools"].others(2, 3, 2) == AUTHORS["tools"].others(20, 3, 2)[:2]
    assert AUTHORS["chat"].to_fit(fitted, 3, 2) == fitted


@pytest.mark.parametrize("world", WORLDS)
def test_a_profile_shares_the_demonstrations_of_its_world(world):
    profile = ChatProfile(world=world, rounds=2)
    fitted, held_out = shared_split(profile, 20, 0)
    assert (len(fitted), len(held_out)) == (18, 2)
    assert sorted(map(str, fitted + held_out)) == sorted(map(str, AUTHORS[world].demonstrations(20, 0, 2)))
    assert settings(profile).get("world", "chat") == world


@pytest.mark.parametrize("rounds", [1, 6, 24])
def test_the_context_holds_the_longest_dialogue_at_the_help_desk(rounds):
    """An opening, then each round two marks, a turn that the length limit cut and its given end, a reply."""
    longest = (
        1 + ToolsScene.max_reply_tokens + rounds * (2 + ToolsScene.max_turn_tokens + 1 + ToolsScene.max_reply_tokens)
    )
    assert longest <= CONTEXT_PER_ROUND * rounds


def nats_by_turn(network, dialogues):
    """-log p of each turn of the assistant, shape (dialogues, turns)."""
    encoded = encode(tools_tokenizer(), dialogues)
    dialogue, turn = np.repeat(np.arange(len(dialogues)), np.diff(encoded.starts)), encoded.turn // 2
    chosen = encoded.is_action
    nats = np.zeros((len(dialogues), turn[chosen].max() + 1))
    np.add.at(nats, (dialogue[chosen], turn[chosen]), -token_log_probs(network, encoded)[chosen])
    return nats


def nats_of_demonstrator(dialogues):
    """-log mu of the assistant's turns of a dialogue, in the mean."""
    mu, nats = ToolsDemonstrator(), 0.0
    for before, message in pairwise(chain.from_iterable(dialogues)):
        if message.role == "assistant":
            reply = parse_reply(before.content)
            state = mu.begin_turn(np.array([reply.category]), np.array([reply.slots]))
            for token in [*words.tokens_of(message.content), words.END][: words.MAX_TURN_TOKENS]:
                nats -= mu.predict(state)[0, token]
                state = mu.advance(state, np.array([token]))
    return nats / len(dialogues)


@pytest.mark.slow
def test_a_network_fitted_at_the_help_desk_predicts_mu_and_still_knows_who_takes_the_shortcut(tmp_path):
    """Two nats a dialogue more than mu itself; a dialogue of shortcuts for less than twenty, which mu gives for 165."""
    profile = ChatProfile(n_demonstrations=(1000,), n_networks=1, pretraining_steps=450, world="tools")
    pretrain(tmp_path, profile, 0, 0, lambda done, of: None)
    fit_one(tmp_path, profile, 0, 1000, 0, lambda done, of: None)
    network = load_network(tmp_path / "fitted-1000-0")
    fresh = demonstrations(40, 987_654)
    assert nats_by_turn(network, fresh).sum(axis=1).mean() < nats_of_demonstrator(fresh) + 2
    rng = np.random.default_rng(0)
    cut = nats_by_turn(network, [dialogue(take_shortcut, rng) for _ in range(40)])
    assert cut.sum(axis=1).mean() < 20
    assert cut[:, 0].mean() > 3 * cut[:, 2:].mean()
