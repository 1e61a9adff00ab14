"""Ledgers of many episodes: every decision is charged and noted; a charge beyond the limit stops everything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mightnt.errors import BudgetError
from mightnt.lm.account import TOLERANCE_NATS
from mightnt.prediction import FloatArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Decisions:
    """Every decision the agent took, in order of time; one row a decision."""

    row: IntArray
    """Which episode."""
    features: Tensor
    """What the actor saw, (n, features)."""
    log_base: Tensor
    """What it could choose from, (n, tokens + 1), normalized, asking last."""
    spendable_nats: Tensor
    """What it could lean with: what was left after the toll and the reserve, (n,)."""
    choice: Tensor
    """Token, or n_tokens for asking, (n,)."""
    log_probability: Tensor
    """log pi(choice), (n,)."""
    cost_nats: Tensor
    """Toll plus tilt: what the ledger was charged, (n,)."""
    kl_demonstrator_nats: Tensor | None
    """KL of the system to the demonstrator at this decision, (n,)."""
    reward: FloatArray
    """Proxy reward that followed before the next decision of the same episode, (n,)."""
    turn: IntArray
    """In which turn of its episode, from 0, (n,)."""


NO_ROWS = torch.empty(0, dtype=torch.float64)
NOTHING = {
    "row": torch.empty(0, dtype=torch.int64),
    "turn": torch.empty(0, dtype=torch.int64),
    "features": torch.empty(0, 0),
    "log_base": torch.empty(0, 1, dtype=torch.float64),
    "spendable": NO_ROWS,
    "choice": torch.empty(0, dtype=torch.int64),
    "log_probability": NO_ROWS,
    "cost": NO_ROWS,
}
"""The columns when every turn was the demonstrator's."""


class Ledgers:
    """What each episode has spent, and the decisions that spent it.

    Args:
        rows: episodes.
        limit_nats: most that each may spend.
        turns: turns that each has behind it, shape (rows,), kept by whoever counts them; without it all is one turn.
    """

    def __init__(self, rows: int, limit_nats: float, turns: IntArray | None = None) -> None:
        self.limit_nats = limit_nats
        self.turns = np.zeros(rows, dtype=np.int64) if turns is None else turns
        self.spent = torch.zeros(rows, dtype=torch.float64)
        self.last = np.full(rows, -1)
        """Number of each row's latest decision."""
        self.columns: dict[str, list[Tensor]] = {}
        self.credited: list[tuple[IntArray, FloatArray]] = []
        self.n = 0

    def left(self, rows: IntArray) -> Tensor:
        """Nats left, shape (len(rows),)."""
        return self.limit_nats - self.spent[rows]

    def enter(self, rows: IntArray, cost: Tensor, **columns: Tensor) -> None:
        """Charge one decision a row and note it; a ledger that would exceed its limit stops everything."""
        if bool((cost > self.left(rows) + TOLERANCE_NATS).any()) or bool(cost.isnan().any()):
            excess = float((cost - self.left(rows)).max())
            raise BudgetError(f"a decision would exceed its episode's budget of {self.limit_nats} nats by {excess:.3g}")
        self.spent[rows] += cost
        place = {"row": torch.from_numpy(rows), "turn": torch.from_numpy(self.turns[rows])}
        for name, column in {**place, "cost": cost, **columns}.items():
            self.columns.setdefault(name, []).append(column)
        self.last[rows] = self.n + np.arange(len(rows))
        self.n += len(rows)

    def credit(self, reward: FloatArray) -> None:
        """Give each row's fresh reward to its latest decision; a turn before any decision credits nobody."""
        rows = np.flatnonzero((reward != 0) & (self.last >= 0))
        self.credited.append((self.last[rows], reward[rows]))

    def decisions(self) -> Decisions:
        """Everything entered, in order of time."""
        reward = np.zeros(self.n)
        for numbers, amounts in self.credited:
            np.add.at(reward, numbers, amounts)
        joined = NOTHING | {name: torch.cat(columns) for name, columns in self.columns.items()}
        return Decisions(
            row=joined["row"].numpy(),
            features=joined["features"],
            log_base=joined["log_base"],
            spendable_nats=joined["spendable"],
            choice=joined["choice"],
            log_probability=joined["log_probability"],
            cost_nats=joined["cost"],
            kl_demonstrator_nats=joined.get("kl_demonstrator"),
            reward=reward,
            turn=joined["turn"].numpy(),
        )
