"""TRL's trainers, protected from the start: one argument more, one method overridden. Needs TRL; import from the package."""

from __future__ import annotations

import copy
from typing import Any

from trl import GRPOTrainer, RLOOTrainer

from mightnt.errors import InputError
from mightnt.lm.reference import Reference
from mightnt.lm.trl_adapter.attach import attach


def without_beta(args: Any) -> Any:
    """A copy of the configuration with beta 0, so that TRL loads no reference of its own."""
    if args is None:
        raise InputError(
            "args is missing; a trl.RLOOConfig or trl.GRPOConfig is needed, its beta is the price of a nat"
        )
    copied = copy.copy(args)
    copied.beta = 0.0
    return copied


class ProtectedRLOOTrainer(RLOOTrainer):  # type: ignore[misc]
    """:class:`trl.RLOOTrainer` against a base of ours. ``args.beta`` is the price of a nat of sequence KL.

    Args:
        reference: the base.
        protection: ``kl_target_nats``, ``kl_budget_nats``, ...; see :func:`~mightnt.lm.trl_adapter.attach.attach`.

    The others are TRL's.
    """

    def __init__(
        self, model: Any, reward_funcs: Any, args: Any = None, *others: Any, reference: Reference, **settings: Any
    ) -> None:
        protection, theirs = divided(settings)
        super().__init__(model, reward_funcs, without_beta(args), *others, **theirs)
        attach(self, reference, beta=args.beta, **protection)


class ProtectedGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """:class:`trl.GRPOTrainer` against a base of ours: the sequence KL is taken off the advantage, TRL's own term is off.

    As :class:`ProtectedRLOOTrainer`; take it where rollouts, tools or environments are needed, which RLOO lacks.
    """

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: Any = None,
        *others: Any,
        reference: Reference,
        **settings: Any,
    ) -> None:
        protection, theirs = divided(settings)
        super().__init__(model, reward_funcs, without_beta(args), *others, **theirs)
        attach(self, reference, beta=args.beta, **protection)


def divided(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``(settings of the protection, settings of TRL)``."""
    ours = {"kl_target_nats", "kl_budget_nats", "beta_step", "exact_kl_every"}
    return {n: v for n, v in settings.items() if n in ours}, {n: v for n, v in settings.items() if n not in ours}
