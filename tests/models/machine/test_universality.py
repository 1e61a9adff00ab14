"""Why the machine is universal, as code: a compiler from Turing machines that read input and write output to its programs.

A Turing machine here has a tape of 0 and 1 endless to both sides, and for every state and scanned symbol a
:class:`Rule`. Any monotone machine V is one of these, so its compiled program, followed by V's own program as data, does what V
does: M(x) >= 2^-length(compiled) M_V(x).

The whole is ``[+ ... +[]]+]``: on the empty cell the first bracket reads all the code without executing it; then the cell
is set, and the last bracket, which has no partner, goes back to the start and enters. A machine that halts ends in ``+[]``.

A square of the Turing machine's tape is a block of cells: its symbol, two scratch cells, "the machine is running, here",
and one cell for each state, 1 where the Turing machine is in that state and on that square.
"""

import contextlib
import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.models.machine.instructions import OutOfBits, Run, assemble

SYMBOL, SCRATCH, ELSE, RUNNING, STATES = range(5)


@dataclass(frozen=True)
class Rule:
    """Put ``symbol`` on the square, or the next input bit where it is ``None``; write that to the output or not; move;
    go to state ``then`` or halt where that is ``None``."""

    symbol: int | None
    writes: bool
    move: int
    then: int | None


def simulate(rules, data, max_steps):
    """The output of a Turing machine; it stops when the input is used up."""
    tape, position, state, written, data = {}, 0, 0, [], list(data)
    for _ in range(max_steps):
        if state is None:
            break
        rule = rules[state][tape.get(position, 0)]
        if rule.symbol is None and not data:
            break
        tape[position] = data.pop(0) if rule.symbol is None else rule.symbol
        if rule.writes:
            written.append(tape[position])
        position, state = position + rule.move, rule.then
    return written


class Compiler:
    """Writes instructions and knows on which cell of a block the head stands."""

    def __init__(self, rules):
        self.rules, self.code, self.at = rules, "[+", 0
        self.go(STATES, "+")
        self.go(RUNNING, "+[")
        for state in range(len(rules)):
            self.go(STATES + state, "[+")
            self.step(state)
            self.go(STATES + state, "]")
        self.go(RUNNING, "]+[]]+]")

    def go(self, cell, then=""):
        distance = cell - self.at
        self.code += (">" if distance > 0 else "<") * abs(distance) + then
        self.at = cell

    def step(self, state):
        self.go(SYMBOL, "[+")  # 1: clear it and remember it
        self.go(SCRATCH, "+")
        self.go(SYMBOL, "]")
        self.go(ELSE, "+")
        self.go(SCRATCH, "[+")  # it was 1
        self.go(ELSE, "+")
        self.act(self.rules[state][1])
        self.go(SCRATCH, "]")
        self.go(ELSE, "[+")  # it was 0
        self.act(self.rules[state][0])
        self.go(ELSE, "]")

    def act(self, rule):
        self.go(SYMBOL, {None: ",", 0: "", 1: "+"}[rule.symbol] + ("." if rule.writes else ""))
        self.go(RUNNING, "+")
        if rule.then is not None:
            width = STATES + len(self.rules)
            self.code += {-1: "<", 0: "", 1: ">"}[rule.move] * width + "+"
            self.go(STATES + rule.then, "+")


def compiled_output(rules, data, max_steps):
    """What the compiled program writes when ``data`` follow."""
    run = Run(assemble(Compiler(rules).code) + "".join(map(str, data)), 2)
    with contextlib.suppress(OutOfBits):
        for _ in itertools.islice(run.steps(), max_steps):
            pass
    return run.written


FLIP_INPUT = [
    {0: Rule(None, False, 0, 1), 1: Rule(None, False, 0, 1)},
    {0: Rule(1, True, 1, 0), 1: Rule(0, True, 1, 0)},
]
"""Reads a bit, writes the other one, moves on."""

UNARY_TWICE = [
    {0: Rule(None, False, 0, 1), 1: Rule(None, False, 0, 1)},  # the next input bit onto the square
    {0: Rule(0, True, -1, 2), 1: Rule(1, True, 1, 0)},  # a 1: write it, go on; a 0: write it, turn back
    {0: Rule(0, True, 0, None), 1: Rule(1, True, -1, 2)},  # every 1 once more, and a 0, then halt
]
"""Reads 1^n 0 and writes 1^n 0 1^n 0: what it writes the second time it must have kept on its tape."""


def test_compiled_machines_do_what_they_do():
    assert compiled_output(FLIP_INPUT, [0, 1, 1, 0], 10**4) == [1, 0, 0, 1]
    for n in range(5):
        data = [1] * n + [0]
        assert simulate(UNARY_TWICE, data, 1000) == data * 2
        assert compiled_output(UNARY_TWICE, data, 10**4) == data * 2


rules = st.builds(
    Rule, st.sampled_from([0, 1, None]), st.booleans(), st.sampled_from([-1, 0, 1]), st.sampled_from([0, 1, 2, None])
)
turing_machines = st.lists(st.fixed_dictionaries({0: rules, 1: rules}), min_size=3, max_size=3)


@given(turing_machines, st.lists(st.integers(0, 1), max_size=8))
@settings(max_examples=60, deadline=None)
def test_every_turing_machine_compiles(table, data):
    """The same output, symbol by symbol, for as long as either was followed."""
    theirs, ours = simulate(table, data, 40), compiled_output(table, data, 20_000)
    n = min(len(theirs), len(ours))
    assert ours[:n] == theirs[:n]
    assert len(ours) >= len(theirs)


def test_all_code_is_read_before_any_data():
    """So the compiled program is one fixed prefix: on the empty cell the ``[`` in front reads on to its ``]``."""
    bits = assemble(Compiler(FLIP_INPUT).code)
    run = Run(bits, 2)
    with pytest.raises(OutOfBits):
        for _ in run.steps():
            pass
    assert (run.n_read, run.written) == (len(bits), [])
    assert set(run.listing) <= set("<>+.,?[]")
    assert compiled_output(FLIP_INPUT, [1], 10**4) == [0]
