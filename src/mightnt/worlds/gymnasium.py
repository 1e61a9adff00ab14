"""Any Gymnasium environment with ``ask`` beside its actions (extra ``gym``).

Here only the question and the answer; what an action costs, and which actions become questions, is the desk's
(:mod:`mightnt.desk.gymnasium`), because accounts belong to a room further right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mightnt.errors import InputError

try:
    from gymnasium import Env as Env
    from gymnasium import Space
    from gymnasium import Wrapper as Wrapper
    from gymnasium.spaces import Discrete as Discrete
except ImportError as error:
    raise InputError('this part needs Gymnasium: pip install "mightnt[gym]"') from error


def n_discrete(space: Space[Any], what: str) -> int:
    """How many values a space has; :class:`~mightnt.errors.InputError` unless it is ``Discrete`` and counts from 0."""
    if not isinstance(space, Discrete) or space.start != 0:
        raise InputError(
            f"the {what} space is {space}; Discrete(n) from 0 is needed: transform it with a Gymnasium wrapper first"
        )
    return int(space.n)


class AskWrapper(Wrapper[Any, Any, Any, Any]):
    """The environment with n + 1 actions: the last one asks, and the demonstrator's action is taken instead.

    Any learner can be put on top: to it, asking is an action like the others. Every ``info`` of a step holds ``asked``
    (was this a question?) and ``action`` (what was really done, one of 0..n-1).

    Args:
        env: with ``Discrete`` actions 0..n-1; observations of any kind.
        answer: observation -> the demonstrator's action. It raises :class:`~mightnt.errors.NoAnswer` where there is none:
            no answer, no act. An answer outside 0..n-1 is refused with :class:`~mightnt.errors.InputError`, and the
            environment is not touched.
        reward_per_ask: added to the reward of a step that asked; usually negative, a person's time.

    Kind: exact. Paper: the asking imitator, as an environment. Cost: that of the environment and of the answers.
    """

    def __init__(self, env: Env[Any, Any], answer: Callable[[Any], int], reward_per_ask: float = 0.0) -> None:
        super().__init__(env)
        self.ask = n_discrete(env.action_space, "action")
        self.action_space = Discrete(self.ask + 1)
        self.answer = answer
        self.reward_per_ask = reward_per_ask
        self.observation: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The first observation of an episode."""
        self.observation, info = self.env.reset(seed=seed, options=options)
        return self.observation, info

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Do ``action``, or what the demonstrator says where it is ``ask``."""
        chosen, asked = int(action), int(action) == self.ask
        done = self.answer(self.observation) if asked else chosen
        if not 0 <= done < self.ask:
            whose = "the demonstrator's answer" if asked else "the action"
            raise InputError(f"{whose} is {done}; allowed are 0..{self.ask - 1}, and {self.ask} for the agent: ask")
        self.observation, reward, terminated, truncated, info = self.env.step(done)
        reward = float(reward) + self.reward_per_ask * asked
        return self.observation, reward, terminated, truncated, {**info, "asked": asked, "action": done}
