"""A real server process for tests, on a port of its own, and its bytes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
needs_two_cpus = pytest.mark.skipif(CPUS < 2, reason="workers need Linux and two CPUs")


def request_bytes(body: bytes, *headers: str) -> bytes:
    """Return POST /v1/embeddings as it is sent."""
    lines = ["POST /v1/embeddings HTTP/1.1", "host: x", "content-type: application/json", *headers]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


@dataclass
class Running:
    """A server that is ready."""

    process: subprocess.Popen[str]
    url: str = ""  # http://127.0.0.1:PORT
    lines: list[str] = field(default_factory=list)  # of its log so far

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the server by a signal and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    @property
    def address(self) -> tuple[str, int]:
        """Its host and port."""
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def connect(self) -> socket.socket:
        """Return a connection to it."""
        return socket.create_connection(self.address, timeout=50)

    def talk(self, *pieces: bytes) -> bytes:
        """Send pieces one after the other; return what comes until the server closes the connection."""
        with self.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                connection.sendall(piece)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def get(self, path: str, key: str = "", body: bytes | None = None) -> tuple[int, str]:
        """Ask for a page, or post a body of JSON; return status and body."""
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        request = urllib.request.Request(self.url + path, body, headers)  # noqa: S310  # our own server
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def figures(self, name: str, key: str = "") -> list[float]:
        """Return the metrics whose name fits a pattern."""
        found = re.findall(rf"^{name} (\S+)$", self.get("/metrics", key)[1], re.MULTILINE)
        return [float(one) for one in found]


async def keep_asking(
    server: Running, text: str, ended: asyncio.Event, *headers: str, until_refused: bool = False
) -> tuple[list[object], list[Any]]:
    """Ask for the vector of a text on one connection after another; return what went wrong, and the vectors.

    Ends with `ended`, or with `until_refused` when no connection can be had after it.
    """
    wrong: list[object] = []
    vectors: list[Any] = []
    body = request_bytes(json.dumps({"input": text}).encode(), *headers)
    while until_refused or not ended.is_set():
        try:
            reader, writer = await asyncio.open_connection(*server.address)
        except OSError as error:
            return ([*wrong, *([] if ended.is_set() else [error])]), vectors
        head = b""
        try:
            while b"connection: close" not in head and (until_refused or not ended.is_set()):
                writer.write(body)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                found = json.loads(await reader.readexactly(length))
                if head.startswith(b"HTTP/1.1 200"):
                    vectors.append(found["data"][0]["embedding"])
                else:
                    wrong.append(found)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            wrong.append(error)
        finally:
            writer.close()
    return wrong, vectors


@contextmanager
def running(*options: str, **environment: str) -> Iterator[Running]:
    """Start `ov-minilm serve` and wait for the line that says it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ov_minilm", "serve", "--port", "0", "--no-warm-up", *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    server = Running(process)
    ready = threading.Event()

    def listen() -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                server.lines.append(line)
                if found := re.search(r"ready: (http://\S+)/v1 ", line):
                    server.url = found[1]
                    ready.set()
        ready.set()

    reader = threading.Thread(target=listen)
    reader.start()
    try:
        assert ready.wait(120), "the server says nothing"
        assert server.url, "".join(server.lines)
        yield server
    finally:
        process.terminate()  # if it runs
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(60)
        reader.join(60)
