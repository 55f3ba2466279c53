"""Run the command line or other code in a process, and wait for other threads and processes."""

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
    command, variables = (
        [sys.executable, "-m", "ov_minilm", *map(str, arguments)],
        os.environ | (environment or {}),
    )
    return subprocess.run(command, input=text, capture_output=True, env=variables, check=False)


def run_inline(*arguments: str | Path, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command line in this process, to save the start of a new one.

    Its streams are files, because the command line asks the system about them.
    """
    originals = sys.argv, sys.stdin, warnings.showwarning, signal.getsignal(signal.SIGTERM)
    code: str | int | None = 0
    with contextlib.ExitStack() as stack:
        streams = (tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(3))  # noqa: SIM115
        stdin, *outputs = map(stack.enter_context, streams)
        stdin.buffer.write(text)
        stdin.seek(0)
        try:
            sys.argv, sys.stdin = ["ov-minilm", *map(str, arguments)], stdin
            with contextlib.redirect_stdout(outputs[0]), contextlib.redirect_stderr(outputs[1]):
                main()
        except SystemExit as done:
            code = done.code
        finally:
            sys.argv, sys.stdin, warnings.showwarning, _ = originals
            signal.signal(signal.SIGTERM, originals[-1])
        assert isinstance(code, int)
        for stream in outputs:
            stream.seek(0)  # also flushes the stream
        return subprocess.CompletedProcess(arguments, code, *(stream.read().encode() for stream in outputs))


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter; warnings are errors there too."""
    command, variables = [sys.executable, "-W", "error", "-c", code], os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, env=variables, check=False)


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until a function returns true; fail after this many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)  # polls, because another process cannot wake this thread


def objects_left_by_20(call: Callable[[], Awaitable[object]]) -> int:
    """Await a call twenty times; return the number of objects that only the garbage collector frees."""

    async def scenario() -> int:
        await call()
        gc.collect()
        for _ in range(20):
            await call()
        await asyncio.sleep(0.05)  # by then the scheduler's thread has released the last batch
        return gc.collect()

    gc.disable()
    try:
        return asyncio.run(scenario())
    finally:
        gc.enable()
