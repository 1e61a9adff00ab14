"""The one call: a world, a base, a constraint; out comes the best policy the constraint allows."""

from __future__ import annotations

from mightnt.constraints.budget import KLBudget, TVDBudget
from mightnt.errors import InputError
from mightnt.planners.conic import plan_max_kl, plan_max_tvd
from mightnt.planners.soft import SoftPolicy, plan_expected_kl
from mightnt.planners.stepwise import plan_step_tvd
from mightnt.planners.table import TablePolicy
from mightnt.prediction import Model
from mightnt.worlds.tree import TreeWorld


def plan(world: TreeWorld, base: Model, constraint: KLBudget | TVDBudget) -> SoftPolicy | TablePolicy:
    """The policy of highest expected utility within the constraint.

    ============================================== ================================================================
    ``KLBudget(nats)``                             expected KL of the episode: soft value iteration
    ``KLBudget(nats, over="max_observations")``    KL under the worst observations: a cone program (extra ``plan``)
    ``TVDBudget(probability)``                     TVD of trajectories under the worst observations: a linear program
    ``TVDBudget(probability, over="step")``        TVD of every single decision: in closed form
    ============================================== ================================================================

    See the functions called below for what each means, costs and refuses. To hold every single episode to a KL budget,
    play the policy with a ledger (:func:`mightnt.desk.play.play`).

    Errors: :class:`~mightnt.errors.InputError` for another kind of constraint or an alphabet that does not fit.
    """
    match constraint:
        case KLBudget(over="expected"):
            return plan_expected_kl(world, base, constraint)
        case KLBudget():
            return plan_max_kl(world, base, constraint)
        case TVDBudget(over="max_observations"):
            return plan_max_tvd(world, base, constraint)
        case TVDBudget():
            return plan_step_tvd(world, base, constraint)
    raise InputError(
        f"got a constraint of type {type(constraint).__name__}; KLBudget(nats=...) and TVDBudget(probability=...) can be planned"
    )
