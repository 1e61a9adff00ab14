"""How much is left: a limit, what was spent, and no way past the limit."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from mightnt.constraints.budget import refuse_no_amount
from mightnt.errors import BudgetError

TOLERANCE_NATS = 1e-9
"""How far the *total* spent may lie above the limit by rounding; it is granted once, not once a charge."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The account of one episode. Charging returns a new one.

    spent = sum of the charges <= limit + 1e-9, always.

    Args:
        limit_nats: the budget of the episode; ``inf`` means no limit, and then even an infinite charge can be paid.
        spent_nats: charged so far.

    Errors: :class:`~mightnt.errors.BudgetError` for amounts that are negative or NaN, and for spending past the limit.

    Kind: exact (float64 sums). Paper: the episode budget of its experiments, kept along every path. Cost: O(1).
    """

    limit_nats: float
    spent_nats: float = 0.0

    def __post_init__(self) -> None:
        refuse_no_amount(self.limit_nats, "the limit")
        refuse_no_amount(self.spent_nats, "the amount spent")
        if self.spent_nats > self.limit_nats + TOLERANCE_NATS:
            raise BudgetError(f"{self.spent_nats:.12g} nats are spent of a limit of {self.limit_nats:.12g}")

    @property
    def left_nats(self) -> float:
        """limit - spent; 0 where rounding took the total past the limit, ``inf`` without a limit."""
        return inf if self.limit_nats == inf else max(0.0, self.limit_nats - self.spent_nats)

    def affords(self, nats: float) -> bool:
        """Whether ``nats`` can be charged."""
        refuse_no_amount(nats, "the charge")
        return self.spent_nats + nats <= self.limit_nats + TOLERANCE_NATS

    def charge(self, nats: float) -> Ledger:
        """The ledger after spending ``nats``; :class:`~mightnt.errors.BudgetError` where that is more than is left."""
        if not self.affords(nats):
            raise BudgetError(f"a charge of {nats:.12g} nats exceeds the {self.left_nats:.12g} nats that are left")
        return Ledger(self.limit_nats, self.spent_nats + nats)
