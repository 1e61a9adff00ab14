"""Files are whole or not there; a line that cannot be read is named."""

import errno
import json
import math
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.files import plain, read_json, read_json_lines, replacing, write_json, write_json_lines, write_text

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Whole or not at all


def test_replacing_shows_nothing_until_the_end(tmp_path):
    path = tmp_path / "deep" / "record.json"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent, "a rename is atomic within one folder only"
    assert path.read_text() == "new"
    assert names(path.parent) == ["record.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_inside_leaves_the_old_file_and_no_part(tmp_path, error):
    path = tmp_path / "record.json"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["record.json"]


@pytest.mark.parametrize("call", ["write_text", "fsync", "replace"])
def test_a_full_disk_is_one_sentence_and_the_old_file_stays(tmp_path, monkeypatch, call):
    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "record.json"
    path.write_text("old")
    monkeypatch.setattr(Path if call == "write_text" else os, call, full)
    with pytest.raises(
        InputError, match=r"record\.json: cannot be written \(No space left on device\); nothing was changed"
    ):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["record.json"]


def test_it_is_on_the_disk_before_it_takes_the_place(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append("flushed") or fsync(handle))
    monkeypatch.setattr(os, "replace", lambda *paths: calls.append("renamed") or replace(*paths))
    write_text(tmp_path / "a", "text")
    assert calls == ["flushed", "renamed"]


def test_a_folder_that_is_a_file_and_a_file_that_is_a_folder_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "x.json", tmp_path / "folder"):
        with pytest.raises(InputError, match="cannot be written"):
            write_text(path, "new")
    assert names(tmp_path) == ["file", "folder"]
    assert names(tmp_path / "folder") == []


def test_permissions_are_those_of_the_old_file_or_of_any_new_one(tmp_path):
    (tmp_path / "usual").touch()
    write_text(tmp_path / "new", "text")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode
    (tmp_path / "secret").touch(mode=0o600)
    write_text(tmp_path / "secret", "text")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_rows_that_fail_half_way_write_nothing(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("old\n")

    def rows():
        yield {"a": 1}
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        write_json_lines(path, rows())
    assert path.read_text() == "old\n"


# Values


@given(values)
def test_json_comes_back(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert read_json(path) == value


@given(st.lists(values, max_size=5))
def test_json_lines_come_back_with_their_numbers(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("json") / "rows.jsonl"
    write_json_lines(path, rows)
    assert list(read_json_lines(path)) == list(enumerate(rows, 1))


def test_plain_turns_what_json_lacks_into_what_it_has():
    value = {
        1: np.float32(0.5),
        "array": np.array([[1.0, np.inf], [np.nan, -np.inf]]),
        "tuple": (np.int64(3), np.bool_(True), None, "text"),
        "path": Path("a/b"),
        "float": [math.inf, -math.inf, math.nan, 0.1],
        "scalar": np.array(2),
    }
    assert plain(value) == {
        "1": 0.5,
        "array": [[1.0, "inf"], ["nan", "-inf"]],
        "tuple": [3, True, None, "text"],
        "path": str(Path("a/b")),
        "float": ["inf", "-inf", "nan", 0.1],
        "scalar": 2,
    }
    json.dumps(plain(value), allow_nan=False)


def test_what_is_no_value_is_not_written(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"x": object()})
    assert names(tmp_path) == []


def test_text_is_written_as_it_is(tmp_path):
    write_json_lines(tmp_path / "rows.jsonl", [{"content": "Öl, 你好\u2028\x85"}])
    assert "Öl, 你好\u2028" in (tmp_path / "rows.jsonl").read_text(encoding="utf-8")
    assert next(read_json_lines(tmp_path / "rows.jsonl")) == (1, {"content": "Öl, 你好\u2028\x85"})


# Reading what others wrote


def test_blank_lines_and_windows_line_ends_are_skipped_but_counted(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n[2]')
    assert list(read_json_lines(tmp_path / "rows.jsonl")) == [(1, {"a": 1}), (4, [2])]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"a": }', r"not JSON \(.* at column 7\)"),
        (b'{"a": 1} {"b": 2}', r"not JSON \(Extra data at column 10\)"),
        (b'{"a": "b', r"not JSON"),
        (b'{"a": [', r"not JSON \(Expecting value at column 8\)"),
        (b'{"a": "\xff"}', r"not UTF-8 text \(invalid start byte\)"),
        (b"[" * 100_000, r"JSON that cannot be read"),
        (b"9" * 5000, r"JSON that cannot be read"),
    ],
    ids=["value", "two", "open", "end", "bytes", "deep", "digits"],
)
def test_the_first_bad_line_is_named(tmp_path, line, says):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"good": 1}\n\n' + line + b"\nalso bad\n")
    read = []
    with pytest.raises(InputError, match=rf"rows\.jsonl:3: {says}"):
        read.extend(read_json_lines(path))
    assert read == [(1, {"good": 1})], "good lines before it are given"


def test_bad_json_names_its_line(tmp_path):
    (tmp_path / "x.json").write_text('{\n "a": 1,\n "b" 2\n}')
    with pytest.raises(InputError, match=r"x\.json:3: not JSON \(.* at column 6\)"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_bytes(b'{\n "a": "\xff"}')
    with pytest.raises(InputError, match=r"x\.json:2: not UTF-8 text"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("read", [read_json, lambda path: list(read_json_lines(path))], ids=["json", "lines"])
def test_files_that_are_not_there_or_folders_are_refused(tmp_path, read):
    with pytest.raises(InputError, match=r"nowhere: there is no such file"):
        read(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)


def test_a_file_that_breaks_while_reading_is_refused(tmp_path, monkeypatch):
    def broken(*_args, **_more):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "x.json").write_text("1")
    monkeypatch.setattr("builtins.open", broken)
    with pytest.raises(InputError, match=r"x\.json: cannot be read \(Input/output error\)"):
        read_json(tmp_path / "x.json")
