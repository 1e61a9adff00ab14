"""Networks that learn in the background: in a process of its own, one at a time, while the old ones serve.

What that process does, and whether the new networks are good enough, is its own affair: it says ``passed`` or why not. A
process that fails or is killed changes nothing, and nothing that is served waits for it.
"""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mightnt.desk.speaking import Speaker
from mightnt.errors import InputError, MightntError

Command: TypeAlias = tuple[str, ...]
LAST_WORDS = 300
"""Characters of what a failed process said that are kept."""


class RefitError(MightntError):
    """Networks could not be fitted on. The old ones are as they were."""


@dataclass(frozen=True, slots=True)
class Refit:
    """When networks are fitted on, how, and how the new ones are loaded."""

    every: int
    """After so many new answers."""
    commands: tuple[Command, ...]
    """Run one after another; the last prints ``{"passed": bool, "why": str, ...}`` and has put a set that passed in place."""
    load: Callable[[], Speaker]
    """The speaker of the set that is in place by then; called in a thread."""
    n_learned: int = 0
    """Answers that the networks of the first speaker have learnt."""

    def __post_init__(self) -> None:
        if self.every < 1 or not self.commands:
            raise InputError(f"a refit after every {self.every} answers; 1 or more, and something to run, are needed")


async def refitted(commands: Sequence[Command]) -> str:
    """Why the new set was not taken; empty where it was, and is in place now.

    Errors: :class:`RefitError` for a command that fails, is killed, or does not say what became of it. Cancelled, it ends
    the process.
    """
    said = ""
    for command in commands:
        said = await output_of(command)
    try:
        record = json.loads(said)
        passed, why = record["passed"], str(record["why"])
    except (ValueError, KeyError, TypeError) as error:
        raise RefitError(f"the update did not say what became of it ({error})") from error
    return "" if passed is True else why or "no reason was given"


async def output_of(command: Command) -> str:
    """What a command prints. Errors: :class:`RefitError` with the end of what it complained about."""
    try:
        process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
    except OSError as error:
        raise RefitError(f"{command[0]}: cannot be run ({error.strerror})") from error
    try:
        printed, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        ended = (
            f"was killed by signal {-process.returncode}"
            if process.returncode < 0
            else f"left with {process.returncode}"
        )
        raise RefitError(
            f"the update {ended}: {complaint.decode(errors='replace').strip()[-LAST_WORDS:] or 'silently'}"
        )
    return printed.decode(errors="replace")
