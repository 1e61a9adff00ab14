"""Reinforcement learning that stays within what a trusted person might do.

The idea as one call::

    base = mt.Pessimistic(model_class, top_set_level=0.05)
    policy = mt.plan(world, base, mt.KLBudget(nats=2.0))
    record = mt.play(policy, world, desk=mt.Recorded(demonstrator), seed=0)
    print(mt.audit(record, demonstrator=demonstrator))

The same chain for language models is in ``mightnt.lm`` (it needs the extra ``lm``) and behind the command ``mightnt``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mightnt.audits.audit import AuditReport, audit
    from mightnt.bases.known import Known
    from mightnt.bases.mixture import BayesMixture
    from mightnt.bases.pessimistic import Pessimistic
    from mightnt.constraints.budget import KLBudget, TVDBudget
    from mightnt.constraints.kl import (
        kl_adaptive_nats,
        kl_expected_nats,
        kl_max_observations_nats,
        kl_pathwise_nats,
        kl_step_nats,
    )
    from mightnt.constraints.ledger import Ledger
    from mightnt.constraints.tvd import tvd_expected, tvd_largest_step, tvd_max_observations, tvd_step
    from mightnt.desk.answer import Demonstrator, Question, Recorded
    from mightnt.desk.play import play
    from mightnt.desk.record import Record, read_records, write_records
    from mightnt.errors import BudgetError, ContractError, InputError, MightntError, NoAnswer
    from mightnt.history import Chooser, Evidence, History, Step, demonstrated
    from mightnt.models.after import After
    from mightnt.models.categorical import Categorical
    from mightnt.models.context_tree.pruning import PessimisticContextTree
    from mightnt.models.context_tree.weighting import DecomposedContextTree, DirectContextTree
    from mightnt.models.finite import ModelClass
    from mightnt.models.machine.universal import UniversalMachine
    from mightnt.models.switch import Switch
    from mightnt.models.switching.posterior import SwitchingClass
    from mightnt.models.tabular import ByObservation, PessimisticTable
    from mightnt.planners.least import least_kl_nats
    from mightnt.planners.plan import plan
    from mightnt.prediction import Model, Prediction, check_model, follow
    from mightnt.worlds.tree import TreeWorld, World

__version__ = "0.1.0"

HOME = {
    "audits.audit": "AuditReport audit",
    "bases.known": "Known",
    "bases.mixture": "BayesMixture",
    "bases.pessimistic": "Pessimistic",
    "constraints.budget": "KLBudget TVDBudget",
    "constraints.kl": "kl_adaptive_nats kl_expected_nats kl_max_observations_nats kl_pathwise_nats kl_step_nats",
    "constraints.ledger": "Ledger",
    "constraints.tvd": "tvd_expected tvd_largest_step tvd_max_observations tvd_step",
    "desk.answer": "Demonstrator Question Recorded",
    "desk.play": "play",
    "desk.record": "Record read_records write_records",
    "errors": "BudgetError ContractError InputError MightntError NoAnswer",
    "history": "Chooser Evidence History Step demonstrated",
    "models.after": "After",
    "models.categorical": "Categorical",
    "models.context_tree.pruning": "PessimisticContextTree",
    "models.context_tree.weighting": "DecomposedContextTree DirectContextTree",
    "models.finite": "ModelClass",
    "models.machine.universal": "UniversalMachine",
    "models.switch": "Switch",
    "models.switching.posterior": "SwitchingClass",
    "models.tabular": "ByObservation PessimisticTable",
    "planners.least": "least_kl_nats",
    "planners.plan": "plan",
    "prediction": "Model Prediction check_model follow",
    "worlds.tree": "TreeWorld World",
}
"""Where each public name lives. Loaded when it is first used, so that ``import mightnt`` is quick."""

__all__ = [
    *(name for names in HOME.values() for name in names.split()),
]


def __getattr__(name: str) -> Any:
    """The public name, from the room where it lives."""
    for module, names in HOME.items():
        if name in names.split():
            value = getattr(importlib.import_module(f"mightnt.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'mightnt' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Every public name, loaded or not."""
    return sorted({*globals(), *__all__})
