"""The exact posterior over every program of the switching language.

Two ways to the same numbers. Step by step (what planners do): every part of every program is looked up once and shared by
the programs it is a part of. A long history at once: a program's likelihood depends on the evidence only through how
often each rule was right while each combination of its events held, so these are counted, in packed bits, and the programs
gather the counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from mightnt.errors import InputError
from mightnt.history import Evidence, History, Step, is_evidence
from mightnt.models.switching.atoms import intention_column, intentions, log_hit_and_miss
from mightnt.models.switching.events import Alphabets, BoolArray, IntArray, Track, Watch, Whose
from mightnt.models.switching.programs import NONE, Programs, programs_up_to
from mightnt.prediction import FloatArray, Prediction

BLOCK_STEPS = 2**15
"""How many steps of a history are counted at once."""

Tracks = tuple[Track, Track]
"""What is remembered of the actions and of the observations."""


@dataclass(frozen=True, slots=True, eq=False)
class SwitchingState:
    """Where the two sequences stand, and how far every program is believed: log w(nu|h), shape (n_programs,), nats."""

    tracks: Tracks
    log_posterior: FloatArray


@dataclass(frozen=True, eq=False)
class SwitchingClass:
    """Every policy the language can write in so many bits, with prior weight 2^-length.

    w(nu | h) is as in :class:`~mightnt.models.finite.ModelClass`, and so are its uses: a mixture or a pessimistic base over
    this class is one over all its programs. The prior sums to less than one (longer programs are not listed) and is kept
    as it is until there is evidence. A round is an action and then an observation; a program predicts the action from what
    came before it.

    Args:
        programs: the table of programs and parts.
        listed: rows of the table that are members of the class, shape (n_programs,); the others are only parts.
        log_prior: their weights, nats.
        first: where the sequences stand at the start.

    Kind: exact (float64). Paper: the class of theorem 1, cut off at a length. Cost: a step takes a few gathers over all
    programs; :meth:`given` a pass over the history for each combination of events that fits into a program.
    """

    programs: Programs
    listed: IntArray
    log_prior: FloatArray
    first: Tracks

    @classmethod
    def up_to(cls, limit_bits: int, n_actions: int = 2, n_observations: int = 2) -> SwitchingClass:
        """The class of all programs of at most ``limit_bits`` bits.

        Errors: :class:`~mightnt.errors.InputError` for a limit that holds no program or more than memory does.
        """
        programs = programs_up_to(Alphabets(n_actions, n_observations), limit_bits)
        log_prior = -programs.bits * np.log(2.0)
        first = tuple(watch.start() for watch, _ in _watches(programs))
        return cls(programs, np.arange(len(programs)), log_prior, (first[0], first[1]))

    @property
    def n_symbols(self) -> int:
        """Number of actions."""
        return self.programs.alphabets.n_actions

    @cached_property
    def models(self) -> Members:
        """The programs, each an ordinary model."""
        return Members(self)

    @property
    def description_bits(self) -> IntArray:
        """Length of every program, shape (n_programs,)."""
        return self.programs.bits[self.listed]

    def text(self, index: int) -> str:
        """A program in words."""
        return self.programs.text(int(self.listed[index]))

    def code(self, index: int) -> str:
        """A program as a string of 0 and 1."""
        return self.programs.code(int(self.listed[index]))

    def start(self) -> SwitchingState:
        """Before the first step, believed as the prior says."""
        return SwitchingState(self.first, self.log_prior)

    def truth(self, tracks: Tracks) -> BoolArray:
        """Which of ``programs.events`` are true, shape (n_events,)."""
        truth = np.zeros(len(self.programs.events), dtype=bool)
        for track, (_, columns) in zip(tracks, self._watches, strict=True):
            truth[columns] = track.truth
        return truth

    def log_predictions(self, state: SwitchingState) -> FloatArray:
        """log nu(a|h) for every program and action, shape (n_programs, n_actions)."""
        intended = intentions(self.programs.alphabets, *_now(state.tracks))[0]
        is_hit = np.append(intended, NONE)[self._columns][:, None] == np.arange(self.n_symbols)
        log_hit, log_miss = self._log_hit_and_miss
        by_atom = np.where(is_hit, log_hit[:, None], log_miss[:, None])
        return by_atom[self.programs.in_force(self.truth(state.tracks))[self.listed]]

    def advance(self, state: SwitchingState, step: Step, evidence: Evidence) -> SwitchingState:
        """The sequences move on; the posterior moves only if ``step`` is evidence under the rule ``evidence``."""
        tracks = self.follow(state.tracks, step)
        if not is_evidence(step, evidence):
            return SwitchingState(tracks, state.log_posterior)
        log_joint = state.log_posterior + self.log_predictions(state)[:, step.symbol]
        return SwitchingState(tracks, _normalized(log_joint))

    def follow(self, tracks: Tracks, step: Step) -> Tracks:
        """The two sequences after ``step``."""
        which = 0 if step.is_action else 1
        watch, _ = self._watches[which]
        if not 0 <= step.symbol < watch.size:
            raise InputError(f"the {list(Whose)[which]} {step.symbol} is none of 0..{watch.size - 1}")
        moved = watch.advance(tracks[which], np.array([step.symbol]))[1]
        return (moved, tracks[1]) if which == 0 else (tracks[0], moved)

    def given(self, history: History, evidence: Evidence = "demonstrated") -> SwitchingClass:
        """The class as it stands after ``history``: its prior is the posterior, and refuted programs are gone.

        nu'(x | h) = nu(x | history h). Says the same as following ``history`` step by step, in a small part of the time.

        Kind: exact (float64). Cost: O(history / 64) for each of the combinations of events that fit into a program
        together, and one gather for each program, every :data:`BLOCK_STEPS` steps.
        """
        tracks, log_joint, any_evidence = self.first, self.log_prior, False
        for begin in range(0, len(history), BLOCK_STEPS):
            tally, tracks = self._tally(tracks, history[begin : begin + BLOCK_STEPS], evidence)
            if tally.mask.any():
                any_evidence = True
                log_joint = log_joint + tally.log_likelihoods()[self.listed]
        if not any_evidence:
            return replace(self, first=tracks)
        log_posterior = _normalized(log_joint)
        return replace(self, log_prior=log_posterior, first=tracks)._living()

    def only(self, indices: Sequence[int] | IntArray) -> SwitchingClass:
        """The class of these programs alone, with the weights they have here."""
        chosen = self.listed[np.asarray(indices, dtype=np.int64)]
        rows = self.programs.parts(chosen)
        listed = np.searchsorted(rows, chosen)
        return replace(self, programs=self.programs.only(rows), listed=listed, log_prior=self.log_prior[indices])

    def _living(self) -> SwitchingClass:
        alive = np.flatnonzero(self.log_prior > -np.inf)
        return self.only(alive) if 0 < len(alive) < len(self.listed) else self

    @cached_property
    def _watches(self) -> tuple[tuple[Watch, IntArray], tuple[Watch, IntArray]]:
        return _watches(self.programs)

    @cached_property
    def _columns(self) -> IntArray:
        return np.array([intention_column(atom, self.n_symbols) for atom in self.programs.atoms], dtype=np.int64)

    @cached_property
    def _log_hit_and_miss(self) -> tuple[FloatArray, FloatArray]:
        return log_hit_and_miss(self.programs.atoms, self.n_symbols)

    def _tally(self, tracks: Tracks, history: History, evidence: Evidence) -> tuple[Tally, Tracks]:
        """What is to be counted in ``history``, and where it leads."""
        is_action = np.array([step.is_action for step in history], dtype=bool)
        symbols = np.array([step.symbol for step in history], dtype=np.int64)
        counts = np.array([is_evidence(step, evidence) for step in history], dtype=bool)[is_action]
        n_before = np.cumsum(~is_action)[is_action]  # observations before each action
        truth = np.zeros((len(counts), len(self.programs.events)), dtype=bool)
        moved, last = [], []
        for which, (watch, columns) in enumerate(self._watches):
            told = symbols[is_action == (which == 0)]
            if ((told < 0) | (told >= watch.size)).any():
                raise InputError(f"a history holds an {list(Whose)[which]} that is none of 0..{watch.size - 1}")
            rows, track = watch.advance(tracks[which], told)
            at = np.arange(len(counts)) if which == 0 else n_before
            truth[:, columns] = rows[at]
            last.append(np.append(tracks[which].recent[-1], told)[at])
            moved.append(track)
        times = tracks[0].length + np.arange(len(counts))
        right = intentions(self.programs.alphabets, times, *last) == symbols[is_action][:, None]
        log_hit, log_miss = self._log_hit_and_miss
        packed = (_packed(counts[:, None])[0], _packed(truth), _packed(right))
        return Tally(self.programs, self._columns, log_hit, log_miss, *packed), (moved[0], moved[1])


@dataclass(frozen=True, eq=False)
class Tally:
    """What the likelihood of every program is made of, in packed bits, one bit a step.

    ``mask``: the steps that are evidence, shape (n_words,); ``truth``: which events held, (n_events, n_words); ``right``:
    which intentions came true, (n_intentions, n_words). ``columns``, ``log_hit`` and ``log_miss`` are per atom.
    """

    programs: Programs
    columns: IntArray
    log_hit: FloatArray
    log_miss: FloatArray
    mask: NDArray[np.uint64]
    truth: NDArray[np.uint64]
    right: NDArray[np.uint64]

    def log_likelihoods(self) -> FloatArray:
        """log of the product of nu(a_t|h_<t) over the evidence, for every row of the table; shape (n_programs,)."""
        return self._within(self.mask, int(self.programs.bits.max()))

    @cached_property
    def switches(self) -> list[tuple[int, int, IntArray]]:
        """For each event that heads a program: (event, its bits, the programs it heads), by the first of these."""
        heads = np.argsort(self.programs.event, kind="stable")
        events, first = np.unique(self.programs.event[heads], return_index=True)
        groups = np.split(heads, first[1:])
        found = [(int(event), rows) for event, rows in zip(events, groups, strict=True) if event != NONE]
        found.sort(key=lambda pair: int(pair[1][0]))
        return [(event, int(self.programs.event_bits[event]), rows) for event, rows in found]

    def _within(self, mask: NDArray[np.uint64], max_bits: int) -> FloatArray:
        """The same over the steps in ``mask``, for the programs of at most ``max_bits`` bits.

        A switch earns what its first part earns where its event holds plus what its second part earns where not.
        """
        programs = self.programs
        n = int(np.searchsorted(programs.bits, max_bits, side="right"))
        total = np.zeros(n)
        if n == 0 or not mask.any():
            return total
        of_atoms = np.flatnonzero(programs.atom[:n] != NONE)
        total[of_atoms] = self._of_atoms(mask)[programs.atom[of_atoms]]
        for event, event_bits, rows in self.switches:
            if rows[0] >= n:
                break
            heads = rows[: np.searchsorted(rows, n)]
            room = max_bits - 1 - event_bits - int(programs.bits[0])
            then, otherwise = (self._within(mask & held, room) for held in (self.truth[event], ~self.truth[event]))
            total[heads] = then[programs.then[heads]] + otherwise[programs.otherwise[heads]]
        return total

    def _of_atoms(self, mask: NDArray[np.uint64]) -> FloatArray:
        """hits log(1 - slip) + misses log(slip / (n - 1)) of every atom over the steps in ``mask``; 0 log 0 is 0."""
        n_steps = np.bitwise_count(mask).sum(dtype=np.int64)
        right = np.bitwise_count(mask & self.right).sum(axis=1, dtype=np.int64)
        hits = np.append(right, n_steps)[self.columns]  # uniform, column -1, hits always
        misses = n_steps - hits
        total = np.zeros(len(hits))
        for count, logs in ((hits, self.log_hit), (misses, self.log_miss)):
            total += np.multiply(count, logs, where=count > 0, out=np.zeros(len(hits)))
        return total


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """One program as an ordinary model; its state is what is remembered of the two sequences."""

    of_class: SwitchingClass
    """The class of this program alone."""

    @property
    def n_symbols(self) -> int:
        """Number of actions."""
        return self.of_class.n_symbols

    @property
    def description_bits(self) -> int:
        """Its length."""
        return int(self.of_class.description_bits[0])

    def __str__(self) -> str:
        return self.of_class.text(0)

    def start(self) -> Tracks:
        """Where the sequences stand at the start of its class."""
        return self.of_class.first

    def predict(self, state: Tracks) -> Prediction:
        """The atom in force predicts."""
        return Prediction(self.of_class.log_predictions(SwitchingState(state, self.of_class.log_prior))[0])

    def advance(self, state: Tracks, step: Step) -> Tracks:
        """The sequences move on."""
        return self.of_class.follow(state, step)


class Members(Sequence[Program]):
    """The programs of a class as models, made when asked for."""

    def __init__(self, of_class: SwitchingClass) -> None:
        self._of_class = of_class

    def __len__(self) -> int:
        return len(self._of_class.listed)

    @overload
    def __getitem__(self, index: int) -> Program: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Program]: ...
    def __getitem__(self, index: int | slice) -> Program | Sequence[Program]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"program {index} of {len(self)}")
        return Program(self._of_class.only([index % len(self)]))


def _watches(programs: Programs) -> tuple[tuple[Watch, IntArray], tuple[Watch, IntArray]]:
    """The events about each sequence, and where they stand among all events."""

    def watch(whose: Whose) -> tuple[Watch, IntArray]:
        columns = [i for i, event in enumerate(programs.events) if event.whose is whose]
        events = tuple(programs.events[i] for i in columns)
        return Watch(programs.alphabets.size(whose), events), np.array(columns, dtype=np.int64)

    return watch(Whose.ACTIONS), watch(Whose.OBSERVATIONS)


def _now(tracks: Tracks) -> tuple[IntArray, IntArray, IntArray]:
    """The time, the last action and the last observation, as rows of one."""
    actions, observations = tracks
    return np.array([actions.length]), actions.recent[-1:], observations.recent[-1:]


def _normalized(log_joint: FloatArray) -> FloatArray:
    """log_joint - log sum; left at -inf where nothing is possible."""
    best = float(log_joint.max())
    if best == -np.inf:
        return log_joint
    return np.asarray(log_joint - (best + np.log(np.exp(log_joint - best).sum())))


def _packed(flags: BoolArray) -> NDArray[np.uint64]:
    """Columns of flags, shape (n_steps, n), as rows of bits, shape (n, ceil(n_steps / 64)); the rest is 0."""
    padded = np.zeros((-(-len(flags) // 64) * 64, flags.shape[1]), dtype=bool)
    padded[: len(flags)] = flags
    return np.ascontiguousarray(np.packbits(padded, axis=0).T).view(np.uint64)
