"""Bulk jobs, Parquet to Parquet, as processes; and memory by budget.

The rate is that of the texts between a small job and a large one: neither start-up nor compiling is in it.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ov_minilm.measure import machine
from ov_minilm.measure.benchmarks import Benchmark
from ov_minilm.measure.contender import Process
from ov_minilm.measure.race import Race
from ov_minilm.measure.row import OURS, Row

WAYS = {  # name -> options of `ov-minilm encode`
    OURS: (),
    f"{OURS} 1 thread": ("--threads", "1"),
    f"{OURS} Ray, 2 actors": ("--engine", "ray", "--threads", "1", "--actors", "2"),
}
ROUNDS = 3
SMALL = 5  # a fifth of the large job
BUDGETS_MB = (200, 300, 500, 1000)


def parquet(count: int, workload: str) -> Benchmark:
    """Return the benchmark of a job with this many texts of a workload."""

    def benchmark(race: Race[Process]) -> Iterator[Row]:
        rates: dict[str, list[float]] = {name: [] for name in WAYS}
        peaks: dict[str, list[float]] = {name: [] for name in WAYS}
        with tempfile.TemporaryDirectory() as folder:
            texts = race.texts.make(workload, count)
            mean_tokens = statistics.mean(map(race.texts.tokens, texts))
            files = [table(Path(folder, f"{n}.parquet"), texts[:n]) for n in (count // SMALL, count)]
            for _ in range(ROUNDS):
                for name, options in WAYS.items():
                    (few, _), (many, peak) = (job(file, options) for file in files)
                    rates[name].append((count - count // SMALL) / (many - few))
                    peaks[name].append(peak)
        for name in WAYS:
            yield race.row(f"Parquet to Parquet, {workload}", name, "texts_per_s", rates[name])
            tokens = [rate * mean_tokens for rate in rates[name]]
            yield race.row(f"Parquet to Parquet, {workload}", name, "tokens_per_s", tokens)
            yield race.row(f"Parquet to Parquet, {workload}", name, "peak_mb", peaks[name])

    return benchmark


def table(path: Path, texts: list[str]) -> Path:
    """Write texts as Parquet."""
    pq.write_table(pa.table({"text": texts}), path)
    return path


def job(source: Path, options: tuple[str, ...]) -> tuple[float, float]:
    """Run a job; return its seconds, and its process's peak memory in MB."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        command = [sys.executable, "-m", "ov_minilm", "encode", str(source), "-o", f"{folder}/out", *options]
        started, peak = time.perf_counter(), 0.0
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
        log = Path(folder, "log")
        with log.open("wb") as out, subprocess.Popen(command, stderr=out, env=environment) as process:
            while process.poll() is None:
                try:
                    peak = max(peak, machine.memory_mb("VmHWM", process.pid))
                except (OSError, StopIteration):  # it has just ended
                    break
                time.sleep(0.05)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: {log.read_text(errors='replace')[-500:]}")
        return time.perf_counter() - started, peak


def memory_budget(race: Race[Process]) -> Iterator[Row]:
    """Peak memory and speed on a mix, for several budgets of `Embedder.open(memory_mb=…)`."""
    paths = [race.file(name) for name in ("query", "sentences", "chunks", "mix")]
    count = len(race.texts.make("mix"))
    contender = race.running[OURS].contender
    for budget in BUDGETS_MB:
        models = contender.models | {"memory_mb": str(budget)}
        peaks, rates = [], []
        for _ in range(ROUNDS):
            with Process(dataclasses.replace(contender, models=models), race.threads) as process:
                for path in paths:
                    process.ask("time", texts=path)
                seconds = min(process.ask("time", texts=paths[-1])["seconds"][0] for _ in range(3))
                rates.append(count / seconds)
                peaks.append(process.memory_mb("VmHWM"))
        yield race.row(f"memory budget, {budget} MB", OURS, "peak_mb", peaks)
        yield race.row(f"memory budget, {budget} MB", OURS, "texts_per_s", rates)
