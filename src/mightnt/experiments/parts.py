"""Parts of a long job: each runs in a process beside this one, leaves a file when it is whole, and is not run twice.

Stop it at any time; started again with the same configuration it goes on with the parts that are missing. A part whose
process is killed is run again; where it runs is the business of an :class:`Engine`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Protocol

from mightnt.errors import InputError, MightntError
from mightnt.files import plain, read_json, write_json
from mightnt.watching import Watcher

Report = Callable[[int, int], None]
"""``(done, of)``: a part tells how far it is."""
ATTEMPTS = 3
"""How often a part is begun whose process dies each time."""


@dataclass(frozen=True)
class Part:
    """One piece of work: ``function(*arguments, report)`` returns a JSON value, in a process beside this one."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    needs: tuple[str, ...] = ()
    """Names of the parts that must be whole before."""


@dataclass(frozen=True)
class Outcome:
    """How a part ended: with a value, with the error it raised, or lost: its process died without a word."""

    part: Part
    value: Any = None
    error: Exception | None = None
    lost: str = ""
    """How its process died; empty if it did not."""
    attempts: int = 1
    """How often it was begun."""


class Engine(Protocol):
    """Where parts are run: processes here, or machines elsewhere."""

    @property
    def capacity(self) -> int:
        """How many parts it wants to hold at a time."""
        ...

    def submit(self, part: Part) -> None:
        """Begin this part as soon as there is room."""
        ...

    def wait(self, seconds: float, watcher: Watcher) -> list[Outcome]:
        """What has ended, after waiting so long at most; the watcher hears what began and moved."""
        ...

    def close(self) -> None:
        """Stop what still runs."""
        ...


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

    Parts run in other processes, ``workers`` at a time, one thread each. The first failure stops the rest and is raised as
    it was; whole parts stay. A part whose process is killed is begun again, ``ATTEMPTS`` times in all.
    """
    places = {part.name: folder / "parts" / f"{part.name}.json" for part in parts}
    missing = [part for part in parts if not places[part.name].exists()]
    for part in parts:
        if part not in missing:
            watcher.ended(part.name, reused=True)
    with contextlib.closing(LocalEngine(workers)) as engine:
        for outcome in outcomes(missing, engine, watcher):
            if outcome.error:
                raise outcome.error
            write_json(places[outcome.part.name], outcome.value)
            watcher.ended(outcome.part.name, reused=False)
    return {part.name: read_json(places[part.name]) for part in parts}


def outcomes(parts: Sequence[Part], engine: Engine, watcher: Watcher, attempts: int = ATTEMPTS) -> Iterator[Outcome]:
    """How each part ended, once, in the order in which they end; none is ``lost``.

    Parts begin in their order, each as soon as what it needs is whole and the engine has room. One whose process dies is
    begun again, ``attempts`` times in all; then that is its error. What needs a part that failed is not begun, and its
    error says so. A need that is not among ``parts`` counts as whole.
    """
    waiting, open_names, failed = list(parts), {part.name for part in parts}, dict[str, Exception]()
    begun, n_running = Counter[str](), 0
    while waiting or n_running:
        n_before = len(waiting)
        for part in tuple(waiting):
            broken = [need for need in part.needs if need in failed]
            if broken:
                waiting.remove(part)
                open_names.remove(part.name)
                failed[part.name] = MightntError(f"not run: {broken[0]} failed ({failed[broken[0]]})")
                yield Outcome(part, error=failed[part.name], attempts=0)
            elif n_running < engine.capacity and open_names.isdisjoint(part.needs):
                waiting.remove(part)
                engine.submit(part)
                begun[part.name] += 1
                n_running += 1
        if not n_running and len(waiting) == n_before:
            raise ValueError(f"{waiting[0].name} waits for itself")
        for outcome in engine.wait(0.2, watcher) if n_running else ():
            name = outcome.part.name
            n_running -= 1
            if outcome.lost and begun[name] < attempts:
                waiting.insert(0, outcome.part)
                continue
            outcome = replace(outcome, error=outcome.error or given_up(outcome, begun[name]), lost="")
            open_names.remove(name)
            if outcome.error:
                failed[name] = outcome.error
            yield replace(outcome, attempts=begun[name])


def given_up(outcome: Outcome, attempts: int) -> Exception | None:
    """The error of a part that was lost too often; ``None`` for any other."""
    if not outcome.lost:
        return None
    return MightntError(
        f"{outcome.part.name}: its process died {attempts} times ({outcome.lost}); was it killed, or is there too little "
        "memory for so many workers? what was whole is kept"
    )


class LocalEngine:
    """So many processes at a time, one thread each; a process that dies is replaced."""

    def __init__(self, workers: int) -> None:
        self.capacity = workers
        self.running: dict[Connection, Part] = {}
        self.processes: dict[Connection, SpawnProcess] = {}
        """All there are; those that are not running are idle."""
        self.fresh: list[str] = []
        """Begun, and nobody has heard of it yet."""

    def submit(self, part: Part) -> None:
        """Begin this part now."""
        for pipe in [
            pipe for pipe, process in self.processes.items() if not process.is_alive() and pipe not in self.running
        ]:
            self.bury(pipe)
        idle = [pipe for pipe in self.processes if pipe not in self.running]
        pipe = idle[0] if idle else self.started()
        self.running[pipe] = part
        self.fresh.append(part.name)
        with contextlib.suppress(BrokenPipeError):  # it died just now: reading finds out
            pipe.send(part)

    def started(self) -> Connection:
        """A new process, idle."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, os.getpid()))
        with environment(FOR_WORKERS):
            process.start()
        theirs.close()
        self.processes[ours] = process
        return ours

    def wait(self, seconds: float, watcher: Watcher) -> list[Outcome]:
        """What has ended."""
        while self.fresh:
            watcher.began(self.fresh.pop(0))
        ready = [pipe for pipe in wait(list(self.running), seconds) if isinstance(pipe, Connection)]
        return [outcome for pipe in ready if (outcome := self.read(pipe, watcher))]

    def read(self, pipe: Connection, watcher: Watcher) -> Outcome | None:
        """One message of a worker: how far it is (``None``), or how its part ended."""
        part = self.running[pipe]
        try:
            kind, *content = pipe.recv()
        except (EOFError, OSError):
            return Outcome(part, lost=self.bury(pipe))
        if kind == "moved":
            watcher.moved(part.name, *content)
            return None
        del self.running[pipe]
        return Outcome(part, value=content[0]) if kind == "value" else Outcome(part, error=content[0])

    def bury(self, pipe: Connection) -> str:
        """Forget a worker; returns how its process ended."""
        self.running.pop(pipe, None)
        process = self.processes.pop(pipe)
        pipe.close()
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()
        code = process.exitcode or 0
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def close(self) -> None:
        """End the processes at once: what they had not finished would be run again anyway."""
        for process in self.processes.values():
            process.kill()
        for pipe in list(self.processes):
            self.bury(pipe)


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


def work(pipe: Connection, parent: int) -> None:
    """Run parts in this process, one after the other, and send what each returned or raised. Ctrl-C is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)
    latest = 0.0

    def report(done: int, of: int) -> None:
        nonlocal latest
        if time.monotonic() - latest > 0.2 or done == of:
            latest = time.monotonic()
            pipe.send(("moved", done, of))

    with contextlib.suppress(EOFError):
        while True:
            part: Part = pipe.recv()
            try:
                last: tuple[str, Any] = ("value", plain(part.function(*part.arguments, report)))
            except Exception as error:
                last = ("error", portable(error))
            pipe.send(last)


def portable(error: Exception) -> Exception:
    """The error, with where it was raised as a note; one of the same words where it cannot travel between processes."""
    error.add_note(f"In the worker:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
