"""Building a corpus: what is refused, what is left behind, what a watcher hears."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mightnt.errors import InputError
from mightnt.files import read_json
from mightnt.models.corpus import build
from mightnt.models.corpus.build import build_corpus, place_type, shard_cuts, symbol_type
from mightnt.models.corpus.folder import Growing
from mightnt.models.corpus.model import open_corpus

TOKENS = np.array([0, 1, 2, 1, 2, 2])
STARTS = np.array([0, 3, 3, 6])
CHOSEN = np.array([False, True, True, False, True, True])
IS_ACTION = np.array([False, True, True])


def change(**changes):
    given = {"tokens": TOKENS, "starts": STARTS, "chosen": CHOSEN, "is_action": IS_ACTION} | changes
    return [given[name] for name in ("tokens", "starts", "chosen", "is_action")]


def test_the_files_by_hand(tmp_path):
    build_corpus(*change(), tmp_path, shard_tokens=3)
    corpus = open_corpus(tmp_path, check=True)
    assert corpus.contexts.text.tolist() == [0, 1, 2, 3, 0, 0, 2, 3, 3]
    assert corpus.contexts.places.tolist() == [2, 3, 7, 8], "by what stood before: 0 | 0 1 || 1 | 1 2, shifted by one"
    assert corpus.contexts.shards.tolist() == [0, 2, 4]
    assert corpus.followers.tolist() == [1, 2, 2, 2]
    record = read_json(tmp_path / "corpus.json")
    assert [record[name] for name in ("n_symbols", "n_tokens", "n_dialogues", "n_chosen")] == [3, 6, 3, 4]
    assert record["provenance"]["config"] == {"shard_tokens": 3}


def test_mapped_and_unsigned_input_gives_the_same_files(tmp_path):
    build_corpus(*change(), tmp_path / "a")
    np.save(tmp_path / "tokens.npy", TOKENS.astype(np.uint16))
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    build_corpus(*change(tokens=mapped, starts=STARTS.astype(np.uint64)), tmp_path / "b")
    files = [read_json(tmp_path / name / "corpus.json")["files"] for name in "ab"]
    assert [about["crc32"] for about in files[0].values()] == [about["crc32"] for about in files[1].values()]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tokens": TOKENS.astype(float)}, "not whole numbers"),
        ({"tokens": TOKENS[None]}, "not whole numbers"),
        ({"chosen": CHOSEN[:-1]}, "of one length"),
        ({"chosen": CHOSEN.astype(int)}, "truth values"),
        ({"starts": np.array([0, 3])}, "starts do not run from 0 to the 6 tokens"),
        ({"starts": np.array([1, 6])}, "starts do not run"),
        ({"starts": np.zeros(0, dtype=int)}, "starts do not run"),
        ({"starts": np.array([0.0, 6.0])}, "starts do not run"),
        ({"starts": np.array([0, 4, 3, 6])}, "not ascending"),
        ({"is_action": np.zeros(3, dtype=bool)}, "no symbol that can be chosen"),
        ({"is_action": np.ones(3)}, "no symbol that can be chosen"),
        ({"is_action": np.array([True, True])}, r"token 2 is not among the 2 symbols \(0 to 1\)"),
        ({"tokens": TOKENS - 1}, "token -1 is not among the 3 symbols"),
        ({"chosen": np.zeros(6, dtype=bool)}, "no action to count"),
        ({"tokens": TOKENS[:0], "starts": np.array([0]), "chosen": CHOSEN[:0]}, "no action to count"),
        ({"tokens": TOKENS[:0], "starts": np.array([0, 0]), "chosen": CHOSEN[:0]}, "no action to count"),
    ],
)
def test_what_are_no_demonstrations_is_refused_and_nothing_is_written(tmp_path, changes, match):
    with pytest.raises(InputError, match=match):
        build_corpus(*change(**changes), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_more_than_a_corpus_can_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "MOST_TOKENS", 5)
    with pytest.raises(InputError, match="6 tokens are more than the 5"):
        build_corpus(*change(), tmp_path)


def test_two_places_of_the_largest_corpus_fit_one_number():
    assert (build.MOST_TOKENS + 1) ** 2 < 2**63


def test_shards_are_whole_dialogues_and_no_larger_than_asked_where_that_can_be():
    starts = np.array([0, 3, 3, 8, 9, 10])
    assert shard_cuts(starts, 100) == [0, 5]
    assert shard_cuts(starts, 5) == [0, 2, 3, 5]
    assert shard_cuts(starts, 1) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(InputError, match="0 tokens a shard"):
        shard_cuts(starts, 0)


def test_numbers_are_as_small_as_they_can_be():
    assert (symbol_type(2**16 - 1), symbol_type(2**16)) == (np.uint16, np.uint32)
    assert (place_type(2**31 - 1), place_type(2**31)) == (np.int32, np.int64)


def test_a_large_vocabulary_keeps_its_tokens(tmp_path):
    tokens = np.array([151_000, 151_935, 65_535, 151_000, 151_935, 0])
    build_corpus(tokens, STARTS, np.ones(6, dtype=bool), np.ones(151_936, dtype=bool), tmp_path)
    rows = open_corpus(tmp_path, 2).next_counts(np.array([[-1, 151_000], [151_000, 151_935], [5, 5]]))
    assert rows.row_starts.tolist() == [0, 1, 3, 7]
    assert rows.tokens.tolist() == [151_935, 0, 65_535, 0, 65_535, 151_000, 151_935]
    assert rows.counts.tolist() == [2, 1, 1, 1, 1, 2, 2]


def test_a_disk_that_fills_up_leaves_the_old_corpus(tmp_path, monkeypatch):
    build_corpus(*change(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    append = Growing.append

    def full(array, values):
        if array.length >= 2:
            raise OSError(28, "No space left on device")
        append(array, values)

    monkeypatch.setattr(Growing, "append", full)
    with pytest.raises(InputError, match="No space left on device"):
        build_corpus(*change(), tmp_path, shard_tokens=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_killed_build_is_never_taken_for_a_corpus(tmp_path):
    code = (
        "import os, numpy as np; from pathlib import Path; from mightnt.models.corpus import build;"
        "build.write_frequent = lambda *_: os._exit(9);"
        f"build.build_corpus(np.array([0, 1]), np.array([0, 2]), np.ones(2, bool), np.ones(2, bool), Path({str(tmp_path)!r}))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert len(os.listdir(tmp_path)) > 3
    with pytest.raises(InputError, match="no finished corpus"):
        open_corpus(tmp_path)
    build_corpus(*change(), tmp_path)
    assert open_corpus(tmp_path).n_symbols == 3
    assert len(os.listdir(tmp_path)) == 10


class Listener:
    def __init__(self):
        self.heard = []

    def began(self, name):
        self.heard.append(f"{name} began")

    def moved(self, name, done, of):
        self.heard.append(f"{name} {done} of {of}")

    def ended(self, name, reused):
        self.heard.append(f"{name} ended")


def test_a_watcher_hears_how_far_it_is(tmp_path):
    listener = Listener()
    build_corpus(*change(), tmp_path, shard_tokens=3, watcher=listener)
    assert listener.heard == [
        *("sorting contexts began", "sorting contexts 3 of 6", "sorting contexts 6 of 6", "sorting contexts ended"),
        *("counting frequent contexts began", "counting frequent contexts ended"),
    ]
