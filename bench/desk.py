"""The desk under load: a thousand questions wait, fifty clients call at once, a speaker of known time.

The server is a process of its own. Its speaker sleeps a known time a token (a network that computes elsewhere), so what
is measured is what the server adds: the queue, the books on disk, the protocol. The floor is the same generation by as
many bare threads. Every answer is checked: each question gets its own, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import desk_network
from bench.lines import Line
from mightnt.desk.speaking import Asked, Ended, Event, Piece
from mightnt.desk.tickets import Inquiry
from mightnt.dialogues import Message

TOKENS, TOKEN_SECONDS = 40, 0.025
"""A turn of full length of a small network."""
WAITING, CLIENTS, CALLS = 1000, 50, 5
HELD = 100
"""Of the questions, how many have a client that waits for the answer."""


@dataclass
class Sleeper:
    """Says ``word`` forty times at a known pace; asks at once where it is asked to."""

    name: str = "sleeper"
    limit_nats: float = 1e9

    def begin(
        self,
        messages: tuple[Message, ...],
        spent_nats: float,
        turn: int,
        seed: int,
        answered: Mapping[int, str] | None = None,
    ) -> SleepyTurn:
        """The next turn."""
        return SleepyTurn(messages, TOKENS)


@dataclass
class SleepyTurn:
    """A turn of so many more tokens."""

    messages: tuple[Message, ...]
    left: int
    spent_nats: float = 0.0

    def next_piece(self) -> Event:
        """A word after a while, a question, or the end."""
        if self.messages[-1].content.startswith("ask"):
            return Asked(Inquiry("", 0, self.messages, "", 0.5, False, 1.0, 1.0))
        if not self.left:
            return Ended("stop")
        time.sleep(TOKEN_SECONDS)
        self.left -= 1
        self.spent_nats += 0.001
        return Piece(" word", 0.001)

    def continue_with(self, text: str) -> None:
        """Heard."""


def bare_seconds() -> list[float]:
    """Latencies of the same turns by as many threads, with nothing around them."""

    def calls(_: int) -> list[float]:
        seconds = []
        for _ in range(CALLS):
            started = time.perf_counter()
            turn = Sleeper().begin((Message("user", "go"),), 0.0, 0, 0)
            while isinstance(turn.next_piece(), Piece):
                pass
            seconds.append(time.perf_counter() - started)
        return seconds

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [seconds for of_one in pool.map(calls, range(CLIENTS)) for seconds in of_one]


def serve(folder: Path) -> None:
    """Be the server: print the port, serve until killed."""
    import uvicorn

    from mightnt.cli.serve import listening
    from mightnt.desk.rota import Rota, Shift
    from mightnt.desk.server.app import build_app
    from mightnt.desk.server.conversations import Terms
    from mightnt.desk.server.safety import Guard, Rates
    from mightnt.desk.store import open_store

    terms = Terms(width=CLIENTS, most_queued=2 * CLIENTS + HELD)
    with open_store(folder, undo_seconds=0.0) as store, listening("127.0.0.1", 0) as found:
        guard = Guard(calls=Rates(1e6, 1e6))
        app = build_app(Sleeper(), store, folder, Rota((Shift("ann", 1e5),)), terms, guard)
        print(found.getsockname()[1], flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=[found])


@contextlib.asynccontextmanager
async def plain_connection(port: int) -> AsyncIterator[Callable[[str, Any], Awaitable[dict[str, Any]]]]:
    """A client that costs next to nothing, so that the server is measured and not the client."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def post(name: str, value: Any) -> dict[str, Any]:
        body = json.dumps(value).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"X-Conversation: {name}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert answer.startswith("http/1.1 200"), answer
        length = int(answer.split("content-length:")[1].split()[0])
        return dict(json.loads(await reader.readexactly(length)))

    yield post
    writer.close()


class Load:
    """Clients and people of one server."""

    def __init__(self, http: Any) -> None:
        self.http = http

    async def chat(self, name: str, content: str, wait_seconds: float = 0.0) -> dict[str, Any]:
        """One call."""
        message = {"role": "user", "content": content}
        body = {"model": "sleeper", "messages": [message], "mightnt": {"wait_seconds": wait_seconds}}
        response = await self.http.post("/v1/chat/completions", json=body, headers={"X-Conversation": name})
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def ask_all(self) -> tuple[dict[str, str], list[asyncio.Task[dict[str, Any]]]]:
        """A thousand questions: ``(conversation -> ticket of those that nobody waits for, the calls that wait)``."""
        room = asyncio.Semaphore(CLIENTS)

        async def ask(name: str) -> tuple[str, str]:
            async with room:
                return name, (await self.chat(name, f"ask {name}"))["mightnt"]["ticket"]

        tickets = dict(await asyncio.gather(*(ask(f"w{i}") for i in range(WAITING - HELD))))
        held = [asyncio.create_task(self.chat(f"h{i}", f"ask h{i}", 600.0)) for i in range(HELD)]
        while await self.number("mightnt_waiting") < WAITING:
            await asyncio.sleep(0.05)
        return tickets, held

    async def number(self, name: str) -> float:
        """One of the server's metrics."""
        text = (await self.http.get("/metrics")).text
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))

    async def call_all(self, round: str) -> list[float]:
        """Latencies of calls that need nobody: each client calls again as soon as it is answered."""

        async def client(i: int) -> list[float]:
            seconds = []
            async with plain_connection(self.http.base_url.port) as post:
                for call in range(CALLS):
                    body = {"model": "sleeper", "messages": [{"role": "user", "content": "go"}]}
                    started = time.perf_counter()
                    reply = await post(f"{round}-{i}-{call}", body)
                    seconds.append(time.perf_counter() - started)
                    assert reply["choices"][0]["message"]["content"] == " word" * TOKENS
            return seconds

        return [seconds for of_one in await asyncio.gather(*map(client, range(CLIENTS))) for seconds in of_one]

    async def answer_all(self) -> None:
        """A person answers every question, twice over (a repeated click)."""
        stamp = {"X-Desk-Stamp": (await self.http.get("/desk/me")).json()["stamp"]}
        async with self.http.stream("GET", "/desk/events") as events:
            async for line in events.aiter_lines():
                if line.startswith("data: "):
                    break
        queue = json.loads(line.removeprefix("data: "))["tickets"]
        assert len(queue) == WAITING, f"{len(queue)} questions wait"
        room = asyncio.Semaphore(CLIENTS)

        async def answer(ticket: dict[str, Any]) -> None:
            body = {"verdict": "answer", "key": f"key-{ticket['number']}", "text": f"for {ticket['conversation']}"}
            async with room:
                for _ in range(2):
                    path = f"/desk/tickets/{ticket['number']}/decide"
                    assert (await self.http.post(path, json=body, headers=stamp)).status_code == 200

        await asyncio.gather(*map(answer, queue))


async def under_load(url: str, resident_mib: Callable[[], float]) -> dict[str, Any]:
    """Ask, call, answer, and check that every answer came to its question once."""
    import httpx

    limits = httpx.Limits(max_connections=CLIENTS + HELD + 10)
    async with httpx.AsyncClient(base_url=url, timeout=900, limits=limits) as http:
        load = Load(http)
        before_mib = resident_mib()
        tickets, held = await load.ask_all()
        waiting_mib = resident_mib()
        await load.call_all("first")
        once_mib = resident_mib()
        seconds = await load.call_all("second")
        await load.answer_all()
        for i, reply in enumerate(await asyncio.gather(*held)):
            assert reply["choices"][0]["message"]["content"] == f"for h{i}"
        for name, number in tickets.items():
            ticket = (await http.get(f"/v1/tickets/{number}", params={"wait_seconds": 30})).json()
            assert ticket["completion"]["choices"][0]["message"]["content"] == f"for {name}"
        assert await load.number("mightnt_asks_total") == WAITING
        assert await load.number('mightnt_settled_total{state="answered"}') == WAITING
        assert await load.number("mightnt_waiting") == 0
    return {"seconds": seconds, "mib": (before_mib, waiting_mib, once_mib, resident_mib())}


def lines() -> list[Line]:
    """Latency, memory and decisions a second, each beside its floor or goal; raises where an answer is lost or doubled."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-c",
            f"from bench.desk import serve; from pathlib import Path; serve(Path({folder!r}))",
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        try:
            port = int(process.stdout.readline())

            def resident_mib() -> float:
                status = Path(f"/proc/{process.pid}/status").read_text()
                return int(status.split("VmRSS:")[1].split()[0]) / 1024

            found = asyncio.run(under_load(f"http://127.0.0.1:{port}", resident_mib))
        finally:
            process.terminate()
            process.wait(30)
    bare, seconds = bare_seconds(), found["seconds"]
    before, waiting, once, after = found["mib"]
    load = f"{CLIENTS} clients, {WAITING} questions waiting"
    return [
        Line(
            f"call that needs nobody, p95, {load}",
            p95(seconds) * 1e3,
            p95(bare) * 1e3,
            "ms",
            "floor: bare threads, p95",
        ),
        Line(
            f"call that needs nobody, median, {load}",
            statistics.median(seconds) * 1e3,
            statistics.median(bare) * 1e3,
            "ms",
            "floor: bare threads, median",
        ),
        Line(f"server's memory, {WAITING} questions waiting", waiting, before, "MiB", "the server before"),
        Line(f"server's memory after {2 * CLIENTS * CALLS} calls", after, once, "MiB", "half as many calls"),
        *desk_network.lines(),
    ]


def p95(seconds: list[float]) -> float:
    """The time that 95 of 100 stay below."""
    return statistics.quantiles(seconds, n=20)[-1]


if __name__ == "__main__":
    for line in lines():
        print(f"{line.what:75} {line.ours:9.1f} {line.other:9.1f} {line.unit:4} {line.ratio:6.2f}  {line.other_is}")
