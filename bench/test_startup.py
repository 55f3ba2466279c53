"""What a new process pays: import, model, first vector, memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ov_minilm import Embedder, cpus
from ov_minilm.bench.contender import Process, ours
from ov_minilm.bench.startup import CODE
from ov_minilm.bench.workload import Workloads, write


@pytest.mark.parametrize("what", CODE)
def test_new_process(benchmark: Any, what: str) -> None:
    """A new interpreter gets this far and ends."""
    benchmark.group = "new process"

    benchmark.pedantic(subprocess.run, ([sys.executable, "-c", CODE[what]],), {"check": True}, rounds=5)


@pytest.mark.parametrize("tokens", [16, 64, 256])
def test_compile(benchmark: Any, texts: Workloads, tokens: int) -> None:
    """A text of another length waits once for its grid to be compiled."""
    benchmark.group = "open and compile"

    def first_vector() -> None:
        with Embedder.open() as embedder:
            embedder.encode(texts.single[tokens])

    benchmark.pedantic(first_vector, rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("weights", ["int8", "fp32"])
def test_memory(benchmark: Any, fp32_folder: Path, texts: Workloads, tmp_path: Path, weights: str) -> None:
    """A process that encodes a thousand short texts and a hundred long ones; its peak is in extra_info."""
    benchmark.group = "memory"
    contender = ours(weights, weights, {"int8": "", "fp32": str(fp32_folder)})
    lists = [write(texts.bulk[name].texts, tmp_path / f"{name}.json") for name in ("short", "long")]

    def whole_life() -> float:
        with Process(contender, cpus.granted()) as process:
            for path in lists:
                process.ask({"do": "time", "texts": path, "calls": 1})
            return float(process.ask({"do": "memory"})["peak_mb"])

    peak = benchmark.pedantic(whole_life, rounds=2)
    benchmark.extra_info["peak_mb"] = peak
    assert peak > 0
