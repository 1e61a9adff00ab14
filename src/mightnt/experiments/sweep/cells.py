"""A cell: everything a run depends on besides its seed. A run is ``(cell, seed) -> record``."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_type_hints

from mightnt.errors import InputError
from mightnt.files import plain

STOPPING = "after the stated iterations; every run that was begun is kept and reported"
"""Fixed before any run was looked at."""


@dataclass(frozen=True)
class Imitation:
    """How the imitators of a cell are made; fields as in ``experiments.chat.ChatProfile`` and ``experiments.text.TextConfig``."""

    n_networks: int = 2
    """Networks in the mixture."""
    other_chats: int = 6000
    """Chats of other authors to pre-train on."""
    pretraining_steps: int = 600
    """Updates of pre-training."""
    fitting_steps: int = 400
    """Updates on 1000 demonstrations; grows with the square root of their number."""
    shared: bool = False
    """One set of imitators for all seeds; else each seed has demonstrations and imitators of its own."""


@dataclass(frozen=True)
class Cell:
    """One configuration; the defaults are the headline."""

    setting: str = "chat"
    """Where it is played; one of ``settings.SETTINGS``."""
    data: str = ""
    """Fingerprint of what the setting is made of, where that comes from a file."""
    reward: str = "benign"
    """What a turn is paid for; one of the setting's."""
    n_demonstrations: int = 10000
    """Dialogues of the demonstrator."""
    length: int = 1
    """Turns of an episode, in multiples of the usual number; demonstrations are as long."""
    base: str = "situations"
    """What the policy is held to."""
    constraint: str = "budget"
    """How: ``budget`` (each episode), ``penalty`` (a price), ``target`` (the mean episode) or ``none``."""
    strength: float = 10.0
    """Nats an episode (``budget``, ``target``), reward a nat (``penalty``), 0 for ``none``."""
    asking: str = "charged"
    """How asking is paid; see ``lm.account``."""
    actor_width: int = 128
    """Units in each of the actor's layers."""
    actor_layers: int = 2
    """Layers of the actor."""
    iterations: int = 30
    """Rounds of reinforcement learning; 0: none, the base itself is measured."""
    episodes: int = 64
    """Episodes a round."""
    passes: int = 3
    """Passes of learning over a round."""
    evaluation_episodes: int = 1000
    """Fresh episodes every number is measured on."""
    imitation: Imitation = field(default_factory=Imitation)
    """How its imitators are made."""
    stopping: str = STOPPING
    """When a run ends, and which runs count."""

    @functools.cached_property
    def key(self) -> str:
        """Ten hexadecimal digits that no other cell has."""
        text = json.dumps(plain(asdict(self)), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def alone(self) -> bool:
        """Whether the base itself is measured, without reinforcement learning."""
        return self.iterations == 0

    @property
    def name(self) -> str:
        """For people and file names: the base, what holds the policy to it, what differs from the headline, the key."""
        held = "alone" if self.alone else self.constraint + (f"{self.strength:g}" if self.strength else "")
        return "-".join([self.base, held, *(word.replace(" ", "") for word in self.peculiar()), self.key])

    def peculiar(self) -> list[str]:
        """What differs from the headline besides base and constraint, in words."""
        usual, words = Cell(), list[str]()
        if self.setting != usual.setting:
            words.append(self.setting)
        if self.reward != usual.reward:
            words.append(f"{self.reward} reward")
        if self.n_demonstrations != usual.n_demonstrations:
            words.append(f"n={self.n_demonstrations}")
        if self.length != usual.length:
            words.append(f"x{self.length}")
        if (self.actor_width, self.actor_layers) != (usual.actor_width, usual.actor_layers):
            words.append(f"actor {self.actor_layers}x{self.actor_width}")
        if self.iterations not in (0, usual.iterations):
            words.append(f"{self.iterations} iterations")
        return words


def headline(base: str = "situations") -> Cell:
    """n = 10000, B = 10 nats, episodes of the usual length, the honest reward; ``none`` is held by nothing."""
    return Cell(base=base) if base != "none" else Cell(base=base, constraint="none", strength=0.0)


def alone(cell: Cell) -> Cell:
    """The cell of this cell's base itself, without reinforcement learning; the same for all cells that share it."""
    free = {name: getattr(Cell(), name) for name in ("asking", "actor_width", "actor_layers", "episodes", "passes")}
    return dataclasses.replace(cell, constraint="none", strength=0.0, iterations=0, **free)


def base_alone(cell: Cell) -> Cell:
    """The same under the honest reward: how far the base is from the demonstrator by itself."""
    return alone(dataclasses.replace(cell, reward=Cell().reward))


def cell_from(values: Any) -> Cell:
    """The cell with exactly these fields, as a record keeps it.

    Raises :class:`~mightnt.errors.InputError` naming a field that is missing, unknown or of a wrong type.
    """
    inner = built(values, Cell)
    return Cell(**{**inner, "imitation": Imitation(**built(inner["imitation"], Imitation))})


def built(values: Any, kind: type[Cell] | type[Imitation]) -> dict[str, Any]:
    """The values of a dataclass's fields, each of its type; whole numbers serve as floats."""
    if not isinstance(values, dict):
        raise InputError(f"{kind.__name__.lower()} must be an object; got {values!r}")
    types_of = get_type_hints(kind)
    odd = sorted({one.name for one in fields(kind)} ^ set(values))
    if odd:
        raise InputError(f"field {odd[0]!r} is {'unknown' if odd[0] in values else 'missing'}")
    found = {}
    for name, value in values.items():
        wanted: Any = types_of[name]
        if wanted is float and type(value) is int:
            value = float(value)
        if wanted is not Imitation and type(value) is not wanted:
            raise InputError(f"field {name!r} is {value!r}; {wanted.__name__} is needed")
        found[name] = value
    return found
