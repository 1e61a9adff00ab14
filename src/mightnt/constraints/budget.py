"""The one dial: how many nats an episode may spend."""

from __future__ import annotations

from dataclasses import dataclass

from mightnt.errors import BudgetError


def refuse_no_amount(nats: float, what: str) -> None:
    """Raise :class:`~mightnt.errors.BudgetError` unless ``nats`` is a number >= 0; +inf is one."""
    if not nats >= 0:
        raise BudgetError(f"{what} is {nats} nats; zero, a positive number or inf is allowed")


@dataclass(frozen=True, slots=True)
class KLBudget:
    """A limit in nats on KL(policy, base) for a whole episode, never for one step.

    Args:
        nats: 0 holds the policy to the base, ``inf`` sets it free. A negative number or NaN is refused with
            :class:`~mightnt.errors.BudgetError`.

    Which KL it limits (expected, maximal, along every path) is said by whoever keeps it.

    Kind: exact. Paper: the budget of the KL constraint. Cost: O(1).
    """

    nats: float

    def __post_init__(self) -> None:
        refuse_no_amount(self.nats, "the budget")
