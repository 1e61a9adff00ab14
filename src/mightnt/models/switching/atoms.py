"""The simplest policies, and what each costs in bits.

    atom   ::=  111                          every action is equally likely
             |  rule noise
    rule   ::=  0 a                          always the action a, in ceil(log2 n_actions) bits
             |  100                          repeat the last action
             |  101                          cycle through the actions by the clock
             |  110                          copy the last observation (its number, modulo the number of actions)
    noise  ::=  0  |  1 noise                each 1 makes slips a quarter as likely: 4^-1, 4^-2, ...; none: never

A slip falls on each of the other actions with equal probability. Before the first action or observation, "the last"
is 0. No atom's code begins another's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from mightnt.models.switching.events import Alphabets, IntArray, symbol_code
from mightnt.prediction import FloatArray


class Rule(StrEnum):
    """What the atom means to do."""

    ALWAYS = "always"
    REPEAT = "repeat"
    CYCLE = "cycle"
    COPY = "copy"
    UNIFORM = "uniform"


RULE_CODES = {Rule.ALWAYS: "0", Rule.REPEAT: "100", Rule.CYCLE: "101", Rule.COPY: "110", Rule.UNIFORM: "111"}


@dataclass(frozen=True, slots=True)
class Atom:
    """A simple policy: a rule, and how often it slips (``noise`` 0: never; n: with probability 4^-n)."""

    rule: Rule
    action: int = 0
    noise: int = 0

    @property
    def slip(self) -> float:
        """Probability of another action than the rule says."""
        return 4.0**-self.noise if self.noise else 0.0

    def code(self, n_actions: int) -> str:
        """Its prefix-free code, a string of 0 and 1."""
        code = RULE_CODES[self.rule]
        if self.rule is Rule.UNIFORM:
            return code
        return code + (symbol_code(self.action, n_actions) if self.rule is Rule.ALWAYS else "") + "1" * self.noise + "0"

    def __str__(self) -> str:
        words = {
            Rule.ALWAYS: f"always {self.action}",
            Rule.REPEAT: "repeat the last action",
            Rule.CYCLE: "cycle",
            Rule.COPY: "copy the last observation",
            Rule.UNIFORM: "uniform",
        }[self.rule]
        return words + (f" but for 1 in {4**self.noise}" if self.noise else "")


def atoms_up_to(n_actions: int, max_bits: int) -> tuple[Atom, ...]:
    """Every atom whose code has at most ``max_bits`` bits, the shortest first, then in the order of the codes."""
    rules = [(Rule.ALWAYS, action) for action in range(n_actions)]
    rules += [(rule, 0) for rule in (Rule.REPEAT, Rule.CYCLE, Rule.COPY)]
    atoms = [Atom(Rule.UNIFORM)] + [Atom(*rule, noise) for rule in rules for noise in range(max(0, max_bits))]
    codes = [(len(code), code, atom) for atom in atoms if len(code := atom.code(n_actions)) <= max_bits]
    return tuple(atom for _, _, atom in sorted(codes, key=lambda entry: entry[:2]))


def intentions(alphabets: Alphabets, times: IntArray, actions: IntArray, observations: IntArray) -> IntArray:
    """What each rule means to do, shape (n, n_actions + 3): always 0, 1, ..., then repeat, cycle, copy.

    ``times`` counts the actions before; ``actions`` and ``observations`` are the last ones, 0 where none was.
    """
    constant = np.tile(np.arange(alphabets.n_actions), (len(times), 1))
    by_rule = [actions, times % alphabets.n_actions, observations % alphabets.n_actions]
    return np.column_stack([constant, *by_rule]).astype(np.int64)


def intention_column(atom: Atom, n_actions: int) -> int:
    """Which column of :func:`intentions` is this atom's; -1 for uniform, which intends nothing."""
    if atom.rule is Rule.UNIFORM:
        return -1
    if atom.rule is Rule.ALWAYS:
        return atom.action
    return n_actions + (Rule.REPEAT, Rule.CYCLE, Rule.COPY).index(atom.rule)


def log_hit_and_miss(atoms: tuple[Atom, ...], n_actions: int) -> tuple[FloatArray, FloatArray]:
    """Per atom, log probability of the intended action and of each other one, nats; uniform: -log n for both."""
    slips = np.array([1 - 1 / n_actions if atom.rule is Rule.UNIFORM else atom.slip for atom in atoms])
    with np.errstate(divide="ignore"):
        return np.log1p(-slips), np.log(slips / (n_actions - 1))
