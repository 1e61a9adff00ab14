"""Anything with the three methods can watch."""

from mightnt.cli.options import Lines
from mightnt.watching import Watcher


def test_the_log_lines_are_a_watcher(capsys):
    watcher: Watcher = Lines()
    watcher.began("part")
    watcher.moved("part", 1, 2)
    watcher.ended("part", reused=True)
    assert capsys.readouterr().err == "part: was there\n"
