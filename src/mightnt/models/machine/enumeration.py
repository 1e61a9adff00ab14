"""All programs to a bit limit, each until it falls silent: what they write, with what mass, and by which shortest program.

Depth first, branching wherever a program asks for bits: what two programs share is executed once. The work is cut into
parts by the first bits, done by as many threads as asked for (the compiled machine runs free of Python), and kept on disk
part by part where a folder is given, so that a long run can be broken off and taken up again.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mightnt.errors import InputError
from mightnt.files import replacing
from mightnt.models.machine.instructions import VERSION
from mightnt.prediction import FloatArray, Prediction

Report: TypeAlias = Callable[[int, int], None]
"""Told ``(parts done, parts in all)``."""

MAX_BITS = 60
"""A program is kept as one 64-bit number, and sums of 2^-length up to 2^-52 are exact."""

MAX_SIDE_CELLS = 2**18
"""Cells to either side of the start; a program that goes further is cut, as if by the limit of steps."""

MEMORY_BYTES = 2 * 2**30
"""More than this is refused before it is allocated."""

SPLIT_BITS = 9
"""Parts are the programs that begin with the same (at most) nine bits."""

N_PARTS = 64
"""Into how many pieces of work, and files, the parts are gathered."""

WROTE, CUT_BITS, CUT_STEPS, LOOPS = range(4)
"""Rows of ``masses``: the program wrote the output; it wrote just that and then asked for too many bits; was silent for
too long; or is proved never to write again."""

NONE_FOUND = 255
"""Stands in ``shortest_bits`` where no program was found."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is left out: programs beyond ``max_bits``, silence beyond ``max_silent_steps``, output beyond ``horizon``."""

    n_symbols: int
    """Size of the alphabet, 2 to 256."""
    max_bits: int
    """L: a program that asks for more bits is cut. 1 to 60."""
    max_silent_steps: int
    """T: a program that executes so many instructions without writing is cut."""
    horizon: int
    """Programs are run until they have written so many symbols."""

    def __post_init__(self) -> None:
        check_alphabet(self.n_symbols)
        check_limits(self.max_bits, self.max_silent_steps)
        if self.horizon < 1:
            raise InputError(f"the horizon is {self.horizon} symbols; at least 1 is needed")
        if self.horizon * np.log2(self.n_symbols) > 40 or self.bytes_each > MEMORY_BYTES:
            raise InputError(
                f"a table of all outputs of {self.horizon} symbols from an alphabet of {self.n_symbols} needs more than "
                f"{MEMORY_BYTES // 2**30} GiB; take a smaller horizon"
            )

    @property
    def n_outputs(self) -> int:
        """How many outputs of at most ``horizon`` symbols there are, the empty one among them."""
        return int((self.n_symbols ** (self.horizon + 1) - 1) // (self.n_symbols - 1))

    @property
    def bytes_each(self) -> int:
        """Memory of one table."""
        return self.n_outputs * (4 * 8 + 1 + 8)

    @property
    def n_cells(self) -> int:
        """Cells of the work tape: as far as a program can come, or ``MAX_SIDE_CELLS`` to either side."""
        return 2 * min((self.horizon + 1) * self.max_silent_steps + self.max_bits, MAX_SIDE_CELLS) + 1

    @property
    def name(self) -> str:
        """For files."""
        return f"machine{VERSION}-a{self.n_symbols}-b{self.max_bits}-s{self.max_silent_steps}-h{self.horizon}"


def check_alphabet(n_symbols: int) -> None:
    """Refuse an alphabet that the cells cannot hold."""
    if not 2 <= n_symbols <= 256:
        raise InputError(f"an alphabet of {n_symbols} symbols; the machine's cells hold 2 to 256")


def check_limits(max_bits: int, max_silent_steps: int) -> None:
    """Refuse limits that do not fit the compiled machine."""
    if not 1 <= max_bits <= MAX_BITS:
        raise InputError(f"programs of at most {max_bits} bits; 1 to {MAX_BITS} are possible")
    if not 1 <= max_silent_steps <= 2**40:
        raise InputError(f"{max_silent_steps} silent steps; 1 to 2^40 are possible")


def bit_string(bits: int, n_bits: int) -> str:
    """A program kept as a number, with its leading zeros."""
    return f"{bits:0{n_bits}b}" if n_bits else ""


@dataclass(frozen=True, slots=True, eq=False)
class OutputTable:
    """Every output of at most ``horizon`` symbols with the programs that write it.

    M(x) = sum of 2^-length over the minimal programs whose output begins with x (minimal: at the moment the last symbol of
    x is written, no bit beyond has been read). The found part is a lower bound; an upper bound adds the programs that were
    cut after writing a proper beginning of x. For every x shorter than the horizon and exactly, M_found(x) =
    sum_a M_found(xa) + what ended there.

    Kind: exact for the programs within the limits; bounds for the machine without limits. Paper: the universal
    semimeasure. Cost: :func:`enumerate_programs`.
    """

    limits: Limits
    masses: FloatArray
    """Shape (4, n_outputs), rows as ``WROTE, CUT_BITS, CUT_STEPS, LOOPS``, columns as :meth:`index`."""
    shortest_bits: NDArray[np.uint8]
    """Length of the shortest program found, ``NONE_FOUND`` where there is none; the empty output needs no bit."""
    witness: NDArray[np.int64]
    """Its bits as a number; of several the least."""
    n_programs: int
    """How many programs were followed to their end."""
    n_steps: int
    """How many instructions were executed."""

    def index(self, output: Sequence[int]) -> int:
        """The column of an output; :class:`~mightnt.errors.InputError` for a symbol or a length that is not there."""
        size, index = self.limits.n_symbols, 0
        if len(output) > self.limits.horizon:
            raise InputError(f"the output has {len(output)} symbols, the table ends at {self.limits.horizon}")
        for symbol in output:
            if not 0 <= symbol < size:
                raise InputError(f"the symbol {symbol} is none of 0..{size - 1}")
            index = index * size + 1 + symbol
        return index

    def mass(self, output: Sequence[int]) -> float:
        """M(x) as found: a lower bound."""
        return float(self.masses[WROTE, self.index(output)])

    def unresolved(self, output: Sequence[int]) -> tuple[float, float]:
        """``(mass cut by bits, mass cut by steps)`` of programs that might still come to write ``output``."""
        before = [self.index(output[:n]) for n in range(len(output))]
        return float(self.masses[CUT_BITS, before].sum()), float(self.masses[CUT_STEPS, before].sum())

    def interval(self, output: Sequence[int]) -> tuple[float, float]:
        """Between what M(x) of the machine without limits lies."""
        low = self.mass(output)
        return low, low + sum(self.unresolved(output))

    def shortest_found_bits(self, output: Sequence[int]) -> float:
        """K_L(x): length of the shortest program found that writes x first; ``inf`` where none was found.

        Kind: upper bound on the description length; exact where no shorter program was cut.
        """
        bits = int(self.shortest_bits[self.index(output)])
        return float("inf") if bits == NONE_FOUND else float(bits)

    def program(self, output: Sequence[int]) -> str | None:
        """The bits of the shortest program found, to be read with ``disassemble``; ``None`` where none was found."""
        index = self.index(output)
        bits = int(self.shortest_bits[index])
        return None if bits == NONE_FOUND else bit_string(int(self.witness[index]), bits)

    def predict(self, output: Sequence[int]) -> Prediction:
        """xi( . |x) of the programs within the limits: M_found(xa) / M_found(x), the rest missing.

        Nothing is predicted after an output that no program found writes.
        """
        here = self.mass(output)
        ahead = np.array([self.mass([*output, a]) for a in range(self.limits.n_symbols)])
        return Prediction.of(ahead / here if here > 0 else np.zeros_like(ahead))


def enumerate_programs(
    limits: Limits, n_workers: int = 1, folder: Path | None = None, report: Report | None = None
) -> OutputTable:
    """The table of everything that programs within ``limits`` write. The result does not depend on ``n_workers``.

    Args:
        n_workers: threads; each has a table of its own in memory.
        folder: where finished tables and parts are kept and looked for; a file that cannot be read is computed again.
        report: told how many parts are done, in the calling thread.

    Errors: :class:`~mightnt.errors.InputError` without numba, for fewer than one worker or tables beyond the memory allowed.

    Kind: exact. Cost: about 20 million programs to 24 bits, doubling with every further bit.
    """
    if n_workers < 1:
        raise InputError(f"{n_workers} workers; at least 1 is needed")
    if limits.bytes_each * (n_workers + 1) > MEMORY_BYTES:
        raise InputError(f"{n_workers + 1} tables of {limits.bytes_each / 2**30:.3g} GiB; take fewer workers")
    whole = None if folder is None else folder / f"{limits.name}.npz"
    if whole is not None and (kept := _read(whole, limits)) is not None:
        return kept
    table, starts = _begin(limits)
    pieces = [piece for i in range(N_PARTS) if len(piece := starts[i::N_PARTS])]
    files = [None if folder is None else folder / f"{limits.name}.part{i:02d}.npz" for i in range(len(pieces))]
    for done, part in enumerate(_computed(limits, pieces, files, n_workers), 1):
        table = _together(table, part)
        if report is not None:
            report(done, len(pieces))
    if whole is not None:
        _write(whole, table)
        for file in files:
            if file is not None:
                file.unlink(missing_ok=True)
    return table


def _computed(
    limits: Limits, pieces: Sequence[NDArray[np.int64]], files: Sequence[Path | None], n_workers: int
) -> Iterator[OutputTable]:
    """The table of every piece, as they are ready; from its file or computed and kept."""

    def work(piece: NDArray[np.int64], file: Path | None) -> OutputTable:
        part = None if file is None else _read(file, limits)
        if part is None:
            part = _piece(limits, piece)
            if file is not None:
                _write(file, part)
        return part

    with ThreadPoolExecutor(n_workers) as pool:
        waiting = [pool.submit(work, piece, file) for piece, file in zip(pieces, files, strict=True)]
        try:
            while waiting:
                ready = next(as_completed(waiting))
                waiting.remove(ready)
                yield ready.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def compiled_machine() -> Any:
    """The compiled machine; :class:`~mightnt.errors.InputError` where numba is not installed."""
    try:
        from mightnt.models.machine import kernels as compiled
    except ModuleNotFoundError as error:
        raise InputError(f'the machine is compiled by {error.name}; pip install "mightnt[theory]"') from error
    return compiled


def _begin(limits: Limits) -> tuple[OutputTable, NDArray[np.int64]]:
    """What happens within the first bits, and the programs that ask for more: rows of (bits, length)."""
    if limits.max_bits <= SPLIT_BITS:
        return _tabulate(limits, [(0, 0)], limits.max_bits, 0)
    return _tabulate(limits, [(0, 0)], SPLIT_BITS, 2**SPLIT_BITS)


def _piece(limits: Limits, starts: NDArray[np.int64]) -> OutputTable:
    """All programs that begin like one of ``starts``."""
    return _tabulate(limits, [(int(bits), int(n_bits)) for bits, n_bits in starts], limits.max_bits, 0)[0]


def _tabulate(
    limits: Limits, starts: Sequence[tuple[int, int]], max_bits: int, room: int
) -> tuple[OutputTable, NDArray[np.int64]]:
    """A new table with all programs from ``starts`` in it, and the programs cut by bits if there is ``room`` for them."""
    masses, shortest, witness = _blank(limits)
    if (0, 0) in starts:
        masses[WROTE, 0], shortest[0] = 1.0, 0
    parts = np.empty((room, 2), np.int64)
    numbers = (limits.n_symbols, max_bits, limits.max_silent_steps, limits.horizon, limits.n_cells)
    n_steps = n_programs = n_parts = 0
    for start in starts:
        counts = compiled_machine().tabulate(start, numbers, masses, shortest, witness, parts)
        n_steps, n_programs, n_parts = n_steps + counts[0], n_programs + counts[1], counts[2]
    return OutputTable(limits, masses, shortest, witness, n_programs - n_parts, n_steps), parts[:n_parts]


def _blank(limits: Limits) -> tuple[FloatArray, NDArray[np.uint8], NDArray[np.int64]]:
    """Masses, shortest lengths and programs of a table in which nothing was found."""
    n = limits.n_outputs
    return np.zeros((4, n)), np.full(n, NONE_FOUND, np.uint8), np.zeros(n, np.int64)


def _together(one: OutputTable, other: OutputTable) -> OutputTable:
    """Both tables in one; of two shortest programs the one that counts less as a number."""
    first = np.stack([one.shortest_bits, other.shortest_bits]).astype(np.int64), np.stack([one.witness, other.witness])
    better = (first[0][1] < first[0][0]) | ((first[0][1] == first[0][0]) & (first[1][1] < first[1][0]))
    return OutputTable(
        one.limits,
        one.masses + other.masses,
        np.where(better, other.shortest_bits, one.shortest_bits),
        np.where(better, other.witness, one.witness),
        one.n_programs + other.n_programs,
        one.n_steps + other.n_steps,
    )


def _write(path: Path, table: OutputTable) -> None:
    """Keep a table: only the outputs that something reached, the file whole or not there."""
    reached = np.flatnonzero((table.masses > 0).any(axis=0))
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            reached=reached,
            masses=table.masses[:, reached],
            shortest_bits=table.shortest_bits[reached],
            witness=table.witness[reached],
            counts=np.array([table.n_programs, table.n_steps]),
        )


def _read(path: Path, limits: Limits) -> OutputTable | None:
    """A kept table; ``None`` where there is none or the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            reached = kept["reached"]
            masses, shortest, witness = _blank(limits)
            masses[:, reached] = kept["masses"]
            shortest[reached], witness[reached] = kept["shortest_bits"], kept["witness"]
            n_programs, n_steps = (int(count) for count in kept["counts"])
            return OutputTable(limits, masses, shortest, witness, n_programs, n_steps)
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile):
        return None
