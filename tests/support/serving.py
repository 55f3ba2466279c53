"""A real server process on a free port, and clients that send and receive raw bytes."""

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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

KEY = "a-key"  # of the server `keyed_server`
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
needs_two_cpus = pytest.mark.skipif(CPUS < 2, reason="workers need Linux and two CPUs")


def request_bytes(body: bytes, *headers: str) -> bytes:
    """Return the bytes of a POST request to /v1/embeddings."""
    lines = ["POST /v1/embeddings HTTP/1.1", "host: x", "content-type: application/json", *headers]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


def cl100k_folder() -> Path:
    """Return the folder with OpenAI's vocabulary cl100k, as tiktoken stores it; it comes with litellm."""
    litellm = find_spec("litellm")
    if litellm is None or litellm.origin is None:
        pytest.skip("litellm is not installed: pip install -e '.[clients]'")
    return Path(litellm.origin).parent / "litellm_core_utils/tokenizers"


@dataclass
class Running:
    """A server that is ready."""

    process: subprocess.Popen[str]
    url: str = ""  # http://127.0.0.1:PORT
    lines: list[str] = field(default_factory=list)  # lines of the log so far

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(signal_number)
        return self.process.wait(60)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the server."""
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def connect(self) -> socket.socket:
        """Return a connection to the server."""
        return socket.create_connection(self.address, timeout=50)

    def talk(self, *pieces: bytes) -> bytes:
        """Send pieces one after the other; return all bytes until the server closes the connection."""
        with self.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                connection.sendall(piece)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def get(self, path: str, key: str = "", body: bytes | None = None) -> tuple[int, str]:
        """GET a page, or POST a body of JSON; return the status and the body."""
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        request = urllib.request.Request(self.url + path, body, headers)  # noqa: S310  # our own server
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self, name: str, key: str = "") -> list[float]:
        """Return the values of the metrics whose name matches a pattern."""
        return [*map(float, re.findall(rf"^{name} (\S+)$", self.get("/metrics", key)[1], re.MULTILINE))]


async def keep_asking(
    server: Running, text: str, ended: asyncio.Event, *headers: str, until_refused: bool = False
) -> tuple[list[object], list[Any]]:
    """Ask for a text's vector on new connections, one by one; return the failures and the vectors.

    It stops at the event `ended`; with `until_refused`, when the server then refuses connections.
    """
    failures: list[object] = []
    vectors: list[Any] = []
    body = request_bytes(json.dumps({"input": text}).encode(), *headers)
    while until_refused or not ended.is_set():
        try:
            reader, writer = await asyncio.open_connection(*server.address)
        except OSError as error:
            return failures if ended.is_set() else [*failures, error], vectors
        head = b""
        try:
            while b"connection: close" not in head and (until_refused or not ended.is_set()):
                writer.write(body)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                answer = json.loads(await reader.readexactly(length))
                if head.startswith(b"HTTP/1.1 200"):
                    vectors.append(answer["data"][0]["embedding"])
                else:
                    failures.append(answer)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            failures.append(error)
        finally:
            writer.close()
    return failures, vectors


@contextmanager
def running(*options: str, **environment: str) -> Iterator[Running]:
    """Start `ov-minilm serve` and wait until its log says that it is ready."""
    command = [sys.executable, "-m", "ov_minilm", "serve", "--port", "0", "--no-warm-up", *options]
    ready = threading.Event()

    def read_log() -> None:
        for line in process.stderr or ():
            server.lines.append(line)
            if match := re.search(r"ready: (http://\S+)/v1 ", line):
                server.url = match[1]
                ready.set()
        ready.set()

    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    ) as process:
        server = Running(process)
        reader = threading.Thread(target=read_log)
        reader.start()
        try:
            assert ready.wait(120), "the server logs nothing"
            assert server.url, "".join(server.lines)
            yield server
        finally:
            process.terminate()  # if the server still runs
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
            reader.join(60)
