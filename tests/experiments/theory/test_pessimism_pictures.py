"""The pictures of T3 show what their curves say."""

import numpy as np
from matplotlib.figure import Figure

from mightnt.experiments.theory import pessimism_pictures as pictures
from mightnt.experiments.theory.asking_prices import ask_symbol, granularities, late_veto


def axes():
    return Figure().add_subplot()


def test_no_class_is_left_undrawn():
    values = {"lost": [0.1, 0.2], "low": [0.05, 0.1], "high": [0.2, 0.3]}
    curve = {"promised": [0.1, 0.5], "classes": {f"class {i}": values for i in range(6)}}
    ax = axes()
    pictures.coverage(ax, curve)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [f"class {i}" for i in range(6)]
    assert list(ax.lines[1].get_ydata()) == [0.9, 0.8]


def test_never_lost_is_not_drawn_on_a_logarithmic_axis():
    values = {"lost": [0.0, 0.2], "low": [0.0, 0.1], "high": [0.2, 0.3]}
    ax = axes()
    pictures.lost(ax, {"promised": [0.1, 0.5], "classes": {f"class {i}": values for i in range(6)}})
    y = ax.lines[1].get_ydata()
    assert y[1] == 0.2
    assert np.isnan(y[0])


def test_hollow_points_are_plans_without_the_demonstrator():
    point = {"base_expected": 2.0, "demonstrator_expected": 1.0}
    points = [
        {"base": kind, "inside": inside, **point}
        for kind in ("mixture", "token", "trajectory")
        for inside in (True, False)
    ]
    ax = axes()
    pictures.episodes(ax, points)
    drawn = [len(collection.get_offsets()) for collection in ax.collections]
    hollow = [len(c.get_facecolor()) == 0 for c in ax.collections]
    assert sum(drawn) == len(points)
    assert sum(n for n, empty in zip(drawn, hollow, strict=True) if empty) == 2


def test_the_parts_on_asking_draw():
    _, costs = ask_symbol(20, 0)
    _, minima = granularities(0.1, 2, 1, 4, 0)
    _, late = late_veto(4, 3)
    for draw, curve in ((pictures.ask_symbol, costs), (pictures.granularity, minima["points"]),
                        (pictures.floors, minima["floors"]), (pictures.veto, late)):  # fmt: skip
        ax = axes()
        draw(ax, curve)
        assert ax.get_xlabel()
        assert ax.get_ylabel()
