"""Faults that appear only after a while: growing memory, and use of freed memory."""

import ctypes.util
import sys

import pytest
from support.processes import python

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and uses glibc's checks"),
]

OPEN_AND_CLOSE = """
import gc, os
from pathlib import Path
from ov_minilm import Embedder

def resident():
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6

megabytes = []
for number in range(200):
    with Embedder.open() as embedder:
        embedder.encode(['a', 'stone ' * (number % 100)])
    del embedder
    gc.collect()
    megabytes.append(resident())
print(max(megabytes[100:150]), max(megabytes[150:]))  # after 100, each length of text has had its grid
"""

# Random texts from threads and futures; each vector is compared with that of the text alone. MALLOC_PERTURB_
# fills freed memory: reading it gives other bits, and writing it stops malloc.
MANY_REQUESTS = """
import random, threading
import numpy as np
from ov_minilm import Embedder

with Embedder.open() as embedder:
    texts = ['stone ' * n for n in (0, 1, 5, 13, 14, 15, 30, 60, 62, 100, 126, 200, 250)] + ['a', 'b c']
    expected = np.stack([embedder.encode(text) for text in texts])
    wrong = []

    def work(seed):
        rng = random.Random(seed)
        pick = lambda: rng.choices(range(len(texts)), k=rng.randrange(1, 40))
        for _ in range(60):
            results = []
            for picks in [pick() for _ in range(rng.randrange(1, 12))]:
                future = embedder.submit(embedder.tokenize([texts[i] for i in picks]))
                if rng.random() < 0.2:
                    future.cancel()
                else:
                    results.append((picks, future.result))
            picks = pick()
            vectors = embedder.encode([texts[i] for i in picks])
            for picks, result in [*results, (picks, lambda: vectors)]:
                if result().tobytes() != expected[picks].tobytes():
                    wrong.append(picks)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
print(len(wrong))
"""


def test_memory_does_not_grow_with_200_embedders() -> None:
    """Opening 50 more embedders adds at most 5 MB of memory."""
    result = python(OPEN_AND_CLOSE)

    assert 0 == result.returncode, result.stderr
    before, after = map(float, result.stdout.split())
    assert after - before <= 5


def test_heap_checkers_find_no_fault_in_many_requests() -> None:
    """Under the memory checkers of glibc and Python, thousands of requests return the right bits."""
    checker = ctypes.util.find_library("c_malloc_debug")
    if checker is None:
        pytest.skip("this libc has no libc_malloc_debug")
    checks = {"LD_PRELOAD": checker, "GLIBC_TUNABLES": "glibc.malloc.check=3", "MALLOC_PERTURB_": "165"}

    result = python(MANY_REQUESTS, **checks, PYTHONMALLOC="debug")

    assert (0, "0\n") == (result.returncode, result.stdout), result.stderr
