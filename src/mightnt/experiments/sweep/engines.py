"""Which engine runs the parts: processes on this machine, or a Ray cluster (extra ``cluster``).

Both run the same functions with the same arguments, so the records are the same. What was prepared lies in the folder of the
sweep: every machine of a cluster must see that folder at the same path and have this package installed.
"""

from __future__ import annotations

import importlib
import os
import time
from typing import Any

from mightnt.errors import InputError, MightntError
from mightnt.experiments.parts import FOR_WORKERS, Engine, LocalEngine, Outcome, Part, environment, portable
from mightnt.files import plain
from mightnt.watching import Watcher

MISSING_RAY = 'the engine ray needs the package ray; install it with: pip install "mightnt[cluster]"'


def named_engine(name: str, workers: int) -> Engine:
    """``local``: so many processes here. ``ray``: the cluster of the variable RAY_ADDRESS or, without it, one made here for
    the time being, with so many processes. ``ray://HOST:PORT``: the cluster with a Ray client server there.

    Raises :class:`~mightnt.errors.InputError` for another name, without the package, and where no cluster answers.
    """
    if name == "local":
        return LocalEngine(workers)
    if name == "ray" or name.startswith("ray://"):
        return RayEngine(name if name != "ray" else os.environ.get("RAY_ADDRESS"), workers)
    raise InputError(f"unknown engine {name!r}; allowed are local, ray, ray://HOST:PORT")


class RayEngine:
    """Every part a task of one core on a Ray cluster. How far a part is, is not told; when it ended is."""

    def __init__(self, address: str | None, workers: int) -> None:
        try:
            self.ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise InputError(MISSING_RAY) from error
        own = {} if address else {"num_cpus": workers, "include_dashboard": False}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            with environment(FOR_WORKERS):
                self.ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
        except Exception as error:
            raise InputError(f"no Ray cluster at {address or 'this machine'} ({str(error).splitlines()[0]})") from error
        self.task = self.ray.remote(num_cpus=1, max_retries=0, max_calls=1)(run_there)
        self.running: dict[Any, Part] = {}

    @property
    def capacity(self) -> int:
        """Twice the cores there are now, so that none waits for the next part."""
        return 2 * max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    def submit(self, part: Part) -> None:
        """Begin this part as soon as a core is free."""
        self.running[self.task.remote(part)] = part

    def wait(self, seconds: float, watcher: Watcher) -> list[Outcome]:
        """What has ended."""
        if not self.running:
            time.sleep(seconds)
            return []
        try:
            ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=seconds)
        except (ConnectionError, self.ray.exceptions.RayError) as error:
            raise MightntError(f"the Ray cluster is gone ({type(error).__name__}); continue with --resume") from error
        return [self.outcome(reference, self.running.pop(reference)) for reference in ready]

    def outcome(self, reference: Any, part: Part) -> Outcome:
        """What came back; whatever Ray itself could not bring back is lost."""
        try:
            kind, content = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            return Outcome(part, error=RuntimeError(f"{type(error.cause).__name__}: {error.cause}"))
        except self.ray.exceptions.RayError as error:
            return Outcome(part, lost=f"{type(error).__name__}: {str(error).splitlines()[0]}")
        return Outcome(part, value=content) if kind == "value" else Outcome(part, error=content)

    def close(self) -> None:
        """Cancel what still runs and leave the cluster; one made here ends."""
        for reference in self.running:
            self.ray.cancel(reference, force=True)
        self.running.clear()
        self.ray.shutdown()


def run_there(part: Part) -> tuple[str, Any]:
    """Run one part in a worker of Ray: what it returned or raised."""
    os.environ.update(FOR_WORKERS)
    try:
        return "value", plain(part.function(*part.arguments, lambda done, of: None))
    except Exception as error:
        return "error", portable(error)
