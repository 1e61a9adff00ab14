"""Only what is demonstrated is evidence: the agent's own words move no posterior, no count, no weight, no cap.

Within an episode this is a property of the bases, across episodes of what learning is fed with.
"""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mightnt
from mightnt.dialogues import Message
from mightnt.lm import update
from mightnt.lm.account import Account
from mightnt.lm.actor import Stay
from mightnt.lm.bases.capped import Capped
from mightnt.lm.bases.known import Known
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.bases.mixture import Mixture
from mightnt.lm.bases.single import Single
from mightnt.lm.episodes import play_episodes
from mightnt.lm.imitators import count_arrays
from mightnt.lm.reliability import TopSetMinimum
from mightnt.lm.run import cast_for
from mightnt.lm.speaker import PolicySpeaker
from mightnt.lm.tokens import content_tokens, encode
from mightnt.worlds.chat.corpus import demonstrations
from tests.lm.toys import said
from tests.strategies import seeds

N_TOKENS = 5
WEIGHTS = tuple(np.log([0.5, 0.3, 0.2]).tolist())
ON_DEMONSTRATIONS = Mixture(WEIGHTS, evidence="demonstrated")
BELIEVING = (ON_DEMONSTRATIONS, TopSetMinimum(ON_DEMONSTRATIONS, 0.3), TopSetMinimum(ON_DEMONSTRATIONS, 1.0))
"""Bases that hold a posterior and move it by the demonstrator's words alone."""
WITHOUT_BELIEFS = (Single(), Single("counts", of_counts=True), Minimum(), Known())


@st.composite
def walks(draw):
    """Steps of one episode as (what members say, token, was it the agent's own), probabilities all above zero."""
    rng = np.random.default_rng(draw(seeds))
    steps = []
    for own in draw(st.lists(st.booleans(), min_size=1, max_size=12)):
        networks, counts = rng.dirichlet(np.ones(N_TOKENS), size=(2, 1)), rng.dirichlet(np.ones(N_TOKENS), size=1)
        step = said(networks, counts, rng.random((1, N_TOKENS)) < 0.8, rng.dirichlet(np.ones(N_TOKENS), size=1))
        steps.append((step, torch.tensor([int(rng.integers(N_TOKENS))]), own))
    return steps


def state_after(base, steps):
    state = base.start(1)
    for step, token, own in steps:
        state = base.advance(state, step, token, torch.tensor([own]))
    return state


# within an episode


@given(walks(), st.sampled_from(BELIEVING))
def test_beliefs_are_as_if_the_agent_had_said_nothing(steps, base):
    """Bit for bit: the own steps may as well be left out."""
    demonstrated = [(step, token, own) for step, token, own in steps if not own]
    assert torch.equal(state_after(base, steps), state_after(base, demonstrated))


@given(walks(), st.sampled_from(BELIEVING))
def test_beliefs_do_move_by_what_is_demonstrated(steps, base):
    all_shown = [(step, token, False) for step, token, _ in steps]
    assert not torch.equal(state_after(base, all_shown), base.start(1))


def test_the_mixture_of_a_predictor_believes_its_own_words():
    """The neighbor, evidence ``all``: a member that expects what the agent just said is believed from then on."""
    step = said([[[0.99, 0.01]], [[0.01, 0.99]]], [[0.5, 0.5]])
    own = [(step, torch.tensor([1]), True)] * 3
    assert float(state_after(Mixture(WEIGHTS), own).exp()[0, 1]) > 0.9
    assert torch.equal(state_after(ON_DEMONSTRATIONS, own), ON_DEMONSTRATIONS.start(1))


@given(walks(), st.sampled_from(WITHOUT_BELIEFS))
def test_bases_without_beliefs_carry_nothing_along(steps, base):
    assert state_after(base, steps).shape == (1, 0)


@given(walks(), st.sampled_from([0.0, 0.7, 3.0]), st.integers(0, 12))
def test_own_words_charge_the_cap_and_never_loosen_it(steps, log_cap, cut):
    """Whatever the agent said, no token is likelier under the base than in an episode in which it has said nothing."""
    base = Capped(log_cap)
    state = state_after(base, steps[:cut])
    for step, _, _ in steps:
        assert bool((base.predict(state, step) <= base.predict(base.start(1), step)).all())
    assert float(state) >= 0


@given(walks(), st.sampled_from([0.0, 0.7]))
def test_what_is_demonstrated_neither_charges_the_cap_nor_pays_it_back(steps, log_cap):
    base = Capped(log_cap)
    own = [(step, token, own) for step, token, own in steps if own]
    assert torch.equal(state_after(base, steps), state_after(base, own))


# across episodes


def all_arrays(imitators):
    """Everything of a set that could learn, copied."""
    arrays = {name: value.copy() for name, value in count_arrays(imitators.counts).items()}
    for i, network in enumerate(imitators.networks):
        arrays |= {f"{i}.{name}": value.detach().numpy().copy() for name, value in network.state_dict().items()}
    return arrays | {"weights": np.array(imitators.log_weights), "cap": np.array(imitators.log_cap_nats)}


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def speaker_of(imitators, base):
    account = Account(50.0, "floor")
    return PolicySpeaker("toy", imitators, imitators.members(base), imitators.base(base), account, Stay(), 8)


@pytest.fixture
def no_learning(monkeypatch):
    """Whoever learns is caught."""

    def caught(*_, **__):
        raise AssertionError("something was learnt from, and nothing was demonstrated")

    monkeypatch.setattr(update, "add_counts", caught)
    monkeypatch.setattr(update, "moved_log_weights", caught)


@pytest.mark.parametrize("base", ["pessimistic", "mixture", "counts"])
def test_serving_own_turns_teaches_nothing(base, imitators, no_learning):
    """Three turns of a conversation, each with the agent's earlier words before it."""
    speaker, before = speaker_of(imitators, base), all_arrays(imitators)
    messages = (Message("user", "hello teacher"),)
    for number in range(3):
        turn, words = speaker.begin(messages, 0.0, number, seed=number), []
        while turn.last is None:
            piece = turn.next_piece()
            words.append(getattr(piece, "text", ""))
        messages += (Message("assistant", "".join(words).strip()), Message("user", "okay"))
    assert same(all_arrays(imitators), before)
    assert speaker.imitators is imitators


@pytest.mark.parametrize("base", ["pessimistic", "mixture"])
def test_playing_episodes_teaches_nothing(base, imitators, short_chat, no_learning):
    before = all_arrays(imitators)
    cast = cast_for(imitators, short_chat, base, Account(20.0, "floor"), Stay())
    played = play_episodes(cast, 3, 0)
    assert played.n_tokens > 0
    assert same(all_arrays(imitators), before)


def test_of_an_answer_only_the_demonstrators_words_are_learnt(imitators, monkeypatch):
    """What the agent had begun, what users say, and earlier turns that are told apart, never reach counts or weights."""
    fed = []
    real = update.add_counts
    monkeypatch.setattr(update, "add_counts", lambda *given: fed.append(given[1:]) or real(*given))
    answer = demonstrations(1, 77)[0]
    place = next(i for i, m in enumerate(answer) if m.role == "assistant" and len(m.content.split()) > 3)
    begun = " ".join(answer[place].content.split()[:2])
    answer = (*answer[:place], Message("assistant", answer[place].content, begun))
    taught = speaker_of(imitators, "pessimistic").taught([answer])
    ((tokens, _, chosen),) = fed
    last = content_tokens(imitators.tokenizer, [answer[place].content])[0]
    corpus = encode(imitators.tokenizer, [answer])
    in_last = corpus.turn == place
    assert tokens[chosen & in_last].tolist() == [*last[2:], imitators.marks.end]
    assert not chosen[np.isin(corpus.turn, [i for i, m in enumerate(answer) if m.role == "user"])].any()
    grown = taught.imitators.counts.tables[0].counts.sum() - imitators.counts.tables[0].counts.sum()
    assert grown == chosen.sum()
    assert taught.base.log_cap_nats == imitators.log_cap_nats


def test_counts_and_weights_are_moved_in_one_place():
    """Whoever feeds them from another module must say here that it feeds demonstrations alone."""
    source = Path(mightnt.__file__).parent
    feeding = set()
    for path in source.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "add_counts" in text or "moved_log_weights" in text else ():
            called = node.func if isinstance(node, ast.Call) else None
            name = getattr(called, "id", getattr(called, "attr", None))
            if name in ("add_counts", "moved_log_weights"):
                feeding.add(path.relative_to(source).as_posix())
    assert feeding == {"lm/update.py"}
