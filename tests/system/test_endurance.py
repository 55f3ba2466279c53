"""What only shows after a while: memory that grows, and memory that is used after it was freed."""

from __future__ import annotations

import ctypes.util
import sys

import pytest
from support.processes import python

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and uses glibc's checks"),
]

CYCLES = """
import gc, os
from pathlib import Path
from ov_minilm import Embedder

def resident():
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6

seen = []
for i in range(200):
    with Embedder.open() as e:
        e.encode(['a', 'stone ' * (i % 100)])
    del e
    gc.collect()
    seen.append(resident())
print(max(seen[100:150]), max(seen[150:]))  # by then each length of text has had its grid once
"""

# Random mixes from threads and futures, each checked against the vector that the text has alone. Freed
# memory is filled by MALLOC_PERTURB_: what reads it gives other bits, what writes it stops malloc.
MANY = """
import random, threading
import numpy as np
from ov_minilm import Embedder

with Embedder.open() as e:
    texts = ['stone ' * n for n in (0, 1, 5, 13, 14, 15, 30, 60, 62, 100, 126, 200, 250)] + ['a', 'b c']
    alone = np.stack([e.encode(text) for text in texts])
    wrong = []

    def work(seed):
        rng = random.Random(seed)
        for _ in range(60):
            waiting = []
            for _ in range(rng.randrange(1, 12)):
                picks = [rng.randrange(len(texts)) for _ in range(rng.randrange(1, 40))]
                future = e.submit(e.tokenize([texts[i] for i in picks]))
                if rng.random() < 0.2:
                    future.cancel()
                else:
                    waiting.append((picks, future))
            picks = [rng.randrange(len(texts)) for _ in range(rng.randrange(1, 40))]
            waiting.append((picks, e.encode([texts[i] for i in picks])))
            for picks, found in waiting:
                vectors = found if isinstance(found, np.ndarray) else found.result()
                if vectors.tobytes() != alone[picks].tobytes():
                    wrong.append(picks)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
print(len(wrong))
"""


def test_two_hundred_times_open_and_close() -> None:
    """Memory after 200 Embedders is what it was after 50, within 5 MB."""
    done = python(CYCLES)

    assert 0 == done.returncode, done.stderr
    after_50, after_200 = map(float, done.stdout.split())
    assert after_200 - after_50 <= 5


def test_the_heap_stays_whole_under_many_requests() -> None:
    """With glibc's and Python's heap checkers on, thousands of requests give every bit they should."""
    checker = ctypes.util.find_library("c_malloc_debug")
    if checker is None:
        pytest.skip("no libc_malloc_debug beside this libc")

    done = python(
        MANY,
        LD_PRELOAD=checker,
        GLIBC_TUNABLES="glibc.malloc.check=3",
        MALLOC_PERTURB_="165",
        PYTHONMALLOC="debug",
    )

    assert (0, "0\n") == (done.returncode, done.stdout), done.stderr
