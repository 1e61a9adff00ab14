"""Engines by name; a Ray cluster gives the same records as processes here, and the dead are begun again there too."""

import contextlib
import importlib.util
import os
import signal
from types import SimpleNamespace

import pytest

from mightnt.errors import InputError
from mightnt.experiments.parts import LocalEngine, Part, outcomes
from mightnt.experiments.sweep import engines
from mightnt.experiments.sweep.cells import alone, headline
from mightnt.experiments.sweep.engines import named_engine
from mightnt.experiments.sweep.settings import SETTINGS, Setting
from mightnt.experiments.sweep.studies import Study
from mightnt.experiments.sweep.sweep import sweep
from tests.experiments.sweep.made import Listener, fake_run
from tests.experiments.sweep.test_sweep import prepare_fake

with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra cluster)")
SMALL = Study("small", "What?", (headline("single"), alone(headline("single"))))


def test_engines_by_name():
    assert named_engine("local", 3).capacity == 3
    for name in ("rye", "ray:/here", "http://ray"):
        with pytest.raises(InputError, match="allowed are local, ray, ray://HOST:PORT"):
            named_engine(name, 1)


def test_without_ray_the_extra_is_named(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(engines.importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"pip install \"mightnt\[cluster\]\""):
        named_engine("ray", 1)


class FakeRay:
    """Ray as far as it is used, running tasks when they are waited for."""

    class exceptions:
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            cause = ValueError("not there")

    def __init__(self):
        self.settings, self.closed, self.gone = None, False, False

    def init(self, **settings):
        self.settings = settings
        if settings["address"] == "ray://nobody:1":
            raise ConnectionError("nobody answers\nand more")

    def cluster_resources(self):
        return {"CPU": 3.0}

    def wait(self, references, num_returns, timeout):
        if self.gone:
            raise ConnectionError
        return references[:1], references[1:]

    def get(self, reference):
        return self.function(reference)

    def cancel(self, reference, force):
        pass

    def shutdown(self):
        self.closed = True


@pytest.fixture
def fake_ray(monkeypatch):
    ray = FakeRay()

    def remote(**options):
        assert options == {"num_cpus": 1, "max_retries": 0, "max_calls": 1}
        return lambda function: setattr(ray, "function", function) or SimpleNamespace(remote=lambda part: part)

    ray.remote = remote
    monkeypatch.setattr(engines.importlib, "import_module", lambda name: ray)
    return ray


def double(x, report):
    report(1, 1)
    return 2 * x


def refuse(report):
    raise InputError("no such thing")


def test_a_cluster_is_told_what_to_run_and_what_it_lost_is_begun_again(fake_ray, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    engine = named_engine("ray://somewhere:10001", 2)
    assert fake_ray.settings["address"] == "ray://somewhere:10001"
    assert "num_cpus" not in fake_ray.settings
    assert engine.capacity == 6
    lost = [FakeRay.exceptions.RayError("the node died\nlong story"), None]
    run = fake_ray.function
    fake_ray.get = lambda part: raise_or_run(lost, run, part)
    found = {
        one.part.name: one for one in outcomes([Part("a", double, (4,)), Part("b", refuse, ())], engine, Listener())
    }
    assert (found["a"].value, found["a"].attempts) == (8, 2)
    assert str(found["b"].error) == "no such thing"
    engine.close()
    assert fake_ray.closed


def raise_or_run(lost, run, part):
    error = lost.pop(0) if lost else None
    if error:
        raise error
    return run(part)


def test_what_cannot_be_run_there_is_an_error_and_a_cluster_that_is_gone_a_sentence(fake_ray):
    engine = named_engine("ray", 2)
    assert fake_ray.settings["num_cpus"] == 2

    def fail(part):
        raise FakeRay.exceptions.RayTaskError("long")

    fake_ray.get = fail
    (one,) = outcomes([Part("a", double, (4,))], engine, Listener())
    assert str(one.error) == "ValueError: not there"
    fake_ray.gone = True
    with pytest.raises(Exception, match="the Ray cluster is gone"):
        list(outcomes([Part("a", double, (4,))], engine, Listener()))
    with pytest.raises(InputError, match=r"no Ray cluster at ray://nobody:1 \(nobody answers\)"):
        named_engine("ray://nobody:1", 1)


def die_at_first(folder, report):
    try:
        (folder / "first").touch(exist_ok=False)
    except FileExistsError:
        return {"threads": os.environ["OMP_NUM_THREADS"]}
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@with_ray
def test_a_local_ray_gives_the_records_of_local_processes(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setitem(SETTINGS, "chat", Setting(("benign",), ("single",), prepare_fake, fake_run, lambda cell: 1.0))
    with contextlib.closing(LocalEngine(2)) as engine:
        here = sweep(tmp_path / "here", [SMALL], 0, engine, Listener())
    with contextlib.closing(named_engine("ray", 2)) as engine:
        there = sweep(tmp_path / "there", [SMALL], 0, engine, Listener())
        parts = [Part("dies", die_at_first, (tmp_path,)), Part("bad", refuse, ())]
        ended = {one.part.name: one for one in outcomes(parts, engine, Listener())}
    assert {run: one.measured for run, one in there.by_run.items()} == {
        run: one.measured for run, one in here.by_run.items()
    }
    assert all(one.measured for one in there.by_run.values())
    assert (ended["dies"].value, ended["dies"].attempts) == ({"threads": "1"}, 2)
    assert isinstance(ended["bad"].error, InputError)
