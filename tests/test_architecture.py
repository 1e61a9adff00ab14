"""The house holds: rooms import only to their left, torch lives in lm/ alone, imports are quick, tests mirror src."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mightnt

SOURCE = Path(__file__).parents[1] / "src" / "mightnt"
TESTS = Path(__file__).parent
ROOMS = (
    *("errors", "files", "provenance", "watching", "history", "prediction", "dialogues", "models", "worlds"),
    *("bases", "constraints", "planners", "desk", "audits", "lm", "experiments", "cli"),
)
MODULES = sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> list[tuple[str, bool]]:
    """Pairs (dotted module, is it imported at module level?)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        top = node in tree.body
        if isinstance(node, ast.Import):
            found += [(alias.name, top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, top))
            if node.module.split(".")[0] == "mightnt":
                found += [(f"{node.module}.{alias.name}", top) for alias in node.names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_rooms_import_only_to_their_left(path):
    if path == SOURCE / "__init__.py":
        return
    here = ROOMS.index(room(path))
    for name, _ in imported_modules(path):
        if name.startswith("mightnt."):
            there = name.split(".")[1]
            assert there in ROOMS, f"{path} imports {name}, which is no room"
            assert ROOMS.index(there) <= here, f"{path} ({room(path)}) imports {there}, a room to its right"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_torch_lives_in_lm_alone(path):
    heavy = {"torch", "transformers", "tokenizers", "safetensors"}
    names = {name.split(".")[0] for name, _ in imported_modules(path)}
    assert room(path) == "lm" or not names & heavy, f"{path} imports {names & heavy}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_compiled_code_lives_in_kernels_and_solvers_wait_for_their_call(path):
    """numba only in files named kernels.py; those and cvxpy are imported inside functions, so that imports stay quick."""
    for name, top in imported_modules(path):
        assert name.split(".")[0] != "numba" or path.name == "kernels.py", f"{path} imports numba"
        late = name.split(".")[0] == "cvxpy" or (name.startswith("mightnt.") and name.split(".")[-1] == "kernels")
        assert not (late and top), f"{path} imports {name} at module level"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_only_later_rooms_import_lm_and_never_at_module_level_in_cli(path):
    if room(path) == "cli":
        early = [name for name, top in imported_modules(path) if top and name.startswith(("mightnt.lm", "mightnt.exp"))]
        assert not early, f"{path} imports {early} before its verb runs: `mightnt --help` would load torch"


def test_import_is_light():
    code = (
        "import mightnt, sys; assert not {'torch', 'transformers', 'matplotlib', 'numba', 'cvxpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_takes_less_than_half_a_second():
    code = "import time; t = time.perf_counter(); import mightnt; print(time.perf_counter() - t)"
    seconds = min(
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
        for _ in range(5)
    )
    assert seconds < 0.5


def test_public_names_are_where_the_types_say():
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    typed = {
        f"mightnt.{node.module.removeprefix('mightnt.')}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mightnt.")
        for alias in node.names
    }
    assert typed == {f"mightnt.{module}.{name}" for module, names in mightnt.HOME.items() for name in names.split()}
    assert all(getattr(mightnt, name) is not None for name in mightnt.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mightnt.nothing  # noqa: B018


def test_every_module_has_a_docstring_and_a_test_of_its_name():
    tests = {path.name for path in TESTS.rglob("test_*.py")}
    for path in MODULES:
        if path.name == "__init__.py":
            continue
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} says nothing about itself"
        assert f"test_{path.name}" in tests, f"{path} has no test file of its name"


def test_no_function_is_longer_than_sixty_lines():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}:{node.lineno} {node.name} is too long"
