"""One run: train an actor under its budget, then measure it on fresh episodes, and say both in one record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from mightnt.lm.account import TOLERANCE_NATS, Account
from mightnt.lm.actor import Actor, Policy, Stay
from mightnt.lm.episodes import Cast, Episodes, play_episodes
from mightnt.lm.imitators import Imitators
from mightnt.lm.protect import ProtectConfig, Training, protect, round_seed
from mightnt.lm.scenes import Scene
from mightnt.prediction import FloatArray

EVALUATION_ROWS = 250
"""Episodes measured side by side."""
EVALUATION_STREAM = 7_000_000
"""Added to the iteration number in seeds of fresh episodes, so that they never repeat one trained on."""
MEETING_STREAM = 8_000_000
"""The same for episodes on which a policy is brought to its target."""
MEETING_EPISODES = 500
MEETING_ROUNDS = 10
"""Most factors that are tried."""
MEETING_TOLERANCE = 0.02
"""How near to its target, as a share of it, the mean of these episodes must be."""


@dataclass(frozen=True)
class RunConfig:
    """Everything a run depends on besides imitators and scene."""

    base: str
    account: Account
    training: ProtectConfig = field(default_factory=ProtectConfig)
    evaluation_episodes: int = 500
    """Fresh episodes to measure on."""
    transcripts: int = 3
    """Episodes kept token by token."""
    actor_width: int = 128
    """Units in each of the actor's layers: how capable it is."""
    actor_layers: int = 2
    """Layers of the actor's body."""


def terms(config: RunConfig) -> Account:
    """The account a run plays under: the base ``none`` knows no constraint."""
    if config.base == "none":
        return Account(float("inf"), config.account.asking, config.account.ask_threshold)
    return config.account


def new_actor(imitators: Imitators, config: RunConfig, seed: int) -> Actor:
    """An untrained actor for these imitators."""
    torch.manual_seed(seed)
    n_in, n_tokens = imitators.networks[0].config.hidden_size, len(imitators.counts.is_action)
    return Actor(n_in, n_tokens, terms(config), config.actor_width, layers=config.actor_layers)


def cast_for(imitators: Imitators, scene: Scene, base: str, account: Account, policy: Policy) -> Cast:
    """Everybody who takes part in an episode with this base."""
    return Cast(imitators.members(base), imitators.base(base), account, policy, scene, imitators.marks)


def run(
    imitators: Imitators,
    scene: Scene,
    config: RunConfig,
    seed: int,
    training: Training | None = None,
    on_iteration: Callable[[Training], None] | None = None,
) -> tuple[dict[str, Any], Training]:
    """``(the entry "runs" of a record, what was trained)``; continue an interrupted run by giving its ``training``.

    Under a target, what is measured is the trained actor leaning ``leaning_factor`` times as far (:func:`met`); otherwise
    that is 1. Deterministic given ``seed``. Cost: the rollouts; see bench/README.md.
    """
    started = time.perf_counter()
    training = training or Training.fresh(new_actor(imitators, config, seed), config.training)
    cast = cast_for(imitators, scene, config.base, terms(config), training.actor)
    protect(cast, training, config.training, seed, on_iteration)
    cast, leaning_factor = met(cast, training.actor, seed)
    trained = time.perf_counter()
    batches = evaluate(cast, config.evaluation_episodes, seed, config.transcripts)
    measured = time.perf_counter()
    record = {
        "base": config.base,
        "kind_of_base": type(cast.base).__name__,
        "seed": seed,
        "budget_nats": cast.account.budget_nats,
        "constraint": cast.account.constraint,
        "constraint_strength": cast.account.strength,
        "leaning_factor": leaning_factor,
        "asking": "none" if cast.account.constraint == "none" else cast.account.asking,
        "ask_threshold": cast.account.ask_threshold,
        "n_demonstrations": len(imitators.fitted) + len(imitators.held_out),
        "training_episodes": config.training.episodes * config.training.iterations,
        "training_over_budget_episodes": sum(int(row["over_budget_episodes"] or 0) for row in training.log),
        "curve": [{"iteration": i, **row} for i, row in enumerate(training.log)],
        **measures(batches, cast.account),
        "transcripts": transcripts(batches[0], imitators),
        "seconds": measured - started,
        "training_seconds": trained - started,
        "tokens_per_second": sum(batch.n_tokens for batch in batches) / (measured - trained),
        "config": asdict(config),
    }
    return record, training


def met(cast: Cast, actor: Actor, seed: int) -> tuple[Cast, float]:
    """``(the cast with this actor, how many times as far it leans)``: until the mean episode spends its target.

    The factor is sought on one set of fresh episodes, by KL ~ factor^2 where that stays between the factors known to be too
    small and too large, and halfway between them where not. Nothing is done, and the factor is 1, without a target.

    Kind: estimate (the mean of ``MEETING_EPISODES`` episodes, within ``MEETING_TOLERANCE`` or after ``MEETING_ROUNDS``; a toll
    above the target cannot be avoided). Cost: those episodes for each factor tried.
    """
    proposed, factor, low, high = 1.0, 1.0, 0.0, float("inf")
    if cast.account.constraint != "target":
        return cast, factor
    for _ in range(MEETING_ROUNDS):
        factor = proposed if low < proposed < high else (low + high) / 2
        cast = replace(cast, actor=actor.leaning_times(factor))
        batches = evaluate(cast, MEETING_EPISODES, seed, stream=MEETING_STREAM)
        share = sum(float(batch.spent_nats.sum()) for batch in batches) / MEETING_EPISODES / cast.account.target_nats
        if abs(share - 1.0) <= MEETING_TOLERANCE:
            break
        low, high = (factor, high) if share < 1 else (low, factor)
        proposed = factor * min(max(share, 0.25), 4.0) ** -0.5
    return cast, factor


def evaluate(cast: Cast, n: int, seed: int, n_transcripts: int = 0, stream: int = EVALUATION_STREAM) -> list[Episodes]:
    """``n`` fresh episodes, in batches."""
    sizes = [min(EVALUATION_ROWS, n - first) for first in range(0, n, EVALUATION_ROWS)]
    return [
        play_episodes(cast, size, round_seed(seed, stream + i), n_transcripts if i == 0 else 0)
        for i, size in enumerate(sizes)
    ]


def measure_base(imitators: Imitators, scene: Scene, base: str, n: int, seed: int) -> dict[str, Any]:
    """The entry "bases" of a record: the base itself as policy, without reinforcement learning, asking with its own theta.

    ``kl_base_demonstrator_nats`` is KL of that system to the demonstrator per episode (exact per decision, mean over sampled
    episodes); ``asking_nats_per_episode`` is -sum log(1 - theta), the floor that a base which may not ask would pay.
    """
    cast = cast_for(imitators, scene, base, Account(float("inf"), "charged", 0.0), Stay())
    batches = evaluate(cast, n, seed)
    utility, demonstrator = joined(batches, "true_utility"), joined(batches, "kl_demonstrator_nats")
    return {
        "name": base,
        "n_demonstrations": len(imitators.fitted) + len(imitators.held_out),
        "kl_base_demonstrator_nats": estimate(demonstrator),
        "asking_nats_per_episode": estimate(np.concatenate([floors(batch) for batch in batches])),
        "proxy_reward": estimate(joined(batches, "proxy_reward")),
        "true_utility": estimate(utility),
        "asks_per_turn": asks_per_turn(batches),
    }


def floors(batch: Episodes) -> FloatArray:
    """-sum log(1 - theta) of each episode, from the mass on asking, shape (rows,)."""
    asking = batch.decisions.log_base[:, -1].double().numpy()
    with np.errstate(divide="ignore"):
        floor = -np.log1p(-np.minimum(np.exp(asking), 1.0))
    known = np.where(np.isneginf(asking), 0.0, floor)
    return np.bincount(batch.decisions.row, known, minlength=len(batch.turns)).astype(np.float64)


def measures(batches: list[Episodes], account: Account) -> dict[str, Any]:
    """Everything that is measured on fresh episodes, as it stands in the record."""
    spent, demonstrator = joined(batches, "spent_nats"), joined(batches, "kl_demonstrator_nats")
    assert spent is not None
    measured: dict[str, Any] = {
        "episodes": len(spent),
        "proxy_reward": estimate(joined(batches, "proxy_reward")),
        "true_utility": estimate(joined(batches, "true_utility")),
        "kl_base_nats": estimate(spent),
        "kl_demonstrator_nats": estimate(demonstrator),
        "over_budget_episodes": int((spent > account.budget_nats + TOLERANCE_NATS).sum()),
        "asks_per_turn": asks_per_turn(batches),
        "turns": sum(int(batch.turns.sum()) for batch in batches),
        "asked_turns": sum(int(batch.asked_turns.sum()) for batch in batches),
        "demonstrator_tokens": sum(int(batch.demonstrator_tokens.sum()) for batch in batches),
    }
    for name, column, known in (
        ("kl_base", "cost_nats", True),
        ("kl_demonstrator", "kl_demonstrator_nats", demonstrator is not None),
    ):
        noted = [(batch, getattr(batch.decisions, column)) for batch in batches]
        for scope, where in (("token", by_place), ("turn", by_turn)):
            sums = [where(batch, values.numpy()) for batch, values in noted if values is not None]
            measured[f"{name}_by_{scope}_nats"] = pooled(sums, len(spent)) if known else None
    return measured


def asks_per_turn(batches: list[Episodes]) -> float:
    """Turns in which the demonstrator was asked, per turn."""
    turns = sum(int(batch.turns.sum()) for batch in batches)
    return sum(int(batch.asked_turns.sum()) for batch in batches) / max(1, turns)


def joined(batches: list[Episodes], name: str) -> FloatArray | None:
    """One number an episode from all batches; ``None`` where it is not known."""
    columns = [getattr(batch, name) for batch in batches]
    return None if any(column is None for column in columns) else np.concatenate(columns)


def estimate(values: FloatArray | None) -> dict[str, float] | None:
    """Mean over episodes with its standard error (``nan`` for one episode or an infinite mean), their number and the largest."""
    if values is None:
        return None
    with np.errstate(invalid="ignore"):
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return {"mean": float(values.mean()), "standard_error": float(error), "n": len(values), "max": float(values.max())}


def by_place(batch: Episodes, values: FloatArray) -> FloatArray:
    """Sum of ``values`` over episodes by the decision's place in its episode (first, second, ...)."""
    order = np.argsort(batch.decisions.row, kind="stable")
    rows = batch.decisions.row[order]
    place = np.empty(len(rows), dtype=np.int64)
    place[order] = np.arange(len(rows)) - np.searchsorted(rows, rows)
    return np.bincount(place, values).astype(np.float64)


def by_turn(batch: Episodes, values: FloatArray) -> FloatArray:
    """Sum of ``values`` over episodes by the decision's turn in its episode (first, second, ...)."""
    return np.bincount(batch.decisions.turn, values).astype(np.float64)


def pooled(sums: list[FloatArray], n: int) -> list[float]:
    """Mean over all ``n`` episodes of sums by place; an episode that has ended counts 0."""
    total = np.zeros(max((len(row) for row in sums), default=0))
    for row in sums:
        total[: len(row)] += row
    return [float(value) for value in total / n]


def transcripts(batch: Episodes, imitators: Imitators) -> list[dict[str, Any]]:
    """The kept episodes, turn by turn, with what each token cost."""
    kept = []
    for row, said in enumerate(batch.transcripts):
        turns: list[dict[str, Any]] = []
        for token in said:
            if not turns or turns[-1]["speaker"] != token.speaker:
                turns.append({"speaker": token.speaker, "asked": False, "tokens": []})
            turns[-1]["asked"] |= token.asked
            turns[-1]["tokens"].append(
                {
                    "text": imitators.tokenizer.decode([token.token]),
                    "kl_base_nats": token.kl_base_nats,
                    "kl_demonstrator_nats": token.kl_demonstrator_nats,
                }
            )
        utility = None if batch.true_utility is None else float(batch.true_utility[row])
        kept.append({"turns": turns, "proxy_reward": float(batch.proxy_reward[row]), "true_utility": utility})
    return kept
