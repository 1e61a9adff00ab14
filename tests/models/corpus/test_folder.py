"""Files of a corpus are whole or not taken for a corpus."""

import errno
import json
import os

import numpy as np
import pytest

from mightnt.errors import InputError
from mightnt.models.corpus.folder import ARRAYS, RECORD, Build, building, check_sums, mapped, read_record


def write(folder, mark, value=1):
    with building(folder, mark) as (build, record):
        for name in ARRAYS:
            build.write(name, np.full(3, value))
        record["n_symbols"] = value


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_array_grows_and_is_a_plain_npy_file(tmp_path):
    build = Build(tmp_path, "0123abcd")
    expected = np.arange(250_000, dtype=np.uint16)
    with build.growing("text", np.uint16) as array:
        assert names(tmp_path) != ["text-0123abcd.npy"], "it is there when it is whole"
        for part in np.split(expected, 10):
            array.append(part)
    assert names(tmp_path) == ["text-0123abcd.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "text-0123abcd.npy"), expected)
    np.testing.assert_array_equal(build.read("text"), expected)
    assert build.files["text"]["length"] == 250_000


def test_values_take_the_kind_of_the_file(tmp_path):
    build = Build(tmp_path, "0123abcd")
    with build.growing("counts", np.int32) as array:
        array.append(np.array([1, 2], dtype=np.int64))
        array.append(np.zeros(0, dtype=np.int64))
    assert build.read("counts").dtype == np.int32
    assert build.read("counts").tolist() == [1, 2]


def test_an_empty_array_can_be_read(tmp_path):
    build = Build(tmp_path, "0123abcd")
    build.write("keys", np.zeros(0, dtype=np.int64))
    assert build.read("keys").dtype == np.int64
    assert build.read("keys").shape == (0,)


def test_what_is_mapped_cannot_be_written_and_is_not_loaded(tmp_path):
    build = Build(tmp_path, "0123abcd")
    build.write("text", np.arange(5))
    array = build.read("text")
    assert isinstance(array.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_a_new_corpus_takes_the_place_of_the_old(tmp_path):
    write(tmp_path, "00000001", 1)
    old = mapped(tmp_path, read_record(tmp_path)["files"]["text"])
    write(tmp_path, "00000002", 2)
    record = read_record(tmp_path)
    assert record["n_symbols"] == 2
    assert mapped(tmp_path, record["files"]["text"]).tolist() == [2, 2, 2]
    assert old.tolist() == [1, 1, 1], "who has it open goes on reading it"
    assert names(tmp_path) == sorted([RECORD, *(f"{name}-00000002.npy" for name in ARRAYS)])
    check_sums(tmp_path, record)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_folder_as_it_was(tmp_path, error):
    write(tmp_path, "00000001", 1)
    before = names(tmp_path)
    with pytest.raises(error), building(tmp_path, "00000002") as (build, _):  # noqa: PT012
        build.write("text", np.arange(3))
        with build.growing("places", np.int32) as array:
            array.append(np.arange(3))
            raise error
    assert names(tmp_path) == before
    assert read_record(tmp_path)["n_symbols"] == 1


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_one_sentence_and_the_old_corpus_stays(tmp_path, monkeypatch, call):
    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(tmp_path, "00000001", 1)
    before = names(tmp_path)
    monkeypatch.setattr(os, call, full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        write(tmp_path, "00000002", 2)
    monkeypatch.undo()
    assert names(tmp_path) == before
    assert read_record(tmp_path)["n_symbols"] == 1


def test_what_a_killed_build_left_is_removed_and_nothing_else(tmp_path):
    left = ["text-00000009.npy", ".places-00000009.npy.0123abcd.part"]
    others = ["text.npy", "notes-00000009.npy", "text-00000009.npy.bak", "text-00000009.txt"]
    for name in [*left, *others]:
        (tmp_path / name).touch()
    write(tmp_path, "00000001")
    assert not set(left) & set(names(tmp_path))
    assert set(others) < set(names(tmp_path))


def test_no_record_is_no_corpus(tmp_path):
    with building(tmp_path, "00000001") as (build, _):
        build.write("text", np.arange(3))
        with pytest.raises(InputError, match=r"no finished corpus \(no corpus.json\)"):
            read_record(tmp_path)
    with pytest.raises(InputError, match="does not name the files"):
        read_record(tmp_path)
    with pytest.raises(InputError, match="no finished corpus"):
        read_record(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"kind": "mightnt imitators"}, "is not the record of a corpus"),
        ({"version": 2}, "is of version 2, version 1 can be read; build it again"),
        ({"files": {}}, "does not name the files of a corpus"),
        ({"files": None}, "does not name the files of a corpus"),
    ],
)
def test_records_of_something_else_are_refused(tmp_path, change, match):
    write(tmp_path, "00000001")
    kept = json.loads((tmp_path / RECORD).read_text())
    (tmp_path / RECORD).write_text(json.dumps({**kept, **change}))
    with pytest.raises(InputError, match=match):
        read_record(tmp_path)
    (tmp_path / RECORD).write_text("[]")
    with pytest.raises(InputError, match="is not the record of a corpus"):
        read_record(tmp_path)


def test_files_that_are_cut_off_missing_or_others_are_refused(tmp_path):
    write(tmp_path, "00000001")
    about = read_record(tmp_path)["files"]["text"]
    path = tmp_path / about["file"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=rf"has {len(whole) - 1} bytes where {len(whole)} were written"):
        mapped(tmp_path, about)
    path.write_bytes(b"x" * len(whole))
    with pytest.raises(InputError, match="cannot be read"):
        mapped(tmp_path, about)
    np.save(path, np.arange(3).astype(np.float64))
    with pytest.raises(InputError, match="is not the array"):
        mapped(tmp_path, about)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        mapped(tmp_path, about)


def test_a_changed_value_is_found_by_its_check_sum(tmp_path):
    write(tmp_path, "00000001")
    record = read_record(tmp_path)
    path = tmp_path / record["files"]["places"]["file"]
    np.save(path, np.array([1, 1, 2]))
    mapped(tmp_path, record["files"]["places"])
    with pytest.raises(InputError, match=r"places-00000001\.npy: does not hold what was written"):
        check_sums(tmp_path, record)
