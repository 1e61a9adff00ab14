"""The pictures of the weaker assumptions leave nothing finite out and draw nothing infinite."""

from math import inf

import pytest
from matplotlib.figure import Figure

from mightnt.experiments.theory import weaker_pictures as pictures


def axes():
    return Figure().add_subplot()


def test_infinite_gaps_are_left_out():
    ax = axes()
    pictures.outside(ax, {"heads": [0, 0.5, 1], "members": [0.5], "gaps": {"10": ["inf", 0.1, inf]}})
    assert list(ax.lines[0].get_xdata()) == [0.5]
    assert list(ax.lines[0].get_ydata()) == [0.1]


def test_every_base_and_every_demonstrator_has_a_line():
    curve = {"steps": [0, 10]} | {
        key: [[1.0, 2.0], [3.0, 4.0]] for key in ("open", "closed", "pessimistic", "demonstrator")
    }
    ax = axes()
    pictures.not_closed(ax, curve)
    assert len(ax.lines) == 4 * (2 + 1)
    assert list(ax.lines[2].get_ydata()) == [2.0, 3.0]


def test_charges_are_means_over_classes():
    names = ("mixture all", "mixture demonstrated", "pessimistic all", "pessimistic demonstrated", "demonstrator")
    ax = axes()
    pictures.evidence(ax, {name: [[1.0, 2.0], [3.0, 6.0]] for name in names})
    assert len(ax.lines) == len(names)
    assert list(ax.lines[0].get_ydata()) == [2.0, 4.0]


def test_rewards_and_levels_draw():
    ax = axes()
    pictures.reward(ax, {"values": [0.5, 1], "simple": [0, 1], "hard": [[0, 2], [0, 4]], "demonstrator": [0, 3]})
    assert list(ax.lines[-2].get_ydata()) == [0, 3]
    curve = {"levels": [0.1, 1.0], "prior": 0.2, "lost": [0.0, 1.0], "asked": [[5, 4, 6], [0, 0, 0]]}
    ax = axes()
    pictures.level(ax, curve)
    assert max(ax.lines[1].get_ydata()) == pytest.approx(1)
    curve |= {"times": [1, 10], "lost_at": [[0.1, 0.2], [0.3, 0.4]]}
    pictures.lost(axes(), curve)
