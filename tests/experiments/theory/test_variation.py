"""The chapter T2: its claims come out, one seed gives one answer, and what it measures is what it says."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mightnt.experiments.theory.theorem import Computed
from mightnt.experiments.theory.variation import (
    THEOREM,
    action_values,
    fork,
    largest_rise_of_worse,
    largest_rise_of_worse_trajectory,
    one_decision,
)
from mightnt.planners.levels import evaluate, random_levels


@pytest.fixture(scope="module")
def computed():
    ticks = []
    result = THEOREM.compute(THEOREM.profiles["quick"], 0, lambda done, of: ticks.append((done, of)))
    assert ticks[-1][0] == ticks[-1][1] == len(ticks)
    return result


def test_every_claim_comes_out(computed):
    assert [row.claim for row in computed.rows if row.holds is False] == []
    assert sum(row.holds is True for row in computed.rows) >= 10


@pytest.mark.slow
def test_it_is_deterministic_given_the_seed(computed):
    again = THEOREM.compute(THEOREM.profiles["quick"], 0, lambda done, of: None)
    assert again == computed
    other = THEOREM.compute(replace(THEOREM.profiles["quick"], n_trees=5), 1, lambda done, of: None)
    assert other.rows != computed.rows
    assert [row.claim for row in other.rows if row.holds is False] == []


def test_it_draws_from_its_record(computed):
    record = Computed.from_json(json.loads(json.dumps(computed.as_json())))
    panels = THEOREM.draw(record.curves)
    assert len(panels) == 3
    assert all(panel.svg.startswith("<svg") and panel.title for panel in panels)


def test_the_three_readings_of_a_value():
    levels = fork()
    best, base = action_values(levels), action_values(levels, list(levels.log_base))
    assert best[0][0].tolist() == pytest.approx([0.8, 1.0])
    assert best[1][0].tolist() == pytest.approx([0.8, 0.5])
    assert base[1][0].tolist() == pytest.approx([0.55, 0.5])
    assert base[1][1].tolist() == pytest.approx([0.5, 0.55])
    levels = random_levels(np.random.default_rng(0), 2, 3, 2)
    own = action_values(levels, list(levels.log_base))
    assert np.exp(levels.log_base[0][0]) @ own[0][0] == pytest.approx(evaluate(levels, list(levels.log_base))[0])


def test_a_rise_is_one_of_a_worse_action_where_the_plan_goes():
    levels = one_decision(np.array([1.0, 0.5, 0.5]), np.array([0.2, 0.3, 0.5]))
    values = action_values(levels)
    assert largest_rise_of_worse(levels, [np.log([[0.5, 0.25, 0.25]])], values) == 0
    assert largest_rise_of_worse(levels, [np.log([[0.1, 0.4, 0.5]])], values) == pytest.approx(0.1)
    assert largest_rise_of_worse(levels, [np.log([[0.1, 0.4, 0.5]])], values, [-values[0]]) == 0  # best in one reading
    assert largest_rise_of_worse_trajectory(levels, [np.log([[0.1, 0.4, 0.5]])]) == pytest.approx(0.1)
    two, second_is_best = fork(), [np.tile([0, 1.0], (4**t, 1)) for t in range(3)]
    with np.errstate(divide="ignore"):
        first = np.log([[0.0, 1.0]])
    for where, most in (
        (slice(0, 2), 0.0),
        (slice(2, 4), 0.4),
    ):  # after first action 0, which is never taken, and after 1
        second = np.log(np.full((4, 2), 0.5))
        second[where] = np.log([0.9, 0.1])
        assert largest_rise_of_worse(two, [first, second, two.log_base[2]], second_is_best) == pytest.approx(most)
