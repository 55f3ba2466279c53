"""Runs one contender in its own process; reads requests and writes answers as JSON lines.

`python -I worker.py ADAPTER.py` runs in any environment that has numpy; it does not import ov_minilm.
ADAPTER.py must define the first three of the following names, and may define the others:

    load(variant: str, models: dict[str, str], threads: int) -> Encode
        Return a function from texts to vectors [N, D] in the order of the texts.
    BATCHES: batch sizes to try; () if the contender forms its own batches. `Encode` takes (texts, batch).
    SORTED: True if the worker sorts texts by length and splits them; `Encode` gets one batch at a time.
    CONCURRENT: True if threads may call `Encode` at the same time. Otherwise callers wait for a lock.
    prepare(models: dict[str, str]): make the model files that `load` reads, in the folders `models` names.
    versions(variant: str) -> dict[str, str]: names and versions of libraries, and the precision used.

Each request and each answer is one line. The answer is {"error": ...} if the request failed. FILE is a JSON
list of texts:

    {"do": "prepare", "models": {...}}
    {"do": "load", "variant": ..., "models": {...}, "threads": ...}   -> {"versions"}
    {"do": "tune", "texts": FILE, "first": N}     -> {"batch"}: fastest for N texts; used from then on
    {"do": "time", "texts": FILE}                 -> {"seconds": [one call with the list]}
    {"do": "each", "texts": FILE}                 -> {"seconds": [a call for each text]}
    {"do": "callers", "texts": FILE, "callers": THREADS} -> {"wall", "seconds": [a call for each text]}
    {"do": "during_list", "texts": FILE, "list": FILE} -> {"texts_per_s", "seconds"}, beside the list
    {"do": "vectors", "texts": FILE}              -> {"vectors": N lists of D numbers}
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

HEAD_START_S = 0.05  # the list runs for this time before the first single text
MAX_DURING_LIST_S = 2.0  # after this time, no further single text is encoded beside the list


class Worker:
    """Answers requests by calling one adapter."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter
        self._encode: Callable[..., Any] | None = None
        self._batches: dict[str, int] = {}
        self._lists: dict[str, list[str]] = {}
        self._encode_lock: Any = nullcontext() if getattr(adapter, "CONCURRENT", False) else threading.Lock()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request: {"do": "load"} calls `do_load` with the other fields."""
        found: dict[str, Any] = getattr(self, f"do_{request.pop('do')}")(**request)
        return found

    def do_prepare(self, models: dict[str, str]) -> dict[str, Any]:
        """Make model files."""
        self._adapter.prepare(models)
        return {}

    def do_load(self, variant: str, models: dict[str, str], threads: int) -> dict[str, Any]:
        """Load the model, and encode one text."""
        self._encode = self._adapter.load(variant, models, threads)
        self._run(["one text"], "")
        return {"versions": self._adapter.versions(variant) if hasattr(self._adapter, "versions") else {}}

    def do_tune(self, texts: str, first: int) -> dict[str, Any]:
        """Find the fastest batch size for a list, unless it is known already."""
        if texts in self._batches:
            return {"batch": self._batches[texts]}
        items = self._read(texts)[:first]
        seconds = {}
        for batch in self._adapter.BATCHES:
            self._batches[texts] = batch
            self._run(items[:batch], texts)  # warm-up: some libraries allocate memory for each new shape
            seconds[batch] = self._timed(items, texts)
        if seconds:
            self._batches[texts] = min(seconds, key=lambda batch: seconds[batch])
        return {"batch": self._batches.get(texts, 0)}

    def do_time(self, texts: str) -> dict[str, Any]:
        """Encode a list in one call."""
        return {"seconds": [self._timed(self._read(texts), texts)]}

    def do_each(self, texts: str) -> dict[str, Any]:
        """Encode the texts one by one, each in a call of its own."""
        return {"seconds": [self._timed([text], texts) for text in self._read(texts)]}

    def do_callers(self, texts: str, callers: int) -> dict[str, Any]:
        """Encode from many threads at once, one text per call."""
        items = self._read(texts)

        def call(part: list[str]) -> list[float]:
            return [self._timed([text], texts) for text in part]

        with ThreadPoolExecutor(callers) as pool:
            started = time.perf_counter()
            parts = list(pool.map(call, [items[i::callers] for i in range(callers)]))
            wall = time.perf_counter() - started
        return {"wall": wall, "seconds": [second for part in parts for second in part]}

    def do_during_list(self, texts: str, list: str) -> dict[str, Any]:  # noqa: A002  # named by the protocol
        """Encode single texts while a list is encoded."""
        items, finished = self._read(list), threading.Event()

        def bulk() -> int:
            count = 0
            while not finished.is_set():
                self._timed(items, list)
                count += len(items)
            return count

        with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
            stack.callback(finished.set)
            started = time.perf_counter()
            future = pool.submit(bulk)
            time.sleep(HEAD_START_S)
            seconds: Any = []
            for text in self._read(texts):
                seconds.append(self._timed([text], texts))
                if time.perf_counter() - started > MAX_DURING_LIST_S:
                    break
            finished.set()
            return {"seconds": seconds, "texts_per_s": future.result() / (time.perf_counter() - started)}

    def do_vectors(self, texts: str) -> dict[str, Any]:
        """Return the vectors of a list."""
        return {"vectors": self._run(self._read(texts), texts).tolist()}

    def _timed(self, texts: list[str], path: str) -> float:
        started = time.perf_counter()
        with self._encode_lock:
            self._run(texts, path)
        return time.perf_counter() - started

    def _run(self, texts: list[str], path: str) -> Any:
        """Encode with the batch size that was found for the list in `path`."""
        assert self._encode is not None, "load comes first"
        batch = self._batches.get(path, self._adapter.BATCHES[0] if self._adapter.BATCHES else 0)
        if not self._adapter.SORTED:
            return np.asarray(self._encode(texts, batch))
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        starts = range(0, len(order), batch)
        parts = [np.asarray(self._encode([texts[i] for i in order[s : s + batch]])) for s in starts]
        vectors = np.concatenate(parts)
        out = np.empty_like(vectors)
        out[order] = vectors
        return out

    def _read(self, path: str) -> list[str]:
        if path not in self._lists:
            self._lists[path] = json.loads(Path(path).read_text(encoding="utf-8"))
        return self._lists[path]


def main() -> None:
    """Serve requests until stdin closes. Only answers go to stdout: what libraries print goes to stderr."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    worker = Worker(SimpleNamespace(**runpy.run_path(sys.argv[1], run_name="adapter")))
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # a library may raise any exception, which becomes the answer
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
