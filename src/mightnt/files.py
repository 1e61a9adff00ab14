"""Files that are whole or not there: atomic writes, JSON and JSON lines, errors with file and line.

A reader never sees half a file: everything is written beside its place, flushed to disk and renamed over it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mightnt.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that takes the place of ``path`` when the block ends without an error.

    The new file has the permissions of the old one, or those of any new file.

    Raises :class:`~mightnt.errors.InputError` where the disk is full or the folder cannot be written; the old file, if
    there was one, is untouched then.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        if path.exists():
            shutil.copymode(path, temporary)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); nothing was changed") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, whole or not at all; infinities and NaN are written as the strings inf, -inf, nan."""
    write_text(path, json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON object a line, whole or not at all."""
    write_text(path, "".join(json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def plain(value: Any) -> Any:
    """``value`` with numpy scalars and arrays as Python values and non-finite numbers as strings (JSON has none)."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if isinstance(value, Path):
        return str(value)
    return value


def read_json(path: Path) -> Any:
    """The JSON value in ``path``; a missing or malformed file is one clear sentence."""
    with _readable(path) as file:
        return _decoded(file.read(), path, 1)


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Pairs ``(line number, value)`` of a JSON-lines file; blank lines are skipped, the first bad line is named."""
    with _readable(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _decoded(line.rstrip(), path, number)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[BinaryIO]:
    """The open file, or one clear sentence."""
    try:
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, a file was expected") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _decoded(text: bytes, path: Path, line: int) -> Any:
    """The JSON value in ``text``, which begins at this line of ``path``; a byte order mark before it is dropped."""
    try:
        return json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line += text.count(b"\n", 0, error.start)
        raise InputError(f"{path}:{line}: not UTF-8 text ({error.reason})") from error
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        raise InputError(f"{path}:{line}: not JSON ({error.msg} at column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}:{line}: JSON that cannot be read ({error})") from error
