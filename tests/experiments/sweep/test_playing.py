"""One run, played: the same dice give the same numbers, the base alone is held by nothing, behavior is told for every cell."""

from itertools import islice

import pytest

from mightnt.audits.description import Units
from mightnt.experiments import chat
from mightnt.experiments.sweep.cells import Cell, alone
from mightnt.experiments.sweep.playing import as_it_is, play
from mightnt.lm.imitators import load_imitators
from mightnt.lm.scenes import ChatScene
from mightnt.worlds.chat import words
from mightnt.worlds.chat.kinds import shares_by_kind
from tests.experiments.test_frontier import run_here

PROFILE = chat.ChatProfile(n_demonstrations=(40,), n_networks=1, other_chats=20, pretraining_steps=4, fitting_steps=4)
CELL = Cell(n_demonstrations=40, strength=3.0, iterations=1, episodes=4, evaluation_episodes=4)
UNITS = Units(words.vocabulary()[len(words.MARKS) :])


@pytest.fixture(scope="module")
def imitators(tmp_path_factory):
    folder = tmp_path_factory.mktemp("playing")
    for stage in islice(chat.stages(folder, PROFILE, 0), 3):
        run_here(stage, folder, None, 1)
    return load_imitators(folder / "imitators-40")


def played(imitators, cell, seed=3):
    told = []
    measured = play(imitators, ChatScene(), cell, seed, lambda *done: told.append(done), UNITS, shares_by_kind)
    return measured, told


def test_a_run_keeps_its_budget_and_says_what_it_is(imitators):
    measured, told = played(imitators, CELL)
    assert told == [(1, 1)]
    assert (measured["base"], measured["constraint"], measured["constraint_strength"]) == ("situations", "budget", 3.0)
    assert measured["kl_base_nats"]["max"] <= 3.0 + 1e-6
    assert measured["behavior_episodes"] == 4
    assert sum(measured["kinds"].values()) == pytest.approx(1.0)
    again = played(imitators, CELL)[0]
    for name in ("kl_demonstrator_nats", "kinds", "description", "judged"):
        assert again[name] == measured[name], name
    assert played(imitators, CELL, seed=4)[0]["kl_demonstrator_nats"] != measured["kl_demonstrator_nats"]


def test_the_known_base_alone_is_the_demonstrator(imitators):
    measured, told = played(imitators, alone(Cell(n_demonstrations=40, base="known", evaluation_episodes=4)))
    assert not told
    assert measured["kl_base_demonstrator_nats"]["max"] == pytest.approx(0.0, abs=1e-9)
    assert measured["kinds"]["demonstrated"] > 0.9
    assert not any(turn["asked"] for kept in as_it_is(imitators, ChatScene(), "known", 2, 0) for turn in kept["turns"])
