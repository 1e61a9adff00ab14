"""Building counts at corpus scale: demonstrations in, a folder of sorted choices out."""

from __future__ import annotations

import secrets
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mightnt.errors import InputError
from mightnt.models.corpus.contexts import BEGINNING, Contexts, sort_contexts
from mightnt.models.corpus.folder import Build, building
from mightnt.models.corpus.frequent import count_frequent, frequent_slices, keys_of
from mightnt.models.corpus.slices import BLOCK, IntArray
from mightnt.provenance import provenance
from mightnt.watching import Watcher

SHARD_TOKENS = 2**27
"""Tokens that are sorted at once: a shard takes about 2 GB of memory for a vocabulary of up to 65,535."""

MOST_TOKENS = 3 * 10**9
"""Two places of the sorted choices fit into one 64-bit number up to here."""

SORTING, COUNTING = "sorting contexts", "counting frequent contexts"
"""Names of the two pieces of work, as watchers hear them."""


class Unwatched:
    """Where nobody watches."""

    def began(self, name: str) -> None:
        """Nobody hears it."""

    def moved(self, name: str, done: int, of: int) -> None:
        """Nobody hears it."""

    def ended(self, name: str, reused: bool) -> None:
        """Nobody hears it."""


NOBODY = Unwatched()


def build_corpus(
    tokens: NDArray[Any],
    starts: IntArray,
    chosen: NDArray[np.bool_],
    is_action: NDArray[np.bool_],
    folder: Path,
    *,
    shard_tokens: int = SHARD_TOKENS,
    watcher: Watcher = NOBODY,
) -> None:
    """Write into ``folder`` what :func:`~mightnt.models.corpus.model.open_corpus` reads.

    Args:
        tokens: flat demonstrations, shape (n_tokens,), values in [0, n_symbols); may be mapped, and is read in pieces.
        starts: offsets of the dialogues and the total, shape (n_dialogues + 1,).
        chosen: which tokens the demonstrator chose, shape (n_tokens,); only they are counted, all are context.
        is_action: which symbols can be chosen, shape (n_symbols,).
        shard_tokens: how many tokens are sorted at once; a dialogue is never cut. Fewer need less memory here, and more
            time later: a question looks into every shard.

    Raises :class:`~mightnt.errors.InputError` where nothing was chosen, a token is out of range, an offset is wrong, or the
    disk is full; the folder is then as it was. Kind: exact. Cost: see :func:`~mightnt.models.corpus.contexts.sort_contexts`
    for time and memory; on disk 2 bytes a token (4 for more than 65,535 symbols), 6 (8) a choice, and the frequent rows.
    """
    tokens, starts, chosen, is_action = (np.asarray(array) for array in (tokens, starts, chosen, is_action))
    check_shapes(tokens, starts, chosen, is_action)
    starts = starts.astype(np.int64)
    with building(folder, secrets.token_hex(4)) as (build, record):
        sizes = write_sorted(build, tokens, starts, chosen, len(is_action), shard_tokens, watcher)
        build.write("is_action", is_action)
        build.write("shards", np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
        write_frequent(build, len(is_action), watcher)
        record |= {
            "n_symbols": len(is_action),
            "n_tokens": len(tokens),
            "n_dialogues": len(starts) - 1,
            "n_chosen": sum(sizes),
            "provenance": provenance(None, {"shard_tokens": shard_tokens}),
        }


def write_sorted(
    build: Build,
    tokens: NDArray[Any],
    starts: IntArray,
    chosen: NDArray[np.bool_],
    n_symbols: int,
    shard_tokens: int,
    watcher: Watcher,
) -> list[int]:
    """Write the text, the places of all choices sorted by context, and what was chosen there; gives choices a shard."""
    symbol, place = symbol_type(n_symbols), place_type(len(tokens) + len(starts))
    sizes = []
    watcher.began(SORTING)
    with (
        build.growing("text", symbol) as text,
        build.growing("places", place) as places,
        build.growing("followers", symbol) as followers,
    ):
        for first, last in pairwise(shard_cuts(starts, shard_tokens)):
            here, mask = shard_text(tokens, starts[first : last + 1], chosen, symbol, n_symbols)
            text_before, places_before = text.length, places.length
            text.append(here)
            for block in sort_contexts(here, mask):
                followers.append(here[block] - 1)
                places.append(block + text_before)
            sizes.append(places.length - places_before)
            watcher.moved(SORTING, int(starts[last]), len(tokens))
    watcher.ended(SORTING, reused=False)
    return sizes


def symbol_type(n_symbols: int) -> np.dtype[Any]:
    """The smallest kind of number for tokens that are shifted by one."""
    return np.dtype(np.uint16 if n_symbols < 2**16 else np.uint32)


def place_type(n: int) -> np.dtype[Any]:
    """The smallest kind of number for places up to ``n``."""
    return np.dtype(np.int32 if n < 2**31 else np.int64)


def check_shapes(tokens: NDArray[Any], starts: NDArray[Any], chosen: NDArray[Any], is_action: NDArray[Any]) -> None:
    """Refuse what cannot be demonstrations; values of tokens are looked at later, shard by shard."""
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or chosen.shape != tokens.shape or chosen.dtype != bool:
        raise InputError(
            f"tokens {tokens.dtype} {tokens.shape} and chosen {chosen.dtype} {chosen.shape} are not whole numbers and "
            "truth values of one length"
        )
    if starts.ndim != 1 or starts.dtype.kind not in "iu" or not len(starts) or starts[0] or starts[-1] != len(tokens):
        raise InputError(f"starts do not run from 0 to the {len(tokens)} tokens")
    if np.any(starts[1:] < starts[:-1]):
        raise InputError("starts are not ascending")
    if is_action.ndim != 1 or is_action.dtype != bool or not is_action.any():
        raise InputError("is_action marks no symbol that can be chosen")
    if len(tokens) > MOST_TOKENS:
        raise InputError(f"{len(tokens)} tokens are more than the {MOST_TOKENS} that one corpus can hold; split them")
    if not any(chosen[first : first + BLOCK].any() for first in range(0, len(chosen), BLOCK)):
        raise InputError("the demonstrations hold no action to count")


def shard_cuts(starts: IntArray, shard_tokens: int) -> list[int]:
    """Numbers of the dialogues that open the shards, and the total; a shard has at least one dialogue."""
    if shard_tokens < 1:
        raise InputError(f"{shard_tokens} tokens a shard are below 1")
    cuts = [0]
    while cuts[-1] < len(starts) - 1:
        full = int(np.searchsorted(starts, starts[cuts[-1]] + shard_tokens, side="right")) - 1
        cuts.append(max(full, cuts[-1] + 1))
    return cuts


def shard_text(
    tokens: NDArray[Any], starts: IntArray, chosen: NDArray[np.bool_], symbol: np.dtype[Any], n_symbols: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """``(text, chosen places)`` of the dialogues at ``starts``, with room for the beginning before each."""
    here = slice(int(starts[0]), int(starts[-1]))
    given = tokens[here]
    if len(given) and (int(given.min()) < 0 or int(given.max()) >= n_symbols):
        worst = int(given.min()) if int(given.min()) < 0 else int(given.max())
        raise InputError(f"token {worst} is not among the {n_symbols} symbols (0 to {n_symbols - 1})")
    beginnings = starts[:-1] - starts[0] + np.arange(len(starts) - 1)
    spoken = np.ones(len(given) + len(beginnings), dtype=bool)
    spoken[beginnings] = False
    text, mask = np.full(len(spoken), BEGINNING, dtype=symbol), np.zeros(len(spoken), dtype=bool)
    text[spoken] = given.astype(symbol) + symbol.type(1)
    mask[spoken] = chosen[here]
    return text, mask


def write_frequent(build: Build, n_symbols: int, watcher: Watcher) -> None:
    """Count the frequent slices of what this build has sorted."""
    watcher.began(COUNTING)
    contexts = Contexts(build.read("text"), build.read("places"), build.read("shards"))
    followers, n_chosen = build.read("followers"), len(contexts.places)
    begins, ends = frequent_slices(contexts)
    build.write("keys", keys_of(begins, ends, n_chosen))
    sizes = [np.zeros(1, dtype=np.int64)]
    with build.growing("tokens", followers.dtype) as tokens, build.growing("counts", contexts.places.dtype) as counts:
        for size, token, count in count_frequent(followers, begins, ends, n_symbols):
            sizes.append(size)
            tokens.append(token)
            counts.append(count)
            watcher.moved(COUNTING, sum(map(len, sizes)) - 1, len(begins))
    build.write("row_starts", np.cumsum(np.concatenate(sizes)))
    watcher.ended(COUNTING, reused=False)
