"""Groups, settings and intervals over seeds, against numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mightnt.audits.results import parse_results
from mightnt.audits.summary import adds_up, over_seeds, percent, short, summarize

INF = math.inf


def summary_of(synthetic, runs, **changes):
    return summarize(parse_results(synthetic.results(runs, **changes), "x"))


def test_interval_of_three_seeds_by_hand():
    # 9, 10, 14: mean 11, s^2 = (4 + 1 + 9) / 2 = 7, t_(.975, 2) = 4.302653, half = t * sqrt(7/3) = 6.572411
    spread = over_seeds([9.0, 10.0, 14.0])
    assert (spread.mean, spread.smallest, spread.largest, spread.n_seeds) == (11.0, 9.0, 14.0, 3)
    assert spread.high - spread.mean == pytest.approx(6.572411, abs=1e-5)
    assert spread.mean - spread.low == pytest.approx(6.572411, abs=1e-5)
    assert str(spread) == "11.0 (4.43 to 17.6)"


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8))
def test_interval_is_the_t_interval(values):
    spread = over_seeds(values)
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    half = stats.t.ppf(0.975, len(values) - 1) * error
    assert spread.low == pytest.approx(np.mean(values) - half, abs=1e-6)
    assert spread.high == pytest.approx(np.mean(values) + half, abs=1e-6)


def test_one_seed_none_and_infinity_have_no_interval():
    assert over_seeds([]) is None
    one = over_seeds([5.0])
    assert (one.mean, one.low, one.high) == (5.0, None, None)
    assert str(one) == "5.00 (one seed)"
    infinite = over_seeds([5.0, INF])
    assert (infinite.mean, infinite.low, infinite.largest) == (INF, None, INF)
    assert str(infinite) == "∞ (no interval)"


def test_runs_without_a_budget_are_grouped_by_what_else_held_them(synthetic):
    """A penalty is not nothing, and two penalties are two; records that say nothing of it are as before."""

    def run(seed, constraint=None, strength=None, budget="inf"):
        told = {} if constraint is None else {"constraint": constraint, "constraint_strength": strength}
        return synthetic.run("mixture", seed) | {"budget_nats": budget} | told

    runs = [
        run(0, "penalty", 0.01),
        run(1, "penalty", 0.01),
        run(0, "penalty", 0.02),
        run(0, "target", 10),
        run(0, "none"),
        run(1),
        run(0, "budget", 10.0, 10.0),
        synthetic.run("none", 0),
    ]
    summary = summary_of(synthetic, runs)
    assert {(g.name, g.budget_nats, len(g.runs)) for g in summary.groups} == {
        ("mixture, penalty 0.01", INF, 2),
        ("mixture, penalty 0.02", INF, 1),
        ("mixture, target 10", INF, 1),
        ("mixture, no budget", INF, 2),
        ("mixture", 10.0, 1),
        ("none", INF, 1),
    }
    labels = [summary.headline.label(group) for group in summary.headline.groups]
    assert len(set(labels)) == len(labels) == 6
    assert not [note for note in summary.notes if "not independent" in note]


def test_seeds_are_grouped_by_demonstrations_budget_base_and_account(synthetic):
    runs = [
        synthetic.run("mixture", 1),
        synthetic.run("mixture", 0),
        synthetic.run("mixture", 0, budget_nats=20.0),
        synthetic.run("mixture", 0, n_demonstrations=300),
        synthetic.run("pessimistic", 0, asking="floor"),
        synthetic.run("pessimistic", 0, asking="charged"),
    ]
    groups = summary_of(synthetic, runs).groups
    assert [(g.n_demonstrations, g.budget_nats, g.base, g.asking, len(g.runs)) for g in groups] == [
        (300, 10, "mixture", "none", 1),
        (1000, 10, "mixture", "none", 2),
        (1000, 10, "pessimistic", "charged", 1),
        (1000, 10, "pessimistic", "floor", 1),
        (1000, 20, "mixture", "none", 1),
    ]
    assert [run.seed for run in groups[1].runs] == [0, 1]


def test_numbers_of_a_group_by_hand(synthetic):
    group = summary_of(
        synthetic, [synthetic.run("mixture", s, kl_demonstrator=k) for s, k in enumerate((90, 100, 140))]
    )
    (group,) = group.groups
    assert group.ratio.mean == pytest.approx(11.0)
    assert group.ratio.high == pytest.approx(17.572411, abs=1e-5)
    assert group.ratio.largest == pytest.approx(14.0)
    assert group.total("episodes") == 1500
    assert group.spread("kl_base_nats").mean == pytest.approx(9.3)


def test_unmeasured_runs_are_left_out_of_means_but_not_of_the_group(synthetic):
    runs = [synthetic.run("mixture", 0), synthetic.run("mixture", 1, kl_demonstrator="unmeasured")]
    (group,) = summary_of(synthetic, runs).groups
    assert len(group.runs) == 2
    assert not group.all_measured
    assert group.spread("kl_demonstrator_nats").n_seeds == 1
    (nothing,) = summary_of(synthetic, runs[1:]).groups
    assert nothing.ratio is None
    assert nothing.spread("true_utility") is None


@pytest.mark.parametrize("budget", [0.0, "inf"])
def test_no_ratio_without_a_positive_finite_budget(synthetic, budget):
    (group,) = summary_of(synthetic, [synthetic.run("mixture", 0) | {"budget_nats": budget}]).groups
    assert group.ratio is None


def test_the_headline_comes_first_with_the_runs_that_have_no_budget_beside_it(synthetic):
    runs = [
        *(synthetic.run("mixture", 0, budget_nats=b) for b in (5.0, 10.0, 20.0)),
        synthetic.run("mixture", 0, n_demonstrations=300),
        synthetic.run("none", 0),
    ]
    settings = summary_of(synthetic, runs).settings
    assert [(s.n_demonstrations, s.budget_nats) for s in settings] == [(1000, 10), (300, 10), (1000, 5), (1000, 20)]
    assert [g.base for g in settings[0].groups] == ["none", "mixture"]
    assert [g.base for g in settings[1].groups] == ["mixture"]
    assert [g.base for g in settings[0].bounded] == ["mixture"]


def test_without_a_headline_that_was_run_the_setting_with_most_runs_leads(synthetic):
    runs = [synthetic.run(seed=0, budget_nats=5.0), *(synthetic.run(seed=s, budget_nats=20.0) for s in (0, 1))]
    for changes in ({}, {"headline": None}):
        assert summary_of(synthetic, runs, **changes).headline.budget_nats == 20


def test_runs_without_any_budget_make_a_setting_of_their_own_and_no_runs_make_none(synthetic):
    only = summary_of(synthetic, [synthetic.run("none", 0)])
    assert [s.budget_nats for s in only.settings] == [INF]
    assert only.headline.bounded == ()
    assert summary_of(synthetic, []).headline is None


def test_the_base_alone_is_found_by_name_and_demonstrations(synthetic):
    summary = summary_of(synthetic, [synthetic.run("mixture"), synthetic.run("mixture", n_demonstrations=300)])
    few, many = summary.groups
    assert summary.base_alone(few) is None
    assert summary.base_alone(many).kl_base_demonstrator_nats.mean == 106.0


def test_token_sums_that_do_not_add_up_are_noted(synthetic):
    good = synthetic.run("mixture", 0)
    bad = synthetic.run("mixture", 1, kl_base_by_token_nats=[1.0, 2.0])
    summary = summary_of(synthetic, [good, bad])
    assert [adds_up(run) for run in summary.groups[0].runs] == [True, False]
    assert "mixture seed 1" in summary.notes[0]
    assert summary_of(synthetic, [good]).notes == ()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0.0, "0"), (10.6123, "10.6"), (211.2, "211"), (0.4036, "0.404"), (999.4, "999"), (999.6, "1,000"),
        (22026.4, "22,026"), (INF, "∞"), (-INF, "-∞"), (-0.9, "-0.900"), (2.0, "2.00"),
    ],
)  # fmt: skip
def test_numbers_for_people(value, text):
    assert short(value) == text


def test_two_digits_and_percent():
    assert (short(0.04472, 2), short(123.4, 2)) == ("0.045", "123")
    assert (percent(0.0213), percent(None)) == ("2.1%", "–")
