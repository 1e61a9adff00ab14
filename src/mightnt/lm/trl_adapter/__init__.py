"""TRL's trainers with a base of ours as reference: the KL of whole sequences, priced, held to a target, counted, checked.

``attach(trainer, reference, ...)`` for a trainer you have, :class:`ProtectedRLOOTrainer` and :class:`ProtectedGRPOTrainer` for
a new one. Nothing of TRL is forked: two methods of the *instance* are wrapped, and one callback is added.

RLOO is the default. It takes k1 = log pi - log nu, summed over the sequence, off the reward: the gradient of that is the
gradient of the sequence KL. GRPO's own KL term is a loss per token: it leaves out how an early token changes the KL of
later ones, and its estimator k3 is short by the asking mass where a base sums to less than one. So with GRPO that term stays off
(``args.beta = 0``), and the sequence KL is taken off the advantage instead.

Logged beside TRL's own metrics, over the episodes of each generation, all processes together:

===================================  =================================================================================
mightnt/sequence_kl_nats             mean over episodes of sum_t log pi - log nu (k1) over the agent's own tokens; a
                                     forbidden token counts log nu = -``forbidden_nats``. An estimate of KL(pi, nu).
mightnt/sequence_kl_max_nats         the largest of these
mightnt/exact_kl_nats                mean over episodes of sum_t KL(pi(. | h_t), nu(. | h_t)) over the whole vocabulary, nu
                                     raised to -``forbidden_nats``: the same KL with less noise. Every ``exact_kl_every``
                                     generations; its cost is one more pass of policy and members.
mightnt/asking_probability           theta = 1 - sum_x nu(x | h), mean over the agent's own tokens
mightnt/floor_nats                   mean over episodes of -sum_t log(1 - theta): KL that no policy can avoid on these
                                     histories; a token where nothing is vouched for counts ``forbidden_nats``
mightnt/over_budget_share            share of episodes with a forbidden token or with a running sum of log pi - log nu above
                                     ``kl_budget_nats``
mightnt/forbidden_tokens_per_episode tokens that the base forbids, per episode
mightnt/asks_per_episode             asks by the token of an :class:`AskToken`; logged with such a base only
mightnt/beta                         price of a nat of sequence KL that this generation paid
===================================  =================================================================================

A row of TRL's log is the mean over the generations since the last one, of ``_max_`` too; ``exact_kl_every`` is not asked in
evaluations, which always measure unless it is 0. With an :class:`AskToken`, nu above is its rho: asking is then an action,
and where it is open ``asking_probability`` shows theta / (1 + theta) and ``floor_nats`` log(1 + theta).

TRL's own ``kl`` (RLOO) is the same k1 as a mean per token. What is promised and what is not: :class:`~.protection.Protection`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mightnt.lm.trl_adapter.asking import AskEnvironment, AskToken, ask_template
from mightnt.lm.trl_adapter.attach import Guard, attach
from mightnt.lm.trl_adapter.protection import Protection

if TYPE_CHECKING:
    from mightnt.lm.trl_adapter.trainers import ProtectedGRPOTrainer, ProtectedRLOOTrainer

__all__ = [
    "AskEnvironment",
    "AskToken",
    "Guard",
    "ProtectedGRPOTrainer",
    "ProtectedRLOOTrainer",
    "Protection",
    "ask_template",
    "attach",
]


def __getattr__(name: str) -> Any:
    """The trainers need TRL, so they are loaded when asked for."""
    if name in ("ProtectedGRPOTrainer", "ProtectedRLOOTrainer"):
        from mightnt.lm.trl_adapter.checks import needs_trl

        needs_trl()
        from mightnt.lm.trl_adapter import trainers

        return getattr(trainers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
