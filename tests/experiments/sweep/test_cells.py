"""A cell is its fields: named apart, kept and read back, refused when they are not its own."""

from dataclasses import asdict, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.experiments.sweep.cells import STOPPING, Cell, Imitation, alone, base_alone, cell_from, headline

CELLS = st.builds(
    Cell,
    base=st.sampled_from(["known", "mixture"]),
    strength=st.floats(0.1, 100),
    length=st.integers(1, 4),
    iterations=st.integers(0, 100),
    imitation=st.builds(Imitation, shared=st.booleans(), n_networks=st.integers(1, 3)),
)


def test_the_headline_is_that_of_the_paper_s_claim():
    cell = headline()
    assert (cell.n_demonstrations, cell.constraint, cell.strength, cell.length) == (10000, "budget", 10.0, 1)
    assert cell.base == "situations"
    assert cell.stopping == STOPPING
    assert "kept" in STOPPING
    assert (headline("none").constraint, headline("none").strength) == ("none", 0.0)


@given(CELLS, CELLS)
def test_a_key_is_that_of_one_cell(one, other):
    assert (one.key == other.key) == (one == other)
    assert (one.name == other.name) == (one == other)


@given(CELLS)
def test_what_is_kept_is_read_back(cell):
    assert cell_from(asdict(cell)) == cell


def test_the_key_stays_what_records_say():
    """A change of fields or defaults needs another version of records."""
    assert headline().key == "1dadc7e898"


@pytest.mark.parametrize("field", [field.name for field in fields(Cell)])
def test_every_field_counts(field):
    cell = headline()
    value = getattr(cell, field)
    other = (
        replace(value, shared=True)
        if field == "imitation"
        else value + (1 if isinstance(value, int) else 1.0 if isinstance(value, float) else "x")
    )
    assert replace(cell, **{field: other}).key != cell.key


def test_names_say_what_differs():
    assert headline("mixture").name.startswith("mixture-budget10-")
    odd = replace(headline(), reward="adversarial", n_demonstrations=300, length=2, actor_width=32, iterations=60)
    assert odd.peculiar() == ["adversarial reward", "n=300", "x2", "actor 2x32", "60 iterations"]
    assert " " not in odd.name
    assert alone(odd).name.startswith("situations-alone-adversarialreward-n=300-x2-")


def test_cells_that_differ_in_learning_share_the_base_alone():
    one = replace(headline(), strength=5.0, constraint="target", iterations=90, actor_width=512, episodes=8)
    assert alone(one) == alone(headline())
    assert alone(replace(one, length=2)) != alone(headline())
    assert alone(one).alone
    assert base_alone(replace(one, reward="adversarial")) == alone(headline())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"extra": 1}, "'extra' is unknown"),
        ({"base": None}, "'base' is None; str"),
        ({"length": 1.0}, "'length' is 1.0; int"),
        ({"iterations": True}, "'iterations' is True; int"),
        ({"imitation": {}}, "is missing"),
        ({"imitation": 3}, "imitation must be an object"),
    ],
)
def test_other_fields_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        cell_from(asdict(headline()) | change)


def test_a_missing_field_is_named():
    kept = asdict(headline())
    del kept["asking"]
    with pytest.raises(InputError, match="'asking' is missing"):
        cell_from(kept)
    assert cell_from(asdict(headline()) | {"strength": 10}) == headline()
