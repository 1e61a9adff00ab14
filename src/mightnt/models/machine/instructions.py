"""The instruction set, and a plain interpreter that is the oracle of everything compiled.

Three bits an instruction, read from the program tape when they are needed and never before; what was read is kept, so
that loops can go back. The work tape is endless to both sides, its cells hold symbols and begin at 0.

====  =====  ================================================================================================
bits  glyph  what it does
====  =====  ================================================================================================
000   ``<``  one cell to the left
001   ``>``  one cell to the right
010   ``+``  the cell counts up by one; after the last symbol of the alphabet comes 0
011   ``.``  write the cell to the output
100   ``,``  read one more bit of the program as data into the cell
101   ``?``  look: the cell takes the last observation, 0 if there was none
110   ``[``  on 0 go on after the matching ``]``, reading on until it is found
111   ``]``  unless the cell is 0, back to just after the matching ``[``; without a match back to the very start
====  =====  ================================================================================================
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from mightnt.errors import InputError

VERSION = 1
"""Counts up with every change of meaning; part of the name of every cached file."""

OP_BITS = 3
"""Bits of an instruction."""

GLYPHS = "<>+.,?[]"
"""One character an instruction, in the order of their bits."""


class Op(IntEnum):
    """The instructions by their three bits."""

    LEFT, RIGHT, ADD, WRITE, READ, LOOK, OPEN, CLOSE = range(8)


class OutOfBits(Exception):
    """The program tape that an interpreter was given has no further bit."""


def execute(read: Callable[[int], int], look: Callable[[], int], n_symbols: int) -> Iterator[int | None]:
    """Run a program: for every executed instruction the symbol that it wrote, or ``None``.

    Reading is no step: an instruction that is only passed over in search of a ``]`` costs bits, not time. The iterator
    never ends by itself; where ``read`` raises, it stops with that error.

    Args:
        read: the next bits of the program tape as a number: ``read(3)`` an instruction, ``read(1)`` a bit of data.
        look: the last observation, 0 before the first.

    Kind: exact. Paper: a monotone machine. Cost: O(1) a step; this is the slow one.
    """
    code: list[Op] = []
    partner: dict[int, int] = {}
    tape: dict[int, int] = {}
    position = head = 0
    while True:
        if position == len(code):
            code.append(Op(read(OP_BITS)))
            partner = matches(code)
        op, cell, written = code[position], tape.get(head, 0), None
        if op is Op.LEFT:
            head -= 1
        elif op is Op.RIGHT:
            head += 1
        elif op is Op.ADD:
            tape[head] = (cell + 1) % n_symbols
        elif op is Op.WRITE:
            written = cell
        elif op is Op.READ:
            tape[head] = read(1)
        elif op is Op.LOOK:
            tape[head] = look()
        elif op is Op.OPEN and cell == 0:
            while position not in partner:
                code.append(Op(read(OP_BITS)))
                partner = matches(code)
            position = partner[position]
        elif op is Op.CLOSE and position not in partner:
            position = -1
        elif op is Op.CLOSE and cell != 0:
            position = partner[position]
        position += 1
        yield written


def matches(code: Sequence[Op]) -> dict[int, int]:
    """The partner of every ``[`` and ``]`` of ``code`` that has one."""
    partner: dict[int, int] = {}
    opened: list[int] = []
    for position, op in enumerate(code):
        if op is Op.OPEN:
            opened.append(position)
        elif op is Op.CLOSE and opened:
            partner[position] = opened.pop()
            partner[partner[position]] = position
    return partner


def assemble(text: str) -> str:
    """The bits of a program written in glyphs; ``0`` and ``1`` stand for bits of data. Spaces are ignored."""
    unknown = set(text) - set(GLYPHS) - set("01 \n")
    if unknown:
        raise InputError(f"{sorted(unknown)} are no instructions; allowed are {GLYPHS} and the data bits 0 and 1")
    return "".join(glyph if glyph in "01" else f"{GLYPHS.index(glyph):03b}" for glyph in "".join(text.split()))


@dataclass
class Run:
    """A program while it runs on the plain interpreter, with what it read and wrote so far.

    ``seen[t]`` is the last observation while ``t`` symbols are written; the last one stays, and without any it is 0.
    """

    bits: str
    """The program tape."""
    n_symbols: int
    seen: Sequence[int] = ()
    n_read: int = 0
    """How many bits were read."""
    listing: str = ""
    """What was read: instructions as glyphs, data as 0 and 1."""
    written: list[int] = field(default_factory=list)
    """The output tape."""

    def read(self, width: int) -> int:
        """The next ``width`` bits as a number."""
        if self.n_read + width > len(self.bits):
            raise OutOfBits
        value = int(self.bits[self.n_read : self.n_read + width], 2)
        self.n_read += width
        self.listing += GLYPHS[value] if width == OP_BITS else str(value)
        return value

    def look(self) -> int:
        """The last observation."""
        return self.seen[min(len(self.written), len(self.seen) - 1)] if self.seen else 0

    def steps(self) -> Iterator[int | None]:
        """As :func:`execute`, keeping what is written."""
        for symbol in execute(self.read, self.look, self.n_symbols):
            if symbol is not None:
                self.written.append(symbol)
            yield symbol


def run_program(
    bits: str, n_symbols: int, max_silent_steps: int, max_symbols: int, seen: Sequence[int] = ()
) -> tuple[Run, str]:
    """``(the run, why it stopped)`` of a program under the limits that every enumeration here uses.

    ``"symbols"``: it has written ``max_symbols``. ``"steps"``: it has executed ``max_silent_steps`` instructions since
    the last one that wrote. ``"bits"``: it asks for more bits than there are.

    Kind: exact. Cost: O(steps), slowly.
    """
    run, silent = Run(bits, n_symbols, seen), 0
    steps = run.steps()
    try:
        while len(run.written) < max_symbols:
            if silent == max_silent_steps:
                return run, "steps"
            silent = silent + 1 if next(steps) is None else 0
    except OutOfBits:
        return run, "bits"
    return run, "symbols"


def disassemble(bits: str, n_symbols: int = 2, seen: Sequence[int] = ()) -> str:
    """The program as a person can read it: glyphs, and its data bits as 0 and 1 at the place of their reading.

    Which bits are data shows only when the program runs, so it is run, at most 10^5 steps. Bits that were not read by
    then stand after a ``|``.
    """
    run = Run(bits, n_symbols, seen)
    with contextlib.suppress(OutOfBits):
        for _ in itertools.islice(run.steps(), 10**5):
            if run.n_read == len(bits):
                break
    rest = bits[run.n_read :]
    return run.listing + (f"|{rest}" if rest else "")
