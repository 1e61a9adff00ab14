"""The one dial: how many nats, or how much probability, an episode may differ from its base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from mightnt.errors import BudgetError

KLReading: TypeAlias = Literal["expected", "max_observations"]
"""Which KL of an episode is limited; see :mod:`mightnt.constraints.kl`."""

TVDReading: TypeAlias = Literal["max_observations", "step"]
"""Which TVD is limited; see :mod:`mightnt.constraints.tvd`."""


def refuse_no_amount(nats: float, what: str) -> None:
    """Raise :class:`~mightnt.errors.BudgetError` unless ``nats`` is a number >= 0; +inf is one."""
    if not nats >= 0:
        raise BudgetError(f"{what} is {nats} nats; zero, a positive number or inf is allowed")


def refuse_no_reading(over: str, known: tuple[str, ...]) -> None:
    """Raise :class:`~mightnt.errors.BudgetError` for a reading that is none."""
    if over not in known:
        raise BudgetError(f"a budget over {over!r}; allowed are {' and '.join(map(repr, known))}")


@dataclass(frozen=True, slots=True)
class KLBudget:
    """A limit in nats on KL(policy, base) for a whole episode, never for one step.

    Args:
        nats: 0 holds the policy to the base, ``inf`` sets it free. A negative number or NaN is refused with
            :class:`~mightnt.errors.BudgetError`.
        over: which KL of the episode a *planner* keeps within it: ``expected`` in its world, or ``max_observations``,
            the worst over observation sequences fixed in advance. A ledger keeps every single path, whatever this says.

    Kind: exact. Paper: the budget of the KL constraint; its KL_{h,m} is ``max_observations``. Cost: O(1).
    """

    nats: float
    over: KLReading = "expected"

    def __post_init__(self) -> None:
        refuse_no_amount(self.nats, "the budget")
        refuse_no_reading(self.over, get_args(KLReading))


@dataclass(frozen=True, slots=True)
class TVDBudget:
    """A limit on the total variation distance of policy and base: a probability.

    Args:
        probability: 0 holds the policy to the base, 1 sets it free. Anything else and NaN is refused with
            :class:`~mightnt.errors.BudgetError`.
        over: ``max_observations`` limits the trajectories of a whole episode, under the worst sequence of observations
            fixed in advance; ``step`` limits every single decision by the same number.

    Kind: exact. Paper: the TVD constraint. Cost: O(1).
    """

    probability: float
    over: TVDReading = "max_observations"

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise BudgetError(f"the TVD budget is {self.probability}; a probability from 0 to 1 is allowed")
        refuse_no_reading(self.over, get_args(TVDReading))
