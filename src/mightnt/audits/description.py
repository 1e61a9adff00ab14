"""How much there is to a behavior: bits of its turns under a fixed code, and the smallest policy that imitates it.

A behavior is a set of dialogues; what it chose are the assistant's turns, everything else is given. Both measures depend on how
many dialogues there are: compare sets of the same size, from the same world.
"""

from __future__ import annotations

import lzma
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mightnt.audits.results import Transcript
from mightnt.dialogues import Dialogue, Message, split_dialogues
from mightnt.errors import InputError
from mightnt.models.counts import IntArray, SuffixCounts, SuffixTable, fit_counts, suffixes_of
from mightnt.prediction import FloatArray

END, USER, ASSISTANT = range(3)
"""Symbols beside the units: the end of a turn, and whose turn begins."""
N_MARKS = 3
N_CHARACTERS = 0x110000
"""Unicode's code points."""
BLOCK = 2048
"""Rows predicted at once."""


@dataclass(frozen=True, slots=True)
class Units:
    """What turns are made of: the words of a known vocabulary, or characters where none is given."""

    vocabulary: tuple[str, ...] = ()
    """Words, separated by spaces in the text; empty: every character is a unit."""

    @property
    def n_symbols(self) -> int:
        """Units there could be, and the end of a turn: what a code has to choose among. Role marks are never chosen."""
        return 1 + (len(self.vocabulary) or N_CHARACTERS)

    def symbols(self, dialogue: Dialogue) -> tuple[list[int], list[bool]]:
        """``(symbols, chosen)`` of a dialogue: a role mark, the units and an end for each turn; the assistant's are chosen.

        Errors: :class:`~mightnt.errors.InputError` for a word that is not in the vocabulary.
        """
        numbers = {word: N_MARKS + i for i, word in enumerate(self.vocabulary)}
        symbols: list[int] = []
        chosen: list[bool] = []
        for message in dialogue:
            units = message.content.split() if numbers else list(message.content)
            unknown = [unit for unit in units if unit not in numbers] if numbers else []
            if unknown:
                raise InputError(f"{unknown[0]!r} is not among the {len(numbers)} words of the vocabulary")
            own = message.role == "assistant"
            turn = [numbers[unit] if numbers else N_MARKS + ord(unit) for unit in units]
            symbols += [ASSISTANT if own else USER, *turn, END]
            chosen += [False] + [own] * (len(turn) + 1)
        return symbols, chosen


@dataclass(frozen=True, slots=True)
class Code:
    """The fixed adaptive code: back-off over the last symbols, starting from nothing, learning from every chosen symbol.

    A chosen symbol x costs -log2 p_D(x) bits, where p_{-1}(x) = 1 / n_symbols and, with n_k(x) how often x was chosen so far
    after the last k symbols of its dialogue (whoever said them) and N_k their sum,
    p_k(x) = (n_k(x) + s p_{k-1}(x)) / (N_k + s), up to k = D or the beginning of the dialogue. Then x is counted.
    An arithmetic coder reaches this within two bits for the whole set.
    """

    units: Units
    depth: int = 8
    """D above: 8 words are about a turn; characters want some 32."""
    strength: float = 0.5
    """s above."""

    def __post_init__(self) -> None:
        if self.depth < 0 or not 0 < self.strength < math.inf:
            raise InputError(
                f"a code of depth {self.depth} and strength {self.strength}; at least 0 and above 0 are needed"
            )


@dataclass(frozen=True, slots=True)
class Description:
    """The size of what the assistant said in a set of dialogues, given all the rest."""

    dialogues: int
    turns: int
    tokens: int
    """Units of the assistant's turns, their ends included."""
    bits_by_dialogue: tuple[float, ...]
    """Under the code, in the order given: it learns, so later ones are shorter."""
    lzma_bits: int
    """Crude: LZMA2 (preset 9 extreme, no header) of the assistant's turns alone, a line each; not given the rest."""

    @property
    def bits(self) -> float:
        """Of the whole set, under the code."""
        return math.fsum(self.bits_by_dialogue)

    @property
    def bits_per_turn(self) -> float:
        """Mean over the assistant's turns; the figure to compare."""
        return self.bits / self.turns

    @property
    def bits_per_token(self) -> float:
        """Mean over units and ends."""
        return self.bits / self.tokens

    @property
    def lzma_bits_per_turn(self) -> float:
        """Mean over the assistant's turns."""
        return self.lzma_bits / self.turns

    def as_record(self) -> dict[str, Any]:
        """Plain numbers for a record."""
        names = ("dialogues", "turns", "tokens", "bits", "bits_per_turn", "bits_per_token", "lzma_bits_per_turn")
        return {name: getattr(self, name) for name in names}


def dialogue_of(transcript: Transcript, separator: str = " ", end: str = "<|end|>") -> Dialogue:
    """The words of a record's transcript; ``separator`` stands between tokens (none where they bring their own spaces)."""
    return tuple(
        Message(turn.speaker, separator.join(token.text for token in turn.tokens if token.text not in (end, "")))
        for turn in transcript.turns
    )


def describe(dialogues: Sequence[Dialogue], code: Code) -> Description:
    """Compressed size of the assistant's turns, given what went before each.

    Errors: :class:`~mightnt.errors.InputError` where nobody took an assistant's turn, and for words the code does not know.

    Kind: exact under the stated code: an upper bound of the description length up to a constant. Paper: complexity of
    behavior, section on experiments ("simpler"). Cost: depth look-ups a unit, some 50 000 units a second.
    """
    sequences = [code.units.symbols(dialogue) for dialogue in dialogues]
    n_turns = sum(message.role == "assistant" for dialogue in dialogues for message in dialogue)
    if not n_turns:
        raise InputError(f"{len(dialogues)} dialogue(s) hold no turn of an assistant; there is nothing to describe")
    return Description(
        dialogues=len(dialogues),
        turns=n_turns,
        tokens=sum(sum(chosen) for _, chosen in sequences),
        bits_by_dialogue=tuple(code_bits(sequences, code)),
        lzma_bits=lzma_bits(dialogues),
    )


def lzma_bits(dialogues: Sequence[Dialogue]) -> int:
    """Size of the assistant's turns, a line each, by LZMA2 (preset 9 extreme, no header)."""
    turns = (message.content for dialogue in dialogues for message in dialogue if message.role == "assistant")
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    return 8 * len(lzma.compress("".join(f"{turn}\n" for turn in turns).encode(), lzma.FORMAT_RAW, filters=filters))


def code_bits(sequences: Sequence[tuple[list[int], list[bool]]], code: Code) -> list[float]:
    """Bits of the chosen symbols of each sequence under the code, which learns from one to the next."""
    counts: dict[tuple[int, ...], dict[int, int]] = {}
    totals: dict[tuple[int, ...], int] = {}
    bits = []
    for symbols, chosen in sequences:
        spent = 0.0
        for place in (i for i, own in enumerate(chosen) if own):
            symbol, p = symbols[place], 1.0 / code.units.n_symbols
            contexts = [tuple(symbols[place - k : place]) for k in range(min(code.depth, place) + 1)]
            for context in contexts:
                if context not in totals:
                    break
                p = (counts[context].get(symbol, 0) + code.strength * p) / (totals[context] + code.strength)
            spent -= math.log2(p)
            for context in contexts:
                here = counts.setdefault(context, {})
                here[symbol] = here.get(symbol, 0) + 1
                totals[context] = totals.get(context, 0) + 1
        bits.append(spent)
    return bits


# The smallest policy that imitates a behavior


@dataclass(frozen=True, slots=True)
class Family:
    """Policies ordered by size: suffix counts of every depth up to a limit, each cut at several floors.

    A policy predicts by back-off (:mod:`mightnt.models.counts`) over suffixes of at most ``depth`` symbols that were seen at
    least ``floor`` times in the dialogues it is fitted to. Its size is the number of counts it keeps.
    """

    depths: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    floors: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    strength: float = 0.5


@dataclass(frozen=True, slots=True)
class Policy:
    """One member of the family and how well it imitates."""

    depth: int
    floor: int
    parameters: int
    held_out_nats_per_token: float


@dataclass(frozen=True, slots=True)
class SmallestPolicy:
    """The smallest policy within the given loss."""

    parameters: float
    """Its size; inf where no policy of the family is good enough."""
    low: float
    """Lower end of the interval for it: the bootstrap's quantile."""
    high: float
    target_nats_per_token: float
    """The loss it had to reach."""
    policy: Policy | None
    """Which it is."""
    family: tuple[Policy, ...]
    """Every policy tried."""

    def as_record(self) -> dict[str, Any]:
        """Plain numbers for a record, without the family."""
        return {name: value for name, value in asdict(self).items() if name != "family"}


def smallest_policy(
    dialogues: Sequence[Dialogue],
    units: Units,
    within_nats: float = 0.05,
    seed: int = 0,
    known_nats_per_token: float | None = None,
    family: Family | None = None,
    held_out_fraction: float = 0.3,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> SmallestPolicy:
    """The fewest counts with which a policy loses at most ``within_nats`` a token against the best, on held-out dialogues.

    The best is ``known_nats_per_token`` where the behavior's own loss (its entropy a token) is known; else the least loss in the
    family on the same held-out dialogues. The interval is the percentile bootstrap over held-out dialogues: the policies stay as
    fitted; the best, where it is not known, is found anew in each resample.

    Errors: :class:`~mightnt.errors.InputError` for fewer than ten dialogues, one without an assistant's turn, a loss that is no
    number above 0, more distinct units than suffixes of that depth can hold.

    Kind: estimate (upper bound on the size of the smallest imitator in the family). Paper: none. Cost: one fit of the deepest
    counts, and a prediction of the held-out tokens for each policy.
    """
    if not 0 < within_nats < math.inf or not 0 < confidence < 1 or resamples < 1:
        raise InputError(
            f"within {within_nats} nats, {resamples} resample(s), confidence {confidence}; all must be above 0, and a "
            "confidence below 1"
        )
    policies, losses, tokens = fitted_family(dialogues, units, family or Family(), held_out_fraction, seed)
    sizes = np.array([policy.parameters for policy in policies], dtype=np.float64)
    means = np.array([policy.held_out_nats_per_token for policy in policies])
    target = within_nats + (float(means.min()) if known_nats_per_token is None else known_nats_per_token)
    weights = np.random.default_rng(seed).multinomial(len(tokens), np.full(len(tokens), 1 / len(tokens)), resamples)
    redrawn = (losses @ weights.T) / (tokens @ weights.T)
    best = redrawn.min(axis=0) if known_nats_per_token is None else known_nats_per_token
    found = np.where(redrawn <= best + within_nats, sizes[:, None], np.inf).min(axis=0)
    ends = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf")
    good = [policy for policy in policies if policy.held_out_nats_per_token <= target]
    chosen = min(good, key=lambda policy: (policy.parameters, policy.held_out_nats_per_token), default=None)
    parameters = float(chosen.parameters) if chosen else math.inf
    return SmallestPolicy(parameters, float(ends[0]), float(ends[1]), target, chosen, tuple(policies))


def fitted_family(
    dialogues: Sequence[Dialogue], units: Units, family: Family, held_out_fraction: float, seed: int
) -> tuple[list[Policy], FloatArray, FloatArray]:
    """``(policies, their loss in nats on each held-out dialogue (policies, dialogues), chosen tokens of each (dialogues,))``."""
    if any(all(message.role != "assistant" for message in dialogue) for dialogue in dialogues):
        raise InputError("a dialogue holds no turn of an assistant; leave out those that show no behavior")
    fitted, held_out = split_dialogues(dialogues, held_out_fraction, seed)
    corpus, check = flatten([fitted, held_out], units)
    is_action = np.ones(corpus.n_symbols, dtype=bool)
    is_action[[USER, ASSISTANT]] = False
    counts = fit_counts(corpus.symbols, corpus.starts, corpus.chosen, is_action, max(family.depths), family.strength)
    tokens = np.add.reduceat(check.chosen.astype(np.float64), check.starts[:-1])
    policies, losses = [], []
    for depth, floor in product(family.depths, family.floors):
        policy = cut(counts, depth, floor)
        losses.append(loss_by_dialogue(policy, check))
        size = sum(len(table.counts) for table in policy.tables)
        policies.append(Policy(depth, floor, size, float(losses[-1].sum() / tokens.sum())))
    return policies, np.stack(losses), tokens


@dataclass(frozen=True, slots=True)
class Flat:
    """Dialogues end to end, with symbols numbered from 0 among those that occur."""

    symbols: IntArray
    starts: IntArray
    chosen: NDArray[np.bool_]
    n_symbols: int


def flatten(sets: Sequence[Sequence[Dialogue]], units: Units) -> list[Flat]:
    """Each set end to end; all share one numbering, in which marks keep their numbers."""
    pairs = [[units.symbols(dialogue) for dialogue in dialogues] for dialogues in sets]
    used = np.unique([symbol for pair in pairs for symbols, _ in pair for symbol in symbols if symbol >= N_MARKS])
    flat = []
    for pair in pairs:
        symbols = np.array([symbol for row, _ in pair for symbol in row], dtype=np.int64)
        numbered = np.where(symbols < N_MARKS, symbols, N_MARKS + np.searchsorted(used, symbols))
        starts = np.concatenate([[0], np.cumsum([len(row) for row, _ in pair])]).astype(np.int64)
        chosen = np.array([own for _, row in pair for own in row], dtype=bool)
        flat.append(Flat(numbered, starts, chosen, N_MARKS + len(used)))
    return flat


def cut(counts: SuffixCounts, depth: int, floor: int) -> SuffixCounts:
    """The same counts without suffixes longer than ``depth``, or (but for the empty one) seen less than ``floor`` times."""
    tables = [counts.tables[0]]
    for table in counts.tables[1 : depth + 1]:
        rows = np.flatnonzero(table.totals >= floor)
        _, entries = table.entries(rows)
        lengths = table.row_starts[rows + 1] - table.row_starts[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        tables.append(
            SuffixTable(table.keys[rows], starts, table.actions[entries], table.counts[entries], table.totals[rows])
        )
    return SuffixCounts(tuple(tables), counts.token_codes, counts.is_action, counts.strength)


def loss_by_dialogue(policy: SuffixCounts, check: Flat) -> FloatArray:
    """-log p of the chosen symbols of each dialogue, shape (dialogues,)."""
    places = np.flatnonzero(check.chosen)
    suffixes = suffixes_of(check.symbols, check.starts, max(1, policy.longest))
    losses = np.zeros(len(check.symbols))
    for first in range(0, len(places), BLOCK):
        here = places[first : first + BLOCK]
        losses[here] = -policy.predict(suffixes[here])[np.arange(len(here)), check.symbols[here]]
    return np.asarray(np.add.reduceat(losses, check.starts[:-1]))
