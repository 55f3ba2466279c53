"""Hours of use in minutes: threads, coroutines and streams of random texts, opening and closing meanwhile.

Every vector is compared bit by bit with the one its text has alone. Fails, with exit code 1, on a wrong
vector, an error, or more than 5 MB of growth after the warm-up.

    python bench/soak.py                 30 minutes, into bench/results/soak.json
    python bench/soak.py --minutes 2 --output soak.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ov_minilm.bench import machine

from ov_minilm import Embedder, TruncationWarning
from ov_minilm.spec import FloatArray

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench/results/soak.json"
POOL, CALLERS = 2000, 4
WARM_UP = 0.2  # of the whole time: each grid and arena has had its largest use by then
GROWTH_MB = 5.0
REOPEN_S = 20.0


class Soak:
    """What all threads share: the texts, their vectors, and what was seen so far."""

    def __init__(self, embedder: Embedder, seed: int) -> None:
        """Make texts of 0 to 250 words and encode each alone."""
        rng = random.Random(seed)  # noqa: S311  # texts, not secrets
        words = [
            f"{head}{tail}"
            for head in ("river", "stone", "light", "bread", "boat")
            for tail in ("", "s", "ing")
        ]
        self.embedder = embedder
        self.texts = [
            " ".join(
                rng.choices(words, k=rng.choice((rng.randrange(12), rng.randrange(60), rng.randrange(251))))
            )
            for _ in range(POOL)
        ]
        self.vectors: FloatArray = np.stack([embedder.encode(text) for text in self.texts])
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.only_one = threading.Lock()  # held while another Embedder is open: its memory is no growth
        self.encoded = self.wrong = self.opened = 0
        self.errors: list[str] = []
        self.latencies: list[float] = []  # seconds of calls with one text, since the last sample

    def work(self, seed: int, call: Callable[[list[str]], FloatArray]) -> None:
        """Encode random picks until the end; a thread has one way of calling."""
        rng = random.Random(seed)  # noqa: S311
        while not self.stop.is_set():
            count = rng.choice((1, 1, 1, rng.randrange(1, 33), rng.randrange(1, 600)))
            picks = [rng.randrange(POOL) for _ in range(count)]
            started = time.perf_counter()
            try:
                vectors = call([self.texts[i] for i in picks])
            except Exception as error:  # anything at all ends the soak with exit code 1
                self.errors.append(f"{type(error).__name__}: {error}")
                self.stop.set()
                return
            seconds = time.perf_counter() - started
            same = (vectors.view(np.int32) == self.vectors[picks].view(np.int32)).all(1)
            with self.lock:
                self.encoded += count
                self.wrong += int(np.count_nonzero(~same))
                if count == 1:
                    self.latencies.append(seconds)

    def reopen(self) -> None:
        """Open another Embedder now and then, use it, and close it."""
        rng = random.Random(0)  # noqa: S311
        while not self.stop.wait(REOPEN_S):
            with self.only_one, Embedder.open(threads=1) as other:
                picks = [rng.randrange(POOL) for _ in range(20)]
                self.wrong += int(
                    (other.encode([self.texts[i] for i in picks]) != self.vectors[picks]).any(1).sum()
                )
                self.opened += 1

    def iterate(self, texts: list[str]) -> FloatArray:
        """Encode through encode_iter."""
        return np.concatenate(list(self.embedder.encode_iter(iter(texts))))

    def coroutines(self, texts: list[str]) -> FloatArray:
        """Encode each text in a coroutine of its own, one of which is cancelled."""

        async def all_of_them() -> list[FloatArray]:
            lost = asyncio.ensure_future(self.embedder.aencode(["given up"] * 50))
            tasks = [self.embedder.aencode([text]) for text in texts[:64]]
            await asyncio.sleep(0)
            lost.cancel()
            found = list(await asyncio.gather(*tasks))
            return [*found, self.embedder.encode(texts[64:])] if texts[64:] else found

        return np.concatenate(asyncio.run(all_of_them()))


def main() -> None:
    """Run for as long as was asked, and write what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", TruncationWarning)
    with Embedder.open() as embedder:
        result = run(embedder, 60 * arguments.minutes, arguments.seed)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print({key: value for key, value in result.items() if key not in ("machine", "info", "samples")})
    sys.exit(0 if result["passed"] else 1)


def run(embedder: Embedder, seconds: float, seed: int) -> dict[str, Any]:
    """Soak an Embedder and return what the result file holds."""
    soak = Soak(embedder, seed)
    ways = (embedder.encode, soak.iterate, soak.coroutines)
    threads = [
        threading.Thread(target=soak.work, args=(seed + i + 1, ways[i % len(ways)])) for i in range(CALLERS)
    ]
    threads.append(threading.Thread(target=soak.reopen))
    for thread in threads:
        thread.start()
    started, samples = time.monotonic(), []
    pause = min(10.0, seconds / 30)
    while not soak.stop.wait(pause) and time.monotonic() - started < seconds:
        samples.append(sample(soak, time.monotonic() - started))
        print(samples[-1], file=sys.stderr)
    soak.stop.set()
    for thread in threads:
        thread.join()
    after = [row["rss_mb"] for row in samples if row["s"] > WARM_UP * seconds]
    growth = growth_mb(after)
    return {
        "machine": machine.facts(),
        "info": embedder.info.as_dict(),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "callers": CALLERS,
        "texts": soak.encoded,
        "opened_and_closed": soak.opened,
        "wrong": soak.wrong,
        "errors": soak.errors,
        "rss_mb": {"after_warm_up": after[0], "last": after[-1], "peak": max(after)} if after else {},
        "growth_mb": growth,
        "passed": not soak.wrong and not soak.errors and growth <= GROWTH_MB and bool(after),
        "samples": samples,
    }


def growth_mb(rss: list[float]) -> float:
    """Difference of the medians of the last and the first fifth: one sample may catch a large call."""
    fifth = max(1, len(rss) // 5)
    return round(statistics.median(rss[-fifth:]) - statistics.median(rss[:fifth]), 1) if rss else 0.0


def sample(soak: Soak, seconds: float) -> dict[str, float]:
    """Memory now, and latencies of single texts since the last time."""
    with soak.lock:
        latencies, soak.latencies = soak.latencies, []
        encoded = soak.encoded
    with soak.only_one:
        row = {
            "s": round(seconds, 1),
            "rss_mb": round(machine.kilobytes("VmRSS") * 1024e-6, 1),
            "texts": encoded,
        }
    if latencies:
        for name, percent in (("p50_ms", 50), ("p95_ms", 95), ("max_ms", 100)):
            row[name] = round(1000 * float(np.percentile(latencies, percent)), 2)
    return row


if __name__ == "__main__":
    main()
