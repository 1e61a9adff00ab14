"""Parts run once, survive a kill, and refuse to mix configurations."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mightnt.errors import InputError
from mightnt.experiments.parts import Part, open_folder, run_parts
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
