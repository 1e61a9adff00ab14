"""Demonstrations read from Minari data sets that were written by Minari itself."""

import sys

import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from minari.data_collector.episode_buffer import EpisodeBuffer

from mightnt.desk.gymnasium import demonstrate
from mightnt.errors import InputError
from mightnt.history import Chooser, Step
from mightnt.models.tabular import PessimisticTable
from mightnt.prediction import follow
from mightnt.worlds.grid import ShortcutGrid, safe_demonstrator
from mightnt.worlds.minari import read_minari

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that writes episodes (observations, actions) and returns the data set's folder."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))

    def write(episodes, observation_space, action_space, name="mine/test-v0"):
        buffers = [
            EpisodeBuffer(
                id=number,
                observations=observations,
                actions=actions,
                rewards=[0.0] * len(actions),
                terminations=[False] * len(actions),
                truncations=[False] * (len(actions) - 1) + [True],
                infos={},
            )
            for number, (observations, actions) in enumerate(episodes)
        ]
        env = ShortcutGrid()
        minari.create_dataset_from_buffers(
            name, buffers, env=env, observation_space=observation_space, action_space=action_space
        )
        return tmp_path / name

    return write


def steps(*pairs):
    return tuple(Step(s, Chooser.WORLD if who == "o" else Chooser.DEMONSTRATOR) for who, s in pairs)


def test_observations_and_actions_come_in_order_one_episode_after_another(written):
    folder = written([([10, 5, 0], [0, 3]), ([10, 11], [1])], Discrete(15), Discrete(4))
    expected = steps(("o", 10), ("a", 0), ("o", 5), ("a", 3), ("o", 0), ("o", 10), ("a", 1), ("o", 11))
    assert read_minari(folder) == read_minari(folder / "data") == read_minari("mine/test-v0") == expected


def test_a_folder_is_found_from_where_one_stands(written, monkeypatch):
    folder = written([([10, 5], [0])], Discrete(15), Discrete(4))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "elsewhere"))
    monkeypatch.chdir(folder.parent)
    assert len(read_minari(folder.name)) == len(read_minari(f"{folder.name}/data")) == 3


def test_what_was_demonstrated_here_comes_back_as_the_same_evidence(written):
    shown = demonstrate(ShortcutGrid(), safe_demonstrator(), n_episodes=3, seed=0)
    episodes, before = [], Chooser.WORLD
    for step in shown:
        if step.chooser is Chooser.WORLD:
            if before is Chooser.WORLD:
                episodes.append(([], []))
            episodes[-1][0].append(step.symbol)
        else:
            episodes[-1][1].append(step.symbol)
        before = step.chooser
    read = read_minari(written(episodes, Discrete(15), Discrete(4)))
    assert read == shown
    table = PessimisticTable(15, 4, 0.01)
    np.testing.assert_array_equal(follow(table, read).counts, follow(table, shown).counts)


def test_boxes_need_to_be_told_apart(written):
    seen = [np.array([x], np.float32) for x in (-0.5, 0.5, 0.7)]
    folder = written([(seen, [1, 0])], Box(-1, 1, (1,)), Discrete(2))
    with pytest.raises(InputError, match="observation space"):
        read_minari(folder)
    assert read_minari(folder, observe=lambda x: int(x[0] > 0)) == steps(
        ("o", 0), ("a", 1), ("o", 1), ("a", 0), ("o", 1)
    )
    with pytest.raises(InputError, match="below 0"):
        read_minari(folder, observe=lambda x: -1)


def test_actions_that_are_no_choice_are_refused(written):
    moves = [np.array([0.1], np.float32)]
    with pytest.raises(InputError, match="action space"):
        read_minari(written([([10, 5], moves)], Discrete(15), Box(-1, 1, (1,))))


@pytest.mark.parametrize("source", ["nothing", "mine/none-v0", "/no/folder", ""])
def test_what_is_not_there_is_refused_and_nothing_is_downloaded(source, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(InputError, match="neither the folder"):
        read_minari(source)


@pytest.mark.parametrize("module", ["minari", "h5py"])
def test_without_the_extra_it_says_what_to_install(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"mightnt\[gym\]"):
        read_minari("anything")
