"""Figures show every run, and leave out what was not measured, with a note."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from mightnt.audits import figures
from mightnt.audits.results import parse_results
from mightnt.audits.summary import summarize


def setting_of(synthetic, runs):
    return summarize(parse_results(synthetic.results(runs), "x")).headline


def marks(panel):
    return panel.svg.count("<use ")


@pytest.mark.parametrize(("draw", "each"), [(figures.kl_panel, 2), (figures.asks_panel, 1)])
def test_one_more_run_is_one_more_dot(synthetic, draw, each):
    runs = [synthetic.run("mixture", seed, kl_demonstrator=200.0) for seed in range(4)]
    three, four = (draw(setting_of(synthetic, runs[:n])) for n in (3, 4))
    assert marks(four) - marks(three) == each


def test_the_plane_has_a_dot_for_every_run_and_a_mean_with_both_intervals(synthetic):
    (group,) = setting_of(synthetic, [synthetic.run("mixture", seed) for seed in range(3)]).groups
    axes = Figure().add_subplot()
    figures.scatter(axes, group)
    dots = axes.collections[0].get_offsets().tolist()
    assert dots == [[run.proxy_reward.mean, run.true_utility.mean] for run in group.runs]
    (errorbar,) = axes.containers
    assert errorbar.has_xerr
    assert errorbar.has_yerr
    assert errorbar.lines[0].get_xdata()[0] == pytest.approx(np.mean(dots, axis=0)[0])


def test_kl_panel_names_bases_and_budget_and_says_what_is_missing(synthetic):
    runs = [synthetic.run("mixture"), synthetic.run("single", kl_demonstrator="unmeasured")]
    panel = figures.kl_panel(setting_of(synthetic, runs))
    for words in (">mixture<", ">single<", ">budget 10<", ">not measured<"):
        assert words in panel.svg
    assert panel.note == ""
    partly = figures.kl_panel(setting_of(synthetic, [*runs, synthetic.run("single", 1)]))
    assert partly.note == "The KL to the demonstrator was measured on some runs only: single."


def test_an_infinite_distance_is_drawn_as_infinity(synthetic):
    assert ">∞<" in figures.kl_panel(setting_of(synthetic, [synthetic.run("mixture", kl_demonstrator="inf")])).svg


def test_without_true_utility_the_reward_stands_alone(synthetic):
    setting = setting_of(synthetic, [synthetic.run("mixture", kl_demonstrator="unmeasured")])
    panel = figures.reward_panel(setting, None)
    assert panel.title == "Proxy reward"
    assert "not measured" in panel.note
    assert "true utility" not in panel.svg


def test_token_panels_draw_what_was_measured(synthetic):
    runs = [synthetic.run("mixture"), synthetic.run("single", kl_demonstrator="unmeasured")]
    assert [panel.title for panel in figures.token_panels(setting_of(synthetic, runs))] == [
        "KL to the base at each token, nats",
        "KL to the demonstrator at each token, nats",
        "Share of the KL to the base spent so far",
        "Share of the KL to the demonstrator spent so far",
    ]
    assert len(figures.token_panels(setting_of(synthetic, runs[1:]))) == 2
    nothing = synthetic.run("single", kl_base_by_token_nats=[], kl_demonstrator_by_token_nats=None)
    assert figures.token_panels(setting_of(synthetic, [nothing])) == []
    zeros = synthetic.run("single", kl_base_by_token_nats=[0.0, 0.0], kl_demonstrator_by_token_nats=["inf", 0.0])
    panels = figures.token_panels(setting_of(synthetic, [zeros]))
    assert [bool(panel.note) for panel in panels] == [False, False, True, True]


def test_shares_of_what_was_spent_by_hand():
    rows = np.array([[1.0, 1.0, 2.0], [0.0, 0.0, 0.0], [np.inf, 1.0, 1.0]])
    np.testing.assert_array_equal(figures.spent_so_far(rows), [[0.25, 0.5, 1.0]])


def test_tokens_of_runs_of_unequal_length_count_zero_after_the_end(synthetic):
    runs = [
        synthetic.run(seed=0, kl_base_by_token_nats=[1.0, 2.0, 3.0]),
        synthetic.run(seed=1, kl_base_by_token_nats=[4.0]),
    ]
    (group,) = setting_of(synthetic, runs).groups
    np.testing.assert_array_equal(figures.by_token(group, "kl_base_by_token_nats"), [[1, 2, 3], [4, 0, 0]])


def test_curve_panels_leave_out_what_no_run_has(synthetic):
    runs = [synthetic.run("mixture"), synthetic.run("none")]
    titles = [panel.title for panel in figures.curve_panels(setting_of(synthetic, runs))]
    assert titles == ["Proxy reward", "True utility", "KL to the base, nats"]
    unknown = setting_of(synthetic, [synthetic.run("mixture", kl_demonstrator="unmeasured")])
    assert [panel.title for panel in figures.curve_panels(unknown)] == ["Proxy reward", "KL to the base, nats"]
    assert figures.curve_panels(setting_of(synthetic, [synthetic.run("mixture", curve=[])])) == []


def test_twins_that_differ_in_the_account_of_asking_are_told_apart(synthetic):
    runs = [synthetic.run("pessimistic", 0, asking=account) for account in ("floor", "charged")]
    svg = figures.kl_panel(setting_of(synthetic, runs)).svg
    assert ">pessimistic (floor)<" in svg
    assert ">pessimistic (charged)<" in svg


def test_pyplot_is_never_loaded():
    code = "import mightnt.audits.figures as f, sys; f.key('known'); assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
