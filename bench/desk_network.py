"""The server around a real network: calls of fifty clients, beside the same turns said one after another without a server.

The speaker is a `PolicySpeaker` of an untrained network and counts, so turns are long and nobody is asked; one turn is said
at a time, as by default. The floor is one thread that says the same turns for as many waiting threads. Where networks are
tiny the server's own work shows: about the same processor time for every call, whatever is said in it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from bench.lines import Line

if TYPE_CHECKING:  # the server of bench.desk does without networks
    from mightnt.lm.speaker import PolicySpeaker

SHAPES = {
    "3 layers of width 128": {"width": 128, "layers": 3, "heads": 4, "context": 512},
    "1 layer of width 16": {"width": 16, "layers": 1, "heads": 1, "context": 512},
}
CLIENTS, CALLS, SEED = 50, 2, 1
HELLO = "hello teacher"


def speaker_of(shape: dict[str, int]) -> PolicySpeaker:
    """A policy that stays at its base, a network as it was made."""
    import torch

    from mightnt.experiments.chat import chat_tokenizer
    from mightnt.lm.account import Account
    from mightnt.lm.actor import Stay
    from mightnt.lm.imitators import ImitatorsConfig, calibrate, fit_suffix_counts
    from mightnt.lm.networks import NetworkShape, build_network
    from mightnt.lm.speaker import PolicySpeaker
    from mightnt.worlds.chat.corpus import demonstrations

    torch.set_num_threads(1)
    tokenizer, config, chats = chat_tokenizer(), ImitatorsConfig(), demonstrations(300, seed=0)
    network = build_network(NetworkShape(**shape), len(tokenizer), 0)
    counts = fit_suffix_counts(tokenizer, chats[:270], config)
    imitators = calibrate(tokenizer, [network], counts, chats[:270], chats[270:], config)
    account = Account(float("inf"), "floor")
    return PolicySpeaker(
        "network", imitators, imitators.members("counts"), imitators.base("single"), account, Stay(), 40
    )


def turn(speaker: PolicySpeaker, name: str) -> None:
    """What the server does of a turn, without it."""
    from mightnt.desk.server.conversations import seed_of
    from mightnt.desk.speaking import Ended, Piece
    from mightnt.dialogues import Message

    said = speaker.begin((Message("user", HELLO),), 0.0, 0, seed_of(name, SEED))
    while isinstance(event := said.next_piece(), Piece):
        pass
    assert isinstance(event, Ended), "nobody is asked"


def bare_seconds(speaker: PolicySpeaker) -> list[float]:
    """Latencies of as many threads whose turns one thread says."""
    with ThreadPoolExecutor(1) as mouth, ThreadPoolExecutor(CLIENTS) as pool:

        def client(i: int) -> list[float]:
            seconds = []
            for call in range(CALLS):
                started = time.perf_counter()
                mouth.submit(turn, speaker, f"n-{i}-{call}").result()
                seconds.append(time.perf_counter() - started)
            return seconds

        return [seconds for of_one in pool.map(client, range(CLIENTS)) for seconds in of_one]


def serve(folder: Path, shape: str) -> None:
    """Be the server: print the port, serve until killed."""
    import uvicorn

    from mightnt.cli.serve import listening
    from mightnt.desk.rota import Rota, Shift
    from mightnt.desk.server.app import build_app
    from mightnt.desk.server.conversations import Terms
    from mightnt.desk.server.safety import Guard, Rates
    from mightnt.desk.store import open_store

    speaker = speaker_of(SHAPES[shape])
    with open_store(folder, undo_seconds=0.0) as store, listening("127.0.0.1", 0) as found:
        guard, terms = Guard(calls=Rates(1e6, 1e6)), Terms(most_queued=2 * CLIENTS, seed=SEED)
        app = build_app(speaker, store, folder, Rota((Shift("ann", 1e5),)), terms, guard)
        print(found.getsockname()[1], flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=[found])


async def served_seconds(port: int, prefix: str, clients: int) -> list[float]:
    """Latencies of as many clients, each of which calls again as soon as it is answered."""
    from bench.desk import plain_connection

    async def client(i: int) -> list[float]:
        seconds = []
        async with plain_connection(port) as post:
            for call in range(CALLS):
                started = time.perf_counter()
                reply = await post(
                    f"{prefix}-{i}-{call}", {"model": "network", "messages": [{"role": "user", "content": HELLO}]}
                )
                seconds.append(time.perf_counter() - started)
                assert reply["choices"][0]["finish_reason"] in ("stop", "length"), reply
        return seconds

    return [seconds for of_one in await asyncio.gather(*map(client, range(clients))) for seconds in of_one]


def measured(shape: str) -> tuple[list[float], list[float]]:
    """``(latencies through a server, without it)`` of the same turns."""
    speaker = speaker_of(SHAPES[shape])
    for i in range(3):
        turn(speaker, f"warm-{i}")
    code = f"from bench.desk_network import serve; from pathlib import Path; import sys; serve(Path(sys.argv[1]), {shape!r})"
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout
        try:
            port = int(process.stdout.readline())
            asyncio.run(served_seconds(port, "warm", 2))
            return asyncio.run(served_seconds(port, "n", CLIENTS)), bare_seconds(speaker)
        finally:
            process.terminate()
            process.wait(30)


def lines() -> list[Line]:
    """p95 for each network, beside its floor."""
    from bench.desk import p95

    found = []
    for shape in SHAPES:
        served, bare = measured(shape)
        found.append(
            Line(
                f"network of {shape}, call that needs nobody, p95, {CLIENTS} clients",
                p95(served) * 1e3,
                p95(bare) * 1e3,
                "ms",
                "floor: the same turns by one thread, p95",
            )
        )
    return found


if __name__ == "__main__":
    for line in lines():
        print(f"{line.what:75} {line.ours:9.1f} {line.other:9.1f} {line.unit:4} {line.ratio:6.2f}  {line.other_is}")
