"""Run the command line or other code in a new process, and wait for what other processes bring about."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path

from ov_minilm.cli import main


def run(
    *arguments: str | Path, text: bytes = b"", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run `python -m ov_minilm` in a new process, as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "ov_minilm", *map(str, arguments)],
        input=text,
        capture_output=True,
        env={**os.environ, **(environment or {})},
        check=False,
    )


def here(*arguments: str | Path, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command line in this process: for what ends before any work begins.

    Its streams are files, for the system is asked what they are.
    """
    before = sys.argv, sys.stdin, warnings.showwarning, signal.getsignal(signal.SIGTERM)
    code: str | int | None = 0
    with contextlib.ExitStack() as stack:
        streams = (tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(3))  # noqa: SIM115  # closed by stack
        given, out, err = map(stack.enter_context, streams)
        given.buffer.write(text)
        given.seek(0)
        try:
            sys.argv, sys.stdin = ["ov-minilm", *map(str, arguments)], given
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main()
        except SystemExit as done:
            code = done.code
        finally:
            sys.argv, sys.stdin, warnings.showwarning, _ = before
            signal.signal(signal.SIGTERM, before[-1])
        assert isinstance(code, int)
        said = []
        for stream in (out, err):
            stream.flush()
            stream.seek(0)
            said.append(stream.read().encode())
        return subprocess.CompletedProcess(arguments, code, *said)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter; warnings are errors there too."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for something that other threads or processes bring about."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.005)  # what is waited for cannot wake this thread


def left_by_twenty(call: Callable[[], Awaitable[object]]) -> int:
    """Await a call twenty times and return how many objects are left to the garbage collector."""

    async def scenario() -> int:
        await call()
        gc.collect()
        for _ in range(20):
            await call()
        await asyncio.sleep(0.05)  # the scheduler's thread lets go of the last batch
        return gc.collect()

    gc.disable()
    try:
        return asyncio.run(scenario())
    finally:
        gc.enable()
