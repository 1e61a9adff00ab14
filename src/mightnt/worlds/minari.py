"""Demonstrations from Minari, where data sets of offline reinforcement learning are kept (extra ``gym``)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mightnt.errors import InputError
from mightnt.history import Chooser, History, Step
from mightnt.worlds.gymnasium import n_discrete


def read_minari(source: Path | str, observe: Callable[[Any], int] | None = None) -> History:
    """Every step of a Minari data set as demonstrated steps: o0 a1 o1 a2 ..., one episode after another.

    All actions of the data set count as the demonstrator's: choose one whose actor you trust. Nothing is downloaded.

    Args:
        source: the folder of a data set (or its ``data`` folder), or the id of one that Minari finds on this machine.
        observe: one observation -> its symbol, 0 or more; needed unless observations are ``Discrete`` from 0.

    Errors: :class:`~mightnt.errors.InputError` where there is no such data set, Minari is missing, the actions are not
    ``Discrete`` from 0, observations need ``observe``, or a symbol lies below 0.

    Kind: exact. Cost: one pass over the data set.
    """
    data = open_minari(source)
    n_discrete(data.action_space, "action")
    if observe is None:
        n_discrete(data.observation_space, "observation")
    symbol_of = observe or int
    steps: list[Step] = []
    for episode in data.iterate_episodes():
        if not isinstance(episode.observations, np.ndarray):
            raise InputError(f"{source}: observations are {type(episode.observations).__name__}s; arrays are needed")
        seen = [Step(symbol_of(observation), Chooser.WORLD) for observation in episode.observations]
        done = [Step(int(action), Chooser.DEMONSTRATOR) for action in episode.actions]
        if len(seen) != len(done) + 1:
            raise InputError(f"{source}: episode {episode.id} has {len(seen)} observations and {len(done)} actions")
        steps += [step for pair in zip(seen, done, strict=False) for step in pair] + seen[-1:]
    if min((step.symbol for step in steps), default=0) < 0:
        raise InputError(f"{source}: an observation or action has a symbol below 0")
    return tuple(steps)


def open_minari(source: Path | str) -> Any:
    """The ``minari.MinariDataset`` in a folder or of an id, on this machine only."""
    try:
        minari, _ = (importlib.import_module(name) for name in ("minari", "h5py"))  # without h5py it reads nothing
    except ImportError as error:
        raise InputError('reading Minari data sets needs Minari: pip install "mightnt[gym]"') from error
    folder = Path(source)
    for place in (folder / "data", folder):
        if (place / "metadata.json").is_file():
            return minari.MinariDataset(place)
    try:
        return minari.load_dataset(str(source))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{source}: neither the folder of a Minari data set nor the id of one on this machine; "
            f"`minari download {source}` fetches a published one"
        ) from error
