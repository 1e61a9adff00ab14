"""A Gymnasium environment in which every action is paid for and what cannot be paid is asked (extra ``gym``).

Put any learner on top: it never sees the base, and it cannot get past the budget.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mightnt.constraints.budget import KLBudget
from mightnt.constraints.ledger import Ledger
from mightnt.desk.answer import Demonstrator, Question, draw
from mightnt.errors import InputError
from mightnt.history import Chooser, History, Step
from mightnt.prediction import Model
from mightnt.worlds.gymnasium import AskWrapper, Env, Wrapper, n_discrete


class ProtectedEnv(Wrapper[Any, Any, Any, Any]):
    """The environment with n + 1 actions (the last one asks) that lets nothing pass but what the budget of the episode pays.

    An action a costs -log nu(a | h), nu being the base as it is (missing mass is never given back). An action that the
    base gives 0, or that costs more than is left, becomes a question: the demonstrator decides, for nothing. No answer:
    :class:`~mightnt.errors.NoAnswer`, and nothing is done. Each step's ``info`` holds ``asked``, ``action`` (what was
    done), ``charged_nats`` and ``left_nats``; that of ``reset`` holds ``left_nats``.

    What the account bounds. The learner's dice are not seen here, so each action is charged as if it had been certain:
    KL(point at a, nu) = -log nu(a). Roll a random policy's dice before the episode: for each roll, a step is either paid
    so or the demonstrator's own, and KL is convex in its first argument, hence, while nu <= mu pointwise,

        KL(system, mu) <= E[sum of charges] <= budget,

    answers included and without a charge for asking. For a policy that is not deterministic the charge is too high by its
    entropy: that is the price of not seeing its probabilities.

    The base goes on over all episodes as over one history, o0 a1 o1 ... o0 a1 ..., so that answers of earlier episodes are
    evidence in later ones. The budget begins anew at ``reset``. What is left is not part of the observation: a learner that
    should plan with it needs it appended by a wrapper that reads ``info``.

    Args:
        env: ``Discrete`` observations and actions, both from 0.
        base: over the actions; observations come to it as steps of the world.
        budget: nats an episode; ``inf`` pays for everything that the base does not exclude.
        desk: who answers. The seed of a question is that of ``reset`` (0 at first, else one more than before).
        reward_per_ask: added to the reward of a step that asked.

    Kind: upper bound on KL(system, base), kept along every path. Paper: the hard budget of an episode; this charge is this
    project's. Cost: one prediction and two advances of the base a step.
    """

    def __init__(
        self, env: Env[Any, Any], base: Model, budget: KLBudget, desk: Demonstrator, reward_per_ask: float = 0.0
    ) -> None:
        super().__init__(AskWrapper(env, self._answer, reward_per_ask))
        self.ask = n_discrete(env.action_space, "action")
        n_discrete(env.observation_space, "observation")
        if base.n_symbols != self.ask:
            raise InputError(f"the base speaks of {base.n_symbols} actions, the environment of {self.ask}")
        self.base, self.budget, self.desk = base, budget, desk
        self.base_state = base.start()
        self.ledger = Ledger(budget.nats)
        self.history: list[Step] = []
        self.episode_seed, self.n_asks = -1, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The first observation, and a full budget."""
        observation, info = self.env.reset(seed=seed, options=options)
        self.episode_seed = self.episode_seed + 1 if seed is None else seed
        self.ledger, self.n_asks, self.history = Ledger(self.budget.nats), 0, []
        self._happened(Step(int(observation), Chooser.WORLD))
        return observation, {**info, "left_nats": self.ledger.left_nats}

    def price_nats(self, action: int) -> float:
        """What ``action`` costs here: -log nu(action | h); 0 for asking, ``inf`` where the base excludes it."""
        if not 0 <= action <= self.ask:
            raise InputError(f"the action is {action}; allowed are 0..{self.ask - 1}, and {self.ask} to ask")
        if action == self.ask:
            return 0.0
        return max(0.0, -float(self.base.predict(self.base_state).log_probabilities[action]))

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Pay for ``action`` and do it, or ask."""
        price = self.price_nats(int(action))
        paid = int(action) != self.ask and price < np.inf and self.ledger.affords(price)
        observation, reward, terminated, truncated, info = self.env.step(int(action) if paid else self.ask)
        charged = price if paid else 0.0
        self.ledger = self.ledger.charge(charged)
        self.n_asks += not paid
        self._happened(Step(info["action"], Chooser.AGENT if paid else Chooser.DEMONSTRATOR))
        self._happened(Step(int(observation), Chooser.WORLD))
        account = {"charged_nats": charged, "left_nats": self.ledger.left_nats}
        return observation, float(reward), terminated, truncated, {**info, **account}

    def _happened(self, step: Step) -> None:
        self.history.append(step)
        self.base_state = self.base.advance(self.base_state, step)

    def _answer(self, observation: Any) -> int:
        """The desk's answer; it sees the history of the episode, which ends in ``observation``."""
        return self.desk.answer(Question(tuple(self.history), self.ask, self.n_asks, self.episode_seed))


def demonstrate(env: Env[Any, Any], demonstrator: Model, n_episodes: int, seed: int) -> History:
    """So many episodes of a known demonstrator as demonstrated steps: o0 a1 o1 a2 ..., one episode after another.

    Args:
        env: ``Discrete`` observations and actions, both from 0.
        seed: of the environment (its episodes are seeded seed, seed + 1, ...) and of the demonstrator's dice.

    Errors: :class:`~mightnt.errors.InputError` where the demonstrator does not say what to do.

    Kind: exact sampling. Cost: one prediction and two advances a step.
    """
    rng, steps, state = np.random.default_rng(seed), list[Step](), demonstrator.start()

    def happened(step: Step) -> None:
        nonlocal state
        steps.append(step)
        state = demonstrator.advance(state, step)

    for episode in range(n_episodes):
        observation, over = env.reset(seed=seed + episode)[0], False
        happened(Step(int(observation), Chooser.WORLD))
        while not over:
            action = draw(demonstrator.predict(state), rng)
            if action is None:
                raise InputError(f"the demonstrator does not say what to do after observation {observation}")
            observation, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            happened(Step(action, Chooser.DEMONSTRATOR))
            happened(Step(int(observation), Chooser.WORLD))
    return tuple(steps)
