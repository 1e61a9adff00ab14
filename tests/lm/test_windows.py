"""Windows: every token counts once, none exceeds the context, and rectangles hold what was cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.lm.tokens import EncodedDialogues
from mightnt.lm.windows import padded, windows


def dialogues_of(turn_lengths):
    """Dialogues with these turn lengths; token ids are 1, 2, 3, ... so that each is its own."""
    lengths = [sum(turns) for turns in turn_lengths]
    turn = np.concatenate([np.repeat(np.arange(len(turns)), turns) for turns in turn_lengths]).astype(np.int32)
    tokens = np.arange(1, turn.size + 1, dtype=np.int32)
    return EncodedDialogues(tokens, np.cumsum([0, *lengths]), np.zeros(turn.size, bool), turn)


shapes = st.lists(st.lists(st.integers(2, 12), min_size=1, max_size=6), min_size=1, max_size=5)


@given(turn_lengths=shapes, context=st.integers(2, 20))
def test_every_token_but_the_first_counts_in_exactly_one_window(turn_lengths, context):
    encoded = dialogues_of(turn_lengths)
    cut = windows(encoded, context)
    times = np.zeros(encoded.tokens.size, int)
    owner = np.repeat(np.arange(encoded.n_dialogues), encoded.lengths)
    for begin, end, scored_from in zip(cut.begin, cut.end, cut.scored_from, strict=True):
        assert begin < scored_from < end <= begin + context
        assert owner[begin] == owner[end - 1]
        times[scored_from:end] += 1
    expected = np.ones_like(times)
    expected[encoded.starts[:-1]] = 0
    np.testing.assert_array_equal(times, expected)


@given(turn_lengths=shapes, context=st.integers(2, 20))
def test_later_windows_keep_half_a_context_of_past_unless_a_turn_opens_in_it(turn_lengths, context):
    encoded = dialogues_of(turn_lengths)
    opens = set(np.flatnonzero(np.diff(encoded.turn, prepend=-1))) | set(encoded.starts)
    for begin, scored_from in zip(windows(encoded, context).begin, windows(encoded, context).scored_from, strict=True):
        assert begin in opens or scored_from - begin >= context - context // 2 - 1


def test_windows_by_hand():
    cut = windows(dialogues_of([[4, 3], [4, 3, 5, 4]]), context=10)
    np.testing.assert_array_equal(cut.begin, [0, 7, 14])
    np.testing.assert_array_equal(cut.end, [7, 17, 23])
    np.testing.assert_array_equal(cut.scored_from, [1, 8, 17])


def test_dialogues_that_fit_are_one_window_each():
    encoded = dialogues_of([[4, 3], [2], [9]])
    cut = windows(encoded, 1_000_000)
    np.testing.assert_array_equal(cut.begin, encoded.starts[:-1])
    np.testing.assert_array_equal(cut.lengths, encoded.lengths)


def test_padding_is_on_the_right_and_never_counts():
    encoded = dialogues_of([[3], [2], [4]])
    tokens, counted = padded(encoded, windows(encoded, 10), np.array([1, 2]))
    np.testing.assert_array_equal(tokens, [[4, 5, 0, 0], [6, 7, 8, 9]])
    np.testing.assert_array_equal(counted, [[False, True, False, False], [False, True, True, True]])


def test_a_context_of_one_is_refused():
    with pytest.raises(InputError, match="at least 2"):
        windows(dialogues_of([[3]]), 1)
