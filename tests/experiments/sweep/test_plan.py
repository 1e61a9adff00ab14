"""Each run is planned once, estimates add up, and follow what was measured."""

from dataclasses import replace
from itertools import pairwise

import pytest

from mightnt.experiments.sweep.plan import overview, pace, planned, preparations, run_seconds
from mightnt.experiments.sweep.records import Records
from mightnt.experiments.sweep.studies import STUDIES, n_seeds
from mightnt.files import write_json
from tests.experiments.sweep.made import recorded

BOTH = [STUDIES["bases"], STUDIES["budgets"]]


def test_shared_runs_are_planned_once_and_seeds_come_one_after_the_other():
    runs = planned(BOTH)
    assert len(set(runs)) == len(runs)
    assert set(runs) == {(cell, s) for study in BOTH for cell in study.cells for s in range(n_seeds(cell))}
    seeds = [seed for cell, seed in planned([STUDIES["bases"]])]
    assert all(a <= b for a, b in pairwise(seeds))
    assert {seed for _, seed in planned(BOTH, 7)} == set(range(7, 12))


def test_what_is_needed_is_listed_once_and_only_while_it_is_missing(tmp_path):
    runs = planned([STUDIES["bases"]])
    needed = preparations(runs, tmp_path)
    assert len(needed) == 5 * 5
    first = next(iter(needed.values()))
    write_json(first.place, {})
    assert set(preparations(runs, tmp_path)) == set(needed) - {first.part.name}


def test_the_overview_counts_what_is_shared_once(tmp_path):
    rows = overview(BOTH, Records({}), tmp_path, 0, 2)
    assert sum(row.own_runs for row in rows) == len(planned(BOTH))
    assert rows[1].own_runs < rows[1].runs
    runs = planned(BOTH)
    whole = sum(run_seconds(cell) for cell, _ in runs) + sum(
        one.seconds for one in preparations(runs, tmp_path).values()
    )
    assert sum(row.hours for row in rows) == pytest.approx(whole / 3600 / 2)


def test_the_overview_follows_what_was_measured(tmp_path):
    runs = planned(BOTH[:1])
    records = recorded(runs[:10])
    (row,) = overview(BOTH[:1], records, tmp_path, 0, 1)
    assert (row.runs, row.measured) == (len(runs), 10)
    assert pace(records) == pytest.approx(600 / sum(run_seconds(cell) for cell, _ in runs[:10]))
    twice = Records({run: replace(one, seconds=120.0) for run, one in records.by_run.items()})
    assert overview(BOTH[:1], twice, tmp_path, 0, 1)[0].hours == pytest.approx(2 * row.hours)
    assert pace(Records({})) == 1.0


def test_every_part_takes_less_than_an_hour_on_two_cores(tmp_path):
    rows = overview(list(STUDIES.values()), Records({}), tmp_path, 0, 2)
    assert max(row.hours for row in rows) < 1
    assert sum(row.hours for row in rows if row.study.name not in ("shortcut", "repeats")) < 4
    assert sum(row.hours for row in rows) < 5.5
