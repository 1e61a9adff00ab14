"""Goals, ranking and words from records made by hand: what is missing stays open, what decides is not what is shown."""

import math

import pytest

from mightnt.experiments.frontier_table import (
    GOALS,
    Cell,
    by_seed,
    default_base,
    markdown,
    mean,
    on_average,
    on_every_seed,
    ranked_table,
    ranking,
    runs_table,
    tables,
)
from tests.experiments.frontier_records import estimate, record, run

GOOD = (
    [run("good", 10000, s, 9.9, asks=0.009, reward=0.5, largest=19.9) for s in (0, 1)]
    + [run("good", 10000, s, 19.0, kind="adversarial") for s in (0, 1)]
    + [run("good", 1000, s, 9.0, asks=0.05) for s in (0, 1)]
)
ORACLE_RUNS = [run("known", n, s, 9.0, reward=0.5) for n in (1000, 10000) for s in (0, 1)]


def goals_of(runs, candidate="good"):
    (found,) = [r for r in ranking(record(runs, ["good", "known"])) if r.candidate == candidate]
    return found.reported


def changed(n, kind, seed, **figures):
    """GOOD with another run in one place."""
    kept = [r for r in GOOD if (r["n_demonstrations"], r["reward"], r["seed"]) != (n, kind, seed)]
    return kept + ORACLE_RUNS + ([run("good", n, seed, kind=kind, **figures)] if figures else [])


def test_all_goals_met():
    assert goals_of(GOOD + ORACLE_RUNS) == (True,) * 6


@pytest.mark.parametrize(
    ("n", "kind", "figures", "broken"),
    [
        (10000, "benign", {"kl": 10.1, "largest": 19.9, "asks": 0.009}, 0),
        (10000, "benign", {"kl": 9.9, "largest": 20.1, "asks": 0.009}, 1),
        (10000, "benign", {"kl": 9.9, "largest": 19.9, "asks": 0.012}, 2),
        (10000, "benign", {"kl": 9.9, "largest": 19.9, "asks": 0.009, "reward": 0.488}, 3),
        (10000, "adversarial", {"kl": 20.1}, 4),
        (1000, "benign", {"kl": 10.1, "asks": 0.05}, 5),
        (1000, "benign", {"kl": 9.0, "asks": 0.052}, 5),
    ],
)
def test_one_seed_breaks_exactly_its_goal(n, kind, figures, broken):
    met = goals_of(changed(n, kind, 1, **figures))
    assert [i for i, each in enumerate(met) if each is False] == [broken]
    assert met.count(True) == 5


def test_a_mean_over_seeds_may_hold_where_one_seed_does_not():
    """Asks and gain are means: .011 and .007, 90% and 110%."""
    runs = [
        *changed(10000, "benign", 0, kl=9.9, largest=19.0, asks=0.011, reward=0.49),
    ]
    runs = [
        r
        for r in runs
        if (r["candidate"], r["n_demonstrations"], r["reward"], r["seed"]) != ("good", 10000, "benign", 1)
    ]
    runs.append(run("good", 10000, 1, 9.9, asks=0.007, reward=0.51, largest=19.0))
    assert goals_of(runs) == (True,) * 6


def test_a_missing_seed_leaves_goals_open_and_a_broken_one_decides():
    assert goals_of(changed(10000, "benign", 1)) == (None, None, None, None, True, True)
    worse = changed(10000, "benign", 1)
    worse = [
        r
        for r in worse
        if not (r["candidate"] == "good" and r["n_demonstrations"] == 10000 and r["reward"] == "benign")
    ]
    worse.append(run("good", 10000, 0, 11.0, largest=12.0))
    assert goals_of(worse)[:4] == (False, None, None, None)


def test_without_the_oracle_or_its_gain_no_share_is_claimed():
    assert goals_of(GOOD)[3] is None
    flat = [run("known", 10000, s, 9.0, reward=0.4) for s in (0, 1)]
    assert goals_of(GOOD + flat)[3] is None
    cell = Cell(record(GOOD + flat, ["good"]), "good", 10000)
    assert cell.gains() == [None, None]
    assert by_seed(cell, cell.gains()) == "–"


def test_gains_are_shares_of_the_oracles_mean():
    """mu .4, oracle .5 and .6 (mean .55): .475 is half of the way."""
    oracle = [run("known", 10000, s, 9.0, reward=reward) for s, reward in enumerate((0.5, 0.6))]
    mine = [run("good", 10000, 0, 9.0, reward=0.475), run("good", 10000, 1, 9.0, reward=0.55)]
    assert Cell(record(oracle + mine, ["good", "known"]), "good", 10000).gains() == pytest.approx([0.5, 1.0])
    assert Cell(record(oracle + mine, ["good", "known"]), "known", 10000).gains() == pytest.approx([2 / 3, 4 / 3])


def test_the_ranking_looks_at_the_episodes_for_choosing_alone():
    """``lucky`` reports better numbers and was worse where it was chosen."""
    lucky = [run("lucky", 10000, s, 1.0, chosen_kl=30.0) for s in (0, 1)]
    plain = [run("plain", 10000, s, 9.0, chosen_kl=9.0) for s in (0, 1)]
    made = record(lucky + plain + ORACLE_RUNS, ["lucky", "plain", "known"])
    assert [r.candidate for r in ranking(made)].index("plain") < [r.candidate for r in ranking(made)].index("lucky")
    assert default_base(made).candidate == "plain"
    row = {r[1]: r for r in ranked_table(made).rows}["lucky"]
    assert "✓ 1.00 (1.00, 1.00)" in row


def test_goals_and_ties_are_each_decided_on_the_episodes_for_choosing():
    """``uneven`` breaks a goal only there, though it is nearer; of equals, ``far`` is nearer only where it is reported."""
    uneven = [run("uneven", 10000, s, 5.0, chosen_kl=kl, largest=12.0) for s, kl in enumerate((1.0, 11.0))]
    even = [run("even", 10000, s, 9.0, largest=12.0) for s in (0, 1)]
    far = [run("far", 10000, s, 1.0, chosen_kl=9.5, largest=12.0) for s in (0, 1)]
    made = record(uneven + even + far, ["uneven", "far", "even"])
    assert [r.candidate for r in ranking(made)] == ["even", "far", "uneven"]


def test_goals_first_then_distance_and_what_was_not_run_comes_last():
    near = [run("near", 10000, s, 2.0, asks=0.5, largest=50.0) for s in (0, 1)]
    nearer = [run("nearer", 10000, s, 1.0, asks=0.5, largest=50.0) for s in (0, 1)]
    made = record(GOOD + near + nearer + ORACLE_RUNS, ["unrun", "near", "nearer", "good", "known"])
    assert [r.candidate for r in ranking(made)] == ["good", "known", "nearer", "near", "unrun"]
    assert ranking(made)[-1].kl_nats == math.inf
    assert default_base(record([], ["unrun"])) is None
    assert default_base(record(ORACLE_RUNS, ["known"])) is None


def test_what_was_not_run_is_missing_and_what_failed_says_so():
    runs = [run("good", 10000, 0, 8.0), run("good", 10000, 2, 10.0)]
    made = record(runs, ["good", "other"], seeds=4, failed={"run-benign-n10000-good-seed3": "ValueError: no"})
    cell = Cell(made, "good", 10000)
    assert by_seed(cell, cell.values("kl_demonstrator_nats")) == "9.00 (8.00, missing, 10.0, failed)"
    assert runs_table(made, 10000, "benign").rows[1][1:] == ("missing",) * 11
    assert runs_table(made, 1000, "benign").rows[0][1:] == ("missing",) * 11


def test_one_seed_needs_no_brackets_and_rounding_is_nothing():
    made = record([run("good", 10000, 0, 1e-16)], ["good"], seeds=1)
    cell = Cell(made, "good", 10000)
    assert by_seed(cell, cell.values("kl_demonstrator_nats")) == "0"


def test_infinite_distances_are_kept_as_records_write_them():
    made = record([run("good", 10000, 0, 1.0)], ["good"], seeds=1)
    made["runs"][0]["reported"]["kl_demonstrator_nats"] = {"mean": "inf", "standard_error": "nan", "n": 5, "max": "inf"}
    cell = Cell(made, "good", 10000)
    assert cell.values("kl_demonstrator_nats") == [math.inf]
    assert on_every_seed(cell.values("kl_demonstrator_nats"), 10.0) is False
    assert by_seed(cell, cell.values("kl_demonstrator_nats")) == "∞"


def test_nan_meets_nothing():
    assert on_every_seed([math.nan], 10.0) is False
    assert on_average([math.nan], 10.0) is False
    assert mean([None, 2.0]) == 2.0


def test_markdown_holds_every_table_and_breaks_none():
    alone = {
        "candidate": "good",
        "n_demonstrations": 1000,
        "kl_base_demonstrator_nats": estimate(3.0),
        "asking_nats_per_episode": estimate(2.0),
        "asks_per_turn": 0.02,
        "gap_base_nats": estimate(0.5),
        "gap_demonstrator_nats": {"mean": "-inf", "standard_error": "nan", "n": 500, "max": 0.0},
        "held_out_vetoed_turns": 0.011,
        "times_single": 1.2345,
    }
    made = record(GOOD, ["good"], alone=[alone])
    text = markdown(made)
    assert text.count("### ") == len(tables(made)) == 1 + 4 + 2 + 1
    assert "3.00 ± 0.10 | 2.00 ± 0.10 | 2.00% | 0.500 ± 0.10 | -∞ | 1.10% | – | 1.23 | 1 |" in text
    for line in text.splitlines():
        if line.startswith("| good | good <"):
            assert r"a\|b" in line
    for table in tables(made):
        assert all(len(row) == len(table.head) for row in table.rows)


def test_every_world_has_goals_with_their_own_words():
    for goals in GOALS.values():
        assert len({goal.words for goal in goals}) == len(goals) > 0
