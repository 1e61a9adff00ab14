"""Tables are made of records; what is missing stands there as missing, whatever else is known."""

from dataclasses import replace

import pytest

from mightnt.audits.summary import over_seeds
from mightnt.experiments.sweep.cells import headline
from mightnt.experiments.sweep.plan import planned
from mightnt.experiments.sweep.records import Record, Records
from mightnt.experiments.sweep.studies import STUDIES
from mightnt.experiments.sweep.tables import (
    COLUMNS,
    Table,
    behavior_table,
    demonstrator_table,
    gathered,
    held_by,
    largest_reward_table,
    mean_of,
    study_table,
)
from tests.experiments.sweep.made import recorded

STUDY = STUDIES["budgets"]
RUNS = planned([STUDY])


def row_of(table, base, held):
    (row,) = [row for row in table.rows if row[:2] == (base, held)]
    return dict(zip(table.head, row, strict=True))


def test_a_number_is_the_mean_over_seeds_with_its_t_interval():
    row = row_of(study_table(STUDY, recorded(RUNS)), "situations", "budget 20")
    assert row["runs"] == "3 of 3"
    values = [0.95 * 20 + 0.02 * seed for seed in range(3)]
    assert row["KL(π, μ)"] == str(over_seeds(values))
    assert row["largest KL(π, μ)"] == str(over_seeds([1.5 * 0.95 * 20] * 3))
    assert row["KL(π, μ) a turn"] == str(over_seeds([value / 6 for value in values]))
    assert row["asks in 100 turns"] == str(over_seeds([0.0, 0.4, 0.8]))
    assert row["μ's tokens"] == str(over_seeds([0.12] * 3))
    assert row["KL(base, μ)"] == str(over_seeds([20.0, 20.02, 20.04, 20.06, 20.08]))


def test_every_cell_with_learning_has_a_row_whether_run_or_not():
    table = study_table(STUDY, Records({}))
    assert len(table.rows) == len([cell for cell in STUDY.cells if not cell.alone]) == 31
    for row in table.rows:
        assert row[2] in ("**0 of 3**", "**0 of 5**")
        assert set(row[3 : 3 + len(COLUMNS)]) == {"missing"}
        assert row[-1] == ("–" if row[0] == "none" else "missing")


def test_missing_and_failed_runs_are_counted_apart():
    cell = replace(headline("mixture"), strength=20.0)
    records = recorded([run for run in RUNS if run not in ((cell, 0), (cell, 2))])
    failed = Record(cell, 0, None, "no")
    with_failure = Records({**records.by_run, failed.run: failed})
    one = gathered(cell, with_failure)
    assert (one.missing_seeds, one.n_planned, len(one.failed)) == ((0, 2), 3, 1)
    assert row_of(study_table(STUDY, with_failure), "mixture", "budget 20")["runs"] == "**1 of 3** (1 failed)"
    assert "one seed" in row_of(study_table(STUDY, with_failure), "mixture", "budget 20")["KL(π, μ)"]


def test_what_no_run_measured_is_a_dash_and_infinities_stay():
    cell = headline("single")
    unknown = recorded([(cell, seed) for seed in range(3)], kl_demonstrator_nats=None)
    table = study_table(STUDIES["bases"], unknown)
    assert row_of(table, "single", "budget 10")["KL(π, μ)"] == "–"
    infinite = recorded([(cell, 0)], kl_demonstrator_nats={"mean": "inf", "max": "inf"})
    assert gathered(cell, infinite).values(mean_of("kl_demonstrator_nats")) == [float("inf")]
    assert row_of(study_table(STUDIES["bases"], infinite), "single", "budget 10")["KL(π, μ)"].startswith("∞")


def test_other_seeds_are_other_runs():
    records = recorded(planned([STUDY], 7))
    assert gathered(headline(), records).missing_seeds == (0, 1, 2, 3, 4)
    assert gathered(headline(), records, 7).missing_seeds == ()


def test_the_demonstrator_stands_beside_each_reward():
    rewards = STUDIES["rewards"]
    table = demonstrator_table(rewards, recorded(planned([rewards])))
    assert [row[0] for row in table.rows] == ["headline", "adversarial reward", "harmless reward"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "budget 10"),
        ({"constraint": "penalty", "strength": 0.01}, "penalty 0.01"),
        ({"constraint": "target", "length": 2}, "target 10; x2"),
        ({"constraint": "none", "strength": 0.0}, "nothing"),
    ],
)
def test_what_holds_a_policy(change, words):
    assert held_by(replace(headline(), **change)) == words


def test_markdown():
    assert Table(("a", "b"), (("1", "x|y"),)).markdown() == "| a | b |\n| --- | --- |\n| 1 | x\\|y |\n"
    assert Table(("a",), ()).markdown() == ""


DONE = {
    "kinds": {"silence": 0.25, "demonstrated": 0.75},
    "description": {"bits_per_turn": 7.5},
    "smallest_policy": {"parameters": 120},
    "judged": [{"question": "better", "win_rate": 0.25}, {"question": "more complex", "win_rate": "nan"}],
}


def test_behavior_has_a_row_for_every_policy_and_the_demonstrator():
    table = behavior_table(STUDIES["bases"], recorded(planned([STUDIES["bases"]]), **DONE))
    assert table.head[:5] == ("base", "held by", "runs", "silence, %", "demonstrated, %")
    row = row_of(table, "mixture", "budget 10")
    assert row["silence, %"] == str(over_seeds([25.0] * 5))
    assert (row["bits a turn"], row["smallest policy"]) == (str(over_seeds([7.5] * 5)), str(over_seeds([120.0] * 5)))
    assert row["better than μ, %"].startswith("25.0")
    assert row["more complex than μ, %"].startswith("nan")
    assert row_of(table, "demonstrator", "nothing")["runs"] == "5 of 5"
    partly = recorded([(headline("mixture"), 0)], **DONE)
    assert row_of(behavior_table(STUDIES["bases"], partly), "single", "budget 10")["silence, %"] == "missing"


def test_without_descriptions_there_is_no_table_and_no_smallest_policy_is_a_dash():
    runs = planned([STUDIES["bases"]])
    assert behavior_table(STUDIES["bases"], recorded(runs)).markdown() == ""
    table = behavior_table(STUDIES["bases"], recorded(runs, **(DONE | {"smallest_policy": None})))
    assert row_of(table, "mixture", "budget 10")["smallest policy"] == "–"


def test_the_largest_reward_stands_beside_what_it_costs_and_what_is_done():
    """The largest reward of the help desk is 1: a reward of .6 is 60 percent of it."""
    desk = STUDIES["shortcut"]
    table = largest_reward_table(desk, recorded(planned([desk]), **DONE))
    row = row_of(table, "mixture", "budget 10; tools")
    rewards = [0.6 + 0.02 * seed for seed in range(3)]
    assert row["of the largest proxy reward, %"] == str(over_seeds([100 * reward for reward in rewards]))
    assert row["KL(π, base)"] == str(over_seeds([9.9] * 3))
    assert row["KL(π, μ)"] == str(over_seeds([150.0, 150.02, 150.04]))
    assert row["silence, %"] == str(over_seeds([25.0] * 3))
    mu = row_of(table, "demonstrator", "nothing; tools")
    assert mu["of the largest proxy reward, %"] == str(over_seeds([40.0, 42.0, 44.0]))
    assert (mu["KL(π, μ)"], mu["runs"]) == ("–", "3 of 3")
    assert len(table.rows) == len([cell for cell in desk.cells if not cell.alone]) + 1
    lost = largest_reward_table(desk, recorded(planned([desk]), proxy_reward=None))
    assert row_of(lost, "mixture", "budget 10; tools")["of the largest proxy reward, %"] == "–"


def test_where_no_largest_reward_is_known_there_is_no_such_table():
    assert largest_reward_table(STUDY, recorded(RUNS, **DONE)).markdown() == ""
