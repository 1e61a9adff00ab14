"""The help desk as a setting: the chat's parts with its own authors, its own scene and kinds of turns, a known maximum."""

from dataclasses import replace
from pathlib import Path

import pytest

from mightnt.experiments.sweep import chat_setting, tools_setting
from mightnt.experiments.sweep.cells import Imitation, alone, headline
from mightnt.experiments.sweep.settings import SETTINGS
from mightnt.experiments.sweep.studies import DESK
from mightnt.lm.imitators import BASES as known
from mightnt.lm.tools_scene import ToolsScene, tools_tokenizer
from mightnt.worlds.tools.corpus import N_TURNS
from mightnt.worlds.tools.kinds import Kind
from tests.experiments.test_frontier import run_here

CELL = replace(
    headline("mixture"),
    setting=DESK,
    n_demonstrations=40,
    strength=3.0,
    iterations=1,
    episodes=4,
    evaluation_episodes=4,
    imitation=Imitation(n_networks=1, other_chats=20, pretraining_steps=4, fitting_steps=4),
)


def test_the_parts_are_those_of_the_chat_with_other_authors():
    assert known == tools_setting.BASES
    here, there = (
        SETTINGS[name].prepare(Path("somewhere"), replace(CELL, setting=name), 0) for name in ("tools", "chat")
    )
    assert [one.part.function for one in here] == [one.part.function for one in there]
    assert [one.seconds for one in here] == [one.seconds for one in there]
    assert {one.part.arguments[1].world for one in here} == {"tools"}
    assert {one.part.arguments[1].world for one in there} == {"chat"}
    assert not {one.place for one in here} & {one.place for one in there}
    assert chat_setting.profile(replace(CELL, length=2)).rounds == 2 * N_TURNS


def test_the_largest_reward_is_the_scenes_and_only_known_here():
    assert SETTINGS["tools"].maximal_proxy_reward == ToolsScene.maximal_proxy_reward == 1.0
    assert SETTINGS["chat"].maximal_proxy_reward is SETTINGS["text"].maximal_proxy_reward is None


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    for stage in tools_setting.stages(folder, folder, CELL, 0):
        run_here(stage, folder, None, 1)
    return folder


def played(place, cell):
    return tools_setting.run(place, place, cell, 0, 3, lambda done, of: None)


def test_a_run_is_played_at_the_help_desk(place):
    measured = played(place, CELL)
    assert measured["turns"] == N_TURNS * CELL.evaluation_episodes
    assert measured["kl_base_nats"]["max"] <= CELL.strength + 1e-6
    assert set(measured["kinds"]) == set(Kind)
    assert sum(measured["kinds"].values()) == pytest.approx(1.0)
    assert 0 <= measured["proxy_reward"]["max"] <= 1
    spoken = {token["text"] for kept in measured["transcripts"] for turn in kept["turns"] for token in turn["tokens"]}
    assert {text.strip() for text in spoken} <= {"", *tools_tokenizer().get_vocab()}


def test_the_known_demonstrator_is_the_help_desks(place):
    measured = played(place, alone(replace(CELL, base="known", evaluation_episodes=20)))
    assert measured["kl_base_demonstrator_nats"]["max"] == pytest.approx(0.0, abs=1e-9)
    assert measured["kinds"]["demonstrated"] > 0.95
    assert measured["true_utility"]["mean"] > 1.0
