"""Ask beside the actions of any environment."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from mightnt.errors import InputError, NoAnswer
from mightnt.worlds.gymnasium import AskWrapper, n_discrete


class Echo(gymnasium.Env):
    """Observes, as a box, how many steps were made; remembers what was done; pays 2 a step."""

    observation_space = gymnasium.spaces.Box(0, 100, (1,))

    def __init__(self, n_actions=3):
        self.action_space = gymnasium.spaces.Discrete(n_actions)
        self.done = []

    def reset(self, *, seed=None, options=None):
        self.done = []
        return np.zeros(1, np.float32), {"from": "reset"}

    def step(self, action):
        self.done.append(action)
        return np.full(1, len(self.done), np.float32), 2, False, len(self.done) == 4, {"from": "step"}


def test_asking_does_what_the_demonstrator_says_and_everything_else_is_done_as_chosen():
    asked_about = []

    def answer(observation):
        asked_about.append(float(observation[0]))
        return 2

    env = AskWrapper(Echo(), answer, reward_per_ask=-0.5)
    assert env.action_space == gymnasium.spaces.Discrete(4)
    assert env.reset()[1] == {"from": "reset"}
    rows = [env.step(action) for action in (0, np.int64(3), 1, 3)]
    assert env.unwrapped.done == [0, 2, 1, 2]
    assert asked_about == [1.0, 3.0]
    assert [row[1] for row in rows] == [2.0, 1.5, 2.0, 1.5]
    assert [(row[4]["asked"], row[4]["action"]) for row in rows] == [(False, 0), (True, 2), (False, 1), (True, 2)]
    assert [row[3] for row in rows] == [False, False, False, True]
    assert rows[0][4]["from"] == "step"


def test_the_first_question_is_about_the_first_observation_of_this_episode():
    asked_about = []
    env = AskWrapper(Echo(), lambda observation: asked_about.append(float(observation[0])) or 0)
    for _ in range(2):
        env.reset()
        env.step(3)
        env.step(1)
    assert asked_about == [0.0, 0.0]


def test_no_answer_no_act():
    def silent(observation):
        raise NoAnswer("nobody is there")

    env = AskWrapper(Echo(), silent)
    env.reset()
    with pytest.raises(NoAnswer):
        env.step(3)
    assert env.unwrapped.done == []


@pytest.mark.parametrize("wrong", [3, -1])
def test_an_answer_that_is_no_action_is_refused_before_anything_is_done(wrong):
    env = AskWrapper(Echo(), lambda observation: wrong)
    env.reset()
    with pytest.raises(InputError, match="demonstrator's answer"):
        env.step(3)
    with pytest.raises(InputError, match="the action"):
        env.step(4)
    assert env.unwrapped.done == []


def test_other_spaces_are_refused():
    env = Echo()
    for space in (gymnasium.spaces.Discrete(3, start=1), gymnasium.spaces.Box(0, 1)):
        env.action_space = space
        with pytest.raises(InputError, match="Discrete"):
            AskWrapper(env, lambda observation: 0)
    assert n_discrete(gymnasium.spaces.Discrete(5), "action") == 5


@pytest.mark.parametrize("module", ["worlds.gymnasium", "worlds.grid", "desk.gymnasium"])
def test_without_the_extra_it_says_what_to_install(module):
    code = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "from mightnt.errors import InputError\n"
        f"try:\n    import mightnt.{module}\nexcept InputError as error:\n    print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "mightnt[gym]" in said
