"""``mightnt desk RUN`` and ``mightnt desk export RUN``: answer what the agent asks; write the answers as demonstrations."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from mightnt.cli.options import Json, print_json
from mightnt.errors import InputError


def desk(
    words: Annotated[
        list[str], typer.Argument(metavar="[export] RUN", help="The folder that is served; export: write its answers.")
    ],
    person: Annotated[str, typer.Option("--person", help="Who sits at the desk.", show_default="the user")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="export: the file of chats to write, for `mightnt imitate`.")
    ] = None,
    json: Json = False,
) -> None:
    """Answer, refuse or pass on what the agent of a served run asks; --json prints the queue and leaves."""
    if len(words) == 2 and words[0] == "export":
        export(Path(words[1]), out, json)
    elif len(words) != 1:
        raise InputError(
            f"got {' '.join(words)!r}; `mightnt desk RUN` or `mightnt desk export RUN --out FILE` is needed"
        )
    elif out is not None:
        raise InputError(f"--out belongs to the export: mightnt desk export {words[0]} --out {out}")
    else:
        sit(Path(words[0]), person or getpass.getuser(), json)


def export(run: Path, out: Path | None, json: bool) -> None:
    """Write the answers of a run's desk as demonstrations and say how many they are."""
    from mightnt.desk.export import export as write
    from mightnt.desk.store import open_store

    if out is None:
        raise InputError(f"an export needs a file: mightnt desk export {run} --out FILE")
    with open_store(kept(run), shared=True) as store:
        found = write(store, out)
    if json:
        counts = {
            "dialogues": len(found.dialogues),
            "answers": found.n_answers,
            "begun_by_agent": found.n_begun_by_agent,
        }
        print_json({"kind": "mightnt desk export", "version": 1, **counts, "out": out})
        return
    typer.echo(f"{found.n_answers} answer(s) in {len(found.dialogues)} dialogue(s) written to {out}")
    if found.n_begun_by_agent:
        typer.echo(
            f"{found.n_begun_by_agent} of them go on from words of the agent, which are marked as no demonstration"
        )


def sit(run: Path, person: str, json: bool) -> None:
    """Open the desk in the terminal, or print its queue."""
    from mightnt.desk.store import open_store
    from mightnt.desk.terminal import Keyboard, Terminal, edited
    from mightnt.desk.tickets import as_plain

    with open_store(kept(run), shared=True) as store:
        if json:
            waiting = [as_plain(ticket) for ticket in store.waiting()]
            print_json({"kind": "mightnt desk", "version": 1, "waiting": waiting})
        else:
            Terminal(store, person, Keyboard(sys.stdin.fileno()).line, show, edited).run()


def kept(run: Path) -> Path:
    """``run``, if it holds a desk: a mistyped folder gets none."""
    from mightnt.desk.store import FILE

    if not (run / FILE).is_file():
        raise InputError(f"{run}: holds no desk; `mightnt serve {run}` opens one")
    return run


def show(text: str) -> None:
    """Print without ending the line."""
    typer.echo(text, nl=False)
    sys.stdout.flush()
