"""Counts at corpus scale: building against the library alone, a plain peer and a floor; questions against a network.

A text of phrases that recur, drawn with falling frequency from a vocabulary of 32,000, in dialogues of 200 tokens. Shortest
processor times of calls in turn, one thread.

Floor of a build: what must be read (tokens, which were chosen) and written (text, places, what followed, frequent rows),
over the bandwidth of a plain copy measured here. Floor of a question: each length narrows a slice of m places to one token
by two binary searches, 2 log2(m) steps of two dependent reads (a place, the token before it); as many random reads of a
table of the same size, done independently, is what the memory allows.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from bench.context_tree import random_load_ns
from bench.lines import Line, best_seconds
from bench.soft_planner import copying
from mightnt.lm.networks import NetworkShape, build_network
from mightnt.models.corpus.build import build_corpus
from mightnt.models.corpus.contexts import as_bytes, suffix_array
from mightnt.models.corpus.folder import read_record
from mightnt.models.corpus.model import CorpusCounts, open_corpus
from mightnt.models.counts import Support, fit_counts, suffixes_of

N_TOKENS, N_SYMBOLS, DIALOGUE = 10**6, 32_000, 200
SMALL_VOCABULARY = 158
"""Of the chat world; tables in memory and dense rows are compared here."""

SIZES = 2 * 10**6, 8 * 10**6
"""Tokens of two builds; memory a token is the slope between them."""

AMPLE = 50

ROWS, WIDTH = 8, 128
"""Positions that a network reads in one forward pass, and that are asked for."""

INPUT = "tokens.npy", "starts.npy", "chosen.npy"

Demonstrations = tuple[np.ndarray, np.ndarray, np.ndarray]


def demonstrations(n_tokens: int, n_symbols: int) -> Demonstrations:
    """Tokens, starts and who chose (every other ten tokens) of phrases that recur; the k-th most frequent about 1/k."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 13, 50_000)
    words = (float(n_symbols) ** rng.random(int(lengths.sum()))).astype(np.int32) - 1
    drawn = (float(len(lengths)) ** rng.random(n_tokens // 2)).astype(np.int64) - 1
    drawn = drawn[: np.searchsorted(np.cumsum(lengths[drawn]), n_tokens) + 1]
    moved = (np.cumsum(lengths) - lengths)[drawn] - (np.cumsum(lengths[drawn]) - lengths[drawn])
    tokens = words[np.arange(n_tokens) + np.repeat(moved, lengths[drawn])[:n_tokens]]
    return tokens, np.append(np.arange(0, n_tokens, DIALOGUE), n_tokens), np.arange(n_tokens) // 10 % 2 == 1


def prefix_doubling(text: np.ndarray) -> np.ndarray:
    """The plain peer: suffixes sorted by their first 1, 2, 4, ... symbols with one argsort each until all differ."""
    rank, length = np.unique(text, return_inverse=True)[1].astype(np.uint64), 1
    while True:
        after = np.zeros_like(rank)
        after[: max(len(text) - length, 0)] = rank[length:] + np.uint64(1)
        keys = (rank << np.uint64(32)) | after
        order = np.argsort(keys)
        fresh = np.append(True, keys[order][1:] != keys[order][:-1])
        if fresh.all():
            return order
        rank[order], length = (np.cumsum(fresh) - 1).astype(np.uint64), 2 * length


def building(folder: Path) -> list[Line]:
    """The whole build beside its sort, a peer's sort, and what must be read and written."""
    tokens, starts, chosen = demonstrations(N_TOKENS, N_SYMBOLS)
    is_action = np.ones(N_SYMBOLS, dtype=bool)
    build_corpus(tokens, starts, chosen, is_action, folder)
    text = np.asarray(open_corpus(folder).contexts.text)[::-1]
    encoded = as_bytes(text)
    sorted_alone = suffix_array(encoded.reshape(-1))
    aligned = sorted_alone[sorted_alone % encoded.shape[1] == 0] // encoded.shape[1]
    started = time.process_time()
    assert np.array_equal(aligned, prefix_doubling(text)), "the two sort differently"
    peer = time.process_time() - started
    n_bytes = tokens.nbytes + chosen.nbytes + sum(about["bytes"] for about in read_record(folder)["files"].values())
    ours, library, copy = best_seconds(
        lambda: build_corpus(tokens, starts, chosen, is_action, folder),
        lambda: suffix_array(encoded.reshape(-1)),
        copying(n_bytes),
        repetitions=3,
    )
    each = 1e6 / N_TOKENS
    what = f"corpus of counts, build, {N_TOKENS:.0e} tokens"
    return [
        Line(what, ours * each, library * each, "us/token", "libdivsufsort alone"),
        Line(what, ours * each, peer * each, "us/token", "prefix doubling with numpy, the sort alone"),
        Line(what, ours * each, copy * each, "us/token", "floor: bytes read and written / copy bandwidth"),
    ]


def peak_bytes(folder: Path, n_tokens: int) -> int:
    """What a build from mapped input adds to the largest resident size of a fresh process, mapped pages included."""
    for name, array in zip(INPUT, demonstrations(n_tokens, N_SYMBOLS), strict=True):
        np.save(folder / name, array)
    command = [sys.executable, "-m", "bench.suffix_array", str(folder)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def memory(folder: Path) -> list[Line]:
    """Memory of a build a token, against the bytes of its input and output."""
    folder.mkdir()
    peaks = [peak_bytes(folder, n) for n in SIZES]
    slope = (peaks[1] - peaks[0]) / (SIZES[1] - SIZES[0])
    kept = 4 + 1 + 2 + (4 + 2) / 2
    name = f"corpus of counts, memory of a build, {SIZES[0]:.0e} to {SIZES[1]:.0e} tokens"
    return [Line(name, slope, kept, "bytes/token", "tokens, chosen, text; place and token of each choice")]


def asking(folder: Path) -> list[Line]:
    """1024 questions against one forward pass over as many positions, and against the reads that they cannot avoid."""
    longer, _, _ = demonstrations(N_TOKENS + ROWS * WIDTH, N_SYMBOLS)
    fresh = longer[N_TOKENS:].astype(np.int64)
    suffixes = suffixes_of(fresh, np.arange(0, len(fresh) + 1, WIDTH), 8)
    corpus = open_corpus(folder, longest=8)
    network = build_network(NetworkShape(context=WIDTH), N_SYMBOLS, 0)
    batch = torch.from_numpy(fresh.reshape(ROWS, WIDTH))

    def forward() -> None:
        with torch.inference_mode():
            network(batch).logits.log_softmax(-1)

    predicting, supporting, counting, network_pass = best_seconds(
        lambda: corpus.predict_at(suffixes, fresh[:, None]),
        lambda: corpus.supported_at(suffixes, fresh[:, None], Support()),
        lambda: corpus.next_counts(suffixes, AMPLE),
        forward,
        repetitions=7,
    )
    what = f"corpus of counts, {len(fresh)} contexts, suffixes to 8"
    other = f"one forward pass, {ROWS} x {WIDTH} positions, width 64, 2 layers, 32,000 symbols"
    named = (("predict_at", predicting), ("supported_at", supporting))
    answer = corpus.next_counts(suffixes, AMPLE)
    floor = reads_of(corpus, suffixes) * random_load_ns(corpus.contexts.places.nbytes) / 1e9
    return [
        *(Line(f"{what}: {name}", seconds * 1e3, network_pass * 1e3, "ms", other) for name, seconds in named),
        Line(f"{what}: predict_at", predicting * 1e3, floor * 1e3, "ms", "floor: reads of the searches, independent"),
        Line(
            f"{what}: next_counts, {len(answer.tokens):.1e} entries",
            counting * 1e3,
            best_seconds(lambda: (answer.tokens.copy(), answer.counts.copy()))[0] * 1e3,
            "ms",
            "floor: one copy of the answer",
        ),
    ]


def reads_of(corpus: CorpusCounts, suffixes: np.ndarray) -> float:
    """Reads of the binary searches for these suffixes."""
    halvings = sum(np.log2(slices.totals + 1).sum() for _, slices in corpus.by_length(suffixes))
    return float(2 * 2 * halvings)


def against_tables(folder: Path) -> list[Line]:
    """Dense predictions beside those of the tables in memory, whose numbers have to be the same."""
    tokens, starts, chosen = demonstrations(N_TOKENS // 5, SMALL_VOCABULARY)
    is_action = np.ones(SMALL_VOCABULARY, dtype=bool)
    build_corpus(tokens, starts, chosen, is_action, folder)
    corpus, tables = open_corpus(folder), fit_counts(tokens.astype(np.int64), starts, chosen, is_action)
    suffixes = suffixes_of(tokens.astype(np.int64), starts, 4)[: ROWS * WIDTH]
    assert np.allclose(corpus.predict(suffixes), tables.predict(suffixes), rtol=1e-12, atol=1e-12), (
        "the two count differently"
    )
    ours, theirs = best_seconds(lambda: corpus.predict(suffixes), lambda: tables.predict(suffixes), repetitions=15)
    what = f"corpus of counts, {len(suffixes)} dense rows of {SMALL_VOCABULARY}"
    return [Line(what, ours * 1e3, theirs * 1e3, "ms", "SuffixCounts in memory")]


def lines() -> list[Line]:
    """Every comparison."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return [
            *building(Path(folder, "large")),
            *memory(Path(folder, "input")),
            *asking(Path(folder, "large")),
            *against_tables(Path(folder, "small")),
        ]


def high_water_bytes() -> int:
    """Largest resident size of this process so far, as Linux tells it (``getrusage`` would count the parent's, too)."""
    said = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert said, "this system does not tell"
    return int(said[1]) * 1024


def main() -> None:
    """Print the peak of one build, as ``peak_bytes`` reads it."""
    folder = Path(sys.argv[1])
    tokens, starts, chosen = (np.load(folder / name, mmap_mode="r") for name in INPUT)
    suffix_array(np.zeros(1, dtype=np.uint8))
    before = high_water_bytes()
    build_corpus(tokens, starts, chosen, np.ones(N_SYMBOLS, dtype=bool), folder / "corpus")
    print(high_water_bytes() - before)


if __name__ == "__main__":
    main()
