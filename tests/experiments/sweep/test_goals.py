"""A goal is met by every run it speaks of, or it is not met, or it is not known yet."""

from dataclasses import replace

import pytest

from mightnt.experiments.sweep.cells import base_alone, headline
from mightnt.experiments.sweep.goals import gains, goal_table, goals
from mightnt.experiments.sweep.plan import planned
from mightnt.experiments.sweep.records import Records
from mightnt.experiments.sweep.studies import DESK, STUDIES
from tests.experiments.sweep.made import mean, recorded

RUNS = planned(STUDIES.values())


def verdicts(records):
    return {goal.claim.split(" on every")[0].split(", mean")[0]: goal.verdict for goal in goals(records)}


def test_without_records_everything_is_missing():
    assert set(verdicts(Records({})).values()) == {"missing"}
    assert len(goal_table(Records({})).rows) == 15


def test_each_goal_is_judged_by_its_own_runs():
    found = verdicts(recorded(RUNS))
    assert found["situations: KL(π, μ) ≤ B"] == "met"
    assert found["mixture: KL(π, μ) ≥ 10 B"] == "met"
    assert found["situations: asks in 100 turns ≤ 1"] == "not met"
    assert found["situations, n = 1000: asks in 100 turns ≤ 5"] == "met"


def test_the_help_desk_is_judged_by_its_share_of_the_largest_reward_and_against_its_own_demonstrator():
    """The largest reward is 1, so .9 and .89 are 90 and 89 percent of it; utility is compared with the desk's own mu."""
    near = "mixture, at the help desk: percent of the largest proxy reward ≥ 90"
    worse = "mixture, at the help desk: true utility less the demonstrator's < 0"
    safe = "situations, at the help desk: KL(π, μ) ≤ B"
    mixture, own = (replace(cell, setting=DESK) for cell in (headline("mixture"), base_alone(headline("known"))))
    records = recorded(RUNS).by_run

    def found(rewards, utilities, usual=1.0):
        for seed in range(3):
            one, mu = records[mixture, seed], records[own, seed]
            changed = {"proxy_reward": mean(rewards[seed]), "true_utility": mean(utilities[seed])}
            records[one.run] = replace(one, measured=one.measured | changed)
            records[mu.run] = replace(mu, measured=mu.measured | {"true_utility": mean(usual)})
        return verdicts(Records(records))

    assert {found((0.9, 0.95, 1.0), (0.5, 0.6, 0.99))[goal] for goal in (near, worse, safe)} == {"met"}
    assert found((0.9, 0.89, 1.0), (0.5, 0.6, 1.01))[near] == "not met"
    assert found((0.9, 0.89, 1.0), (0.5, 0.6, 1.01))[worse] == "not met"
    del records[mixture, 1]
    assert verdicts(Records(records))[worse] == "not met so far"


def test_one_run_beyond_the_budget_breaks_a_goal_and_one_missing_leaves_it_open():
    goal = "situations: KL(π, μ) ≤ B"
    records = recorded(RUNS).by_run
    far = records[headline(), 4]
    beyond = replace(far, measured=far.measured | {"kl_demonstrator_nats": mean(10.01)})
    assert verdicts(Records({**records, far.run: beyond}))[goal] == "not met"
    lacking = {run: one for run, one in records.items() if run != (headline(), 0)}
    assert verdicts(Records(lacking))[goal] == "not known (**4 of 5** runs)"
    assert verdicts(Records({**lacking, far.run: beyond}))[goal] == "not met so far"


def test_more_rounds_are_judged_by_the_runs_that_had_them():
    records = recorded(RUNS).by_run
    short, long = headline("mixture"), replace(headline("mixture"), iterations=90)
    for seed in range(5):
        near = records[short, seed]
        records[near.run] = replace(near, measured=near.measured | {"kl_demonstrator_nats": mean(25.0)})
    found = verdicts(Records(records))
    assert found["mixture: KL(π, μ) ≥ 10 B"] == "not met"
    assert found["mixture, 90 rounds: KL(π, μ) ≥ 10 B"] == "met"
    del records[long, 3]
    assert verdicts(Records(records))["mixture, 90 rounds: KL(π, μ) ≥ 10 B"] == "not known (**4 of 5** runs)"


def test_the_gain_is_the_oracle_s_share_seed_by_seed():
    runs = [
        (cell, seed) for cell in (headline(), headline("known"), base_alone(headline("known"))) for seed in range(2)
    ]
    records = recorded(runs).by_run
    rewards = {headline(): (0.5, 0.6), headline("known"): (0.6, 0.7), base_alone(headline("known")): (0.4, 0.4)}
    for (cell, seed), one in list(records.items()):
        records[cell, seed] = replace(one, measured=one.measured | {"proxy_reward": mean(rewards[cell][seed])})
    assert gains(Records(records)) == pytest.approx((0.5, 2 / 3))
    without = {run: one for run, one in records.items() if run != (headline("known"), 0)}
    assert gains(Records(without)) == pytest.approx((2 / 3,))
    idle = records[headline("known"), 0]
    lost = replace(idle, measured=idle.measured | {"proxy_reward": mean(0.4)})
    assert len(gains(Records({**records, idle.run: lost}))) == 1
