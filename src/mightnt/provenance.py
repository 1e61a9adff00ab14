"""Where a number came from: commit, versions, machine, configuration, inside every record."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("mightnt", "numpy", "scipy", "torch", "transformers", "tokenizers", "numba", "cvxpy", "clarabel")


def provenance(seed: int | None, config: dict[str, Any]) -> dict[str, Any]:
    """A dictionary to put into a record: version, commit (``None`` outside a checkout), packages, Python, seed, config.

    Cost: three ``git`` calls.
    """
    return {
        "commit": commit(),
        "packages": {name: version for name in PACKAGES if (version := installed_version(name))},
        "python": sys.version.split()[0],
        "machine": f"{platform.system()} {platform.machine()}",
        "written_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seed": seed,
        "config": config,
    }


def installed_version(name: str) -> str | None:
    """The installed version of a package, without importing it; ``None`` when it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the checkout this package runs from, with ``+changes`` when files differ; ``None`` elsewhere.

    A copy installed inside somebody else's repository (its ``.venv``, say) is not a checkout: git does not track it there.
    """
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
