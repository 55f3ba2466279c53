"""What a process that runs for months must hold: memory, threads, concurrency, streams.

Every figure is of a new process, so that none is a child of what ran before. Ratios are of calls in turn.

    python bench/operating.py               everything, about 15 minutes, into bench/results/operating.json
    python bench/operating.py --only peak   one part, to stdout: peak growth callers embedders affinity stream
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ov_minilm import Embedder
from ov_minilm.bench import machine

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench/results/operating.json"
WORDS = (
    "river",
    "stone",
    "light",
    "bread",
    "house",
    "music",
    "winter",
    "engine",
    "garden",
    "letter",
    "market",
)
ROUNDS = 7
MB = 1024


def main() -> None:
    """Measure every part in a process of its own, or one in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, help="measure this part in this process")
    parser.add_argument("--texts", type=int, default=1_000_000, help="how many texts `growth` encodes")
    arguments = parser.parse_args()
    if arguments.only:
        json.dump(PARTS[arguments.only](arguments.texts), sys.stdout)
        return
    with Embedder.open() as embedder:
        info = embedder.info
    result: dict[str, Any] = {
        "machine": machine.facts(),
        "artefact": info.fingerprint,
        "threads": info.threads,
        "kernel": info.kernel,
    }
    for part in PARTS:
        print(f"{part} …", file=sys.stderr)
        command = [sys.executable, __file__, "--only", part, "--texts", str(arguments.texts)]
        result[part] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print(json.dumps(result[part]), file=sys.stderr)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def peak(_: int) -> dict[str, Any]:
    """MB at the peak: after 1,500 short texts, and after texts of every length, singly and in lists."""
    with Embedder.open() as embedder:
        short = texts(1500, 4, 18)
        embedder.encode(short, progress=False)
        result: dict[str, Any] = {"short_mb": memory("VmHWM")}
        for _round in range(3):
            for words in (3, 20, 50, 100, 200):
                for text in texts(10, words, words):
                    embedder.encode(text)
            embedder.encode(texts(600, 1, 250), progress=False)
            embedder.encode(short, progress=False)
        return result | {"every_grid_mb": memory("VmHWM")}


def growth(count: int) -> dict[str, Any]:
    """MB that a process grows by while it encodes many texts of random lengths, after a quarter as many."""
    with Embedder.open() as embedder:
        stream = mixed(count // 4)
        for _block in embedder.encode_iter(stream):
            pass
        before = memory("VmRSS")
        started = time.perf_counter()
        done = sum(len(block) for block in embedder.encode_iter(mixed(count)))
        seconds = time.perf_counter() - started
        return {"texts": done, "grown_mb": memory("VmRSS") - before, "texts_per_s": round(done / seconds)}


def callers(_: int) -> dict[str, Any]:
    """64 threads with calls of mixed sizes against one caller with the same texts, and their bits."""
    sizes = [1, 3, 12, 40, 1, 100, 7]
    calls = [texts(sizes[(k + j) % len(sizes)], 4, 18) for k in range(64) for j in range(len(sizes))]
    everything = [text for call in calls for text in call]
    with Embedder.open() as embedder:
        expected = {text: embedder.encode(text).tobytes() for text in everything}
        wrong = 0

        def one() -> None:
            embedder.encode(everything, progress=False)

        def many() -> None:
            found: list[Any] = [None] * len(calls)

            def work(k: int) -> None:
                for j in range(k, len(calls), 64):
                    found[j] = embedder.encode(calls[j], progress=False)

            threads = [threading.Thread(target=work, args=(k,)) for k in range(64)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            nonlocal wrong
            wrong += sum(
                vector.tobytes() != expected[text]
                for call, vectors in zip(calls, found, strict=True)
                for text, vector in zip(call, vectors, strict=True)
            )

        return {"texts": len(everything), "share": in_turn(one, many), "wrong_vectors": wrong}


def embedders(_: int) -> dict[str, Any]:
    """Two Embedders at once in one process against one after the other."""
    items = texts(2000, 4, 18)
    with Embedder.open() as first, Embedder.open() as second:

        def apart() -> None:
            first.encode(items, progress=False)
            second.encode(items, progress=False)

        def together() -> None:
            other = threading.Thread(target=lambda: second.encode(items, progress=False))
            other.start()
            first.encode(items, progress=False)
            other.join()

        return {"share": in_turn(apart, together)}


def affinity(_: int) -> dict[str, Any]:
    """On one core: how many threads are taken by default, and their speed against threads=1."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    items = texts(1500, 4, 18)
    with Embedder.open() as default, Embedder.open(threads=1) as one:
        share = in_turn(
            lambda: one.encode(items, progress=False), lambda: default.encode(items, progress=False)
        )
        return {"threads": default.info.threads, "share": share}


def stream(_: int) -> dict[str, Any]:
    """Milliseconds from the text that fills the first block to that block; MB at the peak of 25 blocks."""
    asked: list[float] = []

    def endless() -> Iterator[str]:
        while True:
            asked.append(time.perf_counter())
            yield random.choice(items)  # noqa: S311  # any text will do

    items = texts(500, 4, 18)
    with Embedder.open() as embedder:
        embedder.encode(items, progress=False)
        waits = []
        for _round in range(ROUNDS):
            asked.clear()
            next(embedder.encode_iter(endless()))
            waits.append(1000 * (time.perf_counter() - asked[-1]))
        blocks = embedder.encode_iter(endless())
        for _block in range(25):
            next(blocks)
            asked.clear()
    return {"first_block_ms": round(statistics.median(waits), 1), "peak_mb": memory("VmHWM")}


def texts(count: int, least: int, most: int) -> list[str]:
    """Make texts of so many words."""
    rng = random.Random(count + most)  # noqa: S311  # the same texts every time
    return [" ".join(rng.choices(WORDS, k=rng.randint(least, most))) for _ in range(count)]


def mixed(count: int) -> Iterator[str]:
    """Make texts whose lengths are as those of mail and notes: mostly short, some of 250 words."""
    rng = random.Random(count)  # noqa: S311
    for _ in range(count):
        yield " ".join(rng.choices(WORDS, k=min(250, max(1, round(rng.lognormvariate(2.2, 0.8))))))


def memory(name: str) -> float:
    """Read a figure of this process, in MB: VmRSS now, VmHWM at the peak."""
    return round(machine.kilobytes(name) / MB, 1)


def in_turn(base: Callable[[], object], mine: Callable[[], object]) -> dict[str, float]:
    """Time both in turn; return the speed of `mine` as a share of that of `base`: median and spread."""
    base()
    mine()
    shares = []
    for _ in range(ROUNDS):
        times = []
        for call in (base, mine):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        shares.append(times[0] / times[1])
    return {"median": round(statistics.median(shares), 3), "least": round(min(shares), 3)}


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "peak": peak,
    "growth": growth,
    "callers": callers,
    "embedders": embedders,
    "affinity": affinity,
    "stream": stream,
}


if __name__ == "__main__":
    main()
