"""Weights and cap from held-out demonstrations, against brute force and what was planted."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.lm.calibration import log_cap_nats, mixture_log_weights, moved_log_weights, running_ratio_nats
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
