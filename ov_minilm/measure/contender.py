"""Contenders: each library or configuration runs in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ov_minilm.measure import machine
from ov_minilm.measure.row import FP32, OURS
from ov_minilm.spec import FloatArray

WORKER = Path(__file__).with_name("worker.py")
ADAPTER = Path(__file__).with_name("ours.py")
ANSWER_TIMEOUT_S = 300.0  # chromadb, the slowest library, needs 100 s: it pads every text to 256 tokens


class ContenderFailed(Exception):
    """A contender could not start, answered with an error, or ended; the message is one line."""


@dataclass(frozen=True, slots=True)
class Contender:
    """How to start one contender, and its names."""

    name: str  # name in rows and pictures
    title: str
    command: tuple[str, ...]  # command that starts a process with the protocol of worker.py
    variant: str
    models: dict[str, str] = field(default_factory=dict)  # kind of file or folder -> its path
    environment: dict[str, str] = field(default_factory=dict)


def ours(model: Path | None, reference: Path | None) -> list[Contender]:
    """List this package's contenders: the artefact, each lowering of it, and its FP32 reference if given."""
    command = (sys.executable, "-m", "ov_minilm.measure.worker", str(ADAPTER))
    folder = {"model": str(model or "")}
    variants = {OURS: "int8", f"{OURS} native": "native", f"{OURS} conv": "conv"}
    contenders = [Contender(name, name, command, variant, folder) for name, variant in variants.items()]
    if reference:
        contenders.append(Contender(FP32, FP32, command, "fp32", {"model": str(reference)}))
    return contenders


class Process:
    """A running contender that has loaded its model. As a context manager, it ends the process."""

    def __init__(self, contender: Contender, threads: int) -> None:
        """Start and load. ContenderFailed: the process does not start, or cannot load its model."""
        self.contender = contender
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
        started = time.perf_counter()
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log}
        environment = {**os.environ, **limits, **contender.environment}
        self._process = (
            # in its own session: Ctrl-C reaches only the parent, which then ends the contender
            subprocess.Popen(
                contender.command, **pipes, encoding="utf-8", env=environment, start_new_session=True
            )
        )
        try:
            models = contender.models
            loaded = self.ask("load", variant=contender.variant, models=models, threads=threads)
        except BaseException:
            self.close()
            raise
        self.versions: dict[str, str] = loaded["versions"]
        self.first_vector_s = time.perf_counter() - started  # seconds from the start of the process

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Send one request of worker.py and wait for its answer.

        ContenderFailed: the answer is an error, or no answer came.
        """
        assert self._process.stdin and self._process.stdout  # noqa: PT018  # both are pipes
        started = time.perf_counter()
        watchdog = threading.Timer(ANSWER_TIMEOUT_S, self._process.kill)
        # without this, the interpreter would wait for the timer after an interrupt
        watchdog.daemon = True
        try:
            watchdog.start()
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watchdog.cancel()
        if not line and time.perf_counter() - started >= ANSWER_TIMEOUT_S:
            raise ContenderFailed(f"{self.contender.name}: no answer to {do} in {ANSWER_TIMEOUT_S:.0f} s")
        if not line:
            raise ContenderFailed(f"{self.contender.name}: the process ended: {self._last_log_line()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContenderFailed(f"{self.contender.name}: {' '.join(answer['error'].split())}")
        return answer

    def vectors(self, path: str) -> FloatArray:  # -> [N, D]
        """Return the vectors of the texts in a file."""
        return np.array(self.ask("vectors", texts=path)["vectors"], np.float32)

    def memory_mb(self, name: str) -> float:
        """Return resident memory in MB: VmRSS is the current value, VmHWM the peak."""
        return machine.memory_mb(name, self._process.pid)

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        with self._process:  # leaving the context closes the pipes and waits
            pass
        self._log.close()

    def _last_log_line(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = [line.strip() for line in self._log.readlines() if line.strip()]
        return f"{lines[-1] if lines else 'no output'} (exit code {code})"

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
