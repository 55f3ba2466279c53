"""Endurance test: threads, coroutines and streams of random texts, while other Embedders open and close.

Every vector is compared, bit by bit, with the vector of its text alone. The exit code is 1 after a wrong
vector, an error, or a growth of over 5 MB after the warm-up.

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

TEXT_COUNT, CALLERS = 2000, 4
# share of the run after which grids and malloc's arenas have reached their largest size
WARM_UP_SHARE = 0.2
MAX_GROWTH_MB = 5.0
REOPEN_S = 20.0


class Soak:
    """The state that all threads share: texts, their vectors, and counts."""

    def __init__(self, embedder: Embedder) -> None:
        """Encode each text alone."""
        self.embedder = embedder
        self.texts = Texts(embedder.count_tokens).make("mix", TEXT_COUNT)
        self.vectors: FloatArray = np.stack([embedder.encode(text) for text in self.texts])
        self.stop = threading.Event()
        self.lock = threading.Lock()
        # held while another Embedder is open, so that its memory does not count as growth
        self.only_one = threading.Lock()
        self.encoded = self.wrong = 0
        self.errors: list[str] = []

    def work(self, seed: int, encode: Callable[[list[str]], FloatArray]) -> None:
        """Encode random texts with `encode` until the run ends, and compare the vectors."""
        rng = random.Random(seed)  # noqa: S311
        while not self.stop.is_set():
            count = rng.choice((1, 1, 1, rng.randrange(1, 33), rng.randrange(1, 600)))
            picks = [rng.randrange(TEXT_COUNT) for _ in range(count)]
            try:
                vectors = encode([self.texts[i] for i in picks])
            except Exception as error:  # any exception ends the run with exit code 1
                self.errors.append(f"{type(error).__name__}: {error}")
                self.stop.set()
                return
            same = (vectors.view(np.int32) == self.vectors[picks].view(np.int32)).all(1)
            with self.lock:
                self.encoded += count
                self.wrong += int(np.count_nonzero(~same))

    def reopen(self) -> None:
        """Every REOPEN_S seconds, open another Embedder, use it, and close it."""
        while not self.stop.wait(REOPEN_S):
            with self.only_one, Embedder.open(threads=1) as other:
                self.wrong += int((other.encode(self.texts[:20]) != self.vectors[:20]).any(1).sum())

    def encode_with_iter(self, texts: list[str]) -> FloatArray:
        """Encode with `encode_iter`."""
        return np.concatenate(list(self.embedder.encode_iter(iter(texts))))

    def encode_in_coroutines(self, texts: list[str]) -> FloatArray:
        """Encode each text in its own coroutine; cancel one further coroutine."""

        async def encode_all() -> list[FloatArray]:
            cancelled = asyncio.ensure_future(self.embedder.aencode(["given up"] * 50))
            tasks = [self.embedder.aencode([text]) for text in texts[:64]]
            await asyncio.sleep(0)
            cancelled.cancel()
            found = list(await asyncio.gather(*tasks))
            return [*found, self.embedder.encode(texts[64:])] if texts[64:] else found

        return np.concatenate(asyncio.run(encode_all()))


@click.command(help=__doc__)
@click.option("--minutes", default=30.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(minutes: float, seed: int) -> None:
    """Use an Embedder until the time is over, and print a summary."""
    warnings.simplefilter("ignore", TruncationWarning)
    seconds = 60 * minutes
    with Embedder.open() as embedder:
        soak = Soak(embedder)
        encoders = (embedder.encode, soak.encode_with_iter, soak.encode_in_coroutines)
        worker_arguments = [(seed + i + 1, encoders[i % len(encoders)]) for i in range(CALLERS)]
        threads = [threading.Thread(target=soak.work, args=arguments) for arguments in worker_arguments]
        threads.append(threading.Thread(target=soak.reopen))
        for thread in threads:
            thread.start()
        started, memory_samples = time.monotonic(), []
        while not soak.stop.wait(min(10.0, seconds / 30)) and time.monotonic() - started < seconds:
            with soak.only_one:
                memory_mb = machine.memory_mb("VmRSS")
            elapsed = time.monotonic() - started
            click.echo(f"{elapsed:.0f} s: {soak.encoded:,} texts, {memory_mb:.1f} MB", err=True)
            memory_samples += [memory_mb] if elapsed > WARM_UP_SHARE * seconds else []
        soak.stop.set()
        for thread in threads:
            thread.join()
    growth = growth_mb(memory_samples)
    errors = "; ".join(soak.errors) or "none"
    click.echo(f"{soak.encoded:,} texts, {soak.wrong} wrong, errors: {errors}, growth {growth} MB")
    sys.exit(bool(soak.wrong or soak.errors or growth > MAX_GROWTH_MB or not memory_samples))


def growth_mb(memory_samples: list[float]) -> float:
    """Return the median of the last fifth minus the median of the first; single samples may be high."""
    size = max(1, len(memory_samples) // 5)
    return (
        round(statistics.median(memory_samples[-size:]) - statistics.median(memory_samples[:size]), 1)
        if memory_samples
        else 0.0
    )


if __name__ == "__main__":
    main()
