"""The benchmarks of `ov-minilm bench`; each takes a race of contenders and yields rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ov_minilm.measure.contender import Process
from ov_minilm.measure.race import Race, Values
from ov_minilm.measure.row import Row

Benchmark = Callable[[Race[Process]], Iterator[Row]]
CALLERS = 32  # number of threads that encode at the same time in one process, one text per call
NEW_PROCESSES = 3  # number of processes that are started for each contender
TUNE_TEXTS = 32  # number of texts with which batch sizes are compared


def latency(answer: dict[str, Any]) -> Values:
    """Return the median and the 99th percentile of the calls' times, in ms."""
    return {f"p{at}_ms": 1000 * float(np.percentile(answer["seconds"], at)) for at in (50, 99)}


def write_and_tune(race: Race[Process], name: str) -> str:
    """Write the list of a workload and let each contender find its best batch size; return the file."""
    path = race.file(name)
    race.each(lambda process: process.ask("tune", texts=path, first=TUNE_TEXTS))
    return path


def query(race: Race[Process]) -> Iterator[Row]:
    """Encode one query per call, in a process that does nothing else."""
    path = race.file("query")
    return race.rows("query", lambda process: latency(process.ask("each", texts=path)))


def query_after_list(race: Race[Process]) -> Iterator[Row]:
    """Encode the queries of `query`, one per call, after a list in each round."""
    path, chunks = race.file("query"), write_and_tune(race, "chunks")

    def measure_turn(process: Process) -> Values:
        process.ask("time", texts=chunks)
        return latency(process.ask("each", texts=path))

    return race.rows("query after a list", measure_turn)


def query_beside_list(race: Race[Process]) -> Iterator[Row]:
    """Encode the queries of `query`, one per call, while another thread of the process encodes chunks."""
    path, chunks = race.file("query"), write_and_tune(race, "chunks")

    def measure_turn(process: Process) -> Values:
        answer = process.ask("during_list", texts=path, list=chunks)
        return latency(answer) | {"texts_per_s": answer["texts_per_s"]}

    return race.rows("query beside a list", measure_turn)


def callers(race: Race[Process]) -> Iterator[Row]:
    """Encode one sentence per call, from many threads of the process at once."""
    path = race.file("sentences")

    def measure_turn(process: Process) -> Values:
        answer = process.ask("callers", texts=path, callers=CALLERS)
        return {"texts_per_s": len(answer["seconds"]) / answer["wall"]} | latency(answer)

    return race.rows(f"{CALLERS} callers", measure_turn)


def list_benchmark(name: str) -> Benchmark:
    """Return a benchmark that encodes the list of a workload in one call."""

    def benchmark(race: Race[Process]) -> Iterator[Row]:
        path = write_and_tune(race, name)
        count = len(race.texts.make(name))

        def measure_turn(process: Process) -> Values:
            return {"texts_per_s": count / process.ask("time", texts=path)["seconds"][0]}

        return race.rows(name, measure_turn)

    return benchmark


def new_process(race: Race[Process]) -> Iterator[Row]:
    """Measure a new process: time to its first vector, and peak memory after lists of every length."""
    paths = [race.file(name) for name in ("sentences", "chunks", "mix")]

    def measure_turn(process: Process) -> Values:
        with Process(process.contender, race.threads) as new:
            for path in paths:
                new.ask("time", texts=path)
            return {"first_vector_s": new.first_vector_s, "peak_mb": new.memory_mb("VmHWM")}

    return race.rows("new process", measure_turn, max_rounds=NEW_PROCESSES)


BENCHMARKS: dict[str, Benchmark] = {
    "query": query,
    "query after a list": query_after_list,
    "query beside a list": query_beside_list,
    f"{CALLERS} callers": callers,
    **{name: list_benchmark(name) for name in ("sentences", "chunks", "documents", "mix")},
    "new process": new_process,
}
