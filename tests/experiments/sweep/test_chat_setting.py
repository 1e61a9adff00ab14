"""The chat as a setting asks ``experiments.chat`` for what a cell says."""

from dataclasses import replace
from pathlib import Path

from mightnt.experiments import chat
from mightnt.experiments.sweep.cells import Imitation, headline
from mightnt.experiments.sweep.chat_setting import BASES, profile, stages, updates
from mightnt.worlds.chat.corpus import N_ROUNDS


def test_bases_are_those_of_the_imitators():
    from mightnt.lm.imitators import BASES as known

    assert known == BASES


def test_a_cell_says_how_its_imitators_are_made():
    cell = replace(headline(), length=2, n_demonstrations=300, imitation=Imitation(3, 10, 20, 30))
    made = profile(cell)
    assert (made.n_demonstrations, made.rounds) == ((300,), 2 * N_ROUNDS)
    assert (made.n_networks, made.other_chats, made.pretraining_steps, made.fitting_steps) == (3, 10, 20, 30)
    assert [[part.name for part in stage] for stage in stages(Path(), Path("p"), cell, 0)] == [
        [f"pretrain-{i}" for i in range(3)],
        [f"fit-n300-{i}" for i in range(3)],
        ["imitators-n300"],
    ]
    assert updates(cell) == (20, 30, 0)


def test_the_headline_has_the_imitators_of_the_default_profile():
    usual, own = chat.PROFILES["default"], profile(headline())
    for name in ("n_networks", "other_chats", "pretraining_steps", "fitting_steps", "rounds"):
        assert getattr(own, name) == getattr(usual, name), name
