"""The frame of the command line: one sentence and an exit code for everything that can go wrong, and a quick start."""

import errno
import subprocess
import sys
import types

import pytest
import typer
from typer.testing import CliRunner

import mightnt
from mightnt import cli
from mightnt.cli.options import Resume
from mightnt.errors import BudgetError, InputError


def invoke(*words):
    return CliRunner().invoke(cli.app, list(words))


@pytest.fixture
def verb(monkeypatch):
    """Replace the verb ``audit`` by one that raises (or returns) what it is told to."""

    def install(outcome, resumable=False):
        def quick() -> None:
            """A verb for a test."""
            if outcome is not None:
                raise outcome

        def resuming(resume: Resume = False) -> None:
            """A verb that can go on."""
            quick()

        module = types.SimpleNamespace(audit=resuming if resumable else quick)
        usual = cli.importlib.import_module  # others import lazily through it too

        def found(name, package=None):
            return module if name.startswith("mightnt.cli") else usual(name, package)

        monkeypatch.setattr(cli.importlib, "import_module", found)

    return install


@pytest.mark.parametrize("error", [InputError("chat.jsonl:3: bad role"), BudgetError("a budget is 0 or more")])
def test_our_errors_are_one_sentence_and_exit_code_2(verb, error):
    verb(error)
    result = invoke("audit")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"mightnt: {error}\n")


@pytest.mark.parametrize(("resumable", "words"), [(True, "stopped; continue with --resume"), (False, "stopped")])
def test_control_c_is_130_and_names_resume_where_there_is_one(verb, resumable, words):
    verb(KeyboardInterrupt(), resumable)
    result = invoke("audit")
    assert (result.exit_code, result.stderr) == (130, f"mightnt: {words}\n")


def test_a_full_disk_is_one_sentence(verb):
    verb(OSError(errno.ENOSPC, "No space left on device", "runs/x"))
    result = invoke("audit")
    assert result.exit_code == 2
    assert result.stderr == "mightnt: the disk is full (runs/x); free some space and run the command again\n"


def test_a_fault_of_ours_is_not_hidden(verb):
    for error in (ZeroDivisionError(), OSError(errno.EIO, "broken")):
        verb(error)
        assert invoke("audit").exception is error


def test_all_is_well(verb):
    verb(None)
    assert invoke("audit").exit_code == 0


def test_version_and_help():
    assert invoke("--version").stdout.strip() == mightnt.__version__
    helped = invoke("--help")
    assert helped.exit_code == 0
    assert "Judge runs" in helped.stdout


@pytest.mark.parametrize("words", [["audt"], ["audit"], ["audit", "--never", "x"], ["--never"], []])
def test_wrong_usage_is_2(words):
    assert invoke(*words).exit_code == 2


def test_a_near_miss_is_named():
    assert "Did you mean 'audit'?" in invoke("audt").stderr


def test_verbs_without_a_file_are_left_out(monkeypatch):
    monkeypatch.setattr(cli, "VERBS", ("nonesuch", "audit"))
    assert cli.Verbs().list_commands(None) == ["audit"]


def test_every_verb_that_has_a_file_has_a_function_of_its_name():
    group = typer.main.get_command(cli.app)
    for verb in group.list_commands(None):
        assert group.get_command(None, verb).name == verb


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom mightnt.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "assert not {'torch', 'matplotlib', 'scipy', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
def test_a_full_disk_behind_stdout(synthetic, tmp_path):
    from mightnt.files import write_json

    write_json(tmp_path / "results.json", synthetic.results([]))
    command = [sys.executable, "-c", "from mightnt.cli import main; main()", "audit", str(tmp_path), "--json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("mightnt: the disk is full")
