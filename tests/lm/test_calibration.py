"""Weights and cap from held-out demonstrations, against brute force and what was planted."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.audits.reliability import reliability, tally
from mightnt.errors import InputError
from mightnt.lm.calibration import (
    choose_level,
    conformal_ample,
    conformal_log_cap,
    conformal_threshold,
    last_vetoing_ample,
    least_units,
    log_cap_nats,
    mixture_log_weights,
    moved_log_weights,
    promised_rate,
    running_ratio_nats,
)
from mightnt.models.counts import Support, fit_counts, suffixes_of
from tests.strategies import seeds


@st.composite
def held_out(draw):
    """Log ratios of actions in a few dialogues of a few turns: (log ratios, dialogue, turn)."""
    rng = np.random.default_rng(draw(seeds))
    turns = draw(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=4))
    dialogue = [d for d, lengths in enumerate(turns) for n in lengths for _ in range(n)]
    # Turns of the demonstrator alternate with the user's; a dialogue's first may have the number of the last one before.
    turn = [2 * t + 1 for lengths in turns for t, n in enumerate(lengths) for _ in range(n)]
    ratios = rng.normal(size=len(turn)).round(draw(st.sampled_from([0, 3])))
    return ratios, np.array(dialogue), np.array(turn)


def highest_ending_at(ratios, dialogue, t):
    """max(0, sum of log ratios over every stretch of the same dialogue that ends at t)."""
    return max(0.0, *(ratios[s : t + 1].sum() for s in range(t + 1) if dialogue[s] == dialogue[t]))


@given(held_out())
def test_the_running_ratio_is_the_largest_over_stretches_that_end_here(case):
    ratios, dialogue, _ = case
    expected = [highest_ending_at(ratios, dialogue, t) for t in range(len(ratios))]
    np.testing.assert_allclose(running_ratio_nats(ratios, dialogue), expected, atol=1e-12)


def capped_turns(case, log_cap):
    """How many turns hold an action at which the running ratio exceeds the cap, and how many turns there are."""
    ratios, dialogue, turn = case
    over = [highest_ending_at(ratios, dialogue, t) > log_cap + 1e-12 for t in range(len(ratios))]
    turns = set(zip(dialogue.tolist(), turn.tolist(), strict=True))
    hit = {(d, n) for d, n, bad in zip(dialogue.tolist(), turn.tolist(), over, strict=True) if bad}
    return len(hit), len(turns)


@given(held_out(), st.integers(0, 16), st.booleans())
def test_the_cap_is_the_smallest_that_touches_at_most_the_allowed_share_of_turns(case, allowed, just_below):
    n = capped_turns(case, 0.0)[1]
    rate = min(allowed, n) / n - (1e-6 if just_below else 0.0)
    rate = max(rate, 0.0)
    cap = log_cap_nats(*case, rate)
    assert cap >= 0
    assert capped_turns(case, cap)[0] <= rate * n + 1e-9
    smaller = cap - 1e-6
    assert cap == 0 or rate == 1 or capped_turns(case, smaller)[0] > rate * n + 1e-9


def test_the_cap_by_hand():
    """Running ratios 1, 3 | 2 in one dialogue (nothing is forgotten between turns), 0.5 in another: worst 3, 2, .5."""
    ratios, dialogue, turn = np.array([1.0, 2.0, -1.0, 0.5]), np.array([0, 0, 0, 1]), np.array([1, 1, 3, 1])
    assert running_ratio_nats(ratios, dialogue).tolist() == [1.0, 3.0, 2.0, 0.5]
    assert [log_cap_nats(ratios, dialogue, turn, rate) for rate in (0, 0.3, 1 / 3, 0.5, 2 / 3, 1.0)] == [
        3.0,
        3.0,
        2.0,
        2.0,
        0.5,
        0.5,
    ]


def test_29_of_100_turns_are_29_though_the_product_of_floats_is_less():
    assert 0.29 * 100 < 29
    ratios, dialogue = np.arange(100.0), np.arange(100)
    assert log_cap_nats(ratios, dialogue, np.ones(100, int), 0.29) == 70.0


def test_turns_of_equal_number_in_neighboring_dialogues_are_two():
    ratios, dialogue, turn = np.array([3.0, 1.0]), np.array([0, 1]), np.array([1, 1])
    assert log_cap_nats(ratios, dialogue, turn, 0.5) == 1.0


def test_without_held_out_actions_there_is_no_cap():
    nothing = np.zeros(0)
    with pytest.raises(InputError, match="held-out"):
        log_cap_nats(nothing, nothing.astype(int), nothing.astype(int), 0.01)


def objective(log_weights, log_likelihood, pseudo=1.0):
    """sum_d log sum_i w_i p_i(d) + a sum_i log w_i."""
    return np.logaddexp.reduce(log_likelihood + log_weights, axis=1).sum() + pseudo * log_weights.sum()


@given(seeds, st.integers(1, 12), st.integers(1, 4), st.sampled_from([0.1, 1.0, 5.0]))
def test_the_weights_maximize_the_posterior(seed, n_dialogues, n_members, pseudo):
    """No other weights do better: neither the equal ones it starts from nor any of many random ones."""
    rng = np.random.default_rng(seed)
    log_likelihood = rng.normal(-50, 3, size=(n_dialogues, n_members))
    found = mixture_log_weights(log_likelihood, pseudo)
    assert np.exp(found).sum() == pytest.approx(1.0)
    best = objective(found, log_likelihood, pseudo)
    others = np.log(rng.dirichlet(np.ones(n_members), size=50) + 1e-300)
    nearby = found + rng.normal(0, 1e-3, size=(50, n_members))
    nearby -= np.logaddexp.reduce(nearby, axis=1)[:, None]
    for other in [np.full(n_members, -math.log(n_members)), *others, *nearby]:
        assert objective(other, log_likelihood, pseudo) <= best + 1e-7


def test_planted_weights_are_found():
    """4000 dialogues, each of 30 draws from one of three dice chosen with weights (.6, .3, .1)."""
    rng = np.random.default_rng(0)
    planted, dice = np.array([0.6, 0.3, 0.1]), np.log(rng.dirichlet(np.ones(5), size=3))
    author = rng.choice(3, size=4000, p=planted)
    counts = np.array([rng.multinomial(30, np.exp(dice[i])) for i in author])
    assert np.exp(mixture_log_weights(counts @ dice.T)) == pytest.approx(planted, abs=0.03)


def test_a_member_that_explains_nothing_stays_in_play_by_its_pseudo_dialogue():
    """9 dialogues that only the first member explains: weights (9 + 1) / 11 and 1 / 11."""
    log_likelihood = np.stack([np.zeros(9), np.full(9, -800.0)], axis=1)
    assert np.exp(mixture_log_weights(log_likelihood)).tolist() == pytest.approx([10 / 11, 1 / 11])


@given(seeds)
def test_moved_weights_are_one_pass_of_counting_who_wrote_what(seed):
    """Against plain arithmetic, one dialogue at a time; nothing new changes nothing."""
    rng = np.random.default_rng(seed)
    weights, rows = rng.dirichlet(np.ones(3)), rng.normal(scale=3.0, size=(4, 3))
    moved, n = weights.copy(), 7.0
    for row in rows:
        share = moved * np.exp(row)
        moved = (n * moved + share / share.sum()) / (n + 1)
        n += 1
    found = np.exp(moved_log_weights(np.log(weights), rows, 7.0))
    np.testing.assert_allclose(found, moved, rtol=1e-9)
    np.testing.assert_array_equal(moved_log_weights(np.log(weights), rows[:0], 7.0), np.log(weights))


def test_moved_weights_end_where_fitting_all_dialogues_ends():
    """Two thirds written by the first member, one third by the second: one pass comes near the fitted weights."""
    rng = np.random.default_rng(0)
    rows = np.where(rng.random((3000, 1)) < 2 / 3, [[0.0, -3.0, -9.0]], [[-3.0, 0.0, -9.0]])
    start = mixture_log_weights(rows[:20])
    moved, fitted = moved_log_weights(start, rows[20:], 23.0), mixture_log_weights(rows)
    np.testing.assert_allclose(np.exp(moved), np.exp(fitted), atol=0.01)


# what is promised of new turns

scores_of_units = st.lists(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 7.0, math.inf]), min_size=1, max_size=3), min_size=2, max_size=12
)
rates = st.sampled_from([0.05, 0.1, 0.2, 1 / 3, 0.5, 0.77, 1.0])


def flat(units):
    """Scores end to end, and the unit of each."""
    return np.array([s for unit in units for s in unit]), np.array([i for i, unit in enumerate(units) for _ in unit])


def loss(unit, threshold):
    """The share of a unit's turns that are touched."""
    return sum(score > threshold for score in unit) / len(unit)


@given(scores_of_units, rates)
def test_of_exchangeable_units_the_one_left_out_loses_no_more_than_promised(units, rate):
    """The guarantee itself, exactly: any of the units may be the new one, and the mean over them is at most the rate."""
    lost = []
    for i, new in enumerate(units):
        scores, owner = flat(units[:i] + units[i + 1 :])
        found = conformal_threshold(scores, rate, owner, "dialogue")
        lost.append(loss(new, found.value))
    assert np.mean(lost) <= rate + 1e-9


@given(scores_of_units, rates, st.sampled_from(["turn", "dialogue"]))
def test_the_threshold_is_the_smallest_that_is_certified(units, rate, unit):
    scores, owner = flat(units)
    units = [[score] for score in scores] if unit == "turn" else units
    found = conformal_threshold(scores, rate, owner, unit)
    n = len(units)

    def bound(threshold):
        return (sum(loss(one, threshold) for one in units) + 1) / (n + 1)

    certified = [c for c in sorted(set(scores.tolist())) if bound(c) <= rate + 1e-9]
    assert found.value == (certified[0] if certified else math.inf)
    assert (found.n_units, found.unit, found.rate) == (n, unit, rate)
    assert found.touched == pytest.approx(sum(loss(one, found.value) for one in units) / n)
    assert found.certified == math.isfinite(found.value)
    assert bool(found.warning) >= (not found.certified)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.sampled_from([0.0, 0.01, 0.1, 0.29, 0.5, 1.0]))
def test_the_cap_of_the_usual_rule_touches_new_turns_no_more_often_than_it_says(worst, rate):
    """Exactly, for turns of one action each in dialogues of their own: every turn may be the new one."""
    ratios, n = np.array(worst, dtype=float), len(worst) - 1
    touched = 0
    for i in range(n + 1):
        old = np.delete(ratios, i)
        touched += ratios[i] > log_cap_nats(old, np.arange(n), np.ones(n, dtype=int), rate)
    assert touched / (n + 1) <= promised_rate(n, rate) + 1e-12


def test_the_promise_of_the_usual_rule_is_tight():
    n = 19
    ratios = np.arange(n + 1.0)
    caps = [log_cap_nats(np.delete(ratios, i), np.arange(n), np.ones(n, dtype=int), 0.1) for i in range(n + 1)]
    assert np.mean(ratios > caps) == promised_rate(n, 0.1) == 2 / 20


def test_the_certified_cap_is_one_turn_higher_than_the_usual():
    """99 turns of scores 1 to 99 and a rate of 2%: one may be capped by the usual rule, one by the certified one too; at
    1% the certified one caps none, at 0.9% there is none."""
    ratios, dialogue, turn = np.arange(1.0, 100.0), np.arange(99), np.ones(99, int)
    assert log_cap_nats(ratios, dialogue, turn, 0.02) == 98.0
    found = [conformal_log_cap(ratios, dialogue, turn, rate).value for rate in (0.02, 0.01, 0.009)]
    assert found == [98.0, 99.0, math.inf]
    ratios, dialogue, turn = np.arange(1.0, 101.0), np.arange(100), np.ones(100, int)
    assert log_cap_nats(ratios, dialogue, turn, 0.02) == 98.0
    assert conformal_log_cap(ratios, dialogue, turn, 0.02).value == 99.0


def test_too_few_held_out_units_promise_nothing_and_say_so():
    found = conformal_threshold(np.arange(98.0), 0.01)
    assert (found.value, found.certified) == (math.inf, False)
    assert found.warning == "98 held-out turns are too few to promise 1%; 99 or more are needed"
    assert found.warning in found.guarantee
    enough = conformal_threshold(np.arange(99.0), 0.01)
    assert (enough.value, enough.warning) == (98.0, "")
    assert enough.guarantee == (
        "A new turn is touched at 98 with probability 1% at most, if the turn is exchangeable with the 99 held-out ones."
    )
    assert [least_units(rate) for rate in (0.01, 0.05, 0.1, 0.3, 1 / 3, 1.0)] == [99, 19, 9, 3, 2, 1]
    one = conformal_threshold(np.array([1.0, 2.0]), 0.4, np.array([0, 0]), "dialogue")
    assert (one.n_units, one.certified) == (1, False)
    assert "random turn of a new dialogue" in conformal_threshold(np.ones(9), 0.1, np.arange(9), "dialogue").guarantee


def test_where_every_finite_threshold_is_exceeded_too_often_that_is_the_warning():
    found = conformal_threshold(np.full(10, math.inf), 0.5)
    assert (found.certified, found.touched) == (False, 0.0)
    assert "every finite threshold" in found.warning


def test_what_cannot_be_promised_is_refused():
    for rate in (0.0, -0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="cannot be promised"):
            conformal_threshold(np.ones(3), rate)
    for scores in (np.zeros(0), np.array([1.0, math.nan])):
        with pytest.raises(InputError, match="no held-out turn"):
            conformal_threshold(scores, 0.1)
    for unit, owner in (("dialogue", None), ("episode", np.zeros(3, int))):
        with pytest.raises(InputError, match="unit"):
            conformal_threshold(np.ones(3), 0.1, owner, unit)
    one = np.ones(1, int)
    for rate in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="0 to 1"):
            log_cap_nats(np.ones(1), one, one, rate)
    with pytest.raises(InputError, match="NaN"):
        log_cap_nats(np.array([math.nan]), one, one, 0.1)
    with pytest.raises(InputError, match="held-out"):
        conformal_log_cap(np.zeros(0), one[:0], one[:0], 0.1)


# the support


@pytest.fixture(scope="module")
def counted():
    """Counts of a corpus of four tokens, and another corpus: (counts, suffixes, actions, dialogue, turn)."""
    rng = np.random.default_rng(0)
    tokens, starts = rng.choice(4, p=[0.6, 0.3, 0.08, 0.02], size=600), np.arange(0, 601, 30)
    counts = fit_counts(tokens, starts, np.ones(600, bool), np.ones(5, bool), longest=3)
    new, dialogue = rng.choice(5, p=[0.55, 0.25, 0.1, 0.05, 0.05], size=240), np.repeat(np.arange(8), 30)
    return counts, suffixes_of(new, np.arange(0, 241, 30), 3), new, dialogue, np.tile(np.repeat([1, 3, 5], 10), 8)


@pytest.mark.parametrize("seen", [1, 2, 5])
def test_an_action_is_vetoed_up_to_the_ample_that_is_said(counted, seen):
    """Against the veto itself, at every threshold there is."""
    counts, suffixes, actions, _, _ = counted
    last = last_vetoing_ample(counts, suffixes, actions, seen)
    places = np.arange(len(actions))
    for ample in sorted({1, 2, 3, 700, *last.astype(int).tolist(), *(last.astype(int) + 1).tolist()} - {0}):
        allowed = counts.supported(suffixes, Support(ample, seen))[places, actions]
        np.testing.assert_array_equal(allowed, last < ample)
    assert 0 < (last > 0).sum() < len(last)


@pytest.mark.parametrize("unit", ["turn", "dialogue"])
def test_the_chosen_ample_is_the_smallest_whose_vetoes_are_certified(counted, unit):
    counts, suffixes, actions, dialogue, turn = counted
    found = conformal_ample(counts, suffixes, actions, dialogue, turn, 0.3, 2, unit)

    def touched(ample):
        allowed = counts.supported(suffixes, Support(ample, 2))[np.arange(len(actions)), actions]
        hit = {(d, t) for d, t, fine in zip(dialogue, turn, allowed, strict=True) if not fine}
        return len(hit) / 24

    n = 24 if unit == "turn" else 8
    assert (n * touched(int(found.value)) + 1) / (n + 1) <= 0.3 < (n * touched(int(found.value) - 1) + 1) / (n + 1)
    assert found.touched == pytest.approx(touched(int(found.value)))


def test_nothing_vetoed_needs_no_more_than_one(counted):
    counts, suffixes, _, dialogue, turn = counted
    found = conformal_ample(counts, suffixes, np.zeros(240, int), dialogue, turn, 0.3, seen=1)
    assert found.value >= 1
    some = suffixes[:1] * 0
    alone = conformal_ample(counts, np.repeat(some, 9, axis=0), np.zeros(9, int), np.arange(9), np.ones(9, int), 0.1)
    assert alone.value == 1


# the level


def tally_at(factor, n=4000):
    """Decisions between two tokens, bounds the truth times a factor."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.3, 0.45, size=n)
    chosen = np.where(rng.random(n) < truth, 0, -1)
    return tally(np.minimum(1, factor * truth)[:, None], chosen, np.arange(n) // 20, n // 20)


def test_the_level_is_the_greatest_whose_lower_bounds_are_kept():
    tallies = {0.3: tally_at(1.5), 0.01: tally_at(0.5), 0.1: tally_at(0.6), 1.0: tally_at(2.0), 0.2: tally_at(1.0, 40)}
    found = choose_level(tallies)
    assert [level for level, _ in found.curve] == [0.01, 0.1, 0.2, 0.3, 1.0]
    assert [one.outcome for _, one in found.curve] == ["holds", "holds", "too little data", "fails", "fails"]
    assert (found.level, found.unrefuted) == (0.1, 0.2)
    assert found.sentence.startswith("Level 0.1: the greatest")
    alone = reliability(tallies[0.1], n_checks=5)
    assert found.curve[1][1] == alone, "the intervals of all levels hold at once"


def test_without_enough_data_no_level_is_certified():
    found = choose_level({0.1: tally_at(1.0, 40), 1.0: tally_at(2.5)})
    assert (found.level, found.unrefuted) == (None, 0.1)
    assert "No level is certified" in found.sentence
    found = choose_level({1.0: tally_at(2.5)})
    assert (found.level, found.unrefuted) == (None, None)
    assert "Every level is refuted" in found.sentence


def test_one_member_is_one_level_and_impossible_levels_are_refused():
    assert choose_level({1.0: tally_at(0.5)}).level == 1.0
    for levels in ((), (0.0, 0.5), (1.5,), (-1.0,), (math.nan,)):
        with pytest.raises(InputError, match="more than 0 and at most 1"):
            choose_level(dict.fromkeys(levels, tally_at(0.5)))
