"""Whether the demonstrator keeps what a base vouches for: reliability, levels and thresholds on held-out dialogues."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mightnt import audits
from mightnt.audits.page import drawn, page
from mightnt.audits.reliability import (
    CONFIDENCE,
    EDGES,
    TOLERANCE_NATS,
    Independent,
    Reliability,
    Tally,
    reliability,
    stacked,
    tally,
)
from mightnt.audits.reliability_figure import reliability_panel
from mightnt.dialogues import Dialogue, read_dialogues
from mightnt.errors import InputError
from mightnt.files import write_json, write_text
from mightnt.lm.bases.contract import Base
from mightnt.lm.bases.mixture import Mixture
from mightnt.lm.calibration import LevelChoice, Threshold, Unit, choose_level, conformal_ample, conformal_log_cap
from mightnt.lm.finetune import fingerprint
from mightnt.lm.imitators import Imitators, dialogue_of, load_imitators, member_scores
from mightnt.lm.members import Members, MemberStep
from mightnt.lm.tokens import EncodedDialogues, encode
from mightnt.models.counts import suffixes_of
from mightnt.models.finite import top_set
from mightnt.provenance import provenance

LEVELS = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Levels of the top set that are tried; 1 listens to the most believed member alone."""
RATE = 0.01
"""Share of the demonstrator's turns that a threshold may touch."""
MOST_BOUNDS = 2**22
"""Lower bounds held at once: 32 MiB."""
CHOSEN_HERE = (
    "The cap and the weights were chosen on these very dialogues, which flatters the base a little; for a promise, give "
    "demonstrations that it has not seen."
)


@dataclass(frozen=True)
class TopSetMinimum:
    """nu_alpha(x | h) = min over the top set at level alpha of p_i(x | h), members weighed by the demonstrator's words alone.

    Kind: exact. Paper: nu_alpha. Cost: one forward pass a network.
    """

    members: Mixture
    """The members and their weights; its evidence must be ``demonstrated``."""
    level: float
    """alpha."""
    name: str = "top-set-minimum"

    def __post_init__(self) -> None:
        if self.members.evidence != "demonstrated":
            raise InputError("the top set is of what is demonstrated; give a mixture whose evidence is 'demonstrated'")

    def start(self, rows: int) -> Tensor:
        """Log weights, shape (rows, members)."""
        return self.members.start(rows)

    def predict(self, state: Tensor, step: MemberStep) -> Tensor:
        """log nu, shape (rows, tokens); all -inf where no member is believed."""
        log_nu = torch.full_like(step.networks[0], -torch.inf)
        said = self.members.members(step)
        for row, weights in enumerate(state.numpy()):
            top = top_set(weights, self.level)
            if len(top):
                log_nu[row] = said[torch.from_numpy(top), row].amin(dim=0)
        return log_nu

    def advance(self, state: Tensor, step: MemberStep, tokens: Tensor, own: Tensor) -> Tensor:
        """Posterior weights, moved where the demonstrator chose."""
        return self.members.advance(state, step, tokens, own)


def reliability_of(
    imitators: Imitators,
    base: str,
    dialogues: Sequence[Dialogue] | None = None,
    confidence: float = CONFIDENCE,
    tolerance_nats: float = TOLERANCE_NATS,
    independent: Independent = "nothing",
) -> Reliability:
    """Are the lower bounds of the base of this name kept in these dialogues (by default the held-out ones)?

    Every token of the vocabulary counts, at every decision of the demonstrator; see
    :func:`mightnt.audits.reliability.reliability`. The promise is for dialogues on which nothing was chosen: the held-out
    ones gave the pessimistic base its cap and flatter it a little.

    Errors: :class:`~mightnt.errors.InputError` for an unknown base, or ``known``, whose demonstrator no dialogue tells;
    no dialogues; a member that says NaN. Cost: one pass of each network over the dialogues, all logits of one at once.
    """
    (found,) = tallies_of(imitators.members(base), [imitators.base(base)], corpus_of(imitators, dialogues))
    return reliability(found, confidence, tolerance_nats, independent)


def levels_of(
    imitators: Imitators,
    levels: Sequence[float] = LEVELS,
    dialogues: Sequence[Dialogue] | None = None,
    confidence: float = CONFIDENCE,
    tolerance_nats: float = TOLERANCE_NATS,
    independent: Independent = "nothing",
) -> LevelChoice:
    """``top_set_level`` for all networks and the counts, by :func:`mightnt.lm.calibration.choose_level`.

    Cost: one pass of each network over the dialogues, whatever the number of levels.
    """
    members = Mixture(imitators.log_weights, evidence="demonstrated")
    bases = [TopSetMinimum(members, level) for level in levels]
    found = tallies_of(imitators.members("mixture"), bases, corpus_of(imitators, dialogues))
    return choose_level(dict(zip(levels, found, strict=True)), confidence, tolerance_nats, independent)


def corpus_of(imitators: Imitators, dialogues: Sequence[Dialogue] | None) -> EncodedDialogues:
    """These dialogues as tokens, or the held-out ones."""
    chosen = imitators.held_out if dialogues is None else dialogues
    if not chosen:
        raise InputError("no held-out dialogue to check on; hold out more demonstrations")
    return encode(imitators.tokenizer, chosen)


@torch.no_grad()
def tallies_of(
    members: Members, bases: Sequence[Base], corpus: EncodedDialogues, edges: Sequence[float] = EDGES
) -> list[Tally]:
    """The tally of each base over what the demonstrator chose in ``corpus``; the members are read once for all bases.

    What others began of a turn is the base's own history, as in serving, and no decision of the demonstrator; the
    demonstrator's words charge no cap, so a capped base is seen at its most permissive. Of a dialogue longer than a
    network's context only the beginning is read; what comes after is not counted.
    """
    if any(base.name == "known" for base in bases):
        raise InputError("the base 'known' needs the demonstrator itself, which no dialogue tells; choose another base")
    spoken = np.unique(dialogue_of(corpus)[corpus.is_action])
    found = [one for number in spoken if (one := in_dialogue(members, bases, corpus.rows([number]), edges))]
    if not found:
        raise InputError("the demonstrator chose nothing in these dialogues; an assistant turn is needed")
    return [stacked(tallies) for tallies in zip(*found, strict=True)]


def in_dialogue(
    members: Members, bases: Sequence[Base], dialogue: EncodedDialogues, edges: Sequence[float]
) -> list[Tally]:
    """The tally of each base over one dialogue, as far as the networks can read it; empty without a decision."""
    context = min(network.context for network in members.networks)
    tokens, chosen = torch.from_numpy(dialogue.tokens[:context].astype(np.int64)), dialogue.is_action[:context]
    begun = np.zeros_like(chosen) if dialogue.is_begun is None else dialogue.is_begun[:context]
    places = np.flatnonzero(chosen | begun).tolist()
    steps = zip(places, members.recall(tokens, places), strict=True)
    most = max(1, MOST_BOUNDS // (len(bases) * len(members.is_action)))
    states, found = [base.start(1) for base in bases], list[list[Tally]]()
    while block := list(itertools.islice(steps, most)):
        said: list[list[Tensor]] = [[] for _ in bases]
        for place, step in block:
            token, own = tokens[place : place + 1], torch.tensor([bool(begun[place])])
            for i, base in enumerate(bases):
                if chosen[place]:
                    said[i].append(base.predict(states[i], step))
                states[i] = base.advance(states[i], step, token, own)
        taken = tokens[[place for place, _ in block if chosen[place]]]
        if len(taken):
            found.append(
                [tally_of(base, torch.cat(rows), taken, edges) for base, rows in zip(bases, said, strict=True)]
            )
    return [functools.reduce(operator.add, tallies) for tallies in zip(*found, strict=True)]


def tally_of(base: Base, log_nu: Tensor, taken: Tensor, edges: Sequence[float]) -> Tally:
    """The tally of decisions of one dialogue from log nu, shape (decisions, tokens)."""
    if torch.isnan(log_nu).any():
        raise InputError(f"the base {base.name!r} says NaN of a token; one of its members is broken")
    return tally(log_nu.exp().numpy(), taken.numpy(), np.zeros(len(taken), dtype=np.int64), 1, edges)


def thresholds_of(
    imitators: Imitators, dialogues: Sequence[Dialogue] | None = None, rate: float = RATE
) -> dict[str, Threshold]:
    """Cap (``log_cap_nats``) and support (``ample``) that touch a share ``rate`` of the demonstrator's turns at most.

    Each by itself, so both together touch twice the rate; by turns and, as ``..._by_dialogues``, with dialogues as the
    unit. Errors, kind: see :func:`mightnt.lm.calibration.conformal_threshold`.
    """
    corpus, counts = corpus_of(imitators, dialogues), imitators.counts
    chosen, tokens = corpus.is_action, corpus.tokens.astype(np.int64)
    dialogue, turn = dialogue_of(corpus)[chosen], corpus.turn[chosen].astype(np.int64)
    network, by_counts = member_scores(imitators.networks[:1], counts, corpus)
    suffixes, seen = suffixes_of(tokens, corpus.starts, counts.longest)[chosen], imitators.support.seen
    found = {}
    units: dict[Unit, str] = {"turn": "", "dialogue": "_by_dialogues"}
    for unit, ending in units.items():
        found[f"log_cap_nats{ending}"] = conformal_log_cap(network - by_counts, dialogue, turn, rate, unit)
        found[f"ample{ending}"] = conformal_ample(counts, suffixes, tokens[chosen], dialogue, turn, rate, seen, unit)
    return found


def check_folder(
    folder: Path, base: str, fresh: Path | None = None, rate: float = RATE, confidence: float = CONFIDENCE
) -> tuple[Reliability, dict[str, Any]]:
    """The reliability of a base of the imitators in ``folder``, and the record of it with levels, thresholds and notes.

    On the held-out demonstrations, or those in the file ``fresh``. Errors: :class:`~mightnt.errors.InputError` for a
    folder without imitators, an unknown base, a file that cannot be read, a rate or a confidence that is none.
    """
    imitators = load_imitators(folder)
    dialogues = None if fresh is None else read_dialogues(fresh)
    thresholds = thresholds_of(imitators, dialogues, rate)
    (found,) = tallies_of(imitators.members(base), [imitators.base(base)], corpus_of(imitators, dialogues))
    kept, of_new = (reliability(found, confidence, independent=unit) for unit in ("nothing", "dialogues"))
    levels = levels_of(imitators, dialogues=dialogues, confidence=confidence)
    notes = [] if fresh else [CHOSEN_HERE]
    notes += [f"{words(name)}: {one.warning}." for name, one in thresholds.items() if one.warning]
    record = {
        "kind": "mightnt calibration",
        "version": 1,
        "base": base,
        "reliability": as_plain(kept),
        "reliability_for_new_dialogues": as_plain(of_new),
        "top_set_level": levels.level,
        "top_set_levels": [{"level": level, **as_plain(one)} for level, one in levels.curve],
        "thresholds": {name: {**asdict(one), "guarantee": one.guarantee} for name, one in thresholds.items()},
        "present": {"log_cap_nats": imitators.log_cap_nats, "support": asdict(imitators.support)},
        "sentences": [levels.sentence, *(f"{words(name)}: {one.guarantee}" for name, one in thresholds.items())],
        "notes": notes,
        "imitators": fingerprint(folder),
        "provenance": provenance(None, {"imitators": folder, "fresh": fresh, "rate": rate}),
    }
    return kept, record


def words(name: str) -> str:
    """What a threshold is of, for people."""
    return "Cap of the pessimistic base (log c, nats)" if name.startswith("log_cap") else "Support veto (ample)"


def as_plain(found: Reliability) -> dict[str, Any]:
    """A reliability for a record."""
    bins = [{**asdict(part), "slack_nats": part.slack_nats} for part in found.bins]
    verdict = {"outcome": found.outcome, "sentence": found.sentence, "slack_nats": found.slack_nats}
    return {**asdict(found), "bins": bins, **verdict}


def write_calibration(found: Reliability, record: dict[str, Any], folder: Path) -> Path:
    """Write ``calibration.json`` and ``calibration.html`` into ``folder``; where the page is."""
    panel, template = reliability_panel(found), Path(audits.__file__).parent / "reliability.html.jinja"
    told = {"name": record["base"], "notes": record["notes"], "sentences": record["sentences"]}
    write_json(folder / "calibration.json", record)
    write_text(folder / "calibration.html", page(template, panel=drawn(panel), found=found, **told))
    return folder / "calibration.html"
