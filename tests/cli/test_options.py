"""What verbs share: JSON alone on stdout, progress on stderr."""

import json
import math

import numpy as np

from mightnt.cli.options import Bars, Lines, print_json, progress


def test_json_is_json_even_with_infinities_and_arrays(capsys):
    print_json({"a": math.inf, "b": np.array([1.5, 2.0]), "c": "é"})
    out = capsys.readouterr()
    assert json.loads(out.out) == {"a": "inf", "b": [1.5, 2.0], "c": "é"}
    assert out.err == ""


def test_away_from_a_terminal_each_finished_piece_is_a_line_on_stderr(capsys):
    with progress() as watcher:
        assert isinstance(watcher, Lines)
        watcher.ended("members", reused=True)
        watcher.began("run 0")
        watcher.moved("run 0", 30, 60)
        watcher.ended("run 0", reused=False)
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err == "members: was there\nrun 0: 0 s\n"


def test_pieces_of_one_name_have_clocks_of_their_own(capsys, monkeypatch):
    times = iter([0.0, 5.0, 5.0, 100.0, 103.0, 103.0])
    monkeypatch.setattr("mightnt.cli.options.time.monotonic", lambda: next(times))
    lines = Lines()
    for _ in range(2):
        lines.began("run")
        lines.ended("run", reused=False)
    assert capsys.readouterr().err == "run: 5 s\nrun: 3 s\n"


def test_bars_follow_the_pieces():
    from rich.console import Console
    from rich.progress import Progress

    shown = Progress(console=Console(quiet=True))
    bars = Bars(shown)
    bars.began("a")
    bars.moved("a", 3, 8)
    bars.ended("b", reused=True)
    assert [(task.description, task.completed, task.total) for task in shown.tasks] == [
        ("a", 3, 8),
        ("b (was there)", 1, 1),
    ]
    bars.ended("a", reused=False)
    assert (shown.tasks[0].completed, shown.tasks[0].total) == (8, 8)


def test_on_a_terminal_bars_go_to_stderr(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with progress() as watcher:
        assert isinstance(watcher, Bars)
        watcher.moved("members", 8, 8)
    out = capsys.readouterr()
    assert out.out == ""
    assert "members" in out.err
