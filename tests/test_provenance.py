"""Provenance names the commit of this checkout, and of no other repository."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mightnt
from mightnt import provenance as module
from mightnt.provenance import commit, installed_version, provenance

SOURCE = Path(module.__file__)


def git(folder, *words):
    who = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def package_in(folder, monkeypatch):
    """A copy of this package's files where ``commit`` believes to live."""
    here = folder / "src" / "mightnt"
    here.mkdir(parents=True)
    shutil.copy(SOURCE, here / SOURCE.name)
    monkeypatch.setattr(module, "__file__", str(here / SOURCE.name))
    return here


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    here = package_in(tmp_path, monkeypatch)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return here


def test_the_commit_of_a_clean_and_of_a_changed_checkout(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    assert commit() == head
    (checkout / "notes.txt").write_text("not tracked: no change")
    assert commit() == head
    (checkout / SOURCE.name).write_text("changed")
    assert commit() == f"{head}+changes"


def test_outside_a_checkout_there_is_none(tmp_path, monkeypatch):
    package_in(tmp_path, monkeypatch)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert commit() is None


def test_installed_inside_another_repository_its_commit_is_not_ours(tmp_path, monkeypatch):
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text(".venv\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "somebody else's")
    package_in(tmp_path / ".venv", monkeypatch)
    assert commit() is None


def test_a_repository_without_a_commit_has_none(tmp_path, monkeypatch):
    package_in(tmp_path, monkeypatch)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    assert commit() is None


def test_without_git_there_is_none(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit() is None


def test_versions_without_importing(monkeypatch):
    monkeypatch.delitem(sys.modules, "safetensors", raising=False)
    assert installed_version("mightnt") == mightnt.__version__
    assert installed_version("numpy")
    assert installed_version("a-package-nobody-has") is None
    code = "import mightnt.provenance as p, sys; p.provenance(0, {}); assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_record_holds_all_and_is_plain_json():
    record = provenance(7, {"budget_nats": 10.0})
    assert set(record) == {"commit", "packages", "python", "machine", "written_utc", "seed", "config"}
    assert record["seed"] == 7
    assert record["config"] == {"budget_nats": 10.0}
    assert record["packages"]["mightnt"] == mightnt.__version__
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert json.loads(json.dumps(record)) == record
    assert provenance(None, {})["seed"] is None


def test_packages_that_are_not_installed_are_left_out(monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("mightnt", "a-package-nobody-has"))
    assert set(provenance(0, {})["packages"]) == {"mightnt"}
