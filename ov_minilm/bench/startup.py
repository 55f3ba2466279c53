"""What a new process pays before its first vector, and what more threads give."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ov_minilm.bench.contender import Contender, Process
from ov_minilm.bench.workload import write
from ov_minilm.runtime.embedder import Embedder

CODE = {
    "interpreter": "pass",
    "import_package": "import ov_minilm",
    "import_encode": "from ov_minilm import encode",
    "first_vector": "from ov_minilm import encode; encode('one text')",
}


def startup(rounds: int = 5) -> dict[str, float]:
    """Seconds of new interpreters from start to exit, in turn; medians."""
    runs: dict[str, list[float]] = {name: [] for name in CODE}
    for _ in range(rounds):
        for name, line in CODE.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", line], check=True)
            runs[name].append(time.perf_counter() - started)
    return {f"{name}_s": round(statistics.median(seconds), 3) for name, seconds in runs.items()}


def compile_seconds(model: Path | None, threads: int) -> dict[str, float]:
    """Seconds to compile each grid of an artefact: what the first text of that length waits for."""
    found = {}
    with Embedder.open(model, threads=threads) as embedder:
        for tokens in sorted({int(grid.split("x")[1]) for grid in embedder.info.grids}):
            text = " ".join(["word"] * (tokens - 2))
            started = time.perf_counter()
            embedder.encode(text)
            first = time.perf_counter() - started
            started = time.perf_counter()
            embedder.encode(text)
            found[f"1x{tokens}"] = round(first - (time.perf_counter() - started), 3)
    return found


def scaling(contender: Contender, texts: Sequence[str], threads: int, folder: Path) -> dict[str, Any]:
    """Texts a second with 1, 2, 4, … threads, each in a process of its own: best of three."""
    path = write(texts, folder / "scaling.json")
    found = {}
    counts = sorted({*(2**k for k in range(threads.bit_length())), threads})
    for count in counts:
        with Process(contender, count) as process:
            process.ask({"do": "time", "texts": path, "calls": 1})
            seconds = min(process.ask({"do": "time", "texts": path, "calls": 3})["seconds"])
        rate = len(texts) / seconds
        found[str(count)] = {"texts_per_s": round(rate, 1), "per_thread": round(rate / count, 1)}
    return found
