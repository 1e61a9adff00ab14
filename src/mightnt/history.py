"""What happened, and who chose it.

A history is a tuple of steps. "Which steps are evidence" is a choice that changes theorems, so every step says who
chose it, and every posterior says which choosers it believes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from mightnt.errors import InputError


class Chooser(StrEnum):
    """Who chose a symbol."""

    DEMONSTRATOR = "demonstrator"
    AGENT = "agent"
    WORLD = "world"


@dataclass(frozen=True, slots=True)
class Step:
    """One symbol of a history and who chose it.

    ``symbol`` is an index into the alphabet of whoever spoke: actions for the demonstrator and the agent, observations
    for the world.
    """

    symbol: int
    chooser: Chooser

    @property
    def is_action(self) -> bool:
        """True when the demonstrator or the agent chose it."""
        return self.chooser is not Chooser.WORLD


History: TypeAlias = tuple[Step, ...]
"""A history h = a1 o1 a2 o2 ...; may begin with demonstrated steps."""

Evidence: TypeAlias = Literal["all", "demonstrated"]
"""Which actions move a posterior: ``all`` (the agent's own too) or only the ``demonstrated`` ones."""


def is_evidence(step: Step, evidence: Evidence) -> bool:
    """Whether ``step`` moves a posterior over models of the demonstrator under the rule ``evidence``.

    ``all`` counts every action, the agent's own included: what a purely predictive model does in context.
    ``demonstrated`` counts the demonstrator's actions only. Observations are conditioned on, never evidence about the
    demonstrator. Anything else raises :class:`~mightnt.errors.InputError`: a misspelled rule would change theorems.

    Kind: exact. Paper: Cohen, Hutter, Nanda 2022 (the rule ``demonstrated``). Cost: O(1).
    """
    if evidence not in ("all", "demonstrated"):
        raise InputError(f"evidence {evidence!r} is no rule; allowed are 'all' and 'demonstrated'")
    return step.chooser is Chooser.DEMONSTRATOR or (evidence == "all" and step.chooser is Chooser.AGENT)


def demonstrated(actions_and_observations: Iterable[int]) -> History:
    """A history of k demonstrated rounds from the flat sequence a1, o1, a2, o2, ..."""
    choosers = (Chooser.DEMONSTRATOR, Chooser.WORLD)
    return tuple(Step(symbol, choosers[i % 2]) for i, symbol in enumerate(actions_and_observations))
