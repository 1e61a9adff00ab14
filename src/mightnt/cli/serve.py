"""``mightnt serve RUN``: a protected policy behind the usual chat protocol, and a page for the people it asks."""

from __future__ import annotations

import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mightnt.errors import InputError

if TYPE_CHECKING:
    from mightnt.desk.server.refitting import Refit
    from mightnt.desk.server.safety import Guard
    from mightnt.lm.speaker import PolicySpeaker

BESIDE = """
import os, sys
os.environ.setdefault("OMP_NUM_THREADS", "1")
hasattr(os, "nice") and os.nice(10)
from mightnt.experiments.parts import end_with
end_with(int(sys.argv.pop(1)))
from mightnt.cli import main
main()
"""
"""A verb run beside a server: after it, where both want the processor, and never longer than it."""


def serve(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="What `mightnt finetune` saved.")],
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; another than this machine's: --tokens.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 8000,
    rota: Annotated[
        str, typer.Option("--rota", help="Who is asked, in order, and for how many seconds: ann:300,bob:600.")
    ] = "desk:300",
    tokens: Annotated[
        Path | None, typer.Option("--tokens", help="A file of lines: client NAME TOKEN, demonstrator NAME TOKEN.")
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds that a call waits for a person before it gets a ticket.")
    ] = 60.0,
    undo: Annotated[float, typer.Option("--undo", min=0, help="Seconds in which a decision can be taken back.")] = 5.0,
    imitators: Annotated[
        Path | None, typer.Option("--imitators", help="Their folder, if it is not where it was.")
    ] = None,
    learn: Annotated[
        bool, typer.Option("--learn/--no-learn", help="Whether an answer teaches the policy at once.")
    ] = True,
    update_every: Annotated[
        int,
        typer.Option(
            "--update-every", min=0, help="Fit the networks on in the background after so many answers; 0: never."
        ),
    ] = 0,
) -> None:
    """Serve a run to OpenAI's clients; its questions come to the desk, and without an answer there is no act."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise InputError(f'serving needs {" and ".join(missing)}: pip install "mightnt[desk]"')
    import uvicorn

    from mightnt.desk.rota import read_rota
    from mightnt.desk.server.app import build_app
    from mightnt.desk.server.conversations import Terms
    from mightnt.desk.store import open_store
    from mightnt.lm.speaker import load_speaker

    if update_every and not learn:
        raise InputError("--update-every lets the networks learn, --no-learn forbids it; leave one of them out")
    guard, people = guard_for(host, tokens), read_rota(rota)
    speaker = load_speaker(run, imitators)
    refit = refit_of(run, imitators, update_every, speaker) if update_every else None
    with open_store(run, undo) as store, listening(host, port) as found:
        terms = Terms(wait_seconds=wait, most_wait_seconds=max(600.0, wait), learn=learn)
        app = build_app(speaker, store, run, people, terms, guard, refit)
        show(host, found.getsockname()[1], speaker.name, guard)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=3,
        )
        uvicorn.Server(config).run(sockets=[found])


def guard_for(host: str, tokens: Path | None) -> Guard:
    """Who may come in at this address. Errors: :class:`~mightnt.errors.InputError` for one that needs tokens."""
    from mightnt.desk.server.safety import LEAST_CHARACTERS, Guard, is_own, read_tokens

    own = is_own(host)
    if tokens is None and not own:
        raise InputError(
            f"others can reach {host}, so it needs --tokens FILE: lines 'client NAME TOKEN' and 'demonstrator NAME TOKEN',"
            f" each token {LEAST_CHARACTERS} characters or more (python -c 'import secrets; print(secrets.token_urlsafe())')"
        )
    return Guard(read_tokens(tokens) if tokens else (), own_machine=own)


def refit_of(run: Path, imitators: Path | None, every: int, speaker: PolicySpeaker) -> Refit:
    """What docs/serving.md does by hand, in processes of their own: export the answers, update the imitators."""
    from mightnt.desk.server.refitting import Refit
    from mightnt.lm.speaker import imitators_of, load_speaker

    folder, answers = imitators_of(run, imitators), str(run / "answers.jsonl")
    verbs = (
        ("desk", "export", str(run), "--out", answers),
        ("imitate", answers, "--update", "--out", str(folder), "--json"),
    )
    beside = (sys.executable, "-c", BESIDE, str(os.getpid()))
    commands = tuple((*beside, *verb) for verb in verbs)
    return Refit(every, commands, lambda: load_speaker(run, imitators), speaker.known.total())


def listening(host: str, port: int) -> socket.socket:
    """A socket bound to the address. Errors: :class:`~mightnt.errors.InputError` where that is not possible."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host.strip("[]"), port))
        found.listen()  # who calls before the server is ready waits
    except OSError as error:
        found.close()
        raise InputError(f"{host} port {port}: cannot be listened on ({error.strerror}); try another --port") from None
    return found


def show(host: str, port: int, name: str, guard: Guard) -> None:
    """Say where it is, and who may come in."""
    place = f"http://{f'[{host}]' if ':' in host.strip('[]') else host}:{port}"
    typer.echo(f"{name} is served at {place}/v1 (for OpenAI's clients) and asks at {place}/desk")
    if guard.holders:
        people = [f"{holder.name} ({holder.right})" for holder in guard.holders]
        typer.echo(f"A token is needed; known are {', '.join(people)}.")
    if not guard.own_machine:
        typer.echo("Others can reach this address, and plain HTTP can be overheard: put a server with TLS before it.")
