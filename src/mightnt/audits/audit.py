"""What was promised and what was kept, from records alone: nothing is believed that can be added up again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import fsum, inf, isfinite, isnan
from typing import Literal

import numpy as np

from mightnt.audits.results import EpisodeMean
from mightnt.constraints.asking import with_answers
from mightnt.constraints.kl import kl_step_nats
from mightnt.constraints.ledger import TOLERANCE_NATS
from mightnt.desk.record import Record, RecordedStep
from mightnt.errors import InputError
from mightnt.history import Chooser
from mightnt.prediction import Model, Prediction

Source = Literal["recomputed", "as recorded", "not measured"]
"""Where the KL to the demonstrator comes from."""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The findings over records of one budget and one account of asking. Means are over episodes."""

    n_episodes: int
    promised_nats: float
    """The limit of every episode."""
    asking: str
    """The account of asking."""
    spent_nats: EpisodeMean
    """What the steps of an episode add up to; ``max`` is the worst episode."""
    n_violations: int
    """Episodes that spent more than was promised (by more than 1e-9)."""
    broken: tuple[str, ...]
    """Records whose arithmetic does not hold: which, where and how. Their other numbers deserve no belief."""
    kl_demonstrator_nats: EpisodeMean | None
    """KL(system, demonstrator), summed over an episode's decisions; ``None`` where it was not measured."""
    kl_demonstrator_source: Source
    asks: EpisodeMean
    """Decisions that the demonstrator made."""
    n_decisions: int
    """Decisions in all records, asked ones included."""
    utility: EpisodeMean

    @property
    def holds(self) -> bool:
        """Whether every record adds up and every episode kept what was promised."""
        return not self.broken and self.n_violations == 0

    def __str__(self) -> str:
        n_asks = self.asks.mean * self.n_episodes
        rows = [
            f"{self.n_episodes} episode(s), account of asking: {self.asking}",
            f"promised   at most {self.promised_nats:.6g} nats an episode to the base",
            f"kept       {_words(self.spent_nats, 'nats')}; {self.n_violations} over the limit",
            f"KL(system, demonstrator)   {_words(self.kl_demonstrator_nats, 'nats')} ({self.kl_demonstrator_source})"
            if self.kl_demonstrator_nats
            else "KL(system, demonstrator)   not measured",
            f"asked      {n_asks:.0f} of {self.n_decisions} decisions",
            f"utility    {_words(self.utility, '')}",
            *(f"BROKEN     {sentence}" for sentence in self.broken),
        ]
        return "\n".join(rows)


def audit(records: Record | Sequence[Record], demonstrator: Model | None = None) -> AuditReport:
    """What the records promise, whether they keep it, and how far the system was from the demonstrator.

    The ledger is added up again from the single charges; the KL to the demonstrator is computed again from the recorded
    distributions when its model is given, else taken as recorded where every record has it, else "not measured".

    E over episodes of sum_t KL(system( . |h_t), mu( . |h_t)) is estimated by the mean of exact per-step sums along the
    sampled episodes; standard errors are over episodes, so records should be of different seeds.

    Errors: :class:`~mightnt.errors.InputError` for no records, for records of different limits or accounts (audit them
    apart), and where a demonstrator is given and a record holds no distributions.

    Kind: spent, violations, asks: exact; KL to the demonstrator and all means: estimate (mean over episodes). Cost: one
    prediction of the demonstrator a step.
    """
    records = (records,) if isinstance(records, Record) else tuple(records)
    promises = {(record.limit_nats, record.asking) for record in records}
    if len(promises) != 1:
        raise InputError(f"got records of {len(promises)} different promises; one limit and one account an audit")
    ((promised, asking),) = promises
    spent = [record.spent_nats for record in records]
    sums, source = _from_demonstrator(records, demonstrator)
    broken = (f"record {i}: {sentence}" for i, record in enumerate(records, 1) for sentence in discrepancies(record))
    return AuditReport(
        n_episodes=len(records),
        promised_nats=promised,
        asking=asking,
        spent_nats=episode_mean(spent),
        n_violations=sum(not total <= promised + TOLERANCE_NATS for total in spent),
        broken=tuple(broken),
        kl_demonstrator_nats=episode_mean(sums) if sums else None,
        kl_demonstrator_source=source,
        asks=episode_mean([record.n_asks for record in records]),
        n_decisions=sum(step.chooser is not Chooser.WORLD for record in records for step in record.steps),
        utility=episode_mean([record.utility for record in records]),
    )


def discrepancies(record: Record) -> Iterator[str]:
    """A sentence for the first step of each kind whose numbers cannot be right: nothing when all add up.

    Checked: no charge is negative or NaN, an observation costs nothing, ``left`` is the limit less all charges so far
    (within 1e-9, 0 where rounding took it past), asking probabilities are in [0, 1] and an asked action had one.
    """
    charges: list[float] = []
    found: dict[str, str] = {}
    for position, step in enumerate(record.steps, 1):
        charges.append(step.kl_base_nats)
        for kind, sentence in _impossibilities(step, record.limit_nats, fsum(charges)):
            found.setdefault(kind, f"step {position}: {sentence}")
    yield from found.values()


def kl_demonstrator_nats(record: Record, demonstrator: Model) -> float:
    """sum_t KL(system, mu) over the decisions of one record, from its recorded distributions; may be ``inf``.

    The system decides by its recorded distribution and hands the missing mass to mu; a forced question hands it all, 0.
    """
    total, state = 0.0, demonstrator.start()
    for position, (step, seen) in enumerate(zip(record.steps, record.history, strict=True), 1):
        if step.policy_log_probabilities is not None:
            mu = demonstrator.predict(state)
            total += kl_step_nats(with_answers(Prediction(np.array(step.policy_log_probabilities)), mu), mu)
        elif step.chooser is Chooser.AGENT:
            raise InputError(f"step {position} holds no distribution, so no KL can be recomputed from it")
        state = demonstrator.advance(state, seen)
    return total


def episode_mean(values: Sequence[float]) -> EpisodeMean:
    """Mean, standard error and maximum over episodes; no error where it is undefined (one episode, an infinite one)."""
    mean, n = fsum(values) / len(values), len(values)
    error = float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 and isfinite(mean) else None
    return EpisodeMean(mean, error, n, max(values))


def _impossibilities(step: RecordedStep, limit_nats: float, spent_nats: float) -> Iterator[tuple[str, str]]:
    charge, left = step.kl_base_nats, step.left_nats
    if isnan(charge) or charge < 0 or (charge > 0 and step.chooser is Chooser.WORLD):
        yield "charge", f"the {step.chooser} is charged {charge:.6g} nats"
    due = inf if limit_nats == inf else max(0.0, limit_nats - spent_nats)
    if not (left == due or abs(left - due) <= TOLERANCE_NATS):
        yield "left", f"{left:.12g} nats are said to be left, the charges leave {due:.12g}"
    asked = step.chooser is Chooser.DEMONSTRATOR
    if not 0 <= step.asking_probability <= 1 or (asked and step.asking_probability == 0):
        yield "asking", f"the {step.chooser} chose, with an asking probability of {step.asking_probability:.6g}"


def _from_demonstrator(records: Sequence[Record], demonstrator: Model | None) -> tuple[list[float], Source]:
    """KL(system, demonstrator) of each record and where it comes from; an empty list where it is not measured."""
    if demonstrator is not None:
        return [kl_demonstrator_nats(record, demonstrator) for record in records], "recomputed"
    rows = [[step.kl_demonstrator_nats for step in record.steps] for record in records]
    known = [[value for value in row if value is not None] for row in rows]
    if any(len(some) < len(all_steps) for some, all_steps in zip(known, rows, strict=True)):
        return [], "not measured"
    return [fsum(row) for row in known], "as recorded"


def _words(summary: EpisodeMean | None, unit: str) -> str:
    if summary is None:
        return "not measured"
    error = "" if summary.standard_error is None else f" +- {summary.standard_error:.2g}"
    return f"mean {summary.mean:.6g}{error}, max {summary.max:.6g} {unit}".rstrip()
