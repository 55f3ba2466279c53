"""A real server process for tests, on a port of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
needs_two_cpus = pytest.mark.skipif(CPUS < 2, reason="workers need Linux and two CPUs")


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
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        assert process.stderr is not None
        process.stderr.close()
