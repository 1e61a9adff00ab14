"""Every example is short, runs, and ends in an assert of its claim."""

import ast
import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def needs_torch(path):
    """Whether an example imports the room of language models."""
    names = [n for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) for n in imported(node)]
    return any(name.split(".")[0] in {"torch", "transformers"} or name.startswith("mightnt.lm") for name in names)


def needed(path):
    """Which packages of the extra ``gym`` an example needs: gymnasium through ours, Stable-Baselines3 itself."""
    names = [n for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) for n in imported(node)]
    ours = {"mightnt.worlds.grid": "gymnasium", "mightnt.desk.gymnasium": "gymnasium", "stable_baselines3": None}
    return sorted({ours[name] or name for name in names if name in ours})


def imported(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_there_are_examples():
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_it_is_under_sixty_lines_and_ends_in_an_assert(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    assert isinstance(tree.body[-1], ast.Assert)


SLOW = {"gridworld_sb3.py"}
"""Examples that take longer than the default suite allows."""


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, marks=pytest.mark.slow if p.name in SLOW else (), id=p.name)
        for p in EXAMPLES
        if not needs_torch(p)
    ],
)
def test_it_runs(path, capsys):
    for package in needed(path):
        pytest.importorskip(package)
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
