"""Parts of a long job: each runs in a process of its own, leaves a file when it is whole, and is not run twice.

Stop it at any time; started again with the same configuration it goes on with the parts that are missing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mightnt.errors import InputError
from mightnt.files import plain, read_json, write_json
from mightnt.watching import Watcher

Report = Callable[[int, int], None]
"""``(done, of)``: a part tells how far it is."""


@dataclass(frozen=True)
class Part:
    """One piece of work: ``function(*arguments, report)`` returns a JSON value, in a process of its own."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def open_folder(folder: Path, config: dict[str, Any], resume: bool) -> None:
    """Claim ``folder`` for this configuration.

    Raises :class:`~mightnt.errors.InputError` when it holds parts and ``resume`` is false, or parts of another configuration.
    """
    path, config = folder / "config.json", plain(config)
    if path.exists():
        if not resume:
            raise InputError(f"{folder}: holds an earlier run; continue it with --resume or choose another --out")
        if read_json(path) != config:
            raise InputError(f"{folder}: holds a run of another configuration; choose another --out")
    write_json(path, config)


def run_parts(parts: Sequence[Part], folder: Path, watcher: Watcher, workers: int = 2) -> dict[str, Any]:
    """The result of every part by name, from ``folder/parts/NAME.json`` where it is whole already.

    Parts run in fresh processes, ``workers`` at a time, one thread each. The first failure stops the rest and is raised as
    it was; whole parts stay.
    """
    places = {part.name: folder / "parts" / f"{part.name}.json" for part in parts}
    missing = [part for part in parts if not places[part.name].exists()]
    for part in parts:
        if part not in missing:
            watcher.ended(part.name, reused=True)
    if missing:
        run_missing(missing, places, watcher, min(workers, len(missing)))
    return {part.name: read_json(places[part.name]) for part in parts}


def run_missing(parts: Sequence[Part], places: dict[str, Path], watcher: Watcher, workers: int) -> None:
    """Run these parts; progress comes back over a queue."""
    context = multiprocessing.get_context("spawn")
    with environment(FOR_WORKERS), context.Manager() as manager:
        news: queue.Queue[tuple[str, int, int]] = manager.Queue()
        with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with, initargs=(os.getpid(),)) as pool:
            names = {pool.submit(run_part, part, places[part.name], news): part.name for part in parts}
            waiting = set(names)
            try:
                while waiting:
                    finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                    relay(news, watcher)
                    for future in finished:
                        future.result()
                        watcher.ended(names[future], reused=False)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                stop_workers(pool)
                raise


def stop_workers(pool: ProcessPoolExecutor) -> None:
    """End the processes at once: what they had not finished would be run again anyway."""
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        process.terminate()


FOR_WORKERS = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
}
"""One thread each, since parts share the cores; and glibc keeps freed memory instead of faulting it in again."""


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """These variables for processes started inside; as before afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def end_with(parent: int) -> None:
    """End this process when its parent has gone, even killed: nobody is left to read what it would write."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def relay(news: queue.Queue[tuple[str, int, int]], watcher: Watcher) -> None:
    """Pass on what parts have told so far."""
    while True:
        try:
            name, done, of = news.get_nowait()
        except queue.Empty:
            return
        if done < 0:
            watcher.began(name)
        else:
            watcher.moved(name, done, of)


def run_part(part: Part, place: Path, news: queue.Queue[tuple[str, int, int]]) -> None:
    """Run one part in this process and leave its result, whole."""
    news.put((part.name, -1, 0))
    latest = 0.0

    def report(done: int, of: int) -> None:
        nonlocal latest
        if time.monotonic() - latest > 0.2 or done == of:
            latest = time.monotonic()
            news.put((part.name, done, of))

    write_json(place, part.function(*part.arguments, report))
