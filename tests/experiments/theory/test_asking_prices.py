"""What asking costs, by hand where a hand suffices and by brute force elsewhere."""

import itertools
from math import log

import pytest

from mightnt.bases.pessimistic import Pessimistic
from mightnt.experiments.theory.asking_prices import HEADS, ask_symbol, granularities, late_veto
from mightnt.history import Chooser, Step
from mightnt.models.categorical import Categorical
from mightnt.models.finite import ModelClass


def test_the_example_and_its_correction():
    rows, curve = ask_symbol(200, 0)
    assert [row.claim for row in rows if row.holds is False] == []
    assert rows[0].value == pytest.approx(0, abs=1e-12)
    assert rows[1].value == pytest.approx(0.75 * log(1.5) + 0.25 * log(0.5))
    assert rows[2].value == pytest.approx(log(1.5))
    assert 0 < rows[3].value < 0.2
    assert rows[4].value < 0
    assert all(t <= c for t, c in zip(curve["truth"], curve["correction"], strict=True))
    assert len(curve["excess"]) == 200


def test_floors_are_those_of_the_bases():
    """The mass that both minima leave to four actions, by summing the real base over every sequence of actions."""
    _, curve = granularities(0.1, 2, 2, 4, 0)
    model_class = ModelClass.of([Categorical.of([1 - p, p]) for p in HEADS])
    for kind in ("token", "trajectory"):
        base, total = Pessimistic(model_class, 0.001, kind), 0.0
        for actions in itertools.product(range(2), repeat=4):
            state, probability = base.start(), 1.0
            for action in actions:
                probability *= float(base.predict(state).probabilities[action])
                state = base.advance(state, Step(action, Chooser.AGENT))
            total += probability
        assert curve["floors"][kind][3] == pytest.approx(-log(total))


def test_minima_over_trajectories_ask_less_on_the_same_episodes():
    rows, curve = granularities(0.1, 3, 4, 15, 0)
    assert [row.claim for row in rows if row.holds is False] == []
    assert {len(points) for points in curve["points"].values()} == {3}
    token, trajectory = (sum(p[0] for p in curve["points"][kind]) for kind in ("token", "trajectory"))
    assert 0 < trajectory < token


def test_the_veto_comes_later_by_hand():
    """After n ordinary actions the second model stands 3^-n lower, so the minimum follows it until 500^odd outweighs 3^n."""
    rows, curve = late_veto(n_ordinary=6, n_odd=4)
    assert [row.claim for row in rows if row.holds is False] == []
    trajectory, token = curve["charges"]["trajectory"], curve["charges"]["token"]
    assert token[6] == pytest.approx(log(1000))
    assert trajectory[6] == pytest.approx(log(2))  # 500 < 729: the second model still decides
    assert trajectory[7] == pytest.approx(log((0.5 / 729) / 1e-6))  # 500^2 > 729: the veto
    assert trajectory[8] == pytest.approx(log(1000))
    assert [row.value for row in rows[:6]] == [0, 0, 0, 0, 0, 1]
