"""Progress of the whole: lines for logs, bars on a terminal that come and go."""

import io

import pytest
from rich import progress as rich
from rich.console import Console

from mightnt.cli.overall import OverallBars, OverallLines, in_words, overall_progress


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (-3, "0 s"),
        (42.4, "42 s"),
        (100, "2 min"),
        (3540, "59 min"),
        (3599, "1 h 00 min"),
        (7810, "2 h 10 min"),
    ],
)
def test_time_in_words(seconds, words):
    assert in_words(seconds) == words


def test_a_log_gets_a_line_for_each_piece_and_one_for_the_whole(capsys):
    with overall_progress() as watcher:
        assert isinstance(watcher, OverallLines)
        watcher.began("a run")
        watcher.moved("a run", 1, 2)
        watcher.ended("a run", False)
        watcher.overall(3, 408, 7810)
    assert capsys.readouterr().err == "a run: 0 s\n3 of 408 runs, about 2 h 10 min left\n"


def test_a_terminal_shows_the_whole_and_what_runs_now():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with rich.Progress(rich.TextColumn("{task.description} {task.fields[words]}"), console=console) as shown:
        bars = OverallBars(shown)
        bars.overall(0, 2, 120)
        bars.began("one")
        bars.moved("one", 3, 30)
        assert [task.description for task in shown.tasks] == ["all runs", "one"]
        assert shown.tasks[1].fields["words"] == "3/30"
        bars.ended("one", False)
        bars.ended("never heard of", False)
        bars.overall(1, 2, 60)
        assert [task.description for task in shown.tasks] == ["all runs"]
        assert (shown.tasks[0].completed, shown.tasks[0].total) == (1, 2)
        assert shown.tasks[0].fields["words"] == "1/2 runs, about 60 s left"
