"""A SQLite file that is on disk before anybody is told, knows its version, and is kept by one server at a time."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from mightnt.errors import InputError, MightntError

BUSY_SECONDS = 10.0
"""How long a writer waits for another process that is writing."""


class StoreError(MightntError):
    """The store cannot be read or written now (a full disk, a broken file). Nothing was changed."""


@contextlib.contextmanager
def clearly(path: Path) -> Iterator[None]:
    """Turn what SQLite and the disk complain about into one sentence: :class:`StoreError`, or an ``InputError``."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InputError("what came in holds half a character (a lone surrogate), which is not text") from error
    except OverflowError as error:
        raise InputError(f"a number is too large to be kept ({error})") from error
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{path}: cannot be read or written ({error}); nothing was changed") from error


def locked(
    path: Path, taken: str = "another server keeps this desk; stop it, or serve another run"
) -> sqlite3.Connection:
    """A connection that holds the lock ``path`` until it is closed or its process dies; nothing else is kept there.

    Errors: :class:`~mightnt.errors.InputError` where somebody else holds it: what is ``taken`` then, and what to do.
    """
    with clearly(path), contextlib.ExitStack() as stack:
        lock = stack.enter_context(contextlib.closing(_connect(path, timeout=0)))
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            raise InputError(f"{path.parent}: {taken}") from None
        stack.pop_all()
        return lock


def durable(path: Path, application: int, migrations: Sequence[str]) -> sqlite3.Connection:
    """A connection whose every commit is on disk, to a file of the newest version (made or brought there if need be).

    ``migrations``: item i is SQL that takes a file from version i to i + 1. No transaction begins by itself.

    Errors: :class:`~mightnt.errors.InputError` for a file of another ``application`` or a newer version.
    """
    with clearly(path), contextlib.ExitStack() as stack:
        db = stack.enter_context(contextlib.closing(_connect(path, BUSY_SECONDS)))
        for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            db.execute(f"PRAGMA {setting}")
        with transaction(db):
            _migrate(db, path, application, migrations)
        stack.pop_all()
        return db


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing: committed when the block ends, undone after an error, a failed commit among them."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


@contextlib.contextmanager
def unflushed(db: sqlite3.Connection, lock: threading.RLock) -> Iterator[None]:
    """What is committed here survives the end of the process; a failure of the power only once a later commit was flushed."""
    with lock:
        db.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            db.execute("PRAGMA synchronous = FULL")


def _connect(path: Path, timeout: float) -> sqlite3.Connection:
    """A connection without transactions of its own. A new file can be read by its owner alone, for chats are private."""
    if not path.exists():  # else leave it alone: opening a file that has a connection in this process drops its locks
        path.touch(mode=0o600)
    return sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)


def _migrate(db: sqlite3.Connection, path: Path, application: int, migrations: Sequence[str]) -> None:
    version, written_by = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id"))
    empty = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if written_by != application and not empty:
        raise InputError(f"{path}: is a database, but not one of a desk")
    if version > len(migrations):
        raise InputError(f"{path}: has version {version}, this program knows {len(migrations)}; use a newer program")
    for script in migrations[version:]:
        for statement in script.split(";"):
            db.execute(statement)
    if version < len(migrations):
        db.execute(f"PRAGMA user_version = {len(migrations)}")
        db.execute(f"PRAGMA application_id = {application}")
