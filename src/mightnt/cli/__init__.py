"""The command ``mightnt``: one verb per file, loaded when it is used.

A verb is a file ``mightnt/cli/VERB.py`` with a function of the same name that parses, calls one function and prints.
Its options come from the function's annotations; what it can do wrong ends here as one sentence and an exit code.
"""

from __future__ import annotations

import errno
import importlib
import os
from importlib.util import find_spec
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import mightnt
from mightnt.errors import MightntError

VERBS = ("reproduce", "imitate", "calibrate", "finetune", "audit", "theory", "serve", "desk", "learning", "frontier")
"""In the order of ``mightnt --help``; a verb whose file is not there is left out."""

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class Verbs(TyperGroup):
    """The verbs, each imported when it is asked for; errors become one sentence on stderr.

    Exit codes: 2 for what a user can do wrong and for a full disk, 130 for Ctrl-C.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """The verbs there are."""
        return [verb for verb in VERBS if find_spec(f"mightnt.cli.{verb}")]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb of this name; ``None`` (after loading all, so that a near miss can be named) if there is none."""
        known = self.list_commands(ctx)
        for verb in [cmd_name] if cmd_name in known else known:
            if verb not in self.commands:
                self.commands[verb] = load(verb)
        return self.commands.get(cmd_name)

    def invoke(self, ctx: Any) -> Any:
        """Run a verb."""
        try:
            return super().invoke(ctx)
        except MightntError as error:
            fail(str(error), 2)
        except KeyboardInterrupt:
            verb = self.commands.get(ctx.invoked_subcommand or "")
            resumable = verb is not None and any(option.name == "resume" for option in verb.params)
            fail("stopped" + ("; continue with --resume" if resumable else ""), 130)
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            place = f" ({error.filename})" if error.filename else ""
            fail(f"the disk is full{place}; free some space and run the command again", 2)


def load(verb: str) -> Any:
    """The command made of the function ``verb`` in ``mightnt/cli/verb.py``."""
    alone = typer.Typer(add_completion=False)
    alone.command(verb)(getattr(importlib.import_module(f"mightnt.cli.{verb}"), verb))
    return typer.main.get_command(alone)


def fail(sentence: str, code: int) -> NoReturn:
    """Say ``mightnt: sentence`` on stderr and leave with this exit code."""
    typer.echo(f"mightnt: {sentence}", err=True)
    raise typer.Exit(code)


app = typer.Typer(cls=Verbs, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def print_version(wanted: bool) -> None:
    """Print the version and stop, if it was asked for."""
    if wanted:
        typer.echo(mightnt.__version__)
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Reinforcement learning that stays within what a trusted person might do."""


def main() -> None:
    """The entry point of the command ``mightnt``; one progress display, ours, and not the model library's too."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    app(prog_name="mightnt")
