"""Servers under load: ours and others, in turns.

Clients are coroutines on raw streams, a connection each: a client library would take more of the machine
than the server does. They share the machine with it, as all servers' clients do here.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

import uvloop

from ov_minilm.measure.benchmarks import latency
from ov_minilm.measure.contender import Contender, ContenderFailed
from ov_minilm.measure.race import Race, Values
from ov_minilm.measure.row import Row

START_TIMEOUT_S = 120.0
CLIENTS = 8  # where texts a request vary
CURVE = (1, 2, 4, 8, 16, 32, 64)  # clients, with one text a request
REQUEST_SIZES = (1, 32, 256)  # texts
LOAD_S = 1.5  # of load in one turn
MODEL = "all-MiniLM-L6-v2"


class Server:
    """A running server of OpenAI's embeddings API. The command of its contender gets port and threads."""

    def __init__(self, contender: Contender, threads: int) -> None:
        """Start it and wait until it answers.

        Raises:
            ContenderFailed: it ended, or did not answer in time.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.contender = contender
        self.facts = {"variant": contender.title}
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        words = {"PORT": str(self.port), "THREADS": str(threads)} | contender.models
        self._process = subprocess.Popen(
            [words.get(word, word) for word in contender.command],
            stdout=self._log,
            stderr=self._log,
            env=contender.environment or None,
        )
        ends = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                uvloop.run(self._ready())
            except (OSError, ValueError, asyncio.IncompleteReadError) as error:
                if self._process.poll() is None and time.monotonic() < ends:
                    time.sleep(0.1)
                    continue
                self._log.seek(0)
                words_ = self._log.read().strip().splitlines()
                self.close()
                raise ContenderFailed(f"{contender.name}: {words_[-1] if words_ else error}") from error
            return

    async def _ready(self) -> None:
        client = Client(self.port)
        try:
            await asyncio.wait_for(client.ask(self.request(["ready?"])), START_TIMEOUT_S)
        finally:
            await client.close()

    def request(self, texts: list[str]) -> bytes:
        """Return the bytes of a request for base64."""
        body = json.dumps({"model": MODEL, "input": texts, "encoding_format": "base64"}).encode()
        head = (
            "POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._log.close()


class Client:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> bytes:
        """Send a request and return the body of its answer.

        Raises:
            ValueError: the status is not 200, or the answer says no length.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        if head[9:12] != b"200" or not length:
            raise ValueError(f"{head.splitlines()[0].decode()}: {body[:200]!r}")
        return body

    async def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            await self._streams[1].wait_closed()


async def closed_loop(server: Server, requests: list[bytes], clients: int) -> Values:
    """Let each client ask again as soon as it has its answer; give requests a second, and latencies."""
    seconds: list[float] = []
    connections = [Client(server.port) for _ in range(clients)]
    await asyncio.gather(*(client.ask(requests[0]) for client in connections))  # connects

    async def work(client: Client, turn: int) -> None:
        while time.perf_counter() < ends:
            turn += clients
            sent = time.perf_counter()
            await client.ask(requests[turn % len(requests)])
            seconds.append(time.perf_counter() - sent)

    started = time.perf_counter()
    ends = started + LOAD_S
    await asyncio.gather(*(work(client, turn) for turn, client in enumerate(connections)))
    wall = time.perf_counter() - started
    for client in connections:
        await client.close()
    return {"texts_per_s": len(seconds) / wall} | latency({"seconds": seconds})


def load(name: str, clients: int, size: int) -> Callable[[Race[Server]], Iterator[Row]]:
    """Return the benchmark of so many clients with so many sentences a request."""

    def benchmark(race: Race[Server]) -> Iterator[Row]:
        texts = race.texts.make("sentences")
        lists = [texts[start : start + size] for start in range(0, len(texts), size)]

        def turn(server: Server) -> Values:
            try:
                found = uvloop.run(closed_loop(server, [server.request(one) for one in lists], clients))
            except asyncio.IncompleteReadError as error:
                raise ContenderFailed(f"{server.contender.name}: it hung up in {name!r}") from error
            except (OSError, ValueError) as error:
                raise ContenderFailed(f"{server.contender.name}: {error}") from error
            return found | {"texts_per_s": found["texts_per_s"] * size}

        return race.rows(name, turn)

    return benchmark


SERVING = {
    name: load(name, clients, size)
    for name, clients, size in (
        *((f"server, {size} texts a request", CLIENTS, size) for size in REQUEST_SIZES),
        *((f"server, {clients} clients", clients, 1) for clients in CURVE),
    )
}
