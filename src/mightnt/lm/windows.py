"""Dialogues as rectangles: windows that fit a network's context, and batches padded on the right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mightnt.errors import InputError
from mightnt.lm.tokens import EncodedDialogues, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Stretches ``begin:end`` of flat tokens that fit a network; of each the tokens from ``scored_from`` on count.

    Every token but the first of a dialogue counts in exactly one window. All arrays have shape ``(n_windows,)``.
    """

    begin: IntArray
    end: IntArray
    scored_from: IntArray

    @property
    def lengths(self) -> IntArray:
        """Tokens in each window."""
        return self.end - self.begin


def windows(encoded: EncodedDialogues, context: int) -> Windows:
    """One window for each dialogue of at most ``context`` tokens; several that overlap for a longer one.

    A later window opens at the first role mark in the second half of the one before it (in mid-turn where there is
    none), so every token is conditioned on at least the tokens since then. No token is lost or counted twice.
    """
    if context < 2:
        raise InputError(f"a context of {context} token(s) predicts nothing; at least 2 are needed")
    whole = encoded.lengths <= context
    rows = [np.stack([encoded.starts[:-1], encoded.starts[1:], encoded.starts[:-1] + 1], axis=1)[whole]]
    turn_opens = np.flatnonzero(np.diff(encoded.turn, prepend=-1))
    for i in np.flatnonzero(~whole):
        begin, stop = int(encoded.starts[i]), int(encoded.starts[i + 1])
        scored_from = begin + 1
        while scored_from < stop:
            end = min(begin + context, stop)
            rows.append(np.array([[begin, end, scored_from]]))
            half = begin + max(1, context // 2)
            later = turn_opens[np.searchsorted(turn_opens, half)] if half <= turn_opens[-1] else end
            begin, scored_from = int(later) if later < end else half, end
    table = np.concatenate(rows).astype(np.int64)
    return Windows(*table[np.argsort(table[:, 0], kind="stable")].T)


def padded(encoded: EncodedDialogues, chosen: Windows, rows: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
    """Tokens of these windows as a rectangle ``(n, longest)``, padded on the right with 0, and which of them count.

    What stands in the padding never matters: networks here are causal and padding is never scored.
    """
    begin, end = chosen.begin[rows, None], chosen.end[rows, None]
    position = begin + np.arange(int((end - begin).max()))
    tokens = np.where(position < end, encoded.tokens[np.minimum(position, end - 1)], 0).astype(np.int64)
    return tokens, (position < end) & (position >= chosen.scored_from[rows, None])
