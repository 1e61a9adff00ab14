"""A language model as known demonstrator: what it writes follows its own probabilities, and staying with it costs nothing."""

import math

import numpy as np
import pytest
import torch

from mightnt.dialogues import Message
from mightnt.errors import InputError
from mightnt.lm.account import Account
from mightnt.lm.actor import Stay
from mightnt.lm.bases.known import Known
from mightnt.lm.bases.single import Single
from mightnt.lm.episodes import Cast, play_episodes
from mightnt.lm.members import Members
from mightnt.lm.network_scene import NetworkScene, commonest_words, in_words, plain_words, written_by
from mightnt.lm.networks import NetworkMember, NetworkShape, build_network
from mightnt.lm.scoring import logits_of
from mightnt.lm.tokens import encode, marks_of, word_tokenizer

WORDS = ("a", "b", "c", "~")
TOKENIZER = word_tokenizer(WORDS)
MARKS = marks_of(TOKENIZER)
OPENINGS = [(Message("user", "a"), Message("assistant", "b")), (Message("user", "c b"), Message("assistant", ""))]
FREE = Account(math.inf, "charged", 1.0)


def network(seed):
    return build_network(NetworkShape(width=16, layers=1, heads=2, context=64), len(TOKENIZER), seed)


def scene(temperature=0.7, **dials):
    return NetworkScene(
        TOKENIZER, OPENINGS, network(1), lambda replies: [0.5] * len(replies), 2, 5, temperature=temperature, **dials
    )


def played(the_scene, base, reader, rows=200, n_transcripts=0):
    members = Members([NetworkMember(network(reader))], ~the_scene.silent.numpy())
    return play_episodes(Cast(members, base, FREE, Stay(), the_scene, MARKS), rows, 3, n_transcripts)


def obvious_log_mu(tokens, temperature=0.7):
    """By the plain forward pass over all tokens."""
    logits = logits_of(network(1), torch.tensor([tokens]))[0].double() / temperature
    logits[:, [MARKS.pad, MARKS.user, MARKS.assistant]] = -torch.inf
    return logits.log_softmax(-1).detach()


def test_the_demonstrator_is_the_network_at_its_temperature():
    the_scene = scene()
    opening = the_scene.start(1, np.random.default_rng(0))[0]
    for token in opening:
        the_scene.listen(np.array([token]))
    log_mu = the_scene.demonstrator(np.array([0]))
    np.testing.assert_allclose(log_mu, obvious_log_mu(opening)[-1:], atol=1e-5)
    assert np.isneginf(log_mu[0, [MARKS.pad, MARKS.user, MARKS.assistant]]).all()
    np.testing.assert_allclose(the_scene.user(np.array([0])), log_mu)


def test_staying_with_the_demonstrator_is_no_distance_and_another_network_is_one():
    assert played(scene(), Known(), 1).kl_demonstrator_nats.max() == pytest.approx(0, abs=1e-9)
    away = played(scene(), Single("single"), 2).kl_demonstrator_nats
    assert away.mean() > 0.05


def test_what_it_writes_is_as_frequent_as_it_says():
    """The first word after each opening, against mu; and the likelihood of what the user says, against its entropy."""
    chats = written_by(scene(), 1000, 0)
    assert all([message.role for message in chat] == ["user", *["assistant", "user"] * 2] for chat in chats)
    for first in OPENINGS:
        tokens = [*encode(TOKENIZER, [first[:1]]).tokens.tolist(), MARKS.assistant]
        mu = obvious_log_mu(tokens)[-1].exp().numpy()
        said = [chat[1].content.split()[:1] for chat in chats if chat[0].content == first[0].content]
        for word in WORDS[:3]:
            p, n = mu[TOKENIZER.convert_tokens_to_ids(word)], len(said)
            assert abs(said.count([word]) - n * p) < 4 * math.sqrt(n * p * (1 - p))
    surprises, entropies = [], []
    for chat in chats[:200]:
        encoded = encode(TOKENIZER, [chat])
        log_mu = obvious_log_mu(encoded.tokens.tolist())
        turn = np.flatnonzero(encoded.turn == 2)[1:-1]
        surprises += [-float(log_mu[t - 1, encoded.tokens[t]]) for t in turn]
        entropies += [-float((log_mu[t - 1].exp() * log_mu[t - 1].clamp(min=-1e9)).sum()) for t in turn]
    assert np.mean(surprises) == pytest.approx(np.mean(entropies), abs=0.1)


def test_the_first_few_are_those_of_a_smaller_number():
    told = []
    assert written_by(scene(), 260, 5, told.append)[:10] == written_by(scene(), 10, 5)
    assert told == [250, 260]


def test_the_reward_for_surprise_pays_what_mu_did_not_expect():
    """Greedy for surprise is worth more than what mu itself says; all rewards lie in [0, 1]."""
    dull = played(scene(0.2, rewards_surprise_nats=20.0), Known(), 1)
    odd = played(scene(0.2, rewards_surprise_nats=20.0), Single("single"), 2)
    assert dull.proxy_reward.min() >= 0
    assert odd.proxy_reward.max() <= 1
    assert odd.proxy_reward.mean() > dull.proxy_reward.mean() + 0.1


def test_texts_become_words_and_nothing_is_lost_but_what_is_said():
    assert plain_words("Don't! It's 3.50, or 1/2…") == ["don't", "!", "it's", "#", ",", "or", "#"]
    chats = [(Message("user", "Yes YES no"), Message("assistant", "well, yes"))]
    words = commonest_words(chats, 1)
    assert words == ["~", "yes"]
    assert [message.content for message in in_words(chats, words)[0]] == ["yes yes ~", "~ ~ yes"]


def test_refusals():
    with pytest.raises(InputError, match="temperature of 0"):
        scene(0.0)
    with pytest.raises(InputError, match="vocabulary of 0 words"):
        commonest_words([], 0)
