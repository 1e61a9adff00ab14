"""mu is exact: the filter agrees with enumerating what mu can say, and sampling agrees with the filter."""

import itertools

import numpy as np
import pytest

from mightnt.errors import InputError
from mightnt.worlds.tools import words
from mightnt.worlds.tools.demonstrator import (
    UNKNOWN,
    ToolsDemonstrator,
    merge_rows,
    only_rows,
    template_prior,
    written,
)

PEAR, PRICE, SEVEN = words.tokens_of("pear price seven")
SLOTS = {
    "request": (PEAR, PRICE, UNKNOWN),
    "vague": (UNKNOWN, UNKNOWN, UNKNOWN),
    "result": (UNKNOWN, UNKNOWN, SEVEN),
    "error": (PEAR, PRICE, UNKNOWN),
    "confused": (PEAR, PRICE, UNKNOWN),
    "next request": (PEAR, PRICE, UNKNOWN),
    "next vague": (UNKNOWN, UNKNOWN, UNKNOWN),
}


def begin(mu, *categories):
    index = np.array([words.CATEGORIES.index(category) for category in categories])
    return mu.begin_turn(index, np.array([SLOTS[category] for category in categories]))


def after(mu, category, turn):
    state = begin(mu, category)
    for token in turn:
        state = mu.advance(state, np.array([token]))
    return state


def enumerated(category):
    """Every turn that mu means to say here, padded with ends, with its probability: from the words, not the tables."""
    said = []
    for act, chance in words.ACTS[category].items():
        for template in words.TEMPLATES[act]:
            options = [
                [words.vocabulary()[SLOTS[category][slot]]] if slot >= 0 else choices
                for choices, slot in zip(words.positions(template), words.slots_at(template), strict=True)
            ]
            fillings = list(itertools.product(*options))
            for filling in fillings:
                tokens = [words.word_ids()[word] for word in filling]
                padded = tokens + [words.END] * (words.MAX_TURN_TOKENS - len(tokens))
                said.append((padded, chance / len(words.TEMPLATES[act]) / len(fillings)))
    return said


def joint(mu, category, turn):
    """P(turn so far): over everything meant, each token kept or replaced."""
    e, n = mu.typo_probability, mu.n_actions
    return sum(
        p * np.prod([(1 - e) * (token == meant) + e / n for token, meant in zip(turn, padded, strict=False)])
        for padded, p in enumerated(category)
    )


@pytest.mark.parametrize("typos", [1e-4, 0.2])
@pytest.mark.parametrize("category", words.CATEGORIES)
@pytest.mark.parametrize(
    "text", ["", "pear", "pear price", "pear price lookup", "solved", "seven it", "found seven , issue", "which the"]
)
def test_the_filter_is_the_ratio_of_joint_probabilities(typos, category, text):
    mu, turn = ToolsDemonstrator(typo_probability=typos), words.tokens_of(text)
    predicted = np.exp(mu.predict(after(mu, category, turn))[0])
    before = joint(mu, category, turn)
    expected = [joint(mu, category, [*turn, token]) / before for token in range(len(predicted))]
    expected[: words.N_GIVEN_MARKS] = [0.0] * words.N_GIVEN_MARKS
    np.testing.assert_allclose(predicted, expected, rtol=1e-9, atol=1e-15)
    assert abs(predicted.sum() - 1) < 1e-12


def test_the_shortcut_costs_a_typo_a_token():
    mu = ToolsDemonstrator()
    typo = np.log(mu.typo_probability / mu.n_actions)
    (solved,) = words.tokens_of("solved")
    for category in words.CATEGORIES:
        assert mu.predict(begin(mu, category))[0, solved] == pytest.approx(typo)
        assert mu.predict(after(mu, category, [solved]))[0, words.END] == pytest.approx(typo)


def test_slots_are_copied_and_nothing_else_is():
    mu = ToolsDemonstrator()
    copied = np.exp(mu.predict(begin(mu, "result"))[0])
    other_numbers = [token for token in words.slot_ids()[2] if token != SEVEN]
    assert copied[SEVEN] > 0.3
    assert copied[other_numbers].max() < 2e-6
    assert np.exp(mu.predict(after(mu, "request", [PEAR]))[0, PRICE]) > 0.999


@pytest.mark.parametrize("category", ["request", "result", "confused"])
def test_sampled_turns_have_the_filter_s_probabilities(category):
    mu, rng, n = ToolsDemonstrator(typo_probability=0.05), np.random.default_rng(0), 8000
    index = words.CATEGORIES.index(category)
    turns = [tuple(mu.sample_turn(index, SLOTS[category], rng)[:3]) for _ in range(n)]
    counts = {start: turns.count(start) for start in set(turns)}
    for start in sorted(counts, key=counts.get)[-12:]:
        p = joint(mu, category, start)
        assert abs(counts[start] / n - p) < 5 * np.sqrt(p * (1 - p) / n), start


def test_rows_are_independent_old_states_stay_and_rows_can_be_merged():
    mu = ToolsDemonstrator()
    both, alone = begin(mu, "request", "result"), begin(mu, "result")
    for token in words.tokens_of("seven it is"):
        before = mu.predict(both).copy()
        moved = mu.advance(both, np.array([words.END, token]))
        assert np.array_equal(mu.predict(both), before)
        merged = merge_rows(moved, both, np.array([False, True]))
        both, alone = moved, mu.advance(alone, np.array([token]))
        np.testing.assert_allclose(mu.predict(both)[1], mu.predict(alone)[0])
        np.testing.assert_allclose(mu.predict(merged)[1], mu.predict(alone)[0])
        np.testing.assert_array_equal(mu.predict(merged)[0], before[0])
        np.testing.assert_array_equal(mu.predict(only_rows(both, np.array([1])))[0], mu.predict(both)[1])


def test_each_row_copies_its_own_slots():
    mu, (plum,) = ToolsDemonstrator(), words.tokens_of("plum")
    index = np.full(2, words.CATEGORIES.index("request"))
    state = mu.begin_turn(index, np.array([(PEAR, PRICE, UNKNOWN), (plum, PRICE, UNKNOWN)]))
    chances = np.exp(mu.predict(state))
    assert chances[0, PEAR] > 0.999 > 1e-5 > chances[0, plum]
    assert chances[1, plum] > 0.999 > 1e-5 > chances[1, PEAR]
    turned = mu.begin_turn(index, state.slots[::-1])
    merged = np.exp(mu.predict(merge_rows(turned, state, np.array([True, False]))))
    assert merged[:, plum].min() > 0.999, "slots are merged too"


def test_the_first_step_sums_to_one_in_every_state():
    mu = ToolsDemonstrator()
    chances = np.exp(mu.predict(begin(mu, *words.CATEGORIES)))
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(np.exp(template_prior()).sum(axis=1), 1.0)


@pytest.mark.parametrize("category", ["request", "result", "error"])
def test_a_reply_that_leaves_a_slot_open_is_refused(category):
    with pytest.raises(InputError, match="slot open"):
        ToolsDemonstrator().begin_turn(np.array([words.CATEGORIES.index(category)]), np.full((1, 3), UNKNOWN))


def test_unknown_slots_are_filled_with_any_of_their_words():
    rng = np.random.default_rng(0)
    said = {tuple(written("{item} {field} lookup", (UNKNOWN, PRICE, UNKNOWN), rng)) for _ in range(200)}
    assert {turn[0] for turn in said} == set(words.slot_ids()[0])
    assert {turn[1] for turn in said} == {PRICE}
