"""The compiled machine against the plain interpreter, program by program; and that "loops for ever" is never said wrongly."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mightnt.models.machine import kernels
from mightnt.models.machine.instructions import Run, assemble, run_program

programs = st.text("01", min_size=1, max_size=60)
loops = st.lists(st.sampled_from("<>+.[]"), min_size=3, max_size=17).map(
    lambda ops: assemble("+[" + "".join(ops) + "]")
)


NOTHING = np.empty(0, np.int64)


def follow(bits, n_symbols, max_silent, max_symbols, seen=()):
    """One program on the compiled machine: what it wrote, what became of it, bits read, steps executed."""
    m, (_, tapes) = kernels.new_machine(4001), kernels.new_space(4001, 60)
    written, steps = [], 0
    m[kernels.SEEN] = seen[0] if seen else 0
    while len(written) < max_symbols:
        event, executed = kernels.run(m, tapes, n_symbols, max_silent, NOTHING, NOTHING)
        steps += executed
        if event == kernels.WROTE:
            written.append(int(tapes[kernels.TAPE, m[kernels.HEAD]]))
            if seen:
                m[kernels.SEEN] = seen[min(len(written), len(seen) - 1)]
            continue
        width = {kernels.NEEDS_CODE: 3, kernels.NEEDS_DATA: 1}.get(event)
        read = int(m[kernels.N_BITS])
        if width is None or read + width > len(bits):
            return written, "bits" if width else "steps", read, steps, event
        kernels.feed(m, tapes, int(bits[read : read + width], 2), width)
        steps += width == 1
    return written, "symbols", int(m[kernels.N_BITS]), steps, None


@given(st.one_of(programs, loops), st.integers(2, 5), st.integers(1, 300), st.lists(st.integers(0, 1), max_size=4))
@example(assemble("+[[>]+[<]>+]"), 2, 300, [])
@example(assemble("+[>+]"), 2, 300, [])
@example(assemble("[[+]+,.]+[.?]") + "1" * 20, 2, 300, [0, 1])
@settings(max_examples=400, deadline=None)
def test_it_does_what_the_plain_interpreter_does(bits, n_symbols, max_silent, seen):
    run, stopped = run_program(bits, n_symbols, max_silent, 10, seen)
    written, why, n_read, *_ = follow(bits, n_symbols, max_silent, 10, seen)
    assert (written, why) == (run.written, stopped)
    if stopped != "bits":  # a search for a bracket that runs out of bits leaves the two counting differently
        assert n_read == run.n_read


@given(st.one_of(programs, loops), st.integers(2, 3))
@settings(max_examples=300, deadline=None)
def test_steps_are_the_instructions_that_were_executed(bits, n_symbols):
    if run_program(bits, n_symbols, 200, 10)[1] != "symbols":
        return
    n_steps = n_written = 0
    for symbol in Run(bits, n_symbols).steps():
        n_steps, n_written = n_steps + 1, n_written + (symbol is not None)
        if n_written == 10:
            break
    assert follow(bits, n_symbols, 200, 10)[3] == n_steps


@given(loops, st.integers(2, 3))
@settings(max_examples=300, deadline=None)
def test_what_is_called_a_loop_stays_silent(bits, n_symbols):
    *_, event = follow(bits, n_symbols, 200, 5)
    if event == kernels.LOOPS:
        assert run_program(bits, n_symbols, 5000, 5)[1] == "steps"


def test_loops_are_recognized_and_wandering_is_not_called_a_loop():
    assert follow(assemble("+[]"), 2, 1000, 1)[4] == kernels.LOOPS
    assert follow(assemble("]"), 2, 1000, 1)[4] == kernels.LOOPS
    assert follow(assemble("+[>+<+[+>]<]"), 2, 10**6, 1)[4] in (kernels.LOOPS, kernels.NEEDS_CODE)
    assert follow(assemble("+[>+]"), 2, 1000, 1)[4] == kernels.CUT
    assert follow(assemble("+>+[[>]+<[<]>]"), 2, 1000, 1)[4] == kernels.CUT


def test_a_long_count_is_not_taken_for_a_loop():
    """The same place, the same head, the same range, another cell: 250 times around before it writes."""
    assert follow(assemble("+[+]."), 251, 10**4, 1)[:2] == ([0], "symbols")
    assert follow(assemble("+[>+[+]<+]."), 251, 10**6, 1)[:2] == ([0], "symbols")


def test_the_edge_of_the_tape_cuts():
    assert follow(assemble("+[>+]"), 2, 10**6, 1)[3:] == (3 * 2000 + 2, kernels.CUT)  # 2000 cells to the right


def test_room_doubles_and_keeps():
    wider = kernels.room(np.arange(3), 3)
    assert wider.size > 3
    assert wider[:3].tolist() == [0, 1, 2]
