"""The language once more, slowly: events of whole histories, programs as trees of ordinary models, codes by recursion."""

from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

from mightnt.history import Chooser
from mightnt.models.switch import Switch
from mightnt.models.switching.atoms import Rule
from mightnt.models.switching.events import Kind, Whose
from mightnt.models.switching.programs import NONE
from mightnt.prediction import Prediction


def happened(event, actions, observations):
    """Whether the event is true after these symbols."""
    symbols = actions if event.whose is Whose.ACTIONS else observations
    if event.kind is Kind.TIME:
        return len(actions) >= 2**event.number
    if event.kind is Kind.RUN:
        return any(len(list(run)) >= event.number for _, run in groupby(symbols))
    n = len(event.word)
    ends = range(n, len(symbols) + 1) if event.kind is Kind.SEEN else [len(symbols)]
    return any(tuple(symbols[max(0, end - n) : end]) == event.word for end in ends)


def split(history):
    """Actions and observations of a history."""
    actions = [step.symbol for step in history if step.chooser is not Chooser.WORLD]
    return actions, [step.symbol for step in history if step.chooser is Chooser.WORLD]


@dataclass(frozen=True)
class AtomModel:
    """An atom that reads the whole history at every step."""

    atom: object
    n_symbols: int

    def start(self):
        return ()

    def predict(self, state):
        n, atom = self.n_symbols, self.atom
        if atom.rule is Rule.UNIFORM:
            return Prediction.of(np.full(n, 1 / n))
        actions, observations = split(state)
        intended = {
            Rule.ALWAYS: atom.action,
            Rule.REPEAT: actions[-1] if actions else 0,
            Rule.CYCLE: len(actions) % n,
            Rule.COPY: observations[-1] % n if observations else 0,
        }[atom.rule]
        slip = 4.0**-atom.noise if atom.noise else 0
        return Prediction.of([1 - slip if a == intended else slip / (n - 1) for a in range(n)])

    def advance(self, state, step):
        return (*state, step)


@dataclass(frozen=True)
class When:
    """One model while the event is true, another while not."""

    event: object
    then: object
    otherwise: object

    @property
    def n_symbols(self):
        return self.then.n_symbols

    def start(self):
        return ((), self.then.start(), self.otherwise.start())

    def predict(self, state):
        history, then, otherwise = state
        return self.then.predict(then) if happened(self.event, *split(history)) else self.otherwise.predict(otherwise)

    def advance(self, state, step):
        history, then, otherwise = state
        return ((*history, step), self.then.advance(then, step), self.otherwise.advance(otherwise, step))


def as_model(programs, index):
    """A program of the table as a tree of ordinary models: a Switch for what stays true, a When for what does not."""
    if programs.atom[index] != NONE:
        return AtomModel(programs.atoms[programs.atom[index]], programs.alphabets.n_actions)
    event = programs.events[programs.event[index]]
    then, otherwise = as_model(programs, programs.then[index]), as_model(programs, programs.otherwise[index])
    if event.is_for_ever:
        return Switch(otherwise, lambda history: happened(event, *split(history)), then)
    return When(event, then, otherwise)


def all_codes(atom_codes, event_codes, limit_bits):
    """The codes of all programs of at most ``limit_bits`` bits, straight from the grammar."""
    codes = {"0" + code for code in atom_codes if len(code) < limit_bits}
    while True:
        longer = {
            "1" + event + then + otherwise
            for event in event_codes
            for then in codes
            if 1 + len(event) + len(then) < limit_bits
            for otherwise in codes
            if 1 + len(event) + len(then) + len(otherwise) <= limit_bits
        }
        if longer <= codes:
            return codes
        codes |= longer


def is_prefix_free(codes):
    """Whether no code begins another (sorted, a prefix stands right before a word it begins)."""
    ordered = sorted(codes)
    return all(not later.startswith(earlier) for earlier, later in pairwise(ordered))
