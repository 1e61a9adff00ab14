"""Random demonstrations, and what stood before a choice, read off the slow way."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from mightnt.models.corpus.contexts import BEGINNING

dialogues = st.lists(
    st.lists(st.tuples(st.sampled_from([1, 2, 3, 300, 301]), st.booleans()), max_size=10), min_size=1, max_size=5
)
"""Symbols of the text (tokens and one), and which of them were chosen."""


def text_of(drawn):
    """0, dialogue, 0, dialogue, ... and which places were chosen."""
    text = np.array([symbol for dialogue in drawn for symbol in [BEGINNING, *(s for s, _ in dialogue)]])
    chosen = np.array([own for dialogue in drawn for own in [False, *(own for _, own in dialogue)]])
    return text, chosen


def context(text, place):
    """What stands before the place, read backward to the beginning, which counts as its last symbol."""
    read = []
    for symbol in text[:place][::-1]:
        read.append(int(symbol))
        if symbol == BEGINNING:
            return read
    raise AssertionError("no beginning")


def corpora(n_symbols):
    """Dialogues of (token, was it chosen), some of them empty, some repeated."""
    dialogue = st.lists(st.tuples(st.integers(0, n_symbols - 1), st.booleans()), max_size=12)
    return st.lists(dialogue, min_size=1, max_size=6).flatmap(
        lambda drawn: st.integers(1, 3).map(lambda times: drawn * times)
    )


def flat(corpus):
    """``(tokens, starts, chosen)`` of such dialogues."""
    tokens = np.array([token for dialogue in corpus for token, _ in dialogue], dtype=np.int64)
    chosen = np.array([own for dialogue in corpus for _, own in dialogue], dtype=bool)
    return tokens, np.cumsum([0] + [len(dialogue) for dialogue in corpus]), chosen
