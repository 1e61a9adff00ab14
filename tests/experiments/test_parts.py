"""Parts run once, survive a kill, and refuse to mix configurations."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mightnt.errors import InputError, MightntError
from mightnt.experiments.parts import ATTEMPTS, LocalEngine, Outcome, Part, open_folder, outcomes, run_parts
from mightnt.files import read_json


class Heard:
    """Remembers what it was told."""

    def __init__(self):
        self.told = []

    def began(self, name):
        self.told.append(("began", name))

    def moved(self, name, done, of):
        self.told.append(("moved", name, done, of))

    def ended(self, name, reused):
        self.told.append(("ended", name, reused))


def count(folder, name, report):
    """Leave one mark a run, so that a second run would show."""
    with open(folder / f"{name}.marks", "a") as marks:
        marks.write("x")
    report(1, 1)
    return {"name": name, "threads": os.environ["OMP_NUM_THREADS"]}


def refuse(report):
    raise InputError("no such thing")


def wait_then(seconds, report):
    time.sleep(seconds)
    return {}


def test_whole_parts_are_not_run_again(tmp_path):
    parts = [Part(name, count, (tmp_path, name)) for name in ("a", "b")]
    first = run_parts(parts, tmp_path, Heard())
    (tmp_path / "parts" / "b.json").unlink()
    heard = Heard()
    assert run_parts(parts, tmp_path, heard) == first
    assert (tmp_path / "a.marks").read_text() == "x"
    assert (tmp_path / "b.marks").read_text() == "xx"
    assert ("ended", "a", True) in heard.told
    assert ("ended", "b", False) in heard.told
    assert first["a"]["threads"] == "1"


def test_a_failing_part_is_raised_as_it_was_and_the_rest_ends(tmp_path):
    parts = [Part("bad", refuse, ()), Part("slow", wait_then, (60,))]
    started = time.monotonic()
    with pytest.raises(InputError, match="no such thing"):
        run_parts(parts, tmp_path, Heard())
    assert time.monotonic() - started < 40
    assert not (tmp_path / "parts" / "slow.json").exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    code = (
        "from pathlib import Path; from mightnt.experiments.parts import Part, run_parts; "
        "from tests.experiments.test_parts import Heard, note_pid_and_wait; "
        f"run_parts([Part('a', note_pid_and_wait, (Path({str(tmp_path)!r}),))], Path({str(tmp_path)!r}), Heard())"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    worker = int(wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    parent.kill()
    parent.wait()
    assert wait_for(lambda: not running(worker))


def note_pid_and_wait(folder, report):
    (folder / "pid.part").write_text(str(os.getpid()))
    (folder / "pid.part").rename(folder / "pid")
    time.sleep(60)


def running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")


def test_the_environment_is_as_before(tmp_path, monkeypatch):
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    run_parts([Part("a", count, (tmp_path, "a"))], tmp_path, Heard())
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MALLOC_TRIM_THRESHOLD_" not in os.environ


def test_a_folder_belongs_to_one_configuration(tmp_path):
    open_folder(tmp_path / "run", {"seed": 0}, resume=False)
    with pytest.raises(InputError, match="--resume"):
        open_folder(tmp_path / "run", {"seed": 0}, resume=False)
    open_folder(tmp_path / "run", {"seed": 0}, resume=True)
    with pytest.raises(InputError, match="another configuration"):
        open_folder(tmp_path / "run", {"seed": 1}, resume=True)
    assert read_json(tmp_path / "run" / "config.json") == {"seed": 0}


def note_and_die(folder, name, deaths, report):
    """Leave a mark a start; die by SIGKILL the first few times."""
    with open(folder / f"{name}.marks", "a") as marks:
        marks.write("x")
    if len((folder / f"{name}.marks").read_text()) <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"name": name}


def test_a_part_whose_process_dies_is_begun_again_and_its_neighbors_are_not(tmp_path):
    parts = [Part(name, note_and_die, (tmp_path, name, deaths)) for name, deaths in (("a", 2), ("b", 0), ("c", 1))]
    found = run_parts(parts, tmp_path, Heard())
    assert found == {name: {"name": name} for name in "abc"}
    assert [len((tmp_path / f"{name}.marks").read_text()) for name in "abc"] == [3, 1, 2]


def test_a_part_that_always_dies_is_one_sentence(tmp_path):
    with pytest.raises(MightntError, match=f"a: its process died {ATTEMPTS} times .signal 9.*memory"):
        run_parts([Part("a", note_and_die, (tmp_path, "a", 99))], tmp_path, Heard())
    assert (tmp_path / "a.marks").read_text() == "x" * ATTEMPTS


def test_a_worker_killed_from_outside_is_replaced(tmp_path):
    def kill():
        pid = int(wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    found = run_parts([Part("a", wait_at_first, (tmp_path,)), Part("b", count, (tmp_path, "b"))], tmp_path, Heard())
    killer.join()
    assert found["a"] == {"second": True}
    assert (tmp_path / "b.marks").read_text() == "x"


def wait_at_first(folder, report):
    if (folder / "pid").exists():
        return {"second": True}
    return note_pid_and_wait(folder, report)


class Scripted:
    """An engine that runs nothing: each part ends as the script says, one at a time, oldest first."""

    def __init__(self, capacity, script):
        self.capacity, self.script, self.held, self.most = capacity, script, [], 0
        self.submitted = []

    def submit(self, part):
        self.held.append(part)
        self.submitted.append(part.name)
        self.most = max(self.most, len(self.held))

    def wait(self, seconds, watcher):
        part = self.held.pop(0)
        return [Outcome(part, **self.script(part.name))]

    def close(self):
        pass


def part(name, *needs):
    return Part(name, count, (), needs)


def test_parts_wait_for_what_they_need_and_begin_in_their_order():
    engine = Scripted(2, lambda name: {"value": name})
    parts = [part("d", "a", "b"), part("a"), part("b"), part("c", "elsewhere"), part("e", "d")]
    ended = [outcome.value for outcome in outcomes(parts, engine, Heard())]
    assert ended == engine.submitted == ["a", "b", "c", "d", "e"]
    assert engine.most == 2


def test_what_needs_a_failure_is_not_begun_and_says_so():
    engine = Scripted(1, lambda name: {"error": InputError("no")} if name == "a" else {"value": name})
    parts = [part("c", "b"), part("b", "a"), part("a"), part("d")]
    found = {outcome.part.name: outcome for outcome in outcomes(parts, engine, Heard())}
    assert engine.submitted == ["a", "d"]
    assert str(found["b"].error) == "not run: a failed (no)"
    assert str(found["c"].error) == "not run: b failed (not run: a failed (no))"
    assert (found["a"].attempts, found["b"].attempts, found["d"].value) == (1, 0, "d")


def test_the_lost_are_begun_again_before_the_rest_so_many_times():
    engine = Scripted(1, lambda name: {"lost": "signal 9"} if name == "a" else {"value": name})
    found = list(outcomes([part("a"), part("b"), part("c", "a")], engine, Heard(), attempts=2))
    assert engine.submitted == ["a", "a", "b"]
    assert [(outcome.part.name, outcome.attempts, outcome.lost) for outcome in found] == [
        ("a", 2, ""),
        ("c", 0, ""),
        ("b", 1, ""),
    ]
    assert "died 2 times" in str(found[0].error)


def test_parts_that_wait_for_each_other_are_refused():
    with pytest.raises(ValueError, match="waits for itself"):
        list(outcomes([part("a", "b"), part("b", "a")], Scripted(1, lambda name: {}), Heard()))


class Unportable(Exception):
    """Cannot be made from its arguments."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def raise_unportable(report):
    raise Unportable(1, 2)


def test_an_error_that_cannot_travel_arrives_in_words(tmp_path):
    with pytest.raises(RuntimeError, match="Unportable: 1 and 2"):
        run_parts([Part("a", raise_unportable, ())], tmp_path, Heard())


def test_an_error_brings_its_place_along(tmp_path):
    with pytest.raises(InputError) as caught:
        run_parts([Part("bad", refuse, ())], tmp_path, Heard())
    assert "in refuse" in caught.value.__notes__[0]


def test_closing_ends_what_runs(tmp_path):
    with contextlib.closing(LocalEngine(1)) as engine:
        engine.submit(Part("a", note_pid_and_wait, (tmp_path,)))
        pid = int(wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    assert not running(pid)
