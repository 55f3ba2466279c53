"""Hours of use in minutes: threads, coroutines and streams of random texts, opening and closing meanwhile.

Every vector is compared bit by bit with the one its text has alone. Fails, with exit code 1, on a wrong
vector, an error, or more than 5 MB of growth after the warm-up.

    python scripts/soak.py --minutes 2
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable

import click
import numpy as np

from ov_minilm import Embedder, TruncationWarning
from ov_minilm.measure import machine
from ov_minilm.measure.texts import Texts
from ov_minilm.spec import FloatArray

POOL, CALLERS = 2000, 4
WARM_UP = 0.2  # of the whole time: each grid and arena has had its largest use by then
GROWTH_MB = 5.0
REOPEN_S = 20.0


class Soak:
    """What all threads share: the texts, their vectors, and what was seen so far."""

    def __init__(self, embedder: Embedder) -> None:
        """Encode each text alone."""
        self.embedder = embedder
        self.texts = Texts(embedder.count_tokens).make("mix", POOL)
        self.vectors: FloatArray = np.stack([embedder.encode(text) for text in self.texts])
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.only_one = threading.Lock()  # held while another Embedder is open: its memory is no growth
        self.encoded = self.wrong = 0
        self.errors: list[str] = []

    def work(self, seed: int, call: Callable[[list[str]], FloatArray]) -> None:
        """Encode random picks until the end; a thread has one way of calling."""
        rng = random.Random(seed)  # noqa: S311
        while not self.stop.is_set():
            count = rng.choice((1, 1, 1, rng.randrange(1, 33), rng.randrange(1, 600)))
            picks = [rng.randrange(POOL) for _ in range(count)]
            try:
                vectors = call([self.texts[i] for i in picks])
            except Exception as error:  # anything at all ends the soak with exit code 1
                self.errors.append(f"{type(error).__name__}: {error}")
                self.stop.set()
                return
            same = (vectors.view(np.int32) == self.vectors[picks].view(np.int32)).all(1)
            with self.lock:
                self.encoded += count
                self.wrong += int(np.count_nonzero(~same))

    def reopen(self) -> None:
        """Open another Embedder now and then, use it, and close it."""
        while not self.stop.wait(REOPEN_S):
            with self.only_one, Embedder.open(threads=1) as other:
                self.wrong += int((other.encode(self.texts[:20]) != self.vectors[:20]).any(1).sum())

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


@click.command(help=__doc__)
@click.option("--minutes", default=30.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(minutes: float, seed: int) -> None:
    """Use an Embedder until the time is over, and say what was seen."""
    warnings.simplefilter("ignore", TruncationWarning)
    seconds = 60 * minutes
    with Embedder.open() as embedder:
        soak = Soak(embedder)
        ways = (embedder.encode, soak.iterate, soak.coroutines)
        works = [(seed + i + 1, ways[i % len(ways)]) for i in range(CALLERS)]
        threads = [threading.Thread(target=soak.work, args=work) for work in works]
        threads.append(threading.Thread(target=soak.reopen))
        for thread in threads:
            thread.start()
        started, rss = time.monotonic(), []
        while not soak.stop.wait(min(10.0, seconds / 30)) and time.monotonic() - started < seconds:
            with soak.only_one:
                now = machine.memory_mb("VmRSS")
            passed = time.monotonic() - started
            click.echo(f"{passed:.0f} s: {soak.encoded:,} texts, {now:.1f} MB", err=True)
            rss += [now] if passed > WARM_UP * seconds else []
        soak.stop.set()
        for thread in threads:
            thread.join()
    growth = growth_mb(rss)
    errors = "; ".join(soak.errors) or "none"
    click.echo(f"{soak.encoded:,} texts, {soak.wrong} wrong, errors: {errors}, growth {growth} MB")
    sys.exit(bool(soak.wrong or soak.errors or growth > GROWTH_MB or not rss))


def growth_mb(rss: list[float]) -> float:
    """Difference of the medians of the last and the first fifth: one sample may catch a large call."""
    fifth = max(1, len(rss) // 5)
    return round(statistics.median(rss[-fifth:]) - statistics.median(rss[:fifth]), 1) if rss else 0.0


if __name__ == "__main__":
    main()
