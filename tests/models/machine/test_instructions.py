"""What every instruction does, by hand; programs as text; lazy reading."""

import pytest

from mightnt.errors import InputError
from mightnt.models.machine.instructions import GLYPHS, Op, assemble, disassemble, matches, run_program


def writes(text, n_symbols=2, horizon=8, steps=100, seen=()):
    run, stopped = run_program(assemble(text), n_symbols, steps, horizon, seen)
    return "".join(map(str, run.written)), stopped


@pytest.mark.parametrize(
    ("program", "n_symbols", "output"),
    [
        (".]", 2, "00000000"),
        (".+]", 2, "01010101"),
        (".+]", 3, "01201201"),
        ("<+.]", 2, "11111111"),  # a fresh cell every time
        ("+[.]", 2, "11111111"),
        ("+.>.<.>.<.", 2, "10101"),  # the tape remembers
        (",1.,0.,1.", 2, "101"),
        (",0.]110100", 2, "0110100"),  # copies its own data: the first bit comes before the dot is read
        ("+[>+.<]", 2, "10101010"),
        ("[+].", 2, "0"),  # on 0 the loop is passed over
        ("+[+].", 2, "0"),
        ("+[[+]+.]", 2, "11111111"),
        ("[[+]+]+.", 2, "1"),  # the search for the match counts inner brackets
        ("[,].", 2, "0"),  # what is passed over reads no data
    ],
)
def test_what_programs_write(program, n_symbols, output):
    assert writes(program, n_symbols)[0] == output


def test_looking_sees_the_last_observation_and_zero_before_the_first():
    assert writes("?.]", seen=(0, 1, 1, 0, 1))[0] == "01101111"
    assert writes("+?.", seen=())[0] == "0"
    assert writes("?.]", n_symbols=5, horizon=3, seen=(0, 4, 2))[0] == "042"


def test_why_a_program_stops():
    assert writes("+")[1] == writes("+,")[1] == writes("[+")[1] == "bits"
    assert writes("]")[1] == writes("+[]")[1] == "steps"
    assert writes(".]")[1] == "symbols"


@pytest.mark.parametrize(("steps", "output"), [(5, ""), (6, "1")])
def test_silence_is_counted_in_executed_instructions_the_writing_one_included(steps, output):
    assert writes("+++++.", steps=steps)[0] == output


def test_silence_begins_again_with_every_symbol():
    assert writes("+++.+++.", steps=4)[0] == "10"


def test_what_is_only_passed_over_costs_bits_and_no_time():
    assert writes("[++++++++++].", steps=2)[0] == "0"


def test_bits_are_read_when_they_are_needed_and_not_before():
    run, _ = run_program(assemble(".]") + "1" * 50, 2, 100, 8)
    assert run.n_read == 6
    run, _ = run_program(assemble(",1.") + "1" * 50, 2, 100, 1)
    assert run.n_read == 7


def test_text_and_bits_are_two_ways_to_write_one_program():
    assert assemble("<>+.,?[]") == "000001010011100101110111"
    assert disassemble(assemble(GLYPHS.replace(",", ",1"))) == GLYPHS.replace(",", ",1")
    assert disassemble(assemble(",1.,0+]")) == ",1.,0+]"
    assert disassemble(assemble(".]") + "10") == ".]|10"


def test_brackets_find_their_partners():
    assert matches([Op.CLOSE, Op.OPEN, Op.OPEN, Op.CLOSE, Op.OPEN]) == {2: 3, 3: 2}


def test_other_characters_are_refused():
    with pytest.raises(InputError, match="no instructions"):
        assemble("+-")
