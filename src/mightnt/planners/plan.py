"""The one call: a world, a base, a constraint; out comes the best policy the constraint allows."""

from __future__ import annotations

from mightnt.constraints.budget import KLBudget
from mightnt.errors import InputError
from mightnt.planners.soft import SoftPolicy, plan_expected_kl
from mightnt.prediction import Model
from mightnt.worlds.tree import TreeWorld


def plan(world: TreeWorld, base: Model, constraint: KLBudget) -> SoftPolicy:
    """The policy of highest expected utility within the constraint.

    A :class:`~mightnt.constraints.budget.KLBudget` is read as a limit on the *expected* KL of the episode; see
    :func:`~mightnt.planners.soft.plan_expected_kl` for what that means, costs and refuses. To hold every single episode
    to the budget, play the policy with a ledger (:func:`mightnt.desk.play.play`).

    Errors: :class:`~mightnt.errors.InputError` for another kind of constraint or an alphabet that does not fit.
    """
    if not isinstance(constraint, KLBudget):
        raise InputError(f"got a constraint of type {type(constraint).__name__}; KLBudget(nats=...) can be planned")
    return plan_expected_kl(world, base, constraint)
