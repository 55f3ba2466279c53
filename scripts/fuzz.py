"""Random files and request bodies: each is read right or refused in words, and nothing is kept in memory.

Half of the cases are bulk jobs, half are requests. Most run with vectors made of the texts themselves, every
fiftieth request with the model. A seed that is printed reproduces its case: --seed N --cases 1 --only files

    python scripts/fuzz.py --cases 20000
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

import click

LIBC = ctypes.CDLL("libc.so.6")
M_ARENA_MAX = -8  # of malloc.h
# One arena for all threads, before any starts: holes in one for each thread look like growth, of 50 MB.
LIBC.mallopt(M_ARENA_MAX, 1)

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests")]
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # as the command line does

from fuzzing.files import run_case  # noqa: E402  # its folder was added above
from fuzzing.requests import Requests  # noqa: E402

from ov_minilm import Embedder  # noqa: E402
from ov_minilm.measure import machine  # noqa: E402

SHORT_S = 10.0
SLICES = 10  # of the cases; memory is looked at after each
LEAST_CASES = 20_000  # to tell: in fewer, caches that fill grow in most slices
GROWTH_BYTES = 500.0  # a case, in the median slice: a leak grows in each, a grid that is compiled late in one
EVERY_REAL = 50


@click.command()
@click.option("--cases", type=click.IntRange(1), default=20_000, show_default=True)
@click.option("--seed", type=int, help="Of the first case. Default: a random one, which is printed.")
@click.option("--only", type=click.Choice(["files", "requests"]), help="Default: both.")
@click.option("--short", is_flag=True, help=f"Stop after {SHORT_S:.0f} s, seed 0.")
def main(cases: int, seed: int | None, only: str | None, short: bool) -> None:
    """Run cases; exit code 1 if there is a finding, or memory grows."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    first = random.SystemRandom().randrange(10**9) if seed is None else seed
    first = 0 if short else first
    print(f"{cases:,} cases from seed {first}{f', for {SHORT_S:.0f} s' if short else ''}", flush=True)
    started, ended, in_use_mb = time.monotonic(), Counter[str](), list[float]()
    with Embedder.open(threads=1) as embedder, tempfile.TemporaryDirectory(dir=_memory()) as folder:
        if not short:
            embedder.warm_up()  # what the compiler takes is no growth
        hashed, real = Requests(embedder, real=False), Requests(embedder, real=True)
        for number in range(cases):
            if short and time.monotonic() - started > SHORT_S:
                cases = number
                break
            if number and number % max(1, cases // SLICES) == 0:
                in_use_mb.append(_memory_mb())
            kind = only or ("files", "requests")[number % 2]
            if kind == "files":
                case: Callable[[int], str] = lambda seed: run_case(seed, Path(folder, "case"))  # noqa: E731
            else:
                case = (real if number % EVERY_REAL == 1 else hashed).run_case
            ended[f"{kind} {_outcome(case, first + number, kind)}"] += 1
        hashed.close()
        real.close()
    growth = [(after - before) / (cases // SLICES) * 1e6 for before, after in pairwise(in_use_mb)]
    leak = median(growth) if growth and cases >= LEAST_CASES and not short else 0.0
    findings = sum(count for name, count in ended.items() if name.endswith("wrong"))
    said = ", ".join(f"{count:,} {name}" for name, count in sorted(ended.items()))
    print(f"{cases:,} cases in {time.monotonic() - started:.0f} s: {said}")
    print(f"memory {leak:+,.0f} bytes a case")
    if leak > GROWTH_BYTES:
        print(f"memory grows by more than {GROWTH_BYTES:.0f} bytes a case")
    sys.exit(bool(findings) or leak > GROWTH_BYTES)


def _outcome(case: Callable[[int], str], seed: int, kind: str) -> str:
    try:
        return case(seed)
    except Exception as error:  # anything at all is a finding
        where = traceback.format_tb(error.__traceback__)[-1].strip().replace("\n", " ")
        print(f"seed {seed}, {kind}: {type(error).__name__}: {error!s:.1000}\n  {where:.300}", flush=True)
        return "wrong"


def _memory_mb() -> float:
    """Return what is in use, without what collectors and allocators keep for later."""
    gc.collect()
    LIBC.malloc_trim(0)
    return machine.memory_mb("VmRSS")


def _memory() -> str | None:
    """Return a folder in memory where there is one: each shard is synced to the disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  # a folder of its own is made in it


if __name__ == "__main__":
    main()
