"""Random predictions, models, classes and histories for Hypothesis, and the slow definitions that fast code is held to."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from math import prod

import numpy as np
from hypothesis import strategies as st

from mightnt.history import Chooser, Step
from mightnt.models.finite import ModelClass
from mightnt.prediction import Prediction, follow

seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class RandomModel:
    """A model that remembers everything: a row drawn anew for every sequence of symbols, always the same for one seed.

    ``missing`` is the largest mass a row may miss, ``zeros`` the probability that a symbol is impossible.
    """

    seed: int
    n_symbols: int
    missing: float = 0.0
    zeros: float = 0.0

    def start(self):
        return ()

    def predict(self, state):
        return random_row(self, state)

    def advance(self, state, step):
        return (*state, step.symbol)


@functools.lru_cache(maxsize=100_000)
def random_row(model, state):
    rng = np.random.default_rng([model.seed, *(symbol + 1 for symbol in state)])
    row = rng.dirichlet(np.ones(model.n_symbols))
    possible = rng.uniform(size=model.n_symbols) >= model.zeros
    possible[int(rng.integers(model.n_symbols))] = True
    row = np.where(possible, row, 0.0)
    return Prediction.of(row / row.sum() * (1 - model.missing * rng.uniform()))


@st.composite
def predictions(draw, n_symbols=3, complete=False):
    """A prediction with zeros now and then; it misses mass unless ``complete``."""
    weights = draw(st.lists(st.integers(0, 20), min_size=n_symbols, max_size=n_symbols))
    if not any(weights):
        weights[0] = 1
    slack = 0 if complete else draw(st.integers(0, 20))
    return Prediction.of(np.array(weights) / (sum(weights) + slack))


@st.composite
def model_classes(draw, n_symbols=2, max_models=4, missing=0.0, zeros=0.0):
    """A class of models with memory; the prior is dyadic or not, and may sum to less than one."""
    n_models = draw(st.integers(1, max_models))
    seed = draw(st.integers(0, 2**31))
    weights = np.array(draw(st.lists(st.integers(1, 16), min_size=n_models, max_size=n_models)))
    slack = draw(st.sampled_from([0, 0, 5]))
    models = [RandomModel(seed + i, n_symbols, missing, zeros) for i in range(n_models)]
    return ModelClass.of(models, weights / (weights.sum() + slack))


@st.composite
def histories(draw, n_actions=2, n_observations=2, max_rounds=4):
    """Rounds of an action (the agent's or the demonstrator's) and an observation."""
    rounds = draw(
        st.lists(
            st.tuples(
                st.integers(0, n_actions - 1),
                st.sampled_from([Chooser.AGENT, Chooser.DEMONSTRATOR]),
                st.integers(0, n_observations - 1),
            ),
            max_size=max_rounds,
        )
    )
    return tuple(step for a, who, o in rounds for step in (Step(a, who), Step(o, Chooser.WORLD)))


def agent_paths(n_actions, n_observations, horizon):
    """Every history of ``horizon`` rounds in which the agent acts."""
    rounds = list(itertools.product(range(n_actions), range(n_observations)))
    for path in itertools.product(rounds, repeat=horizon):
        yield tuple(s for a, o in path for s in (Step(a, Chooser.AGENT), Step(o, Chooser.WORLD)))


def probability_of_actions(model, history, counts=lambda step: step.is_action):
    """prod_t nu(a_t | h_<t) over the actions that ``counts`` says, from scratch at every step."""
    return prod(
        float(model.predict(follow(model, history[:t])).probabilities[step.symbol])
        for t, step in enumerate(history)
        if counts(step)
    )
