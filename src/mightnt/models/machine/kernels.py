"""The compiled machine: one program until something happens, all programs depth first, a frontier some symbols on.

What happens to a program: it WROTE a symbol, it NEEDS an instruction (CODE) or a bit (DATA), it was silent for too long
or left the cells there are (CUT), or its whole configuration came back although it neither wrote nor read (LOOPS: it
never will again).

A machine is one row ``m`` of numbers (registers, then code, then brackets) and the tapes. Few arrays on purpose: the
compiler counts references to each at every call.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numba import njit

WROTE, NEEDS_CODE, NEEDS_DATA, CUT, LOOPS = range(5)
LEFT, RIGHT, ADD, WRITE, READ, LOOK, OPEN, CLOSE = range(8)

IP, HEAD, LOW, HIGH, SILENT, N_OPS, N_BITS, BITS, SKIP, OPENED, SEEN, N_WRITTEN, LAST = range(13)
"""The registers: position in the code, head, touched cells from LOW to HIGH, steps since the last symbol, lengths of code
and program, the program as a number, the ``[`` whose ``]`` is searched or -1, the innermost open ``[`` or -1, last
observation, symbols written, the last of them (or where in the table of outputs)."""
N_REGISTERS = 13

MAX_OPS = 24
"""Room for code: more than any program of 60 bits has."""

CODE, PARTNER, OUTER = N_REGISTERS, N_REGISTERS + MAX_OPS, N_REGISTERS + 2 * MAX_OPS
"""Where in the row: the instructions; of every bracket its partner or -1; the ``[`` that was open before each."""
ROW = N_REGISTERS + 3 * MAX_OPS

CHOICE, N_CHOICES = N_REGISTERS, N_REGISTERS + 1
"""In a frame (a configuration to come back to), after the registers: which continuation is being followed, of how many."""

TAPE, PHOTO, SAVED = 0, 1, 2
"""Rows of ``tapes``: the work tape, a photograph of it, and from SAVED on those of the frames."""

NOWHERE = -2
"""No position in the code: nothing was photographed yet."""

PATIENT = 32
"""Silent steps before a configuration is photographed for the first time."""


@njit(cache=True, nogil=True)
def new_machine(n_cells: int) -> Any:
    """The row of a machine before its first step, in the middle of ``n_cells`` cells."""
    m = np.zeros(ROW, np.int64)
    m[HEAD] = m[LOW] = m[HIGH] = n_cells // 2
    m[SKIP] = m[OPENED] = -1
    return m


@njit(cache=True, nogil=True)
def new_space(n_cells: int, max_bits: int) -> tuple[Any, Any]:
    """``(frames, tapes)`` for a machine that reads at most ``max_bits``."""
    tapes = np.empty((SAVED + max_bits + 1, n_cells), np.uint8)
    tapes[TAPE] = 0
    return np.empty((max_bits + 1, N_REGISTERS + 2), np.int64), tapes


@njit(cache=True, nogil=True)
def run(m: Any, tapes: Any, size: int, max_silent: int, must: Any, sees: Any) -> tuple[int, int]:
    """``(event, executed steps)``; the registers stand where the event left them, the symbol written is under the head.

    It runs on through symbols that it must write, given in ``must`` (``sees``: the observation after each, or -1), but
    stops at the last of them and at one that it should not have written.
    """
    if m[SKIP] >= 0:
        return NEEDS_CODE, 0
    ip, head, low, high, silent, n_ops = m[IP], m[HEAD], m[LOW], m[HIGH], m[SILENT], m[N_OPS]
    executed, due, event, last = -silent, silent + PATIENT, CUT, tapes.shape[1] - 1
    photo = (NOWHERE, head, low, high)
    while silent < max_silent:
        if ip == n_ops:
            event = NEEDS_CODE
            break
        op = m[CODE + ip]
        if op <= RIGHT:
            head += 2 * op - 1
            if head < 0 or head > last:
                head -= 2 * op - 1
                break
            low, high = min(low, head), max(high, head)
        elif op == ADD:
            value = tapes[TAPE, head] + 1
            tapes[TAPE, head] = 0 if value == size else value
        elif op == CLOSE:
            partner = m[PARTNER + ip]
            if partner < 0 or tapes[TAPE, head] != 0:
                ip = partner
                if silent >= due:
                    photo, due = (ip, head, low, high), 2 * silent
                    copy(tapes, TAPE, PHOTO, low, high)
                elif photo == (ip, head, low, high) and same(tapes, low, high):
                    event = LOOPS
                    break
        elif op == OPEN:
            if tapes[TAPE, head] == 0:
                closing = m[PARTNER + ip]
                if closing < 0 or closing >= n_ops or m[CODE + closing] != CLOSE or m[PARTNER + closing] != ip:
                    m[SKIP] = ip
                    ip, silent, event = n_ops, silent + 1, NEEDS_CODE
                    break
                ip = closing
        elif op == LOOK:
            tapes[TAPE, head] = m[SEEN]
        elif op == READ:
            event = NEEDS_DATA
            break
        else:
            now = m[N_WRITTEN]
            if now + 1 >= must.size or must[now] != tapes[TAPE, head]:
                event = WROTE
                break
            m[N_WRITTEN], m[SEEN] = now + 1, sees[now] if sees[now] >= 0 else m[SEEN]
            executed, silent, due, photo = executed + silent + 1, -1, PATIENT, (NOWHERE, head, low, high)
        ip += 1
        silent += 1
    wrote = 1 if event == WROTE else 0
    m[IP], m[HEAD], m[LOW], m[HIGH], m[SILENT] = ip + wrote, head, low, high, 0 if wrote else silent
    return event, executed + silent + wrote


@njit(cache=True, nogil=True)
def copy(tapes: Any, source: int, target: int, low: int, high: int) -> None:
    """Cells ``low`` to ``high`` of one row into another."""
    for i in range(low, high + 1):
        tapes[target, i] = tapes[source, i]


@njit(cache=True, nogil=True)
def same(tapes: Any, low: int, high: int) -> bool:
    """Whether the tape is as in the photograph from ``low`` to ``high``."""
    for i in range(low, high + 1):  # noqa: SIM110
        if tapes[TAPE, i] != tapes[PHOTO, i]:
            return False
    return True


@njit(cache=True, nogil=True)
def feed(m: Any, tapes: Any, value: int, width: int) -> None:
    """Give the machine what it needs: one bit of data into the cell, or three bits of code at its end."""
    m[N_BITS] += width
    m[BITS] = (m[BITS] << width) + value
    if width == 1:
        tapes[TAPE, m[HEAD]] = value
        m[IP] += 1
        m[SILENT] += 1
        return
    here, opened = m[N_OPS], m[OPENED]
    m[CODE + here], m[PARTNER + here], m[OUTER + here] = value, -1, opened
    if value == OPEN:
        m[OPENED] = here
    elif value == CLOSE and opened >= 0:
        m[PARTNER + here], m[PARTNER + opened] = opened, here
        m[OPENED] = m[OUTER + opened]
    m[N_OPS] = here + 1
    if m[SKIP] >= 0:
        m[IP] = here + 1
        if value == CLOSE and m[PARTNER + here] == m[SKIP]:
            m[SKIP] = -1


@njit(cache=True, nogil=True)
def branch(m: Any, frames: Any, tapes: Any, depth: int, width: int) -> int:
    """Remember the configuration and go on with the first of its continuations; the new depth."""
    for i in range(N_REGISTERS):
        frames[depth, i] = m[i]
    frames[depth, CHOICE], frames[depth, N_CHOICES] = 0, 1 << width
    copy(tapes, TAPE, SAVED + depth, m[LOW], m[HIGH])
    feed(m, tapes, 0, width)
    return depth + 1


@njit(cache=True, nogil=True)
def backtrack(m: Any, frames: Any, tapes: Any, depth: int) -> int:
    """Back to the last branch that has a continuation left, and go on with that; the new depth, 0 when all is done.

    The code read since then is simply no longer counted as read.
    """
    while depth > 0 and frames[depth - 1, CHOICE] == frames[depth - 1, N_CHOICES] - 1:
        depth -= 1
    for i in range(m[LOW], m[HIGH] + 1):
        tapes[TAPE, i] = 0
    if depth == 0:
        return 0
    for i in range(N_REGISTERS):
        m[i] = frames[depth - 1, i]
    copy(tapes, SAVED + depth - 1, TAPE, m[LOW], m[HIGH])
    frames[depth - 1, CHOICE] += 1
    feed(m, tapes, frames[depth - 1, CHOICE], 1 if frames[depth - 1, N_CHOICES] == 2 else 3)
    return depth


@njit(cache=True, nogil=True)
def tabulate(
    start: tuple[int, int], limits: tuple[int, int, int, int, int], masses: Any, shortest: Any, witness: Any, parts: Any
) -> tuple[int, int, int]:
    """All programs that begin with the same bits, depth first: ``(executed steps, programs, parts noted)``.

    ``start`` is (bits as a number, how many), ``limits`` is (alphabet, bits, silent steps, symbols, cells). ``masses`` has
    rows by what became of a program (wrote, cut by bits, cut by steps, loops) and a column for each output; they are added
    to. ``shortest`` and ``witness`` take the least length and the first program of it. Where ``parts`` has room, a
    program that asks for too many bits is noted there as (bits, length) and not counted. What happens before the machine
    has asked for more than the given bits was counted by whoever noted them.
    """
    bits, n_bits = start
    size, max_bits, max_silent, max_symbols, n_cells = limits
    m, (frames, tapes), weight = new_machine(n_cells), new_space(n_cells, max_bits), 0.5 ** np.arange(max_bits + 1)
    nothing = np.empty(0, np.int64)
    depth = n_parts = steps = programs = 0
    while True:
        event, executed = run(m, tapes, size, max_silent, nothing, nothing)
        steps += executed
        if event == WROTE:
            node = m[LAST] * size + 1 + tapes[TAPE, m[HEAD]]
            m[LAST], m[N_WRITTEN] = node, m[N_WRITTEN] + 1
            if n_bits == 0 or m[N_BITS] > n_bits:
                masses[WROTE, node] += weight[m[N_BITS]]
                if m[N_BITS] < shortest[node]:
                    shortest[node], witness[node] = m[N_BITS], m[BITS]
            if m[N_WRITTEN] < max_symbols:
                continue
        elif event in (NEEDS_CODE, NEEDS_DATA):
            width = 3 if event == NEEDS_CODE else 1
            if m[N_BITS] < n_bits:
                feed(m, tapes, (bits >> (n_bits - m[N_BITS] - width)) & ((1 << width) - 1), width)
                continue
            if m[N_BITS] + width <= max_bits:
                depth = branch(m, frames, tapes, depth, width)
                continue
            if n_parts < parts.shape[0]:
                parts[n_parts, 0], parts[n_parts, 1] = m[BITS], m[N_BITS]
                n_parts += 1
            else:
                masses[1, m[LAST]] += weight[m[N_BITS]]
        else:
            masses[2 if event == CUT else 3, m[LAST]] += weight[m[N_BITS]]
        programs += 1
        depth = backtrack(m, frames, tapes, depth)
        if depth == 0:
            return steps, programs, n_parts


Frontier: TypeAlias = tuple[Any, Any, Any]
"""Programs that have all written the same number of symbols, each where it stands after the last: ``(rows, starts, cells)``.

A machine a row in ``rows`` (n, ROW), the touched cells of the i-th in ``cells[starts[i]:starts[i + 1]]``. A plain tuple: the
compiler's cache on disk cannot outlive a class.
"""


@njit(cache=True, nogil=True)
def extend(
    frontier: Frontier, limits: tuple[int, int, int, int, int], must: Any, sees: Any
) -> tuple[Frontier, Any, int, bool]:
    """Every program until it has written ``len(must)`` more symbols: ``(frontier, masses lost, steps, whether it fits)``.

    ``limits`` is (alphabet, bits, silent steps, programs, cells). ``must`` holds the symbols it has to write (-1: any),
    ``sees`` the observation after each (-1: none). Mass is lost to the limit of bits, that of steps, and to loops.
    """
    size, max_bits, max_silent, max_programs, n_cells = limits
    m, (frames, tapes), weight = new_machine(n_cells), new_space(n_cells, max_bits), 0.5 ** np.arange(max_bits + 1)
    new = (np.empty((64, ROW), np.int64), np.zeros(65, np.int64), np.empty(1024, np.uint8))
    lost = np.zeros(3)
    n_new = steps = 0
    for program in range(frontier[0].shape[0]):
        load(m, tapes, frontier, program)
        depth, more = 0, True
        while more:
            event, executed = run(m, tapes, size, max_silent, must, sees)
            steps += executed
            if event == WROTE:
                now, symbol = m[N_WRITTEN], tapes[TAPE, m[HEAD]]
                m[LAST], m[N_WRITTEN] = symbol, now + 1
                if sees[now] >= 0:
                    m[SEEN] = sees[now]
                if must[now] < 0 or must[now] == symbol:
                    if now + 1 < must.size:
                        continue
                    if n_new == max_programs:
                        return new, lost, steps, False
                    new = store(m, tapes, new, n_new)
                    n_new += 1
            elif event in (NEEDS_CODE, NEEDS_DATA):
                width = 3 if event == NEEDS_CODE else 1
                if m[N_BITS] + width <= max_bits:
                    depth = branch(m, frames, tapes, depth, width)
                    continue
                lost[0] += weight[m[N_BITS]]
            else:
                lost[1 if event == CUT else 2] += weight[m[N_BITS]]
            depth = backtrack(m, frames, tapes, depth)
            more = depth > 0
    return (new[0][:n_new], new[1][: n_new + 1], new[2]), lost, steps, True


@njit(cache=True, nogil=True)
def load(m: Any, tapes: Any, frontier: Frontier, i: int) -> None:
    """The ``i``-th machine of a frontier, with no symbol written yet; the tape was left empty."""
    rows, starts, cells = frontier
    m[:] = rows[i]
    m[N_WRITTEN] = 0
    for cell in range(m[LOW], m[HIGH] + 1):
        tapes[TAPE, cell] = cells[starts[i] + cell - m[LOW]]


@njit(cache=True, nogil=True)
def store(m: Any, tapes: Any, frontier: Frontier, i: int) -> Frontier:
    """The frontier with the machine as its ``i``-th; touched cells that are 0 again at either end are left out."""
    low, high = m[LOW], m[HIGH]
    while low < m[HEAD] and tapes[TAPE, low] == 0:
        low += 1
    while high > m[HEAD] and tapes[TAPE, high] == 0:
        high -= 1
    start = frontier[1][i]
    end = start + high - low + 1
    rows, starts, cells = room(frontier[0], i), room(frontier[1], i + 1), room(frontier[2], end)
    rows[i] = m
    rows[i, LOW], rows[i, HIGH] = low, high
    starts[i + 1] = end
    cells[start:end] = tapes[TAPE, low : high + 1]
    return rows, starts, cells


@njit(cache=True, nogil=True)
def room(array: Any, index: int) -> Any:
    """``array``, or a copy at least twice as long, so that ``index`` is inside."""
    if index < array.shape[0]:
        return array
    wider = np.empty((2 * index + 1, *array.shape[1:]), array.dtype)
    wider[: array.shape[0]] = array
    return wider
