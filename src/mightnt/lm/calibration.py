"""What held-out demonstrations say: mixture weights, the cap and the support of the pessimistic base, the top-set level.

Two kinds of rule. A threshold that may touch a share of the demonstrator's turns is chosen by conformal risk control
(:func:`conformal_threshold`): a promise about new turns, from ranks alone. A level is chosen by whether the lower bounds
it gives are kept (:mod:`mightnt.audits.reliability`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mightnt.audits.reliability import CONFIDENCE, TOLERANCE_NATS, Independent, Reliability, Tally, reliability
from mightnt.errors import InputError
from mightnt.models.counts import SuffixCounts
from mightnt.prediction import FloatArray

IntArray = NDArray[np.int64]
Unit = Literal["turn", "dialogue"]
"""What is taken to be exchangeable: every turn with every other, or whole dialogues (fewer, and the safer assumption)."""
ROUNDING = 1e-9
"""What sums of shares may be off by."""


def mixture_log_weights(log_likelihood_nats: FloatArray, pseudo_dialogues: float = 1.0) -> FloatArray:
    """Log weights of members by maximum posterior over held-out dialogues, shape (members,).

    Each dialogue is taken to be written by one member: maximize sum_d log sum_i w_i p_i(d) + a sum_i log w_i by
    expectation maximization (a = ``pseudo_dialogues`` keeps every member in play).

    Args:
        log_likelihood_nats: log p_i(dialogue's actions), shape (dialogues, members).

    Kind: exact to 1e-10. Cost: dialogues x members a round.
    """
    n_dialogues, n_members = log_likelihood_nats.shape
    log_weights = np.full(n_members, -np.log(n_members))
    for _ in range(1000):
        joint = log_likelihood_nats + log_weights
        share = np.exp(joint - joint.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        weights = (share.sum(axis=0) + pseudo_dialogues) / (n_dialogues + pseudo_dialogues * n_members)
        moved = float(np.abs(np.log(weights) - log_weights).max())
        log_weights = np.log(weights)
        if moved < 1e-10:
            break
    return log_weights


def moved_log_weights(log_weights: FloatArray, log_likelihood_nats: FloatArray, n_before: float) -> FloatArray:
    """Log weights after more dialogues, one at a time, shape (members,): the same picture, without the old dialogues.

    The weights stand for ``n_before`` dialogues (pseudo-dialogues included), and each new one adds to every member the
    probability that this member wrote it: w_i <- (n w_i + w_i p_i(d) / sum_j w_j p_j(d)) / (n + 1).

    Args:
        log_likelihood_nats: log p_i(new dialogue's actions), shape (dialogues, members), in the order they came.

    Kind: estimate (one pass of expectation maximization; near its fixed point for many dialogues). Cost: dialogues x members.
    """
    moved = log_weights
    for n, row in enumerate(log_likelihood_nats):
        log_share = row + moved - np.logaddexp.reduce(row + moved)
        moved = np.logaddexp(np.log(n_before + n) + moved, log_share) - np.log(n_before + n + 1)
    return moved


def running_ratio_nats(log_ratios: FloatArray, episode: NDArray[np.int64]) -> FloatArray:
    """CUSUM S_t = max(0, S_{t-1} + log ratio_t), restarted at each episode; same shape as ``log_ratios``. NaN is refused."""
    if np.isnan(log_ratios).any():
        raise InputError("a held-out action has the log ratio NaN; a member says nothing possible of it")
    running = np.zeros_like(log_ratios)
    level = 0.0
    for i, ratio in enumerate(log_ratios):
        level = max(0.0, (level if i and episode[i] == episode[i - 1] else 0.0) + ratio)
        running[i] = level
    return running


def log_cap_nats(
    log_ratios: FloatArray, episode: NDArray[np.int64], turn: NDArray[np.int64], veto_rate: float
) -> float:
    """The smallest log c under which at most a share ``veto_rate`` of held-out turns is capped.

    A turn is capped when, following the demonstrator's own words, the running ratio network / counts exceeds c within it.
    What it promises of new turns is :func:`promised_rate`; a cap that promises ``veto_rate`` itself is
    :func:`conformal_log_cap`, one turn in n higher. The tighter one is the rule: a looser cap is less pessimistic.

    Args:
        log_ratios: log q(x) / P(x) of each held-out action, shape (actions,).
        episode, turn: which dialogue and which turn of it each action belongs to, shape (actions,).
        veto_rate: from 0 to 1.

    Kind: exact quantile of the held-out turns (an estimate for new ones). Cost: O(actions).
    """
    if not 0 <= veto_rate <= 1:
        raise InputError(f"the cap may touch a share {veto_rate} of turns; 0 to 1 is needed")
    scores = np.sort(worst_in_turn(running_ratio_nats(log_ratios, episode), episode, turn)[0])
    allowed = int(np.floor(veto_rate * len(scores) + ROUNDING))
    return float(scores[max(0, len(scores) - 1 - allowed)])


def worst_in_turn(values: FloatArray, dialogue: IntArray, turn: IntArray) -> tuple[FloatArray, IntArray]:
    """``(the largest value of each turn, the dialogue it belongs to)``, both of shape (turns,), in the order of the turns.

    Errors: :class:`~mightnt.errors.InputError` for no value.
    """
    if not len(values):
        raise InputError("no held-out action to choose a threshold on; hold out more demonstrations")
    fresh = np.ones(len(turn), dtype=bool)
    fresh[1:] = (turn[1:] != turn[:-1]) | (dialogue[1:] != dialogue[:-1])
    first = np.flatnonzero(fresh)
    return np.maximum.reduceat(values, first), np.asarray(dialogue[first], dtype=np.int64)


def promised_rate(n_turns: int, veto_rate: float) -> float:
    """What :func:`log_cap_nats` promises: a new turn is capped with probability (floor(veto_rate n) + 1) / (n + 1) at most.

    For turns that are exchangeable with the held-out ones (the new turn is as likely as any other to be among the
    floor(veto_rate n) + 1 worst of all n + 1). Tends to ``veto_rate``; 1 without a held-out turn.

    Kind: upper bound, exact where no two turns are alike. Paper: none (ranks). Cost: O(1).
    """
    return (math.floor(veto_rate * n_turns + ROUNDING) + 1) / (n_turns + 1)


@dataclass(frozen=True)
class Threshold:
    """A threshold chosen by conformal risk control, with what it promises."""

    value: float
    """The smallest that is certified; inf where none is."""
    rate: float
    """Share of turns that may be touched, on the mean over new units."""
    unit: Unit
    """What was taken to be exchangeable."""
    n_units: int
    """Held-out units."""
    touched: float
    """Share of the turns of a held-out unit that it touches, on the mean over them."""

    @property
    def certified(self) -> bool:
        """Whether a finite threshold keeps the rate."""
        return math.isfinite(self.value)

    @property
    def guarantee(self) -> str:
        """The promise in one sentence."""
        if not self.certified:
            return f"No finite threshold is certified: {self.warning}."
        promise = f"is touched at {self.value:.4g} with probability {100 * self.rate:.4g}% at most"
        whom = "A new turn" if self.unit == "turn" else "A random turn of a new dialogue"
        return f"{whom} {promise}, if the {self.unit} is exchangeable with the {self.n_units} held-out ones."

    @property
    def warning(self) -> str:
        """Why nothing, or little, is promised; empty where all is well."""
        if self.n_units < least_units(self.rate):
            return (
                f"{self.n_units} held-out {self.unit}s are too few to promise {100 * self.rate:.4g}%; "
                f"{least_units(self.rate)} or more are needed"
            )
        return "" if self.certified else "too many held-out turns are touched by every finite threshold"


def least_units(rate: float) -> int:
    """The least number of held-out units with which a share ``rate`` can be promised: 1 / rate - 1, rounded up."""
    return max(1, math.ceil(1.0 / rate - 1.0 - ROUNDING))


def conformal_threshold(
    scores: FloatArray, rate: float, dialogue: IntArray | None = None, unit: Unit = "turn"
) -> Threshold:
    """The smallest threshold above which, of a new unit's turns, a share ``rate`` lies at most, on the mean.

    A turn is touched when its score exceeds the threshold c, and a unit loses the share L(c) of its turns that are. With
    R(c) the mean of L over the n held-out units, c is the smallest with n R(c) / (n + 1) + 1 / (n + 1) <= rate; then
    E L(c) <= rate for a unit that is exchangeable with them. It is one of the scores, or inf.

    Args:
        scores: of the held-out turns, shape (turns,); inf allowed.
        rate: more than 0, at most 1.
        dialogue: of each turn, shape (turns,); needed where dialogues are the unit.

    Errors: :class:`~mightnt.errors.InputError` for no turns, a NaN, a rate of 0 or above 1.
    Kind: upper bound on the mean, in finite samples, up to rounding. Paper: Angelopoulos, Bates, Fisch, Lei, Schuster 2024
    (conformal risk control). Cost: a sort.
    """
    if not 0 < rate <= 1:
        raise InputError(f"a share {rate} of turns cannot be promised; more than 0 and at most 1 is needed")
    if not len(scores) or np.isnan(scores).any():
        raise InputError("no held-out turn to choose the threshold on, or one whose score is NaN")
    if unit not in get_args(Unit) or (unit == "dialogue" and dialogue is None):
        raise InputError(f"unit {unit!r}; allowed are turn, and dialogue where the dialogue of each turn is told")
    owner = np.arange(len(scores)) if unit == "turn" or dialogue is None else dialogue
    _, owner, sizes = np.unique(owner, return_inverse=True, return_counts=True)
    order = np.argsort(scores)[::-1]
    ordered, lost = scores[order], np.cumsum(1.0 / sizes[owner[order]])
    candidates, first = np.unique(-ordered, return_index=True)
    above = np.concatenate([[0.0], lost])[first]
    good = np.flatnonzero(above <= rate * (len(sizes) + 1) - 1 + ROUNDING)
    if not len(good):
        return Threshold(math.inf, rate, unit, len(sizes), 0.0)
    return Threshold(float(-candidates[good[-1]]), rate, unit, len(sizes), float(above[good[-1]] / len(sizes)))


def conformal_log_cap(
    log_ratios: FloatArray, dialogue: IntArray, turn: IntArray, rate: float, unit: Unit = "turn"
) -> Threshold:
    """The smallest log c, in nats, that caps a share ``rate`` of new turns at most; see :func:`conformal_threshold`.

    Arguments and what it is to be capped are those of :func:`log_cap_nats`. Inf, no cap, where too little is held out.
    """
    scores, owner = worst_in_turn(running_ratio_nats(log_ratios, dialogue), dialogue, turn)
    return conformal_threshold(scores, rate, owner, unit)


def conformal_ample(
    counts: SuffixCounts,
    suffixes: IntArray,
    actions: IntArray,
    dialogue: IntArray,
    turn: IntArray,
    rate: float,
    seen: int = 2,
    unit: Unit = "turn",
) -> Threshold:
    """The smallest ``Support.ample`` with which the support veto meets a share ``rate`` of new turns at most.

    ``seen`` stays as given. The larger ``ample``, the shorter the suffix that decides and the more tokens have support, so
    that the vetoes are nested and conformal risk control applies. Inf, no veto, where too little is held out.

    Args:
        suffixes: the last tokens before each held-out action, shape (actions, longest).
        actions: what the demonstrator chose, shape (actions,).

    Kind, errors: see :func:`conformal_threshold`. Cost: a search in the counts for each action and length.
    """
    scores, owner = worst_in_turn(last_vetoing_ample(counts, suffixes, actions, seen), dialogue, turn)
    found = conformal_threshold(scores, rate, owner, unit)
    return replace(found, value=found.value + 1)


def last_vetoing_ample(counts: SuffixCounts, suffixes: IntArray, actions: IntArray, seen: int) -> FloatArray:
    """The greatest ``Support.ample`` at which the veto takes each action, shape (actions,); 0 where none does.

    It is how often the shortest suffix was seen that the action followed less than ``seen`` times: a longer suffix was
    seen no oftener, and the action followed it no oftener.
    """
    vetoed = np.zeros(len(actions))
    for length, keys in enumerate(counts.keys(suffixes)):
        table = counts.tables[length]
        found, rows = table.find(keys)
        if not len(found):
            break
        of_row = np.repeat(np.arange(len(table.keys)), np.diff(table.row_starts))
        pairs, wanted = of_row * counts.n_symbols + table.actions, rows * counts.n_symbols + actions[found]
        place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
        times = np.where(pairs[place] == wanted, table.counts[place], 0.0)
        vetoed[found] = np.maximum(vetoed[found], np.where(times < seen, table.totals[rows], 0.0))
    return vetoed


@dataclass(frozen=True)
class LevelChoice:
    """Levels of the top set on held-out demonstrations, and the one that the rule takes."""

    curve: tuple[tuple[float, Reliability], ...]
    """Every level with how its lower bounds were kept; ascending. All intervals of the curve hold at once."""

    @property
    def level(self) -> float | None:
        """The greatest level whose lower bounds are surely kept; ``None`` where none is."""
        return max((level for level, found in self.curve if found.outcome == "holds"), default=None)

    @property
    def unrefuted(self) -> float | None:
        """The greatest level whose lower bounds are not refuted, which promises nothing; ``None`` where all are."""
        return max((level for level, found in self.curve if found.outcome != "fails"), default=None)

    @property
    def sentence(self) -> str:
        """The choice in words."""
        if self.level is not None:
            confidence = 100 * self.curve[0][1].confidence
            return f"Level {self.level:g}: the greatest whose lower bounds are kept ({confidence:.4g}% confidence, all levels)."
        if self.unrefuted is not None:
            return (
                f"No level is certified, the held-out set is too small; {self.unrefuted:g} is the greatest not refuted."
            )
        return "Every level is refuted: a member that is near the demonstrator is missing, or has too little weight."


def choose_level(
    tallies: Mapping[float, Tally],
    confidence: float = CONFIDENCE,
    tolerance_nats: float = TOLERANCE_NATS,
    independent: Independent = "nothing",
) -> LevelChoice:
    """``top_set_level``, from the tally of the minimum over the top set at each of some levels on held-out demonstrations.

    The rule: the greatest level whose lower bounds are kept. A smaller level listens to more members, is never less
    pessimistic and asks more. With probability ``confidence`` no bin of any level misleads (Bonferroni over both), so the
    choice needs no further correction.

    Errors: :class:`~mightnt.errors.InputError` for no level, a level of 0 or above 1, and as in
    :func:`~mightnt.audits.reliability.reliability`. Kind, cost: as there, for each level.
    """
    if not tallies or not all(0 < level <= 1 for level in tallies):
        raise InputError(f"levels {sorted(tallies)}; one or more are needed, each more than 0 and at most 1")
    found = {
        level: reliability(tallies[level], confidence, tolerance_nats, independent, len(tallies))
        for level in sorted(tallies)
    }
    return LevelChoice(tuple(found.items()))
