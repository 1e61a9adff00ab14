"""A file is brought to its version whole or not at all, what is not ours is refused, and one process holds a lock."""

import contextlib
import sqlite3
import stat
import subprocess
import sys
import threading

import pytest

from mightnt.desk.database import StoreError, clearly, durable, locked, transaction, unflushed
from mightnt.errors import InputError

FIRST, SECOND = "CREATE TABLE words (word TEXT); INSERT INTO words VALUES ('one')", "INSERT INTO words VALUES ('two')"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.sqlite"


def words(path, *migrations):
    db = durable(path, 7, migrations)
    found = [row[0] for row in db.execute("SELECT word FROM words ORDER BY rowid")]
    db.close()
    return found


def test_every_commit_is_on_disk_and_a_new_file_is_its_owners_alone(path):
    db = durable(path, 7, [FIRST])
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    with contextlib.suppress(StoreError), unflushed(db, threading.RLock()):
        assert db.execute("PRAGMA synchronous").fetchone() == (1,)
        raise StoreError
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    db.close()


def test_an_old_file_is_brought_to_the_newest_version_once(path):
    assert words(path, FIRST) == ["one"]
    assert words(path, FIRST, SECOND) == ["one", "two"]
    assert words(path, FIRST, SECOND) == ["one", "two"]


def test_a_failed_migration_changes_nothing(path):
    words(path, FIRST)
    with pytest.raises(StoreError, match=r"some\.sqlite.*nothing was changed"):
        durable(path, 7, [FIRST, SECOND + "; NO SQL"])
    assert words(path, FIRST) == ["one"]


def test_a_newer_file_is_refused(path):
    words(path, FIRST, SECOND)
    with pytest.raises(InputError, match="has version 2, this program knows 1"):
        durable(path, 7, [FIRST])
    assert words(path, FIRST, SECOND) == ["one", "two"]


def test_what_is_not_ours_is_refused(path):
    words(path, FIRST)
    with pytest.raises(InputError, match="not one of a desk"):
        durable(path, 8, [FIRST])
    path.write_bytes(b"no database at all, but long enough to look at" * 100)
    with pytest.raises(StoreError, match="not a database"):
        durable(path, 7, [FIRST])


def test_a_transaction_is_all_or_nothing(path):
    db = durable(path, 7, [FIRST])
    with pytest.raises(sqlite3.OperationalError, match="NO"), transaction(db):
        db.execute(SECOND) and db.execute("NO SQL")
    with transaction(db):
        db.execute("INSERT INTO words VALUES ('three')")
    db.close()
    assert words(path, FIRST) == ["one", "three"]


def test_a_lock_is_held_once_and_ends_with_its_connection(path):
    held = locked(path)
    with pytest.raises(InputError, match="another server"):
        locked(path)
    held.close()
    locked(path).close()


def test_a_lock_dies_with_its_process(path):
    code = f"from mightnt.desk.database import locked; from pathlib import Path; lock = locked(Path({str(path)!r}))"
    child = subprocess.Popen(
        [sys.executable, "-c", f"{code}; print('held', flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another server"):
            locked(path)
        child.kill()
    locked(path).close()


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (sqlite3.OperationalError("database or disk is full"), StoreError, "is full.; nothing was changed"),
        (OSError(13, "Permission denied"), StoreError, "Permission denied"),
        (OverflowError("Python int too large"), InputError, "too large"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"), InputError, "half a character"),
    ],
)
def test_every_complaint_is_one_sentence(path, error, kind, words):
    with pytest.raises(kind, match=words), clearly(path):
        raise error


def test_a_folder_in_the_way_is_a_sentence(tmp_path):
    with pytest.raises(StoreError, match="unable to open"):
        durable(tmp_path, 7, [FIRST])
    with pytest.raises(StoreError, match="No such file"):
        locked(tmp_path / "nowhere" / "lock")
