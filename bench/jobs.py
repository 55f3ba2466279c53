"""Benchmarks of bulk jobs from Parquet to Parquet, of repeated texts, and of memory budgets.

Rates are computed from the times at which shards were written, so they leave out the start.
"""

from __future__ import annotations

import dataclasses
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ov_minilm.measure import machine
from ov_minilm.measure.benchmarks import Benchmark
from ov_minilm.measure.contender import Process
from ov_minilm.measure.race import Race, Values
from ov_minilm.measure.row import OURS, Row

ONE_THREAD, RAY, CACHED = f"{OURS} 1 thread", f"{OURS} Ray, 2 actors", f"{OURS} cache"
CONFIGURATIONS = {  # number of shards, options of `encode`
    OURS: (20, ()),
    ONE_THREAD: (8, ("--threads", "1")),
    RAY: (12, ("--engine", "ray", "--threads", "1", "--actors", "2")),
}
MAX_TEXTS = 80_000  # maximum of texts in jobs with one thread or with Ray, which are slow
SHARDS_PER_RATE = 2
ROUNDS = 3
CHANGE_EVERY = 100  # the second job with --reuse has every 100th text changed
REUSE_ROUNDS = {30_000: 3, 200_000: 1}  # number of texts in a job -> number of rounds
REUSE_STEPS = ("first job", "1 % changed")
REUSE = [f"{n:,} texts, {step}" for n in REUSE_ROUNDS for step in REUSE_STEPS]
MEMORY_BUDGETS_MB = (200, 300, 500, 1000)
CACHE_MB, ZIPF_TEXTS = 16, 10_000
ZIPF_QUERIES, ZIPF_ROUNDS = 200, 30  # number of queries in a round
# for texts without repeats: texts in a round, and maximum of rounds
TEXTS_PER_LIST, MAX_LISTS = 512, 100
ZIPF, NO_REPEATS = f"queries, Zipf over {ZIPF_TEXTS:,} texts", "sentences, no repeats"


@dataclass(frozen=True, slots=True)
class Job:
    """Time and memory of a job."""

    seconds: float
    peak_mb: float  # peak memory of the process
    written: list[float]  # modification times of the shards, ascending, in seconds


def parquet(count: int, workload: str) -> Benchmark:
    """Return the benchmark of jobs with up to this many texts of a workload."""

    def benchmark(race: Race[Process]) -> Iterator[Row]:
        name_prefix = f"Parquet to Parquet, {workload}"
        for name, (shards, options) in CONFIGURATIONS.items():
            # rows of a shard
            rows = (count if name == OURS else min(count, MAX_TEXTS)) // CONFIGURATIONS[OURS][0]
            texts = distinct_texts(race, workload, rows * shards)
            with tempfile.TemporaryDirectory() as folder:
                finished = run_job(
                    write_table(Path(folder, "in.parquet"), texts), "--rows-per-shard", str(rows), *options
                )
            # the shards before the first window are a warm-up
            ends = finished.written[SHARDS_PER_RATE - 1 :: SHARDS_PER_RATE]
            rates = [SHARDS_PER_RATE * rows / (end - start) for start, end in pairwise(ends)]
            tokens = statistics.mean(map(race.texts.tokens, texts))
            yield race.row(name_prefix, name, "texts_per_s", rates)
            yield race.row(name_prefix, name, "tokens_per_s", [rate * tokens for rate in rates])
            if name != RAY:
                yield race.row(name_prefix, name, "peak_mb", [finished.peak_mb])
            if name == OURS:
                for window, rate in enumerate(rates, 2):
                    yield race.row(
                        f"{name_prefix}, at {window * SHARDS_PER_RATE * rows}", name, "texts_per_s", [rate]
                    )

    return benchmark


def distinct_texts(race: Race[Process], workload: str, count: int) -> list[str]:
    """Return different texts, because a job computes equal texts once.

    Without shuffling, short texts would repeat.
    """
    rng = random.Random(workload)  # noqa: S311  # not for security
    words = (text.split() for text in race.texts.make(workload, count + count // 10))
    return list(dict.fromkeys(" ".join(rng.sample(found, len(found))) for found in words))[:count]


def write_table(path: Path, texts: list[str]) -> Path:
    """Write texts as Parquet."""
    pq.write_table(pa.table({"text": texts}), path)
    return path


def run_job(source: Path, *options: str) -> Job:
    """Run a job to its end."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        command = [sys.executable, "-m", "ov_minilm", "encode", str(source), "-o", f"{folder}/out", *options]
        started, peak = time.perf_counter(), 0.0
        environment, log = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}, Path(folder, "log")
        with log.open("wb") as out, subprocess.Popen(command, stderr=out, env=environment) as process:
            while process.poll() is None:
                try:
                    peak = max(peak, machine.memory_mb("VmHWM", process.pid))
                # the process has ended, so its memory cannot be read any more
                except (OSError, StopIteration):
                    break
                time.sleep(0.05)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: {log.read_text(errors='replace')[-500:]}")
        seconds = time.perf_counter() - started
        return Job(seconds, peak, sorted(p.stat().st_mtime for p in Path(folder, "out").glob("*.parquet")))


def reuse(race: Race[Process]) -> Iterator[Row]:
    """Time a job with `--reuse` as a percentage of a plain job, at first and after 1 % of texts changed."""
    rng = random.Random("changed")  # noqa: S311  # not for security
    for count, rounds in REUSE_ROUNDS.items():
        texts = distinct_texts(race, "sentences", count)
        changed = [text if n % CHANGE_EVERY else race.texts.text(20, rng) for n, text in enumerate(texts)]
        percentages = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                old_table = write_table(Path(folder, "before.parquet"), texts)
                new_table = write_table(Path(folder, "after.parquet"), changed)
                plain = run_job(old_table).seconds
                seconds_with_reuse = (
                    run_job(source, "--reuse", f"{folder}/kept").seconds for source in (old_table, new_table)
                )
                percentages.append([100 * seconds / plain for seconds in seconds_with_reuse])
        for step, values in zip(REUSE_STEPS, zip(*percentages, strict=True), strict=True):
            yield race.row(f"encode --reuse, {count:,} texts, {step}", OURS, "share", values)


def vector_cache(race: Race[Process]) -> Iterator[Row]:
    """Measure ov_minilm without and with `cache_mb`, on repeated queries and on texts without repeats."""
    models = {"model": "", "cache_mb": str(CACHE_MB)}
    race.start(dataclasses.replace(race.running[OURS].contender, name=CACHED, models=models))
    queries = distinct_texts(race, "query", ZIPF_TEXTS)
    pool = distinct_texts(race, "sentences", MAX_LISTS * TEXTS_PER_LIST)
    weights = [1 / rank for rank in range(1, ZIPF_TEXTS + 1)]
    rng, rounds_of = random.Random("zipf"), Counter[str]()  # noqa: S311

    def zipf(process: Process) -> Values:
        name = process.contender.name
        path = race.file(f"zipf {rounds_of[name]}", rng.choices(queries, weights, k=ZIPF_QUERIES))
        rounds_of[name] += 1
        return {"texts_per_s": ZIPF_QUERIES / sum(process.ask("each", texts=path)["seconds"])}

    def no_repeats(process: Process) -> Values:
        name = process.contender.name
        texts = pool[rounds_of[name] * TEXTS_PER_LIST :][:TEXTS_PER_LIST]
        path = race.file(f"no repeats {rounds_of[name]}", texts)
        rounds_of[name] += 1
        return {"texts_per_s": TEXTS_PER_LIST / process.ask("time", texts=path)["seconds"][0]}

    warm_up_texts = race.file("zipf", rng.choices(queries, weights, k=2 * ZIPF_TEXTS))
    race.each(lambda process: process.ask("time", texts=warm_up_texts))
    yield from race.rows(ZIPF, zipf, max_rounds=ZIPF_ROUNDS)
    rounds_of.clear()
    # one of MAX_LISTS rounds is the warm-up
    yield from race.rows(NO_REPEATS, no_repeats, target_precision=0, max_rounds=MAX_LISTS - 1)
    race.running.pop(CACHED).close()


def memory_budget(race: Race[Process]) -> Iterator[Row]:
    """Measure peak memory, time to the first vector and speed for several values of memory_mb."""
    paths = [race.file(name) for name in ("query", "sentences", "chunks", "mix")]
    count = len(race.texts.make("mix"))
    contender = race.running[OURS].contender
    for budget in MEMORY_BUDGETS_MB:
        models = contender.models | {"memory_mb": str(budget)}
        peaks, rates, starts, singles = [], [], [], []
        for _ in range(ROUNDS):
            with Process(dataclasses.replace(contender, models=models), race.threads) as process:
                for path in paths:
                    process.ask("time", texts=path)
                seconds = min(process.ask("time", texts=paths[-1])["seconds"][0] for _ in range(3))
                rates.append(count / seconds)
                starts.append(process.first_vector_s)
                singles.append(1000 * statistics.median(process.ask("each", texts=paths[0])["seconds"]))
                peaks.append(process.memory_mb("VmHWM"))
        yield race.row(f"memory budget, {budget} MB", OURS, "peak_mb", peaks)
        yield race.row(f"memory budget, {budget} MB", OURS, "texts_per_s", rates)
        yield race.row(f"memory budget, {budget} MB", OURS, "first_vector_s", starts)
        yield race.row(f"memory budget, {budget} MB", OURS, "p50_ms", singles)
