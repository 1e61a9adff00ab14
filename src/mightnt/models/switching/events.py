"""The events a program can ask about, what each costs in bits, and watching many of them at once.

    event  ::=  00 gamma(j+1)                the time is at least 2^j: that many actions lie in the past
             |  01 whose gamma(r-1)          a run of r equal symbols has occurred, r >= 2
             |  10 whose gamma(|w|) w        the word w has occurred
             |  11 whose gamma(|w|) w        the last symbols are w
    whose  ::=  0 actions  |  1 observations

gamma(n) is Elias' code of n >= 1: as many zeros as n has binary digits after the first, then n in binary. A symbol of an
alphabet of size s takes ceil(log2 s) bits. No event's code begins another's. The first three kinds, once true, stay
true; the last comes and goes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mightnt.errors import InputError
from mightnt.prediction import FloatArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


class Whose(StrEnum):
    """Which of the two sequences of a history."""

    ACTIONS = "action"
    OBSERVATIONS = "observation"


class Kind(StrEnum):
    """What is asked of it."""

    TIME = "time"
    RUN = "run"
    SEEN = "seen"
    LAST = "last"


KIND_CODES = {Kind.TIME: "00", Kind.RUN: "01", Kind.SEEN: "10", Kind.LAST: "11"}
WHOSE_CODES = {Whose.ACTIONS: "0", Whose.OBSERVATIONS: "1"}


@dataclass(frozen=True, slots=True)
class Alphabets:
    """How many actions and how many observations there are."""

    n_actions: int
    n_observations: int

    def __post_init__(self) -> None:
        if self.n_actions < 2 or self.n_observations < 1:
            raise InputError(
                f"got {self.n_actions} action(s) and {self.n_observations} observation(s); "
                "at least two actions and one observation are needed"
            )

    def size(self, whose: Whose) -> int:
        """Size of one of the two alphabets."""
        return self.n_actions if whose is Whose.ACTIONS else self.n_observations


@dataclass(frozen=True, slots=True)
class Event:
    """Something that may have happened.

    ``number`` is j of "the time is at least 2^j" and r of "a run of r"; ``word`` is w of the other two kinds. Of time,
    ``whose`` is the actions.
    """

    kind: Kind
    whose: Whose = Whose.ACTIONS
    number: int = 0
    word: tuple[int, ...] = ()

    def code(self, alphabets: Alphabets) -> str:
        """Its prefix-free code, a string of 0 and 1."""
        head = KIND_CODES[self.kind]
        if self.kind is Kind.TIME:
            return head + gamma(self.number + 1)
        head += WHOSE_CODES[self.whose]
        if self.kind is Kind.RUN:
            return head + gamma(self.number - 1)
        size = alphabets.size(self.whose)
        return head + gamma(len(self.word)) + "".join(symbol_code(symbol, size) for symbol in self.word)

    @property
    def is_for_ever(self) -> bool:
        """Whether it stays true once it is."""
        return self.kind is not Kind.LAST

    def __str__(self) -> str:
        word = " ".join(map(str, self.word))
        many = "s" if len(self.word) > 1 else ""
        return {
            Kind.TIME: f"time >= 2^{self.number}",
            Kind.RUN: f"{self.number} equal {self.whose}s in a row have occurred",
            Kind.SEEN: f"{self.whose}{many} {word} {'have' if many else 'has'} occurred",
            Kind.LAST: f"the last {self.whose}{many} {'are' if many else 'is'} {word}",
        }[self.kind]


def gamma(number: int) -> str:
    """Elias' gamma code of a number >= 1: 2 floor(log2 n) + 1 bits."""
    if number < 1:
        raise InputError(f"the gamma code begins at 1, got {number}")
    binary = f"{number:b}"
    return "0" * (len(binary) - 1) + binary


def gamma_bits(number: int) -> int:
    """Length of :func:`gamma`."""
    return 2 * number.bit_length() - 1


def symbol_code(symbol: int, size: int) -> str:
    """A symbol in ceil(log2 size) bits; nothing where there is only one."""
    bits = (size - 1).bit_length()
    return f"{symbol:0{bits}b}" if bits else ""


def n_events_by_bits(alphabets: Alphabets, max_bits: int) -> dict[int, int]:
    """How many events have each length up to ``max_bits``, without writing them out."""
    counts: dict[int, int] = {}
    for digits in range(1, max(0, (max_bits - 1) // 2) + 1):  # 2^(digits - 1) numbers have gamma codes of this length
        one_symbol = [2 for whose in Whose if alphabets.size(whose) == 1]  # a word of n equal symbols costs gamma(n)
        for bits, kinds in ((2 * digits + 1, 1), (2 * digits + 2, 2 + sum(one_symbol))):
            counts[bits] = counts.get(bits, 0) + kinds * 2 ** (digits - 1)
    for size in (size for whose in Whose if (size := alphabets.size(whose)) > 1):
        for length, bits in word_lengths(size, max_bits):
            counts[bits] = counts.get(bits, 0) + 2 * size**length
    return {bits: n for bits, n in sorted(counts.items()) if bits <= max_bits}


def events_up_to(alphabets: Alphabets, max_bits: int) -> tuple[Event, ...]:
    """Every event whose code has at most ``max_bits`` bits, the shortest first, then in the order of the codes."""
    found = [
        (len(code), code, event)
        for event in _candidates(alphabets, max_bits)
        if len(code := event.code(alphabets)) <= max_bits
    ]
    return tuple(event for _, _, event in sorted(found, key=lambda entry: entry[:2]))


def _candidates(alphabets: Alphabets, max_bits: int) -> Iterator[Event]:
    """Events among which all of at most ``max_bits`` bits are."""
    largest = 2 ** max(0, (max_bits - 1) // 2)
    yield from (Event(Kind.TIME, number=j) for j in range(largest))
    for whose in Whose:
        yield from (Event(Kind.RUN, whose, r) for r in range(2, largest + 2))
        size = alphabets.size(whose)
        for length, _ in word_lengths(size, max_bits):
            for word in itertools.product(range(size), repeat=length):
                yield from (Event(kind, whose, word=word) for kind in (Kind.SEEN, Kind.LAST))


def word_lengths(size: int, max_bits: int) -> Iterator[tuple[int, int]]:
    """Pairs (length of a word, bits of an event about it) as far as ``max_bits`` reaches."""
    bits_a_symbol = (size - 1).bit_length()
    bits = ((length, 3 + gamma_bits(length) + length * bits_a_symbol) for length in itertools.count(1))
    return itertools.takewhile(lambda pair: pair[1] <= max_bits, bits)


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One sequence so far: its length, its last symbols (newest last), its current run, and which events are true."""

    length: int
    recent: IntArray
    run: int
    truth: BoolArray


@dataclass(frozen=True, eq=False)
class Watch:
    """Events about one sequence, watched together.

    Kind: exact. Cost: for n symbols and e events n * e bytes and as many comparisons.
    """

    size: int
    """Size of the alphabet of the sequence."""
    events: tuple[Event, ...]

    @cached_property
    def longest(self) -> int:
        """Length of the longest word asked about; at least 1."""
        return max((len(event.word) for event in self.events), default=0) or 1

    @cached_property
    def for_ever(self) -> BoolArray:
        """Which events stay true once they are, shape (n_events,)."""
        return np.array([event.is_for_ever for event in self.events], dtype=bool)

    @cached_property
    def thresholds(self) -> tuple[IntArray, FloatArray, IntArray, IntArray]:
        """(columns, 2^j) of the events about time, (columns, r) of those about runs."""
        times = [i for i, event in enumerate(self.events) if event.kind is Kind.TIME]
        runs = [i for i, event in enumerate(self.events) if event.kind is Kind.RUN]
        at_least = np.array([2.0 ** min(self.events[i].number, 1000) for i in times])
        in_a_row = np.array([self.events[i].number for i in runs], dtype=np.int64)
        return np.array(times, dtype=np.int64), at_least, np.array(runs, dtype=np.int64), in_a_row

    @cached_property
    def words(self) -> tuple[tuple[IntArray, IntArray], ...]:
        """For each length 1, 2, ...: (columns, words as numbers) of the events about words of this length."""
        by_length: list[list[int]] = [[] for _ in range(self.longest + 1)]
        for index, event in enumerate(self.events):
            by_length[len(event.word)].append(index)
        numbers = [[number_of(self.events[i].word, self.size) for i in columns] for columns in by_length]
        pairs = zip(by_length[1:], numbers[1:], strict=True)
        return tuple((np.array(i, dtype=np.int64), np.array(n, dtype=np.int64)) for i, n in pairs)

    def start(self) -> Track:
        """Before the first symbol; no event is true yet."""
        return Track(0, np.zeros(self.longest, dtype=np.int64), 0, np.zeros(len(self.events), dtype=bool))

    def advance(self, track: Track, symbols: IntArray) -> tuple[BoolArray, Track]:
        """Which events are true before the first of ``symbols`` and after each, shape (n + 1, n_events); the new track."""
        n = len(symbols)
        padded = np.concatenate([track.recent, symbols])
        lengths = track.length + np.arange(1, n + 1)
        runs = run_lengths(symbols, int(track.recent[-1]) if track.length else None, track.run)
        truth = np.zeros((n + 1, len(self.events)), dtype=bool)
        truth[0] = track.truth
        times, at_least, in_runs, in_a_row = self.thresholds
        truth[1:, times] = lengths[:, None] >= at_least
        truth[1:, in_runs] = runs[:, None] >= in_a_row
        suffix = np.zeros(n, dtype=np.int64)
        for length, (columns, words) in enumerate(self.words, start=1):
            begin = self.longest - length + 1
            suffix = suffix + padded[begin : begin + n] * self.size ** (length - 1)
            truth[1:, columns] = (suffix[:, None] == words) & (lengths >= length)[:, None]
        truth[:, self.for_ever] = np.logical_or.accumulate(truth[:, self.for_ever], axis=0)
        run = int(runs[-1]) if n else track.run
        return truth, Track(track.length + n, padded[-self.longest :], run, truth[-1].copy())


def number_of(word: Sequence[int], size: int) -> int:
    """A word as a number in base ``size``, its last symbol the lowest digit."""
    value = 0
    for symbol in word:
        value = value * size + symbol
    return value


def run_lengths(symbols: IntArray, before: int | None, run: int) -> IntArray:
    """How long the run of equal symbols is that ends at each symbol; ``run`` symbols ``before`` came first."""
    if not len(symbols):
        return np.zeros(0, dtype=np.int64)
    fresh = np.ones(len(symbols), dtype=bool)
    fresh[1:] = symbols[1:] != symbols[:-1]
    place = np.arange(len(symbols))
    lengths = place - np.maximum.accumulate(np.where(fresh, place, 0)) + 1
    if before is not None and symbols[0] == before:
        other = np.flatnonzero(fresh[1:])
        lengths[: int(other[0]) + 1 if len(other) else len(symbols)] += run
    return lengths
