"""The mixture over all programs of the machine, as a model: what comes next, which programs say so, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mightnt.errors import InputError
from mightnt.history import Chooser, Evidence, Step, is_evidence
from mightnt.models.finite import ModelClass, top_set
from mightnt.models.machine.enumeration import (
    MAX_SIDE_CELLS,
    bit_string,
    check_alphabet,
    check_limits,
    compiled_machine,
)
from mightnt.models.machine.instructions import run_program
from mightnt.prediction import FloatArray, Model, Prediction

Frontier: TypeAlias = tuple[Any, Any, Any]

NOTHING = -1
"""In the compiled machine: any symbol will do; there is no observation."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that is still believed: its bits, and log w(program | h) in nats."""

    bits: str
    log_posterior: float


@dataclass(frozen=True, eq=False)
class MachineState:
    """The programs that have written every action of the history, each where it stands.

    Without ``slots``: the programs one symbol on are computed once, when they are first asked for.
    """

    machine: UniversalMachine
    frontier: Frontier
    """As in the compiled machine: registers and code a row, where its cells begin, the cells."""
    lost: FloatArray
    """Mass of the programs that never came so far though they wrote nothing else: cut by bits, by steps, looping."""
    log_share: float
    """log of the share of the belief at the last evidence that has written what the agent did since then."""

    @property
    def n_programs(self) -> int:
        """How many minimal programs for this history were found."""
        return len(self.frontier[0])

    @property
    def n_bits(self) -> NDArray[np.int64]:
        """The length of each."""
        return np.asarray(self.frontier[0][:, compiled_machine().N_BITS], np.int64)

    @property
    def mass(self) -> float:
        """M(h) as found: a lower bound."""
        return float((0.5**self.n_bits).sum())

    @cached_property
    def ahead(self) -> tuple[Frontier, FloatArray]:
        """The programs after their next symbol, whatever it is, and the mass lost on the way."""
        return self.machine.extended(self.frontier, [NOTHING], [NOTHING])

    @cached_property
    def masses_ahead(self) -> FloatArray:
        """M(hx) for every next symbol x, shape (n_symbols,)."""
        frontier, compiled = self.ahead[0], compiled_machine()
        symbols, lengths = frontier[0][:, compiled.LAST], frontier[0][:, compiled.N_BITS]
        return np.asarray(np.bincount(symbols, 0.5**lengths, minlength=self.machine.n_symbols), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class UniversalMachine:
    """The Bayes mixture over all programs of the machine within limits, by the prior 2^-length.

    With M(a_1:t || o_1:t) the mass of the programs that write a_1:t when they look at o_1:t,
    xi(a | h) = share * M(h a) / M(h). It is a semimeasure: what is missing was written by no program found, because it
    loops, needs more bits or is silent for too long; nothing vouches for it.

    A program is a policy: it writes actions, and its instruction ``?`` sees the last observation; observations are
    conditioned on. Where nobody else speaks it is a predictor of sequences, and ``?`` gives 0. A program that wrote
    another action than the history holds predicts nothing more, whoever chose that action. ``share`` is then what the rule
    of ``evidence`` decides: with ``all`` every action is evidence, the belief goes to those who said it, and share = 1;
    with ``demonstrated`` an action of the agent moves no belief, so share is the part of the belief that had said what
    the agent did since the last demonstrated action.

    Args:
        max_bits, max_silent_steps: L and T, as in :class:`~mightnt.models.machine.enumeration.Limits`. M grows with both.
        max_programs: more programs alive at once are refused, with :class:`~mightnt.errors.InputError`.

    Kind: exact for the programs within the limits; :meth:`interval` bounds the machine without limits. Paper: xi over the
    programs of a universal machine. Cost: all programs to ``max_bits`` until their first symbol, later only the survivors.
    """

    n_symbols: int = 2
    max_bits: int = 15
    max_silent_steps: int = 1000
    evidence: Evidence = "all"
    max_programs: int = 1_000_000

    def __post_init__(self) -> None:
        check_alphabet(self.n_symbols)
        check_limits(self.max_bits, self.max_silent_steps)
        is_evidence(Step(0, Chooser.AGENT), self.evidence)
        if self.max_programs < 1:
            raise InputError(f"{self.max_programs} programs; at least 1 is needed")

    def start(self) -> MachineState:
        """One program, the empty one: nothing was read, nothing written."""
        compiled = compiled_machine()
        row = compiled.new_machine(self._n_cells)
        frontier = (row[None, :], np.array([0, 1]), np.zeros(1, np.uint8))
        return MachineState(self, frontier, np.zeros(3), 0.0)

    def predict(self, state: MachineState) -> Prediction:
        """xi( . |h), never renormalized; nothing after a history that no program found wrote."""
        if state.n_programs == 0:
            return Prediction(np.full(self.n_symbols, -np.inf))
        with np.errstate(divide="ignore"):
            return Prediction(np.log(state.masses_ahead) - np.log(state.mass) + state.log_share)

    def advance(self, state: MachineState, step: Step) -> MachineState:
        """The programs that wrote the action stay; an observation is seen by all."""
        self._check(step)
        if not step.is_action:
            return self._observing(state, step.symbol)
        frontier, lost = state.ahead
        kept = _of_these(frontier, frontier[0][:, compiled_machine().LAST] == step.symbol)
        share = 0.0
        if not is_evidence(step, self.evidence) and state.n_programs:
            with np.errstate(divide="ignore"):
                share = state.log_share + float(np.log(state.masses_ahead[step.symbol]) - np.log(state.mass))
        return MachineState(self, kept, state.lost + lost, share)

    def after(self, state: MachineState, steps: Sequence[Step]) -> MachineState:
        """As advancing by every step in turn, but with each program run through all evidence at once: fast and lean."""
        position = 0
        while position < len(steps):
            end = position
            while end < len(steps) and (not steps[end].is_action or is_evidence(steps[end], self.evidence)):
                end += 1
            if end > position:
                state = self._through(state, steps[position:end])
            if end < len(steps):
                state = self.advance(state, steps[end])
            position = end + 1
        return state

    def interval(self, state: MachineState) -> tuple[float, float]:
        """Between what M(h) of the machine without limits lies: found, and found plus what the limits cut."""
        return state.mass, state.mass + float(state.lost[:2].sum())

    def programs(self, state: MachineState) -> list[Program]:
        """The minimal programs for the history, the shortest first; their posterior sums to one.

        With evidence ``demonstrated`` it is the posterior of those that also wrote the agent's actions.
        """
        rows, compiled = state.frontier[0], compiled_machine()
        order = np.lexsort((rows[:, compiled.BITS], rows[:, compiled.N_BITS]))
        log_mass = np.log(state.mass) if len(order) else 0.0
        return [
            Program(
                bit_string(int(row[compiled.BITS]), int(row[compiled.N_BITS])),
                float(-row[compiled.N_BITS] * np.log(2) - log_mass),
            )
            for row in rows[order]
        ]

    def top_programs(self, state: MachineState, level: float) -> list[Program]:
        """The programs of the top set at this level, see :func:`~mightnt.models.finite.top_set`."""
        programs = self.programs(state)
        if not programs:
            return []
        return [programs[i] for i in top_set(np.array([program.log_posterior for program in programs]), level)]

    def shortest_found_bits(self, state: MachineState) -> float:
        """K_L(h): length of the shortest program found; ``inf`` for none. Kind: upper bound on the description length."""
        return float(state.n_bits.min()) if state.n_programs else float("inf")

    def as_class(self, state: MachineState, max_models: int = 1000) -> ModelClass:
        """The shortest programs for the history as a class of models with the prior 2^-length, for pessimism.

        Each program is one model and predicts one action for certain, or nothing where it needs more bits or time. A
        minimum over a top set of them is 1 where all agree and 0 where not: pessimism over single programs asks as soon as
        two believed programs differ.
        """
        programs = self.programs(state)[:max_models]
        if not programs:
            raise InputError("no program found wrote this history; a class needs at least one")
        models: list[Model] = [ProgramModel(p.bits, self.n_symbols, self.max_silent_steps) for p in programs]
        return ModelClass(models, np.array([-len(p.bits) * np.log(2) for p in programs]))

    def extended(self, frontier: Frontier, must: Sequence[int], sees: Sequence[int]) -> tuple[Frontier, FloatArray]:
        """A frontier after the symbols ``must`` (-1: any), with the observation ``sees`` after each (-1: none); mass lost."""
        limits = (self.n_symbols, self.max_bits, self.max_silent_steps, self.max_programs, self._n_cells)
        new, lost, _, fits = compiled_machine().extend(
            frontier, limits, np.array(must, np.int64), np.array(sees, np.int64)
        )
        if not fits:
            raise InputError(
                f"more than {self.max_programs} programs are alive; take fewer bits or allow more programs"
            )
        return new, lost

    @property
    def _n_cells(self) -> int:
        return 2 * MAX_SIDE_CELLS + 1

    def _check(self, step: Step) -> None:
        if not 0 <= step.symbol < self.n_symbols:
            kind = "action" if step.is_action else "observation"
            raise InputError(f"the {kind} {step.symbol} is none of 0..{self.n_symbols - 1}")

    def _observing(self, state: MachineState, symbol: int) -> MachineState:
        rows = state.frontier[0].copy()
        rows[:, compiled_machine().SEEN] = symbol
        return MachineState(self, (rows, *state.frontier[1:]), state.lost, state.log_share)

    def _through(self, state: MachineState, steps: Sequence[Step]) -> MachineState:
        """After steps all of which are evidence or observations."""
        for step in steps:
            self._check(step)
        actions = [i for i, step in enumerate(steps) if step.is_action]
        ends = [*actions[1:], len(steps)]
        for step in steps[: actions[0] if actions else len(steps)]:
            state = self._observing(state, step.symbol)
        if not actions:
            return state
        sees = [steps[end - 1].symbol if end - 1 > i else NOTHING for i, end in zip(actions, ends, strict=True)]
        frontier, lost = self.extended(state.frontier, [steps[i].symbol for i in actions], sees)
        return MachineState(self, frontier, state.lost + lost, 0.0)


def _of_these(frontier: Frontier, these: NDArray[np.bool_]) -> Frontier:
    """The programs of a frontier for which ``these`` is true."""
    rows, starts, cells = frontier
    lengths = np.diff(starts)
    new_starts = np.concatenate([[0], np.cumsum(lengths[these])])
    return rows[these], new_starts, cells[: starts[-1]][np.repeat(these, lengths)]


@dataclass(frozen=True, slots=True)
class ProgramModel:
    """One program as a model: certain of the symbol it writes next, silent where it needs more bits or more time.

    It predicts nothing once the history holds another action than it wrote. Runs on the plain interpreter, from the start
    at every prediction.

    Kind: exact. Paper: a deterministic nu. Cost: O(steps so far) a prediction.
    """

    bits: str
    n_symbols: int
    max_silent_steps: int

    def start(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """``(actions, last observation before each action and now)``."""
        return (), (0,)

    def predict(self, state: tuple[tuple[int, ...], tuple[int, ...]]) -> Prediction:
        """Probability 1 for the next symbol it writes, or 0 for all."""
        actions, seen = state
        run, stopped = run_program(self.bits, self.n_symbols, self.max_silent_steps, len(actions) + 1, seen)
        probabilities = np.zeros(self.n_symbols)
        if stopped == "symbols" and tuple(run.written[:-1]) == actions:
            probabilities[run.written[-1]] = 1.0
        return Prediction.of(probabilities)

    def advance(
        self, state: tuple[tuple[int, ...], tuple[int, ...]], step: Step
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """An action is kept to compare with; an observation replaces the last one."""
        actions, seen = state
        if step.is_action:
            return (*actions, step.symbol), (*seen, seen[-1])
        return actions, (*seen[:-1], step.symbol)


def sample_program(
    rng: np.random.Generator, n_symbols: int, max_bits: int, max_silent_steps: int, horizon: int
) -> tuple[str, list[int], str]:
    """``(bits read, symbols written, why it stopped)`` of a program drawn from the prior: coins are thrown as it reads.

    A program of length l comes with probability 2^-l. It stops as :func:`~mightnt.models.machine.instructions.run_program`
    does: ``"symbols"``, ``"steps"`` or ``"bits"``.

    Kind: exact draw. Paper: the prior 2^-length. Cost: O(steps), on the plain interpreter.
    """
    coins = "".join(map(str, rng.integers(2, size=max_bits)))
    run, stopped = run_program(coins, n_symbols, max_silent_steps, horizon)
    return coins[: run.n_read], run.written, stopped
