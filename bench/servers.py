"""Benchmarks of servers under load, ov_minilm and others, measured in turns.

Each client is a coroutine with its own connection, on raw streams: a client library would use more CPU than
the server. Clients run on the same CPUs as the servers.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import uvloop

from ov_minilm.measure import machine
from ov_minilm.measure.benchmarks import latency
from ov_minilm.measure.contender import Contender, ContenderFailed
from ov_minilm.measure.race import TARGET_PRECISION, Race, Values
from ov_minilm.measure.row import OURS, Row

START_TIMEOUT_S, END_TIMEOUT_S = 120.0, 10.0
CLIENTS = 8  # clients in the measurement with several sizes of requests
CLIENT_COUNTS = (1, 2, 4, 8, 16, 32, 64)  # numbers of clients that send one text per request
REQUESTS = {1: "requests of 1 text", 32: "requests of 32 texts", 256: "requests of 256 texts"}
LOAD_S = 1.5  # duration of a round, in seconds
MODEL = "all-MiniLM-L6-v2"
OPENAI_API = ("/v1/embeddings", "input", {"model": MODEL, "encoding_format": "base64"})
APIS = {  # contender -> Api; all three answer with numbers, not base64
    OURS: ("/v1/embeddings", "input", {"model": MODEL}),
    f"{OURS} TEI": ("/embed", "inputs", {}),
    f"{OURS} Ollama": ("/api/embed", "input", {"model": MODEL}),
}
ONE_THREAD, TWO_WORKERS = f"{OURS} 1 thread", f"{OURS} 2 workers"  # each worker has one thread
WORKERS = "server, workers"

Ask = Callable[[bytes], Any]  # sends a request and waits for the answer
Api = tuple[str, str, Mapping[str, str]]  # URL, field of the texts, other fields


def our_server(name: str = OURS, *options: str) -> Contender:
    """Describe `ov-minilm serve`."""
    command = (sys.executable, "-m", "ov_minilm", "serve", "--port", "PORT", "--access-log", "off")
    return Contender(name, "ov-minilm serve", (*command, *(options or ("--threads", "THREADS"))), "int8")


class Server:
    """A running server with OpenAI's embeddings API; its command has placeholders for port and threads."""

    def __init__(self, contender: Contender, threads: int) -> None:
        """Start the server, wait for its first answer. ContenderFailed: the server ended, or was too slow."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.contender = contender
        self.versions = {"variant": contender.title}
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        placeholders = {"PORT": str(self.port), "THREADS": str(threads)} | contender.models
        command = [placeholders.get(word, word) for word in contender.command]
        environment = contender.environment or None
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=environment)
        ends = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                uvloop.run(asyncio.wait_for(self._answer_one(), START_TIMEOUT_S))
            except (OSError, ValueError, EOFError) as error:
                if self._process.poll() is None and time.monotonic() < ends:
                    time.sleep(0.1)
                    continue
                self._log.seek(0)
                log_lines = self._log.read().strip().splitlines()
                self.close()
                raise ContenderFailed(f"{contender.name}: {log_lines[-1] if log_lines else error}") from error
            return

    async def _answer_one(self) -> None:
        async with self.client() as ask:
            await ask(request(["ready?"]))

    @asynccontextmanager
    async def client(self) -> Any:
        """Yield a function that sends requests on one connection and keeps the connection open.

        The function raises ValueError if the status is not 200 or the answer has no content-length.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def ask(message: bytes) -> None:
            writer.write(message)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            if head[9:12] != b"200" or not length:
                raise ValueError(f"{head.splitlines()[0].decode()}: {body[:200]!r}")

        try:
            yield ask
        finally:
            writer.close()
            await writer.wait_closed()

    def pss_mb(self) -> float:
        """Return the memory of all processes of the server in MB; shared pages count once."""
        pids = [str(self._process.pid)]
        for pid in pids:
            pids += Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return sum(machine.memory_mb("Pss", pid) for pid in pids)

    def close(self) -> None:
        """Stop the server and its workers."""
        self._process.terminate()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def request(texts: list[str], api: Api = OPENAI_API) -> bytes:
    """Return the bytes of a request."""
    url, field, options = api
    body = json.dumps({**options, field: texts}).encode()
    head = f"POST {url} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def closed_loop(server: Server, requests: list[bytes], clients: int) -> Values:
    """Let each client send its next request after each response; return requests/s and latencies."""
    seconds: list[float] = []

    async def work(ask: Ask, number: int) -> None:
        while time.perf_counter() < ends:
            number += clients
            sent = time.perf_counter()
            await ask(requests[number % len(requests)])
            seconds.append(time.perf_counter() - sent)

    async with AsyncExitStack() as stack:
        asks = [await stack.enter_async_context(server.client()) for _ in range(clients)]
        await asyncio.gather(*(ask(requests[0]) for ask in asks))
        started = time.perf_counter()
        ends = started + LOAD_S
        await asyncio.gather(*(work(ask, number) for number, ask in enumerate(asks)))
        wall = time.perf_counter() - started
    return {"texts_per_s": len(seconds) / wall} | latency({"seconds": seconds})


def load(
    name: str,
    clients: int,
    size: int,
    apis: Mapping[str, Api] = MappingProxyType({}),
    *,
    target_precision: float = TARGET_PRECISION,
) -> Callable[[Race[Server]], Iterator[Row]]:
    """Return the benchmark with this many clients, and `size` sentences per request.

    `apis` has the APIs of contenders that do not use OpenAI's API. For `target_precision` see
    `Race.rows`.
    """

    def benchmark(race: Race[Server]) -> Iterator[Row]:
        texts = race.texts.make("sentences")
        lists = [texts[start : start + size] for start in range(0, len(texts), size)]
        requests = {
            name: [request(each, apis.get(name, OPENAI_API)) for each in lists] for name in race.running
        }

        def measure(server: Server) -> Values:
            try:
                results = uvloop.run(closed_loop(server, requests[server.contender.name], clients))
            except (OSError, ValueError, EOFError) as error:  # EOFError: the server closed the connection
                raise ContenderFailed(f"{server.contender.name}: {error}, in {name!r}") from error
            return results | {"texts_per_s": results["texts_per_s"] * size}

        return race.rows(name, measure, target_precision=target_precision)

    return benchmark


def workers(race: Race[Server]) -> Iterator[Row]:
    """Measure speed and memory of one process, of one process with one thread, and of two workers."""
    other_servers = our_server(ONE_THREAD, "--threads", "1"), our_server(TWO_WORKERS, "--workers", "2")
    for contender in other_servers:
        race.start(contender)
    yield from load(WORKERS, CLIENT_COUNTS[-1], 1)(race)
    for name, server in race.running.items():
        yield race.row(WORKERS, name, "pss_mb", [server.pss_mb()])
    for contender in other_servers:
        race.running.pop(contender.name).close()


def apis(race: Race[Server]) -> Iterator[Row]:
    """Measure the three APIs of one server."""
    server, other_names = race.running[OURS], APIS.keys() - {OURS}
    for name in sorted(other_names):
        race.running[name] = copy.copy(server)  # the same server by another name
        race.running[name].contender = dataclasses.replace(server.contender, name=name)
    for size in (1, 32):
        yield from load(f"server, APIs, {REQUESTS[size]}", CLIENTS, size, APIS, target_precision=0.003)(race)
    for name in other_names:
        race.running.pop(name)


SERVING = {f"server, {name}": load(f"server, {name}", CLIENTS, size) for size, name in REQUESTS.items()}
SERVING |= {
    f"server, {clients} clients": load(f"server, {clients} clients", clients, 1) for clients in CLIENT_COUNTS
}
OUR_SERVER = {WORKERS: workers, "server, APIs": apis}  # benchmarks of ov_minilm alone
