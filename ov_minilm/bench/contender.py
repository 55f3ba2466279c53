"""Contenders as processes: started once, asked in turn, never mixed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ov_minilm.bench.workload import write
from ov_minilm.spec import FloatArray

WORKER = Path(__file__).with_name("worker.py")
OURS = Path(__file__).with_name("ours.py")
PATIENCE = 120.0  # seconds for one answer: the slowest peer needs a third of it


class ContenderFailed(Exception):
    """A contender could not start, answered with an error, or died; the message is one line."""


@dataclass(frozen=True, slots=True)
class Contender:
    """How to start one contender, and what to call it."""

    name: str  # "int8", "sentence_transformers/torch"
    title: str
    command: tuple[str, ...]  # starts a process that speaks the protocol of worker.py
    variant: str
    models: dict[str, str] = field(default_factory=dict)  # files it may read, by what they are
    environment: dict[str, str] = field(default_factory=dict)


def ours(variant: str, title: str, models: dict[str, str]) -> Contender:
    """Describe one way to run an artefact of this package, in this interpreter."""
    return Contender(variant, title, (sys.executable, "-I", str(WORKER), str(OURS)), variant, models)


class Process:
    """A running contender that has loaded its model. Also a context manager."""

    def __init__(self, contender: Contender, threads: int) -> None:
        """Start and load.

        Raises:
            ContenderFailed: it does not start, or cannot load its model.
        """
        self.contender = contender
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
        self._process = subprocess.Popen(
            contender.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            env={**os.environ, **limits, **contender.environment},
            start_new_session=True,  # Ctrl-C is for us: we end them
        )
        try:
            self.loaded = self.ask(
                {"do": "load", "variant": contender.variant, "models": contender.models, "threads": threads}
            )
        except BaseException:
            self.close()
            raise

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Raises:
            ContenderFailed: the answer is an error, or none came.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        watchdog = threading.Timer(PATIENCE, end)
        watchdog.daemon = True  # an interrupt while it starts must not keep the interpreter for its time
        try:
            watchdog.start()
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watchdog.cancel()
        if late.is_set():
            raise ContenderFailed(f"{self.contender.name}: no answer to {request['do']} in {PATIENCE:.0f} s")
        if not line:
            raise ContenderFailed(f"{self.contender.name}: the process ended: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContenderFailed(f"{self.contender.name}: {' '.join(answer['error'].split())}")
        return answer

    def encode(self, texts: Sequence[str]) -> FloatArray:  # -> [N, D]
        """Encode a list that was not written to a file yet."""
        with tempfile.TemporaryDirectory() as folder:
            return self.vectors(write(texts, Path(folder) / "texts.json"))

    def vectors(self, path: str) -> FloatArray:  # -> [N, D]
        """Encode the list in a file."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "vectors.f32"
            shape = self.ask({"do": "vectors", "texts": path, "out": str(out)})["shape"]
            vectors: FloatArray = np.fromfile(out, "<f4").reshape(shape)
        return vectors

    def close(self) -> None:
        """End the process, whatever it is doing: it holds nothing worth keeping."""
        self._process.kill()
        with self._process:  # closes the pipes and waits
            pass
        self._log.close()

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = [line.strip() for line in self._log.readlines() if line.strip()]
        return f"{lines[-1] if lines else 'it said nothing'} (exit code {code})"

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
