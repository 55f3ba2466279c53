"""One contender in a process of its own: JSON lines in, JSON lines out.

Runs in any environment that has numpy; nothing of ov_minilm is imported here. Started as

    python -I worker.py ADAPTER.py

where ADAPTER.py defines

    def load(variant: str, models: dict[str, str], threads: int) -> Encode
        Return a function from texts to vectors [N, D] in the order of the texts.
    BATCHES: tuple[int, ...]
        Batch sizes worth trying; () if the contender forms its own batches. `Encode` takes (texts, batch).
    SORTED: bool
        True: the worker sorts texts by length and cuts them into batches; `Encode` then gets one batch.

and optionally

    def prepare(models: dict[str, str]) -> None
        Make the model files that `load` reads, in the folders that `models` names.
    def facts(variant: str) -> dict[str, str]
        Versions, and the precision that really ran.

Requests, one a line, each answered by one line, {"error": ...} if it failed:

    {"do": "prepare", "models": {...}}
    {"do": "load", "variant": ..., "models": {...}, "threads": ...}   -> {"seconds", "facts"}
    {"do": "tune", "texts": FILE, "first": N}                          -> {"batch"}
    {"do": "time", "texts": FILE, "calls": N}                          -> {"seconds": [...]}
    {"do": "vectors", "texts": FILE, "out": FILE}                      -> {"shape": [N, D]}
    {"do": "memory"}                                                   -> {"peak_mb", "now_mb"}

FILE is a JSON list of texts; vectors are raw little-endian float32. `time` encodes the list `calls` times and
gives the seconds of each call. `tune` finds the batch size that is fastest for the first texts of a list and
keeps it for the whole list.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class Worker:
    """Answers requests with one adapter."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter
        self._encode: Callable[..., Any] | None = None
        self._variant = ""
        self._batches: dict[str, int] = {}
        self._lists: dict[str, list[str]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what one request asks."""
        answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "prepare": self._prepare,
            "load": self._load,
            "tune": self._tune,
            "time": self._time,
            "vectors": self._vectors,
            "memory": lambda _: memory(),
        }
        return answers[request["do"]](request)

    def _prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        self._adapter.prepare(request["models"])
        return {}

    def _load(self, request: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        self._variant = request["variant"]
        self._encode = self._adapter.load(self._variant, request["models"], request["threads"])
        self._run(["one text"], self._default())
        facts = self._adapter.facts(self._variant) if hasattr(self._adapter, "facts") else {}
        return {"seconds": time.perf_counter() - started, "facts": facts}

    def _tune(self, request: dict[str, Any]) -> dict[str, Any]:
        texts = self._read(request["texts"])[: request["first"]]
        seconds = {}
        for batch in self._adapter.BATCHES:
            self._run(texts[:batch], batch)  # warm: some allocate for each new shape
            runs = []
            for _ in range(2):
                started = time.perf_counter()
                self._run(texts, batch)
                runs.append(time.perf_counter() - started)
            seconds[batch] = min(runs)
        best = min(seconds, key=lambda batch: seconds[batch]) if seconds else 0
        self._batches[request["texts"]] = best
        return {"batch": best}

    def _time(self, request: dict[str, Any]) -> dict[str, Any]:
        texts = self._read(request["texts"])
        batch = self._batches.get(request["texts"], self._default())
        seconds = []
        for _ in range(request["calls"]):
            started = time.perf_counter()
            self._run(texts, batch)
            seconds.append(time.perf_counter() - started)
        return {"seconds": seconds}

    def _vectors(self, request: dict[str, Any]) -> dict[str, Any]:
        texts = self._read(request["texts"])
        vectors = self._run(texts, self._batches.get(request["texts"], self._default()))
        Path(request["out"]).write_bytes(vectors.astype("<f4").tobytes())
        return {"shape": list(vectors.shape)}

    def _run(self, texts: list[str], batch: int) -> Any:
        assert self._encode is not None, "load comes first"
        if not self._adapter.SORTED:
            return np.asarray(self._encode(texts, batch))
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        parts = [
            np.asarray(self._encode([texts[i] for i in order[start : start + batch]]))
            for start in range(0, len(order), batch)
        ]
        vectors = np.concatenate(parts)
        out = np.empty_like(vectors)
        out[order] = vectors
        return out

    def _default(self) -> int:
        return self._adapter.BATCHES[0] if self._adapter.BATCHES else 0

    def _read(self, path: str) -> list[str]:
        if path not in self._lists:
            self._lists[path] = json.loads(Path(path).read_text(encoding="utf-8"))
        return self._lists[path]


def memory() -> dict[str, float]:
    """Read peak and present resident memory in MB. ru_maxrss would start at the parent's, so not that."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        peak, now = (int(lines[key].split()[0]) * 1024 for key in ("VmHWM", "VmRSS"))
        return {"peak_mb": peak / 1e6, "now_mb": now / 1e6}
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_mb": peak / 1e6}  # macOS counts bytes


def main() -> None:
    """Serve requests until stdin closes. Only answers go to stdout: what libraries print goes to stderr."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    spec = importlib.util.spec_from_file_location("adapter", sys.argv[1])
    assert spec is not None
    assert spec.loader is not None
    adapter = importlib.util.module_from_spec(spec)
    sys.modules["adapter"] = adapter  # dataclasses look their module up
    spec.loader.exec_module(adapter)
    worker = Worker(adapter)
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # whatever a foreign library raises is this line's answer
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
