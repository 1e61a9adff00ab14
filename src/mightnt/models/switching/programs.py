"""Every policy of the switching language up to a length, and what each costs in bits.

    program  ::=  0 atom                     a simple policy
               |  1 event program program    if the event has happened, the first program, else the second

A program's prior weight is 2^-length. No code begins another's, so the weights of all programs, of whatever length, sum
to less than one. The class is closed: for any two programs nu, rho and any event E there is "if E then rho else nu", and
it costs 1 + |E| + |rho| bits more than nu.

    where a program comes from:     0 | atom               1 | event | then | otherwise
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mightnt.errors import InputError
from mightnt.models.switching.atoms import Atom, atoms_up_to
from mightnt.models.switching.events import Alphabets, BoolArray, Event, IntArray, events_up_to, n_events_by_bits

MEMORY_LIMIT_BYTES = 2**32
"""How much memory a class may take; longer limits are refused."""

BYTES_A_PROGRAM = 120
"""The table of programs (40), prior and posterior (16), one round of predictions with its temporaries (64)."""

NONE = -1
"""Where a program is an atom: it has no event and no parts. Where it is not: it has no atom."""


@dataclass(frozen=True, eq=False)
class Programs:
    """Programs and all their parts as one table, the shorter ones first; every part stands before its whole.

    ``bits``, ``atom``, ``event``, ``then``, ``otherwise`` have shape (n_programs,): an index into ``atoms``, or an index
    into ``events`` and two into this table; :data:`NONE` where it does not apply.
    """

    alphabets: Alphabets
    atoms: tuple[Atom, ...]
    events: tuple[Event, ...]
    bits: IntArray
    atom: IntArray
    event: IntArray
    then: IntArray
    otherwise: IntArray

    def __len__(self) -> int:
        return len(self.bits)

    @cached_property
    def atom_bits(self) -> IntArray:
        """Length of every atom's code, without the 0 that makes a program of it; shape (n_atoms,)."""
        return np.array([len(atom.code(self.alphabets.n_actions)) for atom in self.atoms], dtype=np.int64)

    @cached_property
    def event_bits(self) -> IntArray:
        """Length of every event's code, shape (n_events,)."""
        return np.array([len(event.code(self.alphabets)) for event in self.events], dtype=np.int64)

    @cached_property
    def levels(self) -> tuple[IntArray, ...]:
        """The programs by how deeply their ifs are nested: 1, 2, ...; atoms, at depth 0, are left out."""
        depth = np.zeros(len(self), dtype=np.int64)
        for rows in self._switches_by_bits():
            depth[rows] = 1 + np.maximum(depth[self.then[rows]], depth[self.otherwise[rows]])
        return tuple(np.flatnonzero(depth == level) for level in range(1, int(depth.max(initial=0)) + 1))

    def _switches_by_bits(self) -> Iterator[IntArray]:
        for bits in np.unique(self.bits):
            rows = slice(*np.searchsorted(self.bits, [bits, bits + 1]))
            yield rows.start + np.flatnonzero(self.atom[rows] == NONE)

    def in_force(self, truth: BoolArray) -> IntArray:
        """The atom that every program has come down to when these events are true; shape (n_programs,).

        Programs that share a part share its work: every part is looked up once. Cost: two gathers a program.
        """
        atom = self.atom.copy()
        for rows in self.levels:
            atom[rows] = atom[np.where(truth[self.event[rows]], self.then[rows], self.otherwise[rows])]
        return atom

    def code(self, index: int) -> str:
        """The program as a string of 0 and 1, ``bits[index]`` long."""
        if self.atom[index] != NONE:
            return "0" + self.atoms[int(self.atom[index])].code(self.alphabets.n_actions)
        event = self.events[int(self.event[index])].code(self.alphabets)
        return "1" + event + self.code(int(self.then[index])) + self.code(int(self.otherwise[index]))

    def text(self, index: int) -> str:
        """The program in words."""
        if self.atom[index] != NONE:
            return str(self.atoms[int(self.atom[index])])
        parts = (self.text(int(self.then[index])), self.text(int(self.otherwise[index])))
        then, otherwise = (f"({part})" if part.startswith("if ") else part for part in parts)
        return f"if {self.events[int(self.event[index])]} then {then} else {otherwise}"

    def parts(self, indices: IntArray) -> IntArray:
        """These programs and everything they are built from, in order."""
        needed = np.zeros(len(self), dtype=bool)
        needed[indices] = True
        for rows in reversed(self.levels):
            wanted = rows[needed[rows]]
            needed[self.then[wanted]] = needed[self.otherwise[wanted]] = True
        return np.flatnonzero(needed)

    def only(self, rows: IntArray) -> Programs:
        """The table cut down to ``rows``, which must hold the parts of all its programs (see :meth:`parts`)."""
        place = np.full(len(self) + 1, NONE, dtype=np.int64)  # the last entry: NONE stays NONE
        place[rows] = np.arange(len(rows))
        return Programs(
            *(self.alphabets, self.atoms, self.events, self.bits[rows], self.atom[rows], self.event[rows]),
            *(place[self.then[rows]], place[self.otherwise[rows]]),
        )


def n_programs_by_bits(alphabets: Alphabets, limit_bits: int) -> list[int]:
    """How many programs have 0, 1, ..., ``limit_bits`` bits, without writing them out. Cost: O(limit^3) additions."""
    counts = [0] * (limit_bits + 1)
    for atom in atoms_up_to(alphabets.n_actions, limit_bits - 1):
        counts[1 + len(atom.code(alphabets.n_actions))] += 1
    events = n_events_by_bits(alphabets, limit_bits)
    for bits in range(limit_bits + 1):
        for event_bits, n_events in events.items():
            room = bits - 1 - event_bits
            counts[bits] += n_events * sum(counts[i] * counts[room - i] for i in range(1, room))
    return counts


def programs_up_to(alphabets: Alphabets, limit_bits: int) -> Programs:
    """Every program of at most ``limit_bits`` bits.

    Errors: :class:`~mightnt.errors.InputError` for a limit so low that there is no program, and for one whose programs
    would take more than :data:`MEMORY_LIMIT_BYTES`; they are counted before they are written out.

    Kind: exact. Cost: time and memory in proportion to the programs, which double about once a bit.
    """
    shortest = 1 + min(len(atom.code(alphabets.n_actions)) for atom in atoms_up_to(alphabets.n_actions, 64))
    if not shortest <= limit_bits <= 200:
        raise InputError(
            f"got a limit of {limit_bits} bits; the shortest program has {shortest}, and 200 is out of reach"
        )
    counts = n_programs_by_bits(alphabets, limit_bits)
    if sum(counts) * BYTES_A_PROGRAM > MEMORY_LIMIT_BYTES:
        fits = next(b for b in range(limit_bits, 0, -1) if sum(counts[:b]) * BYTES_A_PROGRAM <= MEMORY_LIMIT_BYTES) - 1
        raise InputError(
            f"there are {sum(counts):,} programs of at most {limit_bits} bits, about "
            f"{sum(counts) * BYTES_A_PROGRAM / 2**30:,.0f} GiB; at most {fits} bits fit into "
            f"{MEMORY_LIMIT_BYTES / 2**30:.0f} GiB"
        )
    atoms = atoms_up_to(alphabets.n_actions, limit_bits - 1)
    events = events_up_to(alphabets, limit_bits - 1 - 2 * shortest)
    return _assemble(alphabets, atoms, events, limit_bits)


def _assemble(alphabets: Alphabets, atoms: tuple[Atom, ...], events: tuple[Event, ...], limit_bits: int) -> Programs:
    """Length by length: the atoms of this length, then for every event and split of what is left all pairs of parts."""
    atom_bits = np.array([1 + len(atom.code(alphabets.n_actions)) for atom in atoms])
    event_bits = np.array([len(event.code(alphabets)) for event in events], dtype=np.int64)
    first, blocks = [0], []  # programs of b bits are first[b] .. first[b + 1] - 1
    for bits in range(limit_bits + 1):
        of_atoms = np.flatnonzero(atom_bits == bits)
        none = np.full(len(of_atoms), NONE)
        found = [np.stack([of_atoms, none, none, none])]
        for event_length in np.unique(event_bits[event_bits < bits]):
            room = bits - 1 - int(event_length)
            pairs = [_pairs(first, i, room - i) for i in range(1, room)]
            parts = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), dtype=np.int64)
            which = np.flatnonzero(event_bits == event_length)
            head = np.stack([np.full(len(which), NONE), which])
            found.append(np.concatenate([head.repeat(parts.shape[1], axis=1), np.tile(parts, len(which))]))
        blocks.append(np.concatenate(found, axis=1))
        first.append(first[-1] + blocks[-1].shape[1])
    table = np.concatenate(blocks, axis=1).astype(np.int64)
    return Programs(alphabets, atoms, events, np.repeat(np.arange(limit_bits + 1), np.diff(first)), *table)


def _pairs(first: list[int], then_bits: int, otherwise_bits: int) -> IntArray:
    """All pairs of a program of one length and one of the other, shape (2, n)."""
    then = np.arange(first[then_bits], first[then_bits + 1])
    otherwise = np.arange(first[otherwise_bits], first[otherwise_bits + 1])
    return np.stack([then.repeat(len(otherwise)), np.tile(otherwise, len(then))])
