"""The sweep: shared work once, failures named, killed workers replaced, stopped and gone on with; a real cell end to end."""

import contextlib
import os
import signal
import threading
import time
from dataclasses import replace

import pytest

from mightnt.errors import InputError
from mightnt.experiments.parts import LocalEngine, Part
from mightnt.experiments.sweep.cells import Imitation, alone, headline
from mightnt.experiments.sweep.plan import planned
from mightnt.experiments.sweep.records import NAME, read_records
from mightnt.experiments.sweep.settings import SETTINGS, Preparation, Setting
from mightnt.experiments.sweep.studies import Study
from mightnt.experiments.sweep.sweep import Clock, in_order, run_name, sweep
from mightnt.files import read_json
from tests.experiments.sweep.made import Here, Listener, fake_prepare, fake_run

SMALL = Study("small", "What?", (headline("single"), headline("none"), alone(headline("single"))))
OTHER = Study("other", "What else?", (headline("single"), replace(headline("single"), n_demonstrations=300)))


def prepare_fake(folder, cell, seed):
    """One preparation for each number of demonstrations and seed."""
    name = f"prepare-{cell.n_demonstrations}-{seed}"
    place = folder / "prepared" / f"{name}.json"
    return [Preparation(Part(name, fake_prepare, (folder, cell, seed)), place, 60.0)]


@pytest.fixture
def fake(monkeypatch):
    def use(run=fake_run, prepare=prepare_fake):
        monkeypatch.setitem(SETTINGS, "chat", Setting(("benign",), ("single",), prepare, run, lambda cell: 60.0))

    use()
    return use


def marks(folder):
    return {path.stem: path.read_text() for path in folder.glob("*.marks")}


def test_what_is_shared_is_done_once(fake, tmp_path):
    engine, listener = Here(), Listener()
    records = sweep(tmp_path, [SMALL, OTHER], 0, engine, listener)
    runs = planned([SMALL, OTHER])
    assert set(records.by_run) == set(runs)
    assert len(runs) == 4 * 3
    assert set(marks(tmp_path).values()) == {"x"}
    assert len(marks(tmp_path)) == len(runs) + 2 * 3
    assert listener.told[-1][:2] == (len(runs), len(runs))
    assert listener.told[0][:2] == (0, len(runs))
    assert listener.told[0][2] == 60.0 * (len(runs) + 6)
    assert sorted(listener.names) == sorted(engine.ran)
    assert (tmp_path / "report.md").exists()


def test_only_the_first_seed_keeps_a_transcript(fake, tmp_path):
    records = sweep(tmp_path, [SMALL], 3, Here(), Listener())
    assert {seed for _, seed in records.by_run} == {3, 4, 5}
    kept = {seed for (cell, seed), one in records.by_run.items() if one.measured.get("transcripts")}
    assert kept == {3}


def test_a_finished_run_is_never_repeated_and_studies_join(fake, tmp_path):
    first = sweep(tmp_path, [SMALL], 0, Here(), Listener())
    again = Here()
    assert sweep(tmp_path, [SMALL], 0, again, Listener(), resume=True) == first
    assert again.ran == []
    joined = Here()
    sweep(tmp_path, [SMALL, OTHER], 0, joined, Listener(), resume=True)
    assert len(joined.ran) == 3 + 3
    assert set(marks(tmp_path).values()) == {"x"}


def test_a_folder_that_holds_something_is_not_written_to_unasked(fake, tmp_path):
    sweep(tmp_path, [SMALL], 0, Here(), Listener())
    with pytest.raises(InputError, match="--resume"):
        sweep(tmp_path, [SMALL], 0, Here(), Listener())


def refuse_one(folder, cell, seed, report):
    if cell.base == "none" and seed == 1:
        raise ValueError("of no use")
    return fake_run(folder, cell, seed, report)


def test_a_failed_run_is_named_and_stops_nobody_and_is_tried_again(fake, tmp_path):
    fake(refuse_one)
    records = sweep(tmp_path, [SMALL], 0, Here(), Listener())
    (failed,) = [one for one in records.by_run.values() if one.measured is None]
    assert (failed.cell.base, failed.seed, failed.failed) == ("none", 1, "ValueError: of no use")
    page = (tmp_path / "report.md").read_text()
    assert f"- {failed.cell.name}, seed 1: failed after 1 attempt(s): ValueError: of no use" in page
    assert "8 of 9 runs are measured" in page
    assert "**2 of 3** (1 failed)" in page
    fake()
    again = Here()
    records = sweep(tmp_path, [SMALL], 0, again, Listener(), resume=True)
    assert len(again.ran) == 1
    assert all(one.measured for one in records.by_run.values())
    assert "None." in (tmp_path / "report.md").read_text()


def broken_preparation(folder, cell, seed, report):
    raise OSError("no such chats")


def prepare_badly(folder, cell, seed):
    (one,) = prepare_fake(folder, cell, seed)
    return [replace(one, part=replace(one.part, function=broken_preparation if seed == 0 else fake_prepare))]


def test_what_needs_a_failed_preparation_is_missing_and_says_why(fake, tmp_path):
    fake(prepare=prepare_badly)
    records = sweep(tmp_path, [SMALL], 0, Here(), Listener())
    failed = [one for one in records.by_run.values() if one.measured is None]
    assert {one.seed for one in failed} == {0}
    assert len(failed) == 3
    assert all("prepare-10000-0 failed (no such chats)" in one.failed for one in failed)
    assert not list((tmp_path / "prepared").glob("*-0.json"))


def test_a_stopped_sweep_goes_on(fake, tmp_path):
    class Stopped(Here):
        def wait(self, seconds, watcher):
            if len(self.ran) == 4:
                raise KeyboardInterrupt
            return super().wait(seconds, watcher)

    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, [SMALL], 0, Stopped(), Listener())
    assert "missing" in (tmp_path / "report.md").read_text()
    before = len(read_records([tmp_path]).by_run)
    assert 0 < before < 9
    sweep(tmp_path, [SMALL], 0, Here(), Listener(), resume=True)
    assert set(marks(tmp_path).values()) == {"x"}


def test_a_half_written_record_is_run_again(fake, tmp_path):
    sweep(tmp_path, [SMALL], 0, Here(), Listener())
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-100])
    again = Here()
    records = sweep(tmp_path, [SMALL], 0, again, Listener(), resume=True)
    assert len(again.ran) == 1
    assert len(records.by_run) == 9
    assert records.notes == ()


def test_one_sweep_a_folder(fake, tmp_path):
    class Second(Here):
        def wait(self, seconds, watcher):
            with pytest.raises(InputError, match="another process runs a part"):
                sweep(tmp_path, [OTHER], 0, Here(), Listener(), resume=True)
            return super().wait(seconds, watcher)

    sweep(tmp_path, [SMALL], 0, Second(), Listener())


def test_runs_follow_what_they_need(fake, tmp_path):
    runs = planned([SMALL, OTHER])
    needed = {one.part.name: one for cell, seed in runs for one in prepare_fake(tmp_path, cell, seed)}
    names = [part.name for part in in_order(runs, needed, tmp_path)]
    assert len(names) == len(set(names)) == len(runs) + 6
    assert names[0] == "prepare-10000-0"
    for part in in_order(runs, needed, tmp_path):
        assert all(names.index(need) < names.index(part.name) for need in part.needs)


def wait_at_first(folder, cell, seed, report):
    """The first to come waits to be killed."""
    try:
        (folder / "pid.part").touch(exist_ok=False)
    except FileExistsError:
        return fake_run(folder, cell, seed, report)
    (folder / "pid.part").write_text(str(os.getpid()))
    (folder / "pid.part").replace(folder / "pid")
    (folder / "pid.part").touch()
    time.sleep(300)
    return {}


def test_a_worker_killed_in_the_middle_costs_nothing(fake, tmp_path):
    whole = sweep(tmp_path / "whole", [SMALL], 0, Here(), Listener())
    fake(wait_at_first)
    killer = threading.Thread(target=kill_when_there, args=(tmp_path / "killed" / "pid",))
    killer.start()
    with contextlib.closing(LocalEngine(2)) as engine:
        records = sweep(tmp_path / "killed", [SMALL], 0, engine, Listener())
    killer.join()
    assert {run: one.measured for run, one in records.by_run.items()} == {
        run: one.measured for run, one in whole.by_run.items()
    }
    assert sorted(one.attempts for one in records.by_run.values()) == [1] * 8 + [2]


def kill_when_there(path):
    deadline = time.monotonic() + 300
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(int(path.read_text()), signal.SIGKILL)


def test_the_clock_follows_the_speed_so_far(monkeypatch):
    clock = Clock(1000.0, 2, 1.5)
    assert clock.seconds_left() == 750.0
    clock.passed(100.0)
    assert clock.seconds_left(clock.started + 40.0) == pytest.approx(900 * 0.4)


def test_what_a_run_is_called():
    assert run_name((headline(), 3)) == f"{headline().name}-seed3"


TINY = {
    "n_demonstrations": 40,
    "iterations": 2,
    "episodes": 6,
    "evaluation_episodes": 6,
    "imitation": Imitation(other_chats=20, pretraining_steps=4, fitting_steps=4),
}


@pytest.mark.slow
def test_a_real_cell_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr("mightnt.experiments.sweep.studies.SEEDS", 1)
    cells = [replace(headline(base), **TINY) for base in ("none", "pessimistic", "known")]
    cells.append(replace(cells[2], constraint="penalty", strength=0.01, length=2, actor_width=16))
    tiny = Study("bases", "What?", (*cells, alone(cells[1]), alone(cells[2])))
    with contextlib.closing(LocalEngine(2)) as engine:
        records = sweep(tmp_path, [tiny], 0, engine, Listener())
    assert all(one.measured for one in records.by_run.values()), [one.failed for one in records.by_run.values()]
    known = records.measured(cells[2], 0)
    assert known["kl_demonstrator_nats"]["mean"] == pytest.approx(known["kl_base_nats"]["mean"], rel=1e-4)
    assert known["kl_base_nats"]["max"] <= 10 + 1e-4
    assert records.measured(alone(cells[2]), 0)["kl_base_demonstrator_nats"]["mean"] == pytest.approx(0.0, abs=1e-6)
    assert records.measured(cells[3], 0)["turns"] == 2 * known["turns"]
    assert known["transcripts"][0]["turns"]
    assert "| known | budget 10; n=40; 2 iterations | 1 of 1 |" in (tmp_path / "report.md").read_text()
    place = next((tmp_path / "prepared").glob("chat-x1-*-set0"))
    assert {path.stem for path in (place / "parts").glob("*.json")} >= {"pretrain-0", "fit-n40-1", "imitators-n40"}
    assert read_json(tmp_path / "config.json") == {"experiment": "sweep"}
