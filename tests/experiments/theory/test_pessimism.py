"""The chapter T3: its claims hold, the seed decides, it draws from its record."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mightnt.experiments.theory.pessimism import THEOREM, classes, coverage, power
from mightnt.experiments.theory.theorem import Computed
from mightnt.files import plain

QUICK = THEOREM.profiles["quick"]
TINY = replace(
    QUICK, n_demonstrations=20, n_demonstrated_steps=20, n_imitators=4, n_asking_steps=50, gaps=(0.3, 0.2), n_trees=2,
    n_random_decisions=50, n_dice=2, n_episodes=2, n_rounds=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def computed():
    seen = []
    result = THEOREM.compute(QUICK, 0, lambda done, of: seen.append((done, of)))
    assert seen[-1] == (len(seen), len(seen))
    return result


def test_every_claim_holds(computed):
    assert [row.claim for row in computed.rows if row.holds is False] == []
    assert sum(row.holds is True for row in computed.rows) > 40


def test_bounds_are_far_below_the_order_of_the_paper_and_above_what_was_asked(computed):
    bounds = [row for row in computed.rows if row.kind == "upper bound" and "over all time" in row.claim]
    sums = [row for row in computed.rows if "theta^3 summed" in row.claim]
    assert len(bounds) == len(sums) == len(classes(0))
    assert all(0 < row.value < bound.value for row, bound in zip(sums, bounds, strict=True))


def test_the_seed_decides():
    one, again, other = (THEOREM.compute(TINY, seed, lambda done, of: None) for seed in (3, 3, 4))
    assert one == again
    assert one != other


def test_it_draws_from_its_record(computed):
    record = json.loads(json.dumps(plain(computed.as_json())))
    panels = THEOREM.draw(Computed.from_json(record).curves)
    assert len({panel.title for panel in panels}) == len(panels) == 10
    assert all(panel.svg.startswith("<svg") for panel in panels)


def test_the_demonstrator_comes_first_and_the_dice_depend_on_the_seed():
    one, other = classes(0), classes(1)
    assert all(len(table.prior) > 1 for table in one.values())
    assert one["33 coins"].probabilities[0, 0].tolist() == [0.5, 0.5]
    assert sorted(one["33 coins"].probabilities[0, :, 1])[:2] == pytest.approx([1 / 34, 2 / 34])
    assert not np.array_equal(one["eight dice"].probabilities, other["eight dice"].probabilities)


def test_a_promise_that_is_broken_is_reported():
    """Coverage rows can fail: with the level ten times what the promise was computed from, some do."""
    rows, _ = coverage(replace(TINY, n_demonstrations=300, n_demonstrated_steps=100), 0)
    assert all(row.holds for row in rows)
    boasting = [row for row in rows if row.high < 1 - 0.1 * (1 - row.value)]
    assert boasting  # measured failures are more than a tenth of themselves: the check is not vacuous


def test_questions_grow_as_the_gap_closes():
    rows, curve = power(replace(QUICK, n_imitators=100, gaps=(0.3, 0.1)), 0)
    questions, squares, cubes = ([row[0] for row in curve["powers"][p]] for p in ("1", "2", "3"))
    assert questions[1] > 5 * questions[0]
    assert squares[1] > 2 * squares[0]
    assert cubes[1] < 1.5 * cubes[0]
    assert max(cubes) < curve["bound"]
    assert len(rows) == 3
