"""What is refused before a protected run starts, and the start-up check of the trainer's own path.

Each refusal is of something that TRL accepts and that would make the logged KL another number than its name says.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor

from mightnt.errors import ContractError, InputError
from mightnt.lm.members import over_actions
from mightnt.lm.reference import Reference, raised, score_by_hand
from mightnt.provenance import installed_version

Kind = Literal["RLOO", "GRPO"]

METHODS = ("_generate_and_score_completions", "_get_per_token_logps_and_entropies", "_prepare_inputs", "_compute_loss")
"""Of TRL's trainers: what the adapter wraps or relies on."""
SAMPLING = {"top_p": (1.0, None), "top_k": (0, None), "min_p": (None, 0.0), "repetition_penalty": (1.0, None)}
"""Settings of generation that leave the policy's distribution as it is."""
GRPO_NEEDS = {
    "loss_type": "dr_grpo",
    "scale_rewards": "none",
    "multi_objective_aggregation": "sum_then_normalize",
    "top_entropy_quantile": 1.0,
    "off_policy_mask_threshold": None,
}
"""Settings under which GRPO's gradient is that of E[reward] - beta KL of sequences, up to a constant factor."""
TOLERANCE_NATS, SHORT_TOLERANCE_NATS = 2e-3, 0.25
"""Most that a token's log nu may differ between two ways to compute it, with members in float32 and in 16 bits."""


def needs_trl() -> Any:
    """TRL, or one sentence on how to get it."""
    version = installed_version("trl")
    if version is None or tuple(int(x) for x in version.split(".")[:2]) < (1, 16):
        raise InputError(
            f'trl {version or "is not installed"}; trl 1.16 or later is needed: pip install "mightnt[trl]"'
        )
    return import_module("trl")


def kind_of(trainer: Any) -> Kind:
    """Which of TRL's two policy-gradient trainers it is; refuses all others, and subclasses that change what is relied on."""
    trl = needs_trl()
    for kind, cls in (("RLOO", trl.RLOOTrainer), ("GRPO", trl.GRPOTrainer)):
        if isinstance(trainer, cls):
            changed = [name for name in METHODS if getattr(type(trainer), name) is not getattr(cls, name)]
            if changed:
                raise InputError(
                    f"{type(trainer).__name__} overrides {', '.join(changed)}, which the protection relies on"
                )
            return kind  # type: ignore[return-value]
    raise InputError(
        f"{type(trainer).__name__} cannot be protected; trl.RLOOTrainer or trl.GRPOTrainer is needed (asynchronous trainers "
        "have no reference at all)"
    )


def check(trainer: Any, reference: Reference, kind: Kind) -> None:
    """Refuse everything that would make the numbers mean something else; one sentence each."""
    for complaint in (
        *of_reference(trainer),
        *of_sampling(trainer, reference),
        *of_dropout(trainer),
        *of_vocabulary(trainer, reference),
        *of_parameters(trainer, reference),
        *(of_objective(trainer) if kind == "GRPO" else ()),
    ):
        raise InputError(complaint)


def of_reference(trainer: Any) -> Iterator[str]:
    """The trainer must not have a reference already, or one that moves."""
    if trainer.args.sync_ref_model:
        yield "sync_ref_model=True would move the reference towards the policy; set it to False"
    if trainer.args.beta != 0 or trainer.ref_model is not None:
        yield f"args.beta is {trainer.args.beta}: TRL would load a reference of its own; set beta=0.0 there, and beta in attach"
    if trainer.args.mask_truncated_completions:
        yield "mask_truncated_completions=True leaves truncated episodes out of the KL; set it to False"


def of_sampling(trainer: Any, reference: Reference) -> Iterator[str]:
    """The policy that is sampled must be the policy that is scored."""
    for name, allowed in SAMPLING.items():
        value = getattr(trainer.args, name)
        if value not in allowed:
            yield f"{name}={value} samples from another distribution than the one that is scored; leave it at its default"
    if trainer.args.generation_kwargs:
        yield "generation_kwargs may sample from another distribution than the one that is scored; leave them out"
    if trainer.temperature != reference.temperature:
        yield (
            f"the trainer samples at temperature {trainer.temperature} and the reference speaks at {reference.temperature}; "
            "make the Reference with the trainer's temperature, as TRL does with its own"
        )
    if trainer.args.use_vllm and not getattr(trainer.args, "vllm_importance_sampling_correction", True):
        yield "vllm_importance_sampling_correction=False trains on another policy's episodes; leave it on"


def of_dropout(trainer: Any) -> Iterator[str]:
    """log pi under dropout is that of a network drawn at random, not of the one that is sampled."""
    for name, module in trainer.model.named_modules():
        found = module.p if isinstance(module, torch.nn.Dropout) else getattr(module, "attention_dropout", 0.0)
        if isinstance(found, float) and found > 0:
            yield f"the policy has dropout ({name}: {found}), so what is scored is not what is sampled; set it to 0"


def of_vocabulary(trainer: Any, reference: Reference) -> Iterator[str]:
    """The same number must mean the same token to policy and members."""
    if reference.tokenizer is None:
        yield "the Reference has no tokenizer, so vocabularies cannot be compared; make it with tokenizer=..."
        return
    theirs, ours = (tokenizer.get_vocab() for tokenizer in (trainer._tokenizer, reference.tokenizer))
    if theirs != ours:
        strange = sorted(theirs.items() ^ ours.items())[:1]
        yield (
            f"policy and members have different vocabularies: {len(theirs)} and {len(ours)} tokens, {strange[0]} in one of "
            "them; were tokens added? use one tokenizer for all"
        )


def of_parameters(trainer: Any, reference: Reference) -> Iterator[str]:
    """What is trained must not be what it is compared with."""
    trained = {parameter.data_ptr() for parameter in trainer.model.parameters() if parameter.numel()}
    if any(parameter.data_ptr() in trained for parameter in reference.parameters() if parameter.numel()):
        yield "a member shares weights with the policy and would move with it; load the member a second time"


def of_objective(trainer: Any) -> Iterator[str]:
    """With GRPO: settings under which the sequence KL can be taken off the advantage."""
    for name, needed in GRPO_NEEDS.items():
        if getattr(trainer.args, name) != needed:
            yield (
                f"{name}={getattr(trainer.args, name)!r} is not the gradient of reward - beta x sequence KL; GRPO needs "
                f"{', '.join(f'{n}={v!r}' for n, v in GRPO_NEEDS.items())}, and RLOO needs nothing"
            )


def check_path(trainer: Any, reference: Reference, rows: int = 2, length: int = 8) -> float:
    """The largest difference, in nats a token, between log nu by hand and through the trainer's own path; refuses a large one.

    Tokens are drawn from the first network (a fixed seed), behind prompts of unequal length, padded as TRL pads. By hand: token
    by token, the way episodes are played. Through the trainer: the method that scores its ``ref_model``.

    Raises :class:`~mightnt.errors.ContractError` on a mismatch: TRL has changed, or the reference is not what it says.
    """
    ids, mask = drawn(reference, rows, length)
    own = torch.zeros_like(mask, dtype=torch.bool)
    own[:, -length:] = True
    expected = raised(score_by_hand(reference, ids, mask, own).log_nu, reference.forbidden_nats)[:, -length:]
    met = reference.forbidden_tokens
    with torch.no_grad():
        found = trainer._get_per_token_logps_and_entropies(reference, ids, mask, length)[0]
    reference.forbidden_tokens = met
    if found.shape != expected.shape:
        raise ContractError(
            f"TRL's own path gives log-probs of shape {tuple(found.shape)}, not {tuple(expected.shape)}"
        )
    difference = float((found.double() - expected).abs().max())
    short = any(parameter.dtype.itemsize < 4 for parameter in reference.parameters())
    if not difference <= (SHORT_TOLERANCE_NATS if short else TOLERANCE_NATS):
        raise ContractError(
            f"log nu through the trainer's own path differs by {difference:.4g} nats a token from log nu by hand; nothing was "
            "trained. Is the reference renormalized, or has TRL changed?"
        )
    return difference


@torch.no_grad()
def check_sampler(trainer: Any, length: int = 3) -> None:
    """Generate a few tokens as the trainer will: they must come from softmax(logits / temperature) and from nothing else.

    A policy's own generation configuration can add to TRL's settings: suppressed tokens, a min_p, n-grams that must not
    repeat. Found out by trying, behind a prompt of one token again and again. Left out where nothing can be generated here:
    with vLLM, and where the weights are not in this process.

    Raises :class:`~mightnt.errors.InputError` where the sampler changes what the policy says.
    """
    config, policy = getattr(trainer, "generation_config", None), trainer.accelerator.unwrap_model(trainer.model)
    if config is None or not all(parameter.numel() for parameter in policy.parameters()):
        return
    config = copy.deepcopy(config)
    config.update(max_new_tokens=length, output_scores=True, output_logits=True, return_dict_in_generate=True)
    again = torch.full((1, 8), int(trainer._tokenizer.eos_token_id or 0), device=trainer.accelerator.device)
    training = policy.training
    with torch.random.fork_rng():
        said = policy.eval().generate(input_ids=again, attention_mask=torch.ones_like(again), generation_config=config)
    policy.train(training)
    for scores, logits in zip(said.scores, said.logits, strict=True):
        meant = (logits.float() / trainer.temperature).log_softmax(-1)
        if not torch.allclose(scores.float().log_softmax(-1), meant, atol=1e-3):
            raise InputError(
                "the policy's generation configuration changes what is sampled (suppressed tokens, min_p, n-grams?), so the "
                "policy that is scored is another; reset model.generation_config"
            )


@torch.no_grad()
def drawn(reference: Reference, rows: int, length: int) -> tuple[Tensor, Tensor]:
    """``length`` tokens a row from the first network, behind prompts of 1, 2, ... tokens padded on the left; and their mask."""
    panel, part = reference.panel, reference.parts[0]
    generator = torch.Generator().manual_seed(0)
    actions = panel.is_action.nonzero()[:, 0].cpu()
    ids = torch.zeros(rows, rows + length, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row in range(rows):
        heard = actions[torch.randint(len(actions), (1, row + 1), generator=generator)]
        for _ in range(length):
            logits = part.logits(part.read(heard)[:, -1]) / panel.temperature
            chances = over_actions(logits.to(panel.is_action.device), panel.is_action).exp().cpu()
            heard = torch.cat([heard, torch.multinomial(chances, 1, generator=generator)], dim=1)
        ids[row, -heard.shape[1] :], mask[row, -heard.shape[1] :] = heard[0], 1
    return ids.to(panel.is_action.device), mask.to(panel.is_action.device)
