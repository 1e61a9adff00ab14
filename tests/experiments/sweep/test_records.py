"""A record is a line: kept, read back, never half read, refused when it is of another version."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.experiments.sweep.cells import headline
from mightnt.experiments.sweep.records import KIND, NAME, Record, append, missing, origin, read_records
from tests.experiments.sweep.made import measured

CELL = headline()


def record(seed=0, **values):
    return Record(CELL, seed, measured(CELL, seed, **values), seconds=1.5, provenance={"commit": "abc"})


def test_what_is_kept_is_read_back_to_six_digits(tmp_path):
    append(tmp_path / NAME, record(0, extra=1 / 3, unbounded=float("inf")))
    append(tmp_path / NAME, Record(CELL, 1, None, "ValueError: no", attempts=3))
    found = read_records([tmp_path])
    assert found.by_run[CELL, 0].measured["extra"] == 0.333333
    assert found.by_run[CELL, 0].measured["unbounded"] == "inf"
    assert found.by_run[CELL, 0].measured["turns"] == 6000
    assert found.by_run[CELL, 1].failed == "ValueError: no"
    assert found.by_run[CELL, 1].attempts == 3
    assert found.measured(CELL, 1) is None
    assert (found.notes, found.commits) == ((), ["None", "abc"])
    assert missing([(CELL, s) for s in range(3)], found) == [(CELL, 1), (CELL, 2)]
    line = json.loads((tmp_path / NAME).read_text().splitlines()[0])
    assert (line["kind"], line["version"], line["key"]) == (KIND, 1, CELL.key)
    assert line["cell"]["stopping"] == CELL.stopping


def test_where_a_run_comes_from_is_in_every_record():
    assert {"commit", "packages", "python", "machine", "written_utc"} <= set(origin(0))


@settings(max_examples=40)
@given(st.data())
def test_a_writer_that_is_killed_anywhere_costs_one_run_at_most(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("records") / NAME
    for seed in range(3):
        append(path, record(seed))
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    found = read_records([path])
    assert [seed for _, seed in found.by_run] == list(range(whole))
    half = not content[:cut].endswith(b"\n") and cut > 0
    assert len(found.notes) == half
    assert all("half a line" in note and f":{whole + 1}:" in note for note in found.notes)
    append(path, record(9))
    again = read_records([path])
    assert [seed for _, seed in again.by_run] == [*range(whole), 9]
    assert again.notes == ()


def test_whole_lines_are_only_added_to(tmp_path):
    append(tmp_path / NAME, record(0))
    before = (tmp_path / NAME).read_bytes()
    append(tmp_path / NAME, record(1))
    assert (tmp_path / NAME).read_bytes().startswith(before)


def change(tmp_path, **values):
    path = tmp_path / NAME
    append(path, record(0))
    append(path, record(1))
    lines = path.read_text().splitlines(keepends=True)
    lines[0] = json.dumps(json.loads(lines[0]) | values) + "\n"
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"version": 2}, r"runs.jsonl:1: is of version 2, this program reads 1; read it with"),
        ({"kind": "something"}, "is not the record of a run"),
        ({"cell": {}}, "its cell is none of this version: field"),
        ({"key": "0123456789"}, "was it edited"),
        ({"measured": None}, "one of the two"),
        ({"failed": "both"}, "one of the two"),
        ({"measured": 3}, "one of the two"),
    ],
)
def test_other_records_are_refused(tmp_path, values, words):
    path = change(tmp_path, **values)
    with pytest.raises(InputError, match=words):
        read_records([path])


def test_an_edited_cell_is_refused(tmp_path):
    path = change(tmp_path)
    path.write_text(path.read_text().replace('"strength": 10.0', '"strength": 20.0'))
    with pytest.raises(InputError, match="was it edited"):
        read_records([path])


def test_a_broken_line_in_the_middle_is_refused(tmp_path):
    path = change(tmp_path)
    path.write_bytes(b"{half\n" + path.read_bytes())
    with pytest.raises(InputError, match=r"runs.jsonl:1: not JSON"):
        read_records([path])
    path.write_bytes(b'{"kind": "mightnt sweep run", "version": 1}\n')
    with pytest.raises(InputError, match="lacks 'cell'"):
        read_records([path])


def test_many_files_are_merged_and_a_measured_run_beats_a_failed_one(tmp_path):
    one, other = tmp_path / "one.jsonl", tmp_path / "other"
    append(one, Record(CELL, 0, None, "no"))
    append(one, record(1))
    append(other / NAME, record(0))
    append(other / NAME, replace(record(1), seconds=99.0))
    append(other / NAME, Record(CELL, 1, None, "later"))
    found = read_records([one, other, tmp_path / "nowhere.jsonl"])
    assert found.measured(CELL, 0)
    assert found.by_run[CELL, 1].seconds == 1.5
    assert "2 run(s) were there already" in found.notes[0]
