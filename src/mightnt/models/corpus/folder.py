"""A corpus on disk: plain .npy files, and ``corpus.json`` that names them and is written last.

The files of a build have a name of their own, so an earlier corpus in the same folder stays whole until ``corpus.json``
takes its place. A build that was killed leaves files that nobody reads; the next one removes them.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from mightnt.errors import InputError
from mightnt.files import read_json, replacing, write_json

KIND, VERSION = "mightnt corpus", 1
RECORD = "corpus.json"
ARRAYS = ("is_action", "shards", "text", "places", "followers", "keys", "row_starts", "tokens", "counts")
OURS = re.compile(rf"\.?(?:{'|'.join(ARRAYS)})-[0-9a-f]{{8}}\.npy(?:\.[0-9a-f]{{8}}\.part)?")
"""Names of files that belong to some build."""


@dataclass
class Growing:
    """A one-dimensional .npy file that is written piece by piece; its length is filled in at the end."""

    file: BinaryIO
    dtype: np.dtype[Any]
    length: int = 0
    crc32: int = 0

    def append(self, values: NDArray[Any]) -> None:
        """Write more values. Raises ``OSError`` where the disk is full."""
        raw = np.ascontiguousarray(values, dtype=self.dtype).view(np.uint8).data
        self.file.write(raw)
        self.length, self.crc32 = self.length + len(values), zlib.crc32(raw, self.crc32)

    def header(self) -> None:
        """Write how many values there are, at the front; a longer number takes no more room there."""
        self.file.seek(0)
        about = {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.length,)}
        npy.write_array_header_1_0(self.file, about)


@dataclass
class Build:
    """The files that one build has written so far."""

    folder: Path
    mark: str
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    @contextlib.contextmanager
    def growing(self, name: str, dtype: DTypeLike) -> Iterator[Growing]:
        """An array to append to; whole and on disk when the block ends without an error."""
        path = self.folder / f"{name}-{self.mark}.npy"
        with replacing(path) as temporary, open(temporary, "wb") as file:
            array = Growing(file, np.dtype(dtype))
            array.header()
            yield array
            array.header()
            file.flush()
        about = {"file": path.name, "dtype": array.dtype.str, "length": array.length, "crc32": array.crc32}
        self.files[name] = {**about, "bytes": path.stat().st_size}

    def write(self, name: str, values: NDArray[Any]) -> None:
        """A whole array."""
        with self.growing(name, values.dtype) as array:
            array.append(values)

    def read(self, name: str) -> NDArray[Any]:
        """An array that this build has written, mapped."""
        return mapped(self.folder, self.files[name])


@contextlib.contextmanager
def building(folder: Path, mark: str) -> Iterator[tuple[Build, dict[str, Any]]]:
    """``(build, record)``: when the block ends, ``corpus.json`` holds the record and the files, and older ones are gone.

    After an error the folder is as it was before. One build at a time in a folder.
    """
    build, record = Build(folder, mark), dict[str, Any]()
    try:
        yield build, record
        write_json(folder / RECORD, {"kind": KIND, "version": VERSION, **record, "files": build.files})
    except BaseException:
        remove(folder, lambda name: mark in name)
        raise
    kept = {about["file"] for about in build.files.values()}
    remove(folder, lambda name: name not in kept)


def remove(folder: Path, unwanted: Any) -> None:
    """Remove the files of builds whose names are ``unwanted``."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if OURS.fullmatch(path.name) and unwanted(path.name):
                path.unlink(missing_ok=True)


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a whole corpus, or one clear sentence."""
    if not (folder / RECORD).is_file():
        raise InputError(f"{folder}: holds no finished corpus (no {RECORD}); build it with `build_corpus`")
    record = read_json(folder / RECORD)
    if not isinstance(record, dict) or record.get("kind") != KIND:
        raise InputError(f"{folder / RECORD}: is not the record of a corpus")
    if record.get("version") != VERSION:
        raise InputError(
            f"{folder / RECORD}: is of version {record.get('version')!r}, version {VERSION} can be read; build it again"
        )
    if not isinstance(record.get("files"), dict) or set(record["files"]) != set(ARRAYS):
        raise InputError(f"{folder / RECORD}: does not name the files of a corpus; build it again")
    return record


def mapped(folder: Path, about: dict[str, Any]) -> NDArray[Any]:
    """A file of the corpus, mapped and read-only: nothing is read before it is needed.

    Raises :class:`~mightnt.errors.InputError` where it is missing, cut off, or not the array that the record tells of.
    """
    path = folder / Path(about["file"]).name
    try:
        size = path.stat().st_size
        if size != about["bytes"]:
            raise InputError(f"{path}: has {size} bytes where {about['bytes']} were written; build the corpus again")
        if not about["length"]:
            return np.zeros(0, dtype=about["dtype"])
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}); build the corpus again") from error
    if array.dtype.str != about["dtype"] or array.shape != (about["length"],):
        raise InputError(f"{path}: is not the array that {RECORD} tells of; build the corpus again")
    return np.asarray(array)


def check_sums(folder: Path, record: dict[str, Any]) -> None:
    """Raise :class:`~mightnt.errors.InputError` where a file does not hold what was written. Cost: everything is read."""
    for about in record["files"].values():
        values, crc32 = mapped(folder, about), 0
        for first in range(0, len(values), 2**22):
            crc32 = zlib.crc32(np.ascontiguousarray(values[first : first + 2**22]).view(np.uint8).data, crc32)
        if crc32 != about["crc32"]:
            raise InputError(f"{folder / about['file']}: does not hold what was written; build the corpus again")
