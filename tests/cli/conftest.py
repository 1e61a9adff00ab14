"""Fixtures: made-up results of the right shape, and a small set of imitators made by the command itself."""

import importlib.util
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mightnt import cli
from mightnt.dialogues import write_dialogues
from mightnt.worlds.chat.corpus import demonstrations

SMALL = ["--networks", "1", "--steps", "6", "--width", "16", "--vocabulary", "320"]


@pytest.fixture(scope="session")
def synthetic():
    """The module synthetic.py of tests/audits."""
    spec = importlib.util.spec_from_file_location("synthetic", Path(__file__).parents[1] / "audits" / "synthetic.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def demonstrations_file(tmp_path_factory):
    """Thirty chats in the common format."""
    path = tmp_path_factory.mktemp("demonstrations") / "chats.jsonl"
    write_dialogues(path, demonstrations(30, 0))
    return path


@pytest.fixture(scope="session")
def imitators_folder(demonstrations_file, tmp_path_factory):
    """What `mightnt imitate` makes of them."""
    folder = tmp_path_factory.mktemp("imitators") / "set"
    result = CliRunner().invoke(cli.app, ["imitate", str(demonstrations_file), "--out", str(folder), *SMALL])
    assert result.exit_code == 0, result.output
    return folder
