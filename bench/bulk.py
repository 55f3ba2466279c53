"""Bulk jobs measured: against encoding in memory, their memory, on Ray, and killed again and again.

    python bench/bulk.py                    everything, into bench/results/bulk.json: half an hour of quiet
    python bench/bulk.py --what kills       one of throughput, memory, ray, kills; the others stay

Both sides of every ratio run in turn on the same texts. The files lie in the folder for temporary files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from main_path import interleave, spread

from ov_minilm import Embedder, TruncationWarning
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.bench import machine
from ov_minilm.bench.workload import Workload, workloads
from ov_minilm.bulk.inputs import Inputs
from ov_minilm.bulk.job import Engine, Local, Output, begin, run
from ov_minilm.bulk.meter import Meter
from ov_minilm.bulk.pipeline import Job, Options
from ov_minilm.bulk.ray import Opening, on_ray

RESULT = Path(__file__).parent / "results/bulk.json"
ROUNDS = 5
SHORT, LONG = 100_000, 4_000  # texts a round, about half a minute of each
SHAPE = 5 << 30  # bytes of text in the file of which memory is measured
SETTLED = 0.25  # of the time after which memory should be flat


def main() -> None:
    """Measure what is asked for and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", choices=MEASURES, action="append", help="default: all")
    parser.add_argument("--minutes", type=float, default=4, help="how long memory is watched")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--texts", type=int, default=200_000, help="short texts a round on Ray")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", TruncationWarning)
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    for name in arguments.what or MEASURES:
        print(f"{name}: measuring", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            found[name] = MEASURES[name](Path(folder), arguments)
        found |= {"machine": machine.facts(), "artefact": Manifest.read(SHIPPED).fingerprint}
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(RESULT, file=sys.stderr)


def throughput(folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Time a job from Parquet to Parquet against Embedder.encode of the same texts, which are in memory."""
    found = {}
    with Embedder.open() as embedder:
        texts = workloads(embedder.count_tokens, short=SHORT, long=LONG)
        for workload in (texts.bulk["short"], texts.bulk["long"]):
            source = table(folder / f"{workload.name}.parquet", workload.texts)
            inputs = Inputs((str(source),))
            output = Output.parse(f"{folder / workload.name}/")

            def in_memory(texts: list[str] = workload.texts) -> object:
                return embedder.encode(texts, progress=False)

            def job(inputs: Inputs = inputs, output: Output = output) -> object:
                return run(inputs, output, Options(), Local(embedder), overwrite=True, progress=False)

            pairs = interleave([in_memory, job], ROUNDS)
            found[workload.name] = {
                **workload.facts(),
                "texts_per_s": rates(workload, [seconds for _, seconds in pairs]),
                "share_of_in_memory": spread([memory / bulk for memory, bulk in pairs]),
            }
    return {"source": texts.source, "rounds": ROUNDS, "workloads": found}


def rates(workload: Workload, seconds: list[float]) -> dict[str, float]:
    """Return texts a second."""
    return spread([len(workload.texts) / one for one in seconds])


def table(path: Path, texts: list[str]) -> Path:
    """Write texts as Parquet."""
    pq.write_table(pa.table({"text": texts}), path)
    return path


def memory(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Watch a job on a file with 5 GB of text for some minutes, and one that only reads it, to its end."""
    source = folder / "large.parquet"
    rows, written = large(source)
    reading = subprocess.run(
        [sys.executable, "-c", READ, source], stdout=subprocess.PIPE, text=True, check=True
    )
    command = ["-m", "ov_minilm", "encode", str(source), "-o", str(folder / "out"), "--id-column", "id"]
    seen: list[tuple[float, float]] = []  # seconds, MB
    started = time.monotonic()
    with subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and time.monotonic() - started < 60 * arguments.minutes:
            time.sleep(0.5)
            seen.append((time.monotonic() - started, machine.kilobytes("VmRSS", process.pid) / 1000))
        if process.poll() is not None:
            raise SystemExit("the job ended before its memory was measured")
        peak = machine.kilobytes("VmHWM", process.pid) / 1000
        process.kill()
    late = [size for at, size in seen if at > SETTLED * seen[-1][0]]
    half = len(late) // 2
    return {
        "text_bytes": written,
        "rows": rows,
        "file_bytes": source.stat().st_size,
        "minutes": round(seen[-1][0] / 60, 2),
        "shards": len(list((folder / "out").glob("part-*"))),
        "peak_mb": round(peak),
        "growth_mb": round(statistics.median(late[half:]) - statistics.median(late[:half]), 1),
        "reading_alone_peak_mb": round(float(reading.stdout)),
    }


READ = """
import sys
from ov_minilm.bulk.reader import Reader, find
from ov_minilm.bulk.rows import ROWS
with Reader(find([sys.argv[1]], keep=["id"])) as reader:
    while reader.take(ROWS):
        pass
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1000)
"""


def large(path: Path) -> tuple[int, int]:
    """Write row groups of a million sentences until their text is 5 GB; return rows and bytes of text."""
    with Embedder.open() as embedder:
        texts = workloads(embedder.count_tokens, short=50_000, long=1).bulk["short"].texts
    block = pa.array(texts * 20)
    number = pa.array(range(len(block)))
    rows = written = 0
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        while written < SHAPE:
            ids = pc.add(number, rows)
            made = pc.binary_join_element_wise(ids.cast(pa.string()), block, " ")
            file.write_table(pa.table({"id": ids, "text": made}), row_group_size=len(made))
            rows += len(made)
            written += pc.sum(pc.binary_length(made)).as_py()
    return rows, written


class Clock(Meter):
    """Notes when how many texts were done."""

    def __init__(self) -> None:
        super().__init__(None, False)
        self.seen: list[tuple[float, int]] = []

    def advance(self, texts: int, tokens: int, done: int) -> None:
        """Note it."""
        super().advance(texts, tokens, done)
        self.seen.append((time.perf_counter(), texts))

    def rate(self, skip: int) -> float:
        """Texts a second after the first `skip` of them."""
        total = 0
        for place, (_, texts) in enumerate(self.seen):
            total += texts
            if total >= skip:
                after = self.seen[place:]
                return sum(texts for _, texts in after[1:]) / (after[-1][0] - after[0][0])
        raise ValueError(f"{total} texts, of which {skip} are skipped")


def ray(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Two actors of a thread each against this process with two threads, and both with half of that."""
    with Embedder.open() as embedder:
        texts = workloads(embedder.count_tokens, short=arguments.texts, long=1)
    inputs = Inputs((str(table(folder / "short.parquet", texts.bulk["short"].texts)),))
    options = Options(rows_per_shard=max(1, arguments.texts // 40))
    skip = arguments.texts // 5  # while actors start
    found: dict[str, list[float]] = {}
    with on_ray(Opening(), cpus=1, actors=2) as two:
        engines: dict[str, AbstractContextManager[Engine]]
        for number in range(3):
            engines = {
                "ray, 2 actors": nullcontext(two),
                "local, 2 threads": local(2),
                "ray, 1 actor": nullcontext(replace(two, actors=1)),
                "local, 1 thread": local(1),
            }
            for name, engine in engines.items():
                with engine as worker:
                    clock = Clock()
                    target = Output.parse(str(folder / f"{name}{number}"), "parquet")
                    job = Job(inputs, options, worker.sink(inputs, options, "parquet"), target.path)
                    with begin(job, overwrite=True, say=lambda _: None) as journal:
                        worker.work(job, journal, clock)
                        found.setdefault(name, []).append(clock.rate(skip))
    pairs = zip(found["ray, 2 actors"], found["local, 2 threads"], strict=True)
    return {
        "texts": arguments.texts,
        "mean_tokens": texts.bulk["short"].facts()["mean_tokens"],
        "texts_per_s": {name: spread(values) for name, values in found.items()},
        "two_actors_of_local": spread([mine / here for mine, here in pairs]),
    }


@contextmanager
def local(threads: int) -> Iterator[Engine]:
    """Open the engine of this process."""
    with Embedder.open(threads=threads) as embedder:
        yield Local(embedder)


def kills(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Kill a job at random moments, each time go on with the same command, and compare every byte."""
    texts = [f"{number} {'of a river and a letter ' * (number % 4)}" for number in range(6000)]
    source = table(folder / "in.parquet", texts)
    command = [sys.executable, "-m", "ov_minilm", "encode", str(source), "--rows-per-shard", "250", "-o"]
    whole = {}
    for output in ("folder", "file.parquet"):
        (folder / "whole").mkdir(exist_ok=True)
        started = time.monotonic()
        subprocess.run([*command, folder / "whole" / output], check=True, capture_output=True)
        whole[output] = time.monotonic() - started
    moments = random.Random(0)  # noqa: S311  # no secrets
    killed = equal = 0
    shards = []
    while killed < arguments.kills:
        output = ("folder", "file.parquet")[killed % 2]
        with tempfile.TemporaryDirectory(dir=folder) as name:
            target = Path(name) / output
            with subprocess.Popen([*command, target], stderr=subprocess.DEVNULL) as process:
                time.sleep(moments.uniform(0, whole[output]))
                process.kill()
            if process.returncode != -signal.SIGKILL:
                continue  # it was faster
            killed += 1
            shards.append(len(list(Path(name).rglob("part-*"))))
            done = subprocess.run([*command, target], check=False, capture_output=True)
            same = files(Path(name)) == {
                path: content for path, content in files(folder / "whole").items() if path.parts[0] == output
            }
            equal += done.returncode == 0 and same
    return {"kills": killed, "equal": equal, "shards_done_when_killed": sorted(shards)}


def files(folder: Path) -> dict[Path, bytes]:
    """Return the bytes of every file, by its path in the folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


MEASURES: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "throughput": throughput,
    "memory": memory,
    "ray": ray,
    "kills": kills,
}

if __name__ == "__main__":
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    main()
