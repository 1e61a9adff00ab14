"""mu is exact: the filter agrees with summing over templates by hand, and sampling agrees with the filter."""

import itertools

import numpy as np
import pytest

from mightnt.worlds.chat import words
from mightnt.worlds.chat.demonstrator import (
    ChatDemonstrator,
    first_late_round,
    merge_rows,
    template_prior,
    template_table,
)

CATEGORY = words.CATEGORIES.index("correct")


def joint(mu, category, half, turn):
    """P(turn so far) by brute force: sum over templates of the product over positions."""
    e, n = mu.typo_probability, mu.n_actions
    total = 0.0
    for template, log_prior in enumerate(template_prior()[category, half]):
        terms = [(1 - e) * template_table()[template, p, token] + e / n for p, token in enumerate(turn)]
        total += np.exp(log_prior) * np.prod(terms)
    return total


def after(mu, category, half, turn):
    state = mu.begin_turn(np.array([category]), np.array([bool(half)]))
    for token in turn:
        state = mu.advance(state, np.array([token]))
    return state


@pytest.mark.parametrize("typos", [1e-4, 0.2])
@pytest.mark.parametrize("text", ["", "well", "great job !", "yes , that banana", "yes yes yes yes", "which is the"])
def test_filter_is_the_ratio_of_joint_probabilities(typos, text):
    mu = ChatDemonstrator(typo_probability=typos)
    turn = [words.word_ids().get(word, words.word_ids()["worry"]) for word in text.split()]
    predicted = np.exp(mu.predict(after(mu, CATEGORY, 1, turn))[0])
    before = joint(mu, CATEGORY, 1, turn)
    expected = [joint(mu, CATEGORY, 1, [*turn, token]) / before for token in range(len(predicted))]
    expected[: words.N_GIVEN_MARKS] = [0.0] * words.N_GIVEN_MARKS
    np.testing.assert_allclose(predicted, expected, rtol=1e-9, atol=1e-15)
    assert abs(predicted.sum() - 1) < 1e-12


def test_late_is_the_second_half_and_the_middle_round_of_an_odd_number_is_early():
    late = {rounds: [2 * round_ >= rounds for round_ in range(rounds)] for rounds in range(1, 9)}
    for rounds, expected in late.items():
        assert [round_ >= first_late_round(rounds) for round_ in range(rounds)] == expected
    assert [first_late_round(rounds) for rounds in (5, 6, 12, 24)] == [3, 3, 6, 12]


def test_an_undemonstrated_token_costs_a_typo():
    mu = ChatDemonstrator()
    state = mu.begin_turn(np.array([CATEGORY]), np.array([False]))
    silence = mu.predict(state)[0, words.END]
    assert silence == pytest.approx(np.log(mu.typo_probability / mu.n_actions))
    assert np.isneginf(mu.predict(state)[0, : words.N_GIVEN_MARKS]).all()


def test_praise_is_for_correct_answers_only():
    mu = ChatDemonstrator()
    great = words.word_ids()["great"]
    chances = {
        name: np.exp(mu.predict(mu.begin_turn(np.array([i]), np.array([False])))[0, great])
        for i, name in enumerate(words.CATEGORIES)
    }
    assert chances["correct"] > 0.02
    assert all(chance < 2 * mu.typo_probability for name, chance in chances.items() if name != "correct")


def test_sampled_turns_have_the_filter_s_probabilities():
    mu = ChatDemonstrator(typo_probability=0.05)
    rng = np.random.default_rng(0)
    n = 20000
    turns = [tuple(mu.sample_turn(CATEGORY, False, rng)[:2]) for _ in range(n)]
    counts = {pair: turns.count(pair) for pair in set(turns)}
    frequent = sorted(counts, key=counts.get)[-12:]
    for pair in frequent:
        p = joint(mu, CATEGORY, 0, pair)
        assert abs(counts[pair] / n - p) < 5 * np.sqrt(p * (1 - p) / n), pair


def test_rows_are_independent_and_old_states_stay():
    mu = ChatDemonstrator()
    both = mu.begin_turn(np.array([0, CATEGORY]), np.array([False, True]))
    alone = mu.begin_turn(np.array([CATEGORY]), np.array([True]))
    before = mu.predict(both).copy()
    for token in words.tokens_of("well done !"):
        advanced = mu.advance(both, np.array([words.END, token]))
        assert np.array_equal(mu.predict(both), before)
        both, alone = advanced, mu.advance(alone, np.array([token]))
        np.testing.assert_allclose(mu.predict(both)[1], mu.predict(alone)[0])
        before = mu.predict(both).copy()


def test_merge_rows_picks_row_by_row():
    mu = ChatDemonstrator()
    old = mu.begin_turn(np.array([0, 1]), np.array([False, False]))
    new = mu.advance(old, np.array([words.END, words.END]))
    merged = merge_rows(new, old, np.array([True, False]))
    assert merged.position.tolist() == [1, 0]
    np.testing.assert_array_equal(merged.log_weights[1], old.log_weights[1])


def test_the_first_step_sums_to_one_in_every_state():
    mu = ChatDemonstrator()
    pairs = list(itertools.product(range(len(words.CATEGORIES)), (False, True)))
    state = mu.begin_turn(np.array([c for c, _ in pairs]), np.array([h for _, h in pairs]))
    np.testing.assert_allclose(np.exp(mu.predict(state)).sum(axis=1), 1.0, atol=1e-12)
