"""Imitators that learn from answers: weights and counts at once, networks when they are fitted on and have passed a check.

An answer is a demonstration. :func:`learned` is what can be done with it while serving: the count member counts it and the
weights of the mixture move; nothing is fitted. :func:`update_folder` fits the networks on as well, and the old set goes on
serving unless the new one passes:

- on the demonstrations that were held out before, the loss of every member and of the mixture may rise by 1% at most;
- on the answers held out now (every tenth new one), the loss of the mixture must not rise.

Answers already learnt from are told by their words and learnt once, so an export that has grown can be given again.
"""

from __future__ import annotations

import contextlib
import copy
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mightnt.desk.database import locked
from mightnt.dialogues import Dialogue, read_dialogues, write_dialogues
from mightnt.errors import InputError
from mightnt.files import read_json, write_json
from mightnt.lm.calibration import moved_log_weights
from mightnt.lm.finetune import fingerprint
from mightnt.lm.fitting import Batches, FitConfig, fit, make_optimizer, update
from mightnt.lm.imitate import ADAPTERS_LEARNING_RATE, PASSES, ImitateConfig, fit_config, warnings
from mightnt.lm.imitators import (
    Imitators,
    ImitatorsConfig,
    calibrate,
    dialogue_of,
    load_imitators,
    member_scores,
    save_imitators,
    states_before_actions,
)
from mightnt.lm.scoring import Network, context_tokens
from mightnt.lm.tokens import EncodedDialogues, FastTokenizer, encode
from mightnt.lm.windows import padded, windows
from mightnt.models.counts import SuffixCounts, add_counts
from mightnt.models.situations import add_situations
from mightnt.prediction import FloatArray
from mightnt.watching import Watcher

MOST_RISE = 0.01
"""How much worse, as a share of its loss, a member may predict the old held-out demonstrations."""
HELD_OUT_EVERY = 10
"""Every so many-th new answer is held out."""
GENTLER = 0.2
"""The learning rate of an update, as a share of that of a first fit."""
LEAST_AGAIN = 64
"""Old demonstrations in each pass of an update, if there are so many."""
ANSWERS = "answers.jsonl"
LOCK = "update.lock"
"""The file whose lock says that an update goes on. The lock dies with the process; the file may stay."""


def learned(imitators: Imitators, answers: Sequence[Dialogue]) -> Imitators:
    """The imitators after these answers: weights and counts have moved, networks and cap have not.

    Every assistant turn of ``answers`` is taken for the demonstrator's, but for what others began of it. Members are weighed
    by what they said of an answer before they counted it.

    Kind: counts exact, weights an estimate (:func:`~mightnt.lm.calibration.moved_log_weights`).
    Cost: one pass of the networks over the answers and a sort of the counts.
    """
    if not answers:
        return imitators
    taught = learned_from(imitators, encode(imitators.tokenizer, answers))
    return replace(taught, fitted=(*imitators.fitted, *answers))


def learned_from(imitators: Imitators, corpus: EncodedDialogues) -> Imitators:
    """:func:`learned` from tokens; ``corpus.is_action`` says which of them the demonstrator chose, and may say of part of a
    turn that it did. The demonstrations kept beside the members stay as they are."""
    counts = add_counts(imitators.counts, corpus.tokens.astype(np.int64), corpus.starts, corpus.is_action)
    if not corpus.is_action.any():
        return replace(imitators, counts=counts)
    actions = corpus.tokens[corpus.is_action].astype(np.int64)
    situations = add_situations(imitators.situations, states_before_actions(imitators.networks[0], corpus), actions)
    per_dialogue = losses(imitators.networks, imitators.counts, corpus)
    spoken = np.unique(dialogue_of(corpus)[corpus.is_action])
    n_weighed = imitators.summary.get("answers_weighed", 0)
    n_before = len(imitators.held_out) + n_weighed + len(imitators.log_weights)
    weights = moved_log_weights(np.array(imitators.log_weights), -per_dialogue[spoken], n_before)
    summary = {**imitators.summary, "weights": np.exp(weights).tolist(), "answers_weighed": n_weighed + len(spoken)}
    return replace(
        imitators, counts=counts, situations=situations, log_weights=tuple(weights.tolist()), summary=summary
    )


def losses(networks: Sequence[Network], counts: SuffixCounts, corpus: EncodedDialogues) -> FloatArray:
    """-log p of the actions of each dialogue by each network and, last, the counts; shape (dialogues, members)."""
    scores = member_scores(networks, counts, corpus)
    owner = dialogue_of(corpus)[corpus.is_action]
    sums = [np.bincount(owner, row, minlength=corpus.n_dialogues) for row in scores]
    return np.asarray(-np.stack(sums, axis=1), dtype=np.float64)


def networks_learned(imitators: Imitators, corpus: EncodedDialogues, seed: int, steps: int) -> Imitators:
    """The imitators with networks fitted on to what the demonstrator chose in ``corpus``, and to nothing else in it.

    What others said there is context: an agent's own words are no evidence. As many old demonstrations are gone through
    again. Counts, weights and cap stay. Deterministic given seed. Cost: ``steps`` updates a network.
    """
    rng = np.random.default_rng(seed)
    n_again = min(len(imitators.fitted), corpus.n_dialogues)
    again = [imitators.fitted[i] for i in rng.choice(len(imitators.fitted), n_again, replace=False)]
    both = joined(corpus, encode(imitators.tokenizer, again))
    config = gentler(FitConfig(), both.n_dialogues, steps)
    networks = []
    for i, network in enumerate(imitators.networks):
        networks.append(copy.deepcopy(network))
        fit_to_actions(networks[-1], both, config, seed + i)
    return replace(imitators, networks=tuple(networks))


def joined(one: EncodedDialogues, other: EncodedDialogues) -> EncodedDialogues:
    """The dialogues of both, end to end."""
    starts = np.concatenate([one.starts, one.starts[-1] + other.starts[1:]])
    columns = (np.concatenate([getattr(one, name), getattr(other, name)]) for name in ("tokens", "is_action", "turn"))
    tokens, is_action, turn = columns
    begun = [np.zeros(x.tokens.size, dtype=np.bool_) if x.is_begun is None else x.is_begun for x in (one, other)]
    some = one.is_begun is not None or other.is_begun is not None
    return EncodedDialogues(tokens, starts, is_action, turn, np.concatenate(begun) if some else None)


def fit_to_actions(network: Network, corpus: EncodedDialogues, config: FitConfig, seed: int) -> None:
    """:func:`~mightnt.lm.fitting.fit`, in place, to the actions alone; the other tokens are read and not learnt.

    Windows in which nobody acts are left out. Errors: :class:`~mightnt.errors.InputError` for a loss that is no number.
    """
    chosen = windows(corpus, context_tokens(network))
    acted = np.array([corpus.is_action[b:e].any() for b, e in zip(chosen.scored_from, chosen.end, strict=True)])
    rows, optimizer = np.flatnonzero(acted), make_optimizer(network, config)
    batches = Batches(chosen.lengths[rows], config.batch_dialogues, seed)
    network.eval()
    for step in range(config.steps if len(rows) else 0):
        batch = rows[batches[step]]
        tokens, counted = padded(corpus, chosen, batch)
        place = np.minimum(chosen.begin[batch, None] + np.arange(tokens.shape[1]), corpus.tokens.size - 1)
        loss = update(network, optimizer, tokens, counted & corpus.is_action[place], config.rate(step))
        if not np.isfinite(loss):
            raise InputError(f"loss or gradient is {loss} at step {step + 1}; the update was not kept")


@dataclass(frozen=True)
class Sorted:
    """Where answers go: to be fitted to, or to be checked on."""

    fitted: tuple[Dialogue, ...]
    """All demonstrations to fit to, old ones and answers."""
    held_out: tuple[Dialogue, ...]
    """All demonstrations to check on, old ones and answers."""
    answers: tuple[Dialogue, ...]
    """Every answer learnt from, now or before."""
    fresh: tuple[tuple[Dialogue, int], ...]
    """New ones to fit to, and the message from which on each is new."""
    checking: tuple[Dialogue, ...]
    """New ones held out."""


def sort_out(imitators: Imitators, known: Sequence[Dialogue], given: Sequence[Dialogue]) -> Sorted:
    """Tell new answers from ``known`` ones, and hold out every tenth: of all, so that small updates have theirs too.

    A dialogue that goes on from a known one takes its place, on the side where that was; one that a known dialogue begins
    with is known.
    """
    left, answers = Counter(known), list[Dialogue]()
    fitted, held_out = list(imitators.fitted), list(imitators.held_out)
    fresh, checking, n_new = list[tuple[Dialogue, int]](), list[Dialogue](), len(known)
    for dialogue in given:
        longer = next((d for d in left if left[d] and d[: len(dialogue)] == dialogue), None)
        if longer is not None:
            left[longer] -= 1
            answers.append(longer)
            continue
        begun = next((dialogue[:k] for k in range(len(dialogue) - 1, 0, -1) if left[dialogue[:k]]), ())
        left[begun] -= bool(begun)
        n_new += not begun
        answers.append(dialogue)
        to_check = begun in held_out if begun else n_new % HELD_OUT_EVERY == 0
        side = held_out if to_check else fitted
        if begun:
            side.remove(begun)
        side.append(dialogue)
        if to_check:
            checking.append(dialogue)
        else:
            fresh.append((dialogue, len(begun)))
    answers += left.elements()
    return Sorted(tuple(fitted), tuple(held_out), tuple(answers), tuple(fresh), tuple(checking))


def new_actions(tokenizer: FastTokenizer, fresh: Sequence[tuple[Dialogue, int]]) -> EncodedDialogues:
    """The new dialogues as tokens; what stood before the message from which on each is new is no action."""
    corpus = encode(tokenizer, [dialogue for dialogue, _ in fresh])
    first = np.array([begin for _, begin in fresh])[dialogue_of(corpus)]
    return replace(corpus, is_action=corpus.is_action & (corpus.turn >= first))


def answers_learned(folder: Path) -> list[Dialogue]:
    """The answers that the set of imitators in ``folder`` was fitted to or is checked on; none before a first update."""
    noted = folder / read_json(folder / "imitators.json").get("at", "") / ANSWERS
    return read_dialogues(noted) if noted.exists() else []


def update_folder(folder: Path, answers: Path, seed: int, watcher: Watcher, steps: int = 0) -> dict[str, Any]:
    """Fit the imitators in ``folder`` on to new answers, and put the new set in place of the old if it passes.

    The swap is one atomic write: whoever loads the folder gets the old set or the new one, whole, and a killed update
    changes nothing. The set before is kept beside it. One update of a folder goes on at a time.

    Returns ``{"passed", "why", "members": [{"name", "before", "after", ...}], ...}``, losses in nats a dialogue.

    Errors: :class:`~mightnt.errors.InputError` for a folder without imitators or with another update going on, or a file
    without an answer that is new. Deterministic given seed. Cost: the fit of the networks; see
    :func:`~mightnt.lm.fitting.fit`.
    """
    if not (folder / "imitators.json").exists():
        load_imitators(folder)  # says what is missing, before a lock is put there
    with contextlib.closing(locked(folder / LOCK, "another update of these imitators goes on; wait for it")):
        return update_alone(folder, answers, seed, watcher, steps)


def update_alone(folder: Path, answers: Path, seed: int, watcher: Watcher, steps: int) -> dict[str, Any]:
    """:func:`update_folder`, where nobody else updates."""
    old, given = load_imitators(folder), read_dialogues(answers)
    kept = read_json(folder / "imitators.json")
    found = sort_out(old, answers_learned(folder), given)
    if not found.fresh:
        raise InputError(f"{answers}: holds no answer to learn from that was not learnt before; nothing was changed")
    made = kept["provenance"]["config"]
    if made.get("frozen"):
        raise InputError(
            f"{folder}: its model is kept frozen, and an update would fit it; imitate again with all answers"
        )
    new = fitted_on(old, found, made, seed, watcher, steps)
    members, why = compare(old, new, found.checking)
    record = {
        "passed": not why,
        "why": why,
        "members": members,
        "new_answers": len(found.fresh) + len(found.checking),
        "answers_held_out": len(found.checking),
        "summary": new.summary,
    }
    if not why:
        update = {"answers": str(answers), "steps": steps, "seed": seed}
        put_in_place(new, folder, found, {**made, "update": update}, seed)
    return record


def fitted_on(
    old: Imitators, found: Sorted, made: Mapping[str, Any], seed: int, watcher: Watcher, steps: int
) -> Imitators:
    """Copies of the networks fitted to the new answers and as many old demonstrations; counts of all; calibrated anew.

    ``made``: the configuration that the set was made with.

    Every pass over the answers has other old demonstrations beside them, so that none is learnt by heart.
    """
    rng, answers = np.random.default_rng(seed), [dialogue for dialogue, _ in found.fresh]
    again = drawn_evenly(old.fitted, PASSES * min(len(old.fitted), max(len(answers), LEAST_AGAIN)), rng)
    corpus = encode(old.tokenizer, [*answers * PASSES, *again])
    a_pass = corpus.n_dialogues // PASSES
    config = gentler(first_fit(made, a_pass), a_pass, steps)
    networks = []
    for i, network in enumerate(old.networks):
        name = f"network-{i}"
        watcher.began(name)
        networks.append(copy.deepcopy(network))
        fit(networks[-1], corpus, config, seed + i, on_step=telling(watcher, name, config.steps))
        watcher.ended(name, reused=False)
    more = new_actions(old.tokenizer, found.fresh)
    counts = add_counts(old.counts, more.tokens.astype(np.int64), more.starts, more.is_action)
    settings = ImitatorsConfig(support=old.support)
    new = calibrate(old.tokenizer, networks, counts, found.fitted, found.held_out, settings)
    return replace(new, summary={**new.summary, "warnings": warnings(new)})


def drawn_evenly(dialogues: Sequence[Dialogue], n: int, rng: np.random.Generator) -> list[Dialogue]:
    """``n`` of them in random order, none twice before all came once."""
    order = [i for _ in range(-(-n // len(dialogues))) for i in rng.permutation(len(dialogues))]
    return [dialogues[i] for i in order[:n]]


def first_fit(made: Mapping[str, Any], n_dialogues: int) -> FitConfig:
    """How a set of this configuration was fitted first: from scratch, a whole pre-trained model, or adapters on one."""
    first = fit_config(ImitateConfig(model=str(made.get("model", ""))), n_dialogues)
    return replace(first, learning_rate=ADAPTERS_LEARNING_RATE) if made.get("adapters") else first


def gentler(first: FitConfig, n_dialogues: int, steps: int) -> FitConfig:
    """A fit that goes on from one that was finished: a lower rate, and as many passes but no least number of updates."""
    usual = max(10, min(2000, PASSES * n_dialogues // first.batch_dialogues))
    return replace(first, steps=steps or usual, learning_rate=GENTLER * first.learning_rate, warmup_steps=5)


def telling(watcher: Watcher, name: str, of: int) -> Any:
    """What tells the watcher after each update."""
    return lambda step, _loss: watcher.moved(name, step, of)


def compare(old: Imitators, new: Imitators, checking: Sequence[Dialogue]) -> tuple[list[dict[str, Any]], str]:
    """``(losses before and after by member, why the new set does not pass)``; the second is empty where it does."""
    members, complaints = list(changes(old, new, old.held_out, "demonstrations")), []
    complaints += [
        f"{row['name']} predicts held-out demonstrations {row['rise']:.1%} worse"
        for row in members
        if not row["rise"] <= MOST_RISE
    ]
    if checking:
        members += changes(old, new, checking, "answers")
        if not members[-1]["rise"] <= 0.0:
            complaints.append(f"the mixture predicts held-out answers {members[-1]['rise']:.1%} worse")
    return members, "; ".join(complaints)


def changes(old: Imitators, new: Imitators, dialogues: Sequence[Dialogue], of: str) -> Iterator[dict[str, Any]]:
    """Loss in nats a dialogue before and after, and its rise as a share: each member and, last, the mixture."""
    corpus = encode(old.tokenizer, dialogues)
    both = []
    for imitators in (old, new):
        rows = losses(imitators.networks, imitators.counts, corpus)
        mixture = -np.logaddexp.reduce(np.array(imitators.log_weights) - rows, axis=1)
        both.append(np.column_stack([rows, mixture]).mean(axis=0))
    for name, before, after in zip([*old.network_names, "counts", "mixture"], *both, strict=True):
        rise = (after - before) / max(before, 1e-12)
        yield {"name": name, "of": of, "before": float(before), "after": float(after), "rise": float(rise)}


def put_in_place(new: Imitators, folder: Path, found: Sorted, config: dict[str, Any], seed: int) -> None:
    """Write the new set beside the old, then say in one write that it is the one; sets before the last one are removed."""
    kept = read_json(folder / "imitators.json")
    lineage = [*kept.get("updated_from", []), fingerprint(folder)]
    at, before = f"update-{len(lineage)}", kept.get("at", "")
    save_imitators(new, folder / at, config, seed)
    write_dialogues(folder / at / ANSWERS, found.answers)
    whole = read_json(folder / at / "imitators.json")
    write_json(folder / "imitators.json", {**whole, "at": at, "updated_from": lineage})
    for stale in folder.glob("update-*"):
        if stale.name not in (at, before):
            shutil.rmtree(stale, ignore_errors=True)
