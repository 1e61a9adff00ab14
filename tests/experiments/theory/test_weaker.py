"""The chapter on weaker assumptions: its claims hold, the seed decides, it draws; and its parts by hand."""

import json
from dataclasses import replace
from math import inf, log

import numpy as np
import pytest

from mightnt.experiments.theory.theorem import Computed
from mightnt.experiments.theory.timetables import coins
from mightnt.experiments.theory.weaker import (
    CYCLES,
    THEOREM,
    Cycle,
    cycles_and_coin,
    level_too_large,
    lost_at,
    not_closed,
    only_actions,
    outside,
    own_evidence,
    share_of_ones,
    spoken,
    switching_pair,
    worst_gaps,
)
from mightnt.files import plain
from mightnt.history import Chooser, Step, demonstrated
from mightnt.models.after import After
from mightnt.models.finite import ModelClass, top_set
from mightnt.prediction import check_model, follow

QUICK = THEOREM.profiles["quick"]
TINY = replace(QUICK, n_seeds=2, horizon=3, demonstrated_steps=(0, 5, 200), n_runs=40, n_steps=200, n_points=5, n_odd=4)


@pytest.fixture(scope="module")
def computed():
    return THEOREM.compute(QUICK, 0, lambda done, of: None)


def test_every_claim_holds(computed):
    assert [row.claim for row in computed.rows if row.holds is False] == []
    assert sum(row.holds is True for row in computed.rows) >= 15


@pytest.mark.slow
def test_the_seed_decides():
    one, again = (THEOREM.compute(TINY, 3, lambda done, of: None) for _ in range(2))
    assert one == again
    for part in (not_closed, outside, level_too_large, own_evidence):
        assert one.curves[part.__name__] != part(TINY, 4)[1]


def test_it_draws_from_its_record(computed):
    record = json.loads(json.dumps(plain(computed.as_json())))
    panels = THEOREM.draw(Computed.from_json(record).curves)
    assert len({panel.title for panel in panels}) == len(panels) == 6


def test_classes_after_demonstrations_are_the_posteriors_of_the_real_thing():
    """Posteriors from counts against demonstrating step by step to the class at its prior."""
    at_prior = switching_pair(0.3, 0, np.random.default_rng(0))
    for n_steps in (1, 7, 30):
        counts = switching_pair(0.3, n_steps, np.random.default_rng(1))
        ones = int(np.random.default_rng(1).binomial(n_steps, 0.3))
        for name, model_class in at_prior.items():
            state = model_class.start()
            for symbol in [1] * ones + [0] * (n_steps - ones):
                state = model_class.advance(state, Step(symbol, Chooser.DEMONSTRATOR), "demonstrated")
            assert counts[name].log_prior.tolist() == pytest.approx(state.log_posterior.tolist())
    assert [len(c.models) for c in at_prior.values()] == [3, 9]
    assert np.exp(at_prior["closed"].log_prior).sum() == pytest.approx(1)
    assert np.exp(at_prior["closed"].log_prior[3:]).sum() == pytest.approx(2**-6)


def test_the_event_is_the_first_word_of_the_world():
    assert not spoken(())
    assert not spoken((Step(1, Chooser.AGENT),))
    assert spoken(demonstrated([1, 0]))


def test_a_world_of_actions_only():
    world = only_actions(3, share_of_ones)
    assert world.utility((1, 0, 0, 0, 1, 0)) == pytest.approx(2 / 3)


def test_gaps_by_hand():
    """Without demonstrations the minima are .2 and .2; with very many of .55 the member .5 alone is left."""
    level = 0.1 / 3
    gaps, theta = worst_gaps(0.55, 0, level, 3, np.random.default_rng(0))
    assert gaps.tolist() == pytest.approx([log(0.2 / 0.45)] * 3)
    assert theta.tolist() == pytest.approx([0.6] * 3)
    gaps, theta = worst_gaps(0.55, 10**6, level, 3, np.random.default_rng(0))
    assert gaps.tolist() == pytest.approx([log(0.5 / 0.45)] * 3)
    assert theta.tolist() == [0] * 3
    assert worst_gaps(0.0, 10, level, 2, np.random.default_rng(0))[0].tolist() == [inf, inf]


def test_lost_at_is_the_top_set_at_that_time():
    table, times, levels = coins([0.5, 0.9]), np.array([1, 2]), (0.2, 0.5, 1.0)
    shares = lost_at(table, times, levels, 20_000, np.random.default_rng(0))
    for column, n_steps in enumerate(times.tolist()):
        for row, level in enumerate(levels):
            exact = 0.0
            for ones in range(n_steps + 1):
                weights = log(0.5) * n_steps, ones * log(0.9) + (n_steps - ones) * log(0.1)
                ways = [1, 2, 1][ones] if n_steps == 2 else 1
                exact += ways * 0.5**n_steps * (0 not in top_set(np.array(weights), level))
            assert shares[row, column] == pytest.approx(exact, abs=0.015)
    assert shares[2].tolist() == pytest.approx([0.5, 0.25], abs=0.015)


def test_cycles_obey_the_contract():
    for pattern in CYCLES:
        check_model(Cycle(pattern), [demonstrated([0, 0, 1, 0])])
    state = follow(Cycle((0, 1)), demonstrated([0, 0, 0, 0, 0, 0]))
    assert state == 3  # observations do not count
    assert Cycle((0, 1)).predict(3).probabilities.tolist() == [0, 1]
    weights = np.exp(cycles_and_coin().log_prior)
    assert weights.tolist() == pytest.approx([1 - 4 / 32, *[1 / 32] * 4])


def test_after_keeps_the_class_it_wraps():
    closed = switching_pair(0.05, 100, np.random.default_rng(0))["closed"]
    assert isinstance(closed, ModelClass)
    before, after = closed.models[3], After(closed.models[3], demonstrated([0, 0]))
    assert before.predict(before.start()).probabilities[1] == pytest.approx(0.05)
    assert after.predict(after.start()).probabilities[1] == pytest.approx(0.5)
