"""A base of ours as the reference of a trainer of TRL: wrapped on the instance, nothing forked.

RLOO: ``trainer.beta`` and ``trainer.ref_model`` are set, and TRL itself takes beta x sequence KL off the reward. GRPO: its
own KL term stays off; beta x (KL - mean KL of the group) is taken off the advantage, which is the same objective under the
settings that :mod:`~mightnt.lm.trl_adapter.checks` asks for. Only tokens that the agent itself chose are charged: what
tools, environments and demonstrators said (TRL's ``tool_mask``, ``env_mask``) is read and free.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from mightnt.errors import ContractError, InputError
from mightnt.lm.heads import TwoParts
from mightnt.lm.reference import Reference
from mightnt.lm.sequences import Asked, Scored
from mightnt.lm.trl_adapter.asking import AskToken, answered_or_raise
from mightnt.lm.trl_adapter.checks import Kind, check, check_path, check_sampler, kind_of
from mightnt.lm.trl_adapter.manifest import described, same_or_refuse, write_manifest
from mightnt.lm.trl_adapter.protection import (
    Generation,
    Protection,
    columns,
    from_columns,
    measured,
    never_reinforced,
    next_beta,
    summary,
)

STATE = "mightnt"
"""Under this name the guard's state lies in a checkpoint's trainer state."""


def attach(
    trainer: Any,
    reference: Reference,
    *,
    beta: float = 0.05,
    kl_target_nats: float | None = None,
    kl_budget_nats: float = math.inf,
    beta_step: float = 0.1,
    exact_kl_every: int = 10,
) -> Guard:
    """Protect a trainer you have: from here on its policy pays for, and is measured by, its distance to the base.

    Args:
        trainer: a :class:`trl.RLOOTrainer` (better) or :class:`trl.GRPOTrainer` made with ``beta=0.0``, before it trains.
        reference: the base; it is moved to the trainer's device.

    The others are explained, with what they promise, in :class:`~mightnt.lm.trl_adapter.protection.Protection`. Metrics: see
    the package. A checkpoint gets a ``mightnt.json``; a run that is resumed must be attached to the same reference.

    Errors: :class:`~mightnt.errors.InputError` for everything that would make the numbers mean something else, and where
    log pi is NaN; :class:`~mightnt.errors.NoAnswer` where the agent asked and nobody answered;
    :class:`~mightnt.errors.ContractError` where the trainer's own path does not score as the reference does.
    """
    terms = Protection(beta, kl_target_nats, kl_budget_nats, beta_step, exact_kl_every)
    if hasattr(trainer, "mightnt_guard"):
        raise InputError("this trainer is protected already; attach once")
    kind = kind_of(trainer)
    check(trainer, reference, kind)
    reference.to(trainer.accelerator.device)
    check_path(trainer, reference)
    check_sampler(trainer)
    guard = Guard(trainer, reference, terms, kind)
    guard.install()
    return guard


class Guard:
    """What protects one trainer: hears what is scored, settles every generation, moves beta, keeps its state."""

    def __init__(self, trainer: Any, reference: Reference, terms: Protection, kind: Kind) -> None:
        self.trainer, self.reference, self.terms, self.kind = trainer, reference, terms, kind
        self.beta = terms.beta
        self.generations = 0
        """Training generations settled so far."""
        self.heard: list[Scored] = []
        """What the reference said in this generation, by TRL's own calls."""
        self.spoken: Tensor | None = None
        """log pi of this generation's completions, by TRL's own call."""
        self.policy: TwoParts | None = None
        """The policy as trunk and head, once the KL over the whole vocabulary is asked for."""
        self.log_probs_of = trainer._get_per_token_logps_and_entropies
        self.generate = trainer._generate_and_score_completions
        self.description: dict[str, Any] | None = None

    def install(self) -> None:
        """Set what TRL reads, wrap two methods of the instance, add the callback."""
        trainer = self.trainer
        trainer.mightnt_guard = self
        trainer._get_per_token_logps_and_entropies = self.hear
        trainer._generate_and_score_completions = self.settle
        trainer.add_callback(Keeper(self))
        trainer.ref_model = self.reference
        self.set_beta(self.beta)

    def set_beta(self, beta: float) -> None:
        """The price from the next generation on. GRPO's own stays 0: its term is not the sequence KL."""
        self.beta = beta
        self.trainer.beta = beta if self.kind == "RLOO" else 0.0

    def hear(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's own method, and a note of what it said of the policy before any gradient."""
        result = self.log_probs_of(model, *args, **kwargs)
        if model is not self.reference and not torch.is_grad_enabled() and not kwargs.get("compute_entropy"):
            self.spoken = result[0]
        return result

    def settle(self, inputs: Any) -> dict[str, Any]:
        """TRL's own method; then the KL of every episode, the advantages it leaves, the metrics and the next beta."""
        self.heard.clear()
        self.spoken = None
        listening = self.reference.register_forward_hook(lambda _m, _inputs, output: self.heard.append(output.scored))
        try:
            output: dict[str, Any] = self.generate(inputs)
        finally:
            listening.remove()
        answered_or_raise(self.trainer)
        if seen := sorted({"num_images", "pixel_values", "token_type_ids", "mm_token_type_ids"} & output.keys()):
            raise InputError(f"TRL's batch holds {', '.join(seen)}; a base reads text alone, leave images out")
        mode = "train" if self.trainer.model.training else "eval"
        own = output["completion_mask"].bool() & output.get("tool_mask", output["completion_mask"]).bool()
        ids, mask = (torch.cat([output[f"prompt_{x}"], output[f"completion_{x}"]], dim=1) for x in ("ids", "mask"))
        with torch.no_grad():
            scored = self.scored(ids, mask, own)
            log_policy = self.log_policy(ids, mask, own.shape[1])
            episodes = measured(log_policy, scored, own, self.reference.forbidden_nats, self.terms.kl_budget_nats)
            everybody = from_columns(self.trainer.accelerator.gather(columns(episodes)))
            output["advantages"] = self.advantages(output["advantages"], everybody, episodes, mode)
            numbers = summary(everybody) | {"mightnt/beta": self.beta} | self.exact(ids, mask, own, mode)
            numbers |= self.asks(output["completion_ids"], own)
        for name, value in numbers.items():
            self.trainer._metrics[mode][name].append(value)
        if mode == "train":
            self.generations += 1
            self.set_beta(next_beta(self.beta, numbers["mightnt/sequence_kl_nats"], self.terms))
        return output

    def scored(self, ids: Tensor, mask: Tensor, own: Tensor) -> Scored:
        """What the reference says of the completions: heard on TRL's own path (RLOO), or asked for, with who chose (GRPO)."""
        n = own.shape[1]
        if self.kind == "GRPO":
            heard = [self.reference.score(ids, mask, within(own, ids))]
            self.reference.forbidden_tokens += int(heard[0].log_nu.isneginf().sum())
        else:
            heard = list(self.heard)
        if sum(len(scored.log_nu) for scored in heard) != len(ids):
            raise ContractError(
                "TRL did not score every completion with the reference once; is another version installed?"
            )
        return Scored(*(torch.cat([getattr(x, name)[:, -n:] for x in heard]) for name in ("log_nu", "log_kept")))

    def log_policy(self, ids: Tensor, mask: Tensor, n: int) -> Tensor:
        """log pi of the completions, as TRL scored them; GRPO leaves that out where the policy has not moved since."""
        if self.spoken is None:
            size = self.trainer.args.per_device_train_batch_size
            quiet(self.trainer, lambda _: self.hear(self.trainer.model, ids, mask, n, batch_size=size))
        if self.spoken is None or self.spoken.shape != (len(ids), n):
            raise ContractError("TRL did not score the policy's completions as expected; is another version installed?")
        return self.spoken

    def advantages(self, advantages: Tensor, everybody: Generation, mine: Generation, mode: str) -> Tensor:
        """Advantages after the price of the KL (GRPO) and without reward for episodes over budget."""
        if self.kind == "GRPO":
            trainer = self.trainer
            size = trainer.num_generations if mode == "train" else trainer.num_generations_eval
            kl = everybody.sequence_kl_nats.view(-1, size)
            surplus = (kl - kl.mean(1, keepdim=True)).flatten()
            first = trainer.accelerator.process_index * len(advantages)
            advantages = advantages - (self.beta * surplus[first : first + len(advantages)]).to(advantages.dtype)
        lowest = self.trainer.accelerator.gather(advantages).min()
        return never_reinforced(advantages, mine.over_budget, lowest)

    def exact(self, ids: Tensor, mask: Tensor, own: Tensor, mode: str) -> dict[str, float]:
        """The KL over the whole vocabulary, in the generations whose turn it is and in every evaluation."""
        every = self.terms.exact_kl_every
        if not every or (mode == "train" and self.generations % every):
            return {}
        if self.policy is None:
            self.policy = quiet(self.trainer, lambda model: TwoParts(model))
        asked = Asked(self.policy, -self.reference.forbidden_nats)
        found = quiet(self.trainer, lambda _: self.reference.score(ids, mask, within(own, ids), asked=asked))
        kl: Tensor = self.trainer.accelerator.gather(found.kl_nats.sum(1))
        return {"mightnt/exact_kl_nats": float(kl.mean())}

    def asks(self, ids: Tensor, own: Tensor) -> dict[str, float]:
        """How often the agent asked, where its base says which token that is."""
        base = self.reference.base
        if not isinstance(base, AskToken):
            return {}
        asks: Tensor = self.trainer.accelerator.gather(((ids == base.token) & own).sum(1).double())
        return {"mightnt/asks_per_episode": float(asks.mean())}

    def described(self) -> dict[str, Any]:
        """What the reference is made of; computed once."""
        if self.description is None:
            self.description = described(self.reference)
        return self.description

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the reference's description, the terms, and where beta stands."""
        terms = {
            name: value if value is None or math.isfinite(value) else str(value)
            for name, value in vars(self.terms).items()
        }
        return {
            "reference": self.described(),
            "terms": terms,
            "beta": self.beta,
            "generations": self.generations,
            "forbidden_tokens": self.reference.forbidden_tokens,
        }

    def resume(self, saved: dict[str, Any]) -> None:
        """Go on where a checkpoint stood. Errors: :class:`~mightnt.errors.InputError` for another reference or other terms."""
        same_or_refuse(saved["reference"], self.described(), "reference")
        now, free = self.state()["terms"], {"exact_kl_every": saved["terms"]["exact_kl_every"]}
        same_or_refuse(saved["terms"], now | free, "price or budget")
        self.generations, self.reference.forbidden_tokens = int(saved["generations"]), int(saved["forbidden_tokens"])
        self.set_beta(float(saved["beta"]))


class Keeper(TrainerCallback):  # type: ignore[misc]
    """Keeps the guard's state in the trainer's, beside its checkpoints, and takes it back up when a run is resumed."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go on where the checkpoint stood, if there is one."""
        if saved := state.stateful_callbacks.get(STATE):
            self.guard.resume(saved)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Into the trainer's state, which is written with every checkpoint."""
        state.stateful_callbacks[STATE] = self.guard.state()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Beside the checkpoint, for people and for other programs."""
        if state.is_world_process_zero:
            write_manifest(Path(args.output_dir) / f"checkpoint-{state.global_step}", self.guard.state())


def within(own: Tensor, ids: Tensor) -> Tensor:
    """Ownership of completions as ownership of whole rows: prompts are nobody's."""
    return torch.nn.functional.pad(own, (ids.shape[1] - own.shape[1], 0))


def quiet(trainer: Any, ask: Any) -> Any:
    """What ``ask`` says of the trainer's own model while dropout is off and no gradient is kept."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return ask(model)
    finally:
        model.train(training)
