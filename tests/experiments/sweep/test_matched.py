"""Constraints compared where they spend the same: read off their own curves, seed by seed, and never beyond them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.audits.summary import over_seeds
from mightnt.experiments.sweep.cells import headline
from mightnt.experiments.sweep.matched import COLUMNS, interpolated, matched_table
from mightnt.experiments.sweep.plan import planned
from mightnt.experiments.sweep.records import Record, Records
from mightnt.experiments.sweep.studies import PENALTIES_PER_NAT, STUDIES, TARGETS_NATS
from tests.experiments.sweep.made import mean, measured

STUDY = STUDIES["constraints"]


def spent(cell, seed):
    """Nats that a made-up run spends: a penalty p buys 0.1 / p, a target what it says, a budget a tenth less than it may."""
    if cell.constraint == "penalty":
        return 0.1 / cell.strength + seed
    return 9.0 + 0.1 * seed if cell.constraint == "budget" else cell.strength


def made(run):
    cell, seed = run
    if cell.alone:
        return Record(cell, seed, measured(cell, seed))
    x = spent(cell, seed)
    far = {"budget": 1.0, "penalty": 3.0, "target": 2.0}[cell.constraint]
    values = {"kl_base_nats": mean(x), "kl_demonstrator_nats": mean(far * x, 10 * far * x)}
    return Record(cell, seed, measured(cell, seed, **values))


RECORDS = Records({run: made(run) for run in planned([STUDY])})


def rows_of(records):
    table = matched_table(STUDY, records)
    return {row[:2]: dict(zip(table.head[2:], row[2:], strict=True)) for row in table.rows}


def test_every_constraint_is_read_off_at_what_the_budget_spends_with_the_same_seed():
    rows = rows_of(RECORDS)
    assert list(rows) == [
        (base, held) for base in ("mixture", "situations", "known") for held in ("budget 10", "penalty", "target")
    ]
    at = [9.0, 9.1, 9.2]
    penalty, target = rows["mixture", "penalty"], rows["mixture", "target"]
    assert (penalty["seeds"], target["seeds"]) == ("3 of 3", "3 of 3")
    assert rows["mixture", "budget 10"]["seeds"] == "3 of 3"  # of five: those that the others have
    assert rows["mixture", "budget 10"]["KL(π, μ)"] == str(over_seeds(at))
    assert penalty["KL(π, base)"] == target["KL(π, base)"] == str(over_seeds(at))
    assert penalty["KL(π, μ)"] == str(over_seeds([3 * x for x in at]))
    assert target["KL(π, μ)"] == str(over_seeds([2 * x for x in at]))
    assert target["largest KL(π, μ)"] == str(over_seeds([20 * x for x in at]))


def test_a_curve_that_does_not_enclose_the_budget_says_nothing():
    dear = [
        run for run in RECORDS.by_run if run[0].constraint == "penalty" and run[0].strength < max(PENALTIES_PER_NAT)
    ]
    only_dear = Records({run: record for run, record in RECORDS.by_run.items() if run not in dear})
    row = rows_of(only_dear)["known", "penalty"]
    assert row["seeds"] == "0 of 3"
    assert {row[name] for name in COLUMNS} == {"missing"}
    assert rows_of(only_dear)["known", "target"]["seeds"] == "3 of 3"


def test_a_missing_seed_is_missed_in_both():
    gone = (replace(headline("known"), constraint="target", strength=TARGETS_NATS[0]), 1)
    rest = Records({run: record for run, record in RECORDS.by_run.items() if run != gone})
    assert rows_of(rest)["known", "target"]["seeds"] == "2 of 3"
    held = Records({run: record for run, record in RECORDS.by_run.items() if run != (headline("known"), 1)})
    assert rows_of(held)["known", "budget 10"]["seeds"] == "**2 of 3**"
    assert rows_of(held)["known", "target"]["seeds"] == "2 of 3"


def test_studies_that_hold_by_budgets_alone_have_no_such_table():
    assert matched_table(STUDIES["budgets"], RECORDS).markdown() == ""
    assert matched_table(STUDIES["capability"], RECORDS).markdown() == ""


def test_the_line_between_two_neighbors_is_read_and_nothing_beyond():
    points = [(4.0, 40.0), (1.0, 10.0), (2.0, 30.0)]
    assert interpolated(points, 3.0) == 35.0
    assert interpolated(points, 1.5) == 20.0
    assert interpolated(points, 2.0) == 30.0
    assert interpolated([*points, (2.0, 50.0)], 2.0) == 40.0
    assert interpolated(points, 0.9) is None
    assert interpolated(points, 4.1) is None
    assert interpolated([], 1.0) is None
    assert interpolated([(1.0, float("inf")), (2.0, 1.0)], 1.5) == float("inf")


@given(st.lists(st.floats(0.1, 100.0), min_size=2, max_size=6, unique=True), st.floats(0.0, 1.0), st.floats(-3, 3))
def test_a_straight_line_is_found_again(xs, share, slope):
    x = min(xs) + share * (max(xs) - min(xs))
    at = interpolated([(each, 5.0 + slope * each) for each in xs], x)
    assert at == pytest.approx(5.0 + slope * x, abs=1e-6)
