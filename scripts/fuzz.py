"""Fuzz tests: random files and request bodies must be read correctly, or refused with a message.

Memory must not grow.

Half of the cases are bulk jobs, half are requests. Most cases replace vectors by hashes of the texts; every
fiftieth request uses the model. To repeat a case, pass the seed that was printed: --seed N --cases 1 --only
files

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
M_ARENA_MAX = -8  # the value of this constant in malloc.h
# malloc uses one arena for all threads. With an arena for each thread, free blocks would look like a growth
# of 50 MB. This must be set before the first thread starts.
LIBC.mallopt(M_ARENA_MAX, 1)

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests")]
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # as the command line does

from fuzzing.files import run_case  # noqa: E402  # the folder of this module was added to the path above
from fuzzing.requests import RequestFuzzer  # noqa: E402

from ov_minilm import Embedder  # noqa: E402
from ov_minilm.measure import machine  # noqa: E402

SHORT_S = 10.0
SLICES = 10  # the cases are divided into this many slices, and memory is measured after each slice
MIN_CASES_TO_JUDGE = 20_000  # fewer cases show no leak, because caches still grow in most slices
# bytes per case in the median slice: a leak grows in every slice, late compilation only in one slice
MAX_GROWTH_BYTES = 500.0
REAL_MODEL_EVERY = 50


@click.command()
@click.option("--cases", type=click.IntRange(1), default=20_000, show_default=True)
@click.option("--seed", type=int, help="Seed of the first case. Default: a random one, which is printed.")
@click.option("--only", type=click.Choice(["files", "requests"]), help="Default: both.")
@click.option("--short", is_flag=True, help=f"Stop after {SHORT_S:.0f} s, seed 0.")
def main(cases: int, seed: int | None, only: str | None, short: bool) -> None:
    """Run cases. The exit code is 1 if a result is wrong or memory grows."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    first = random.SystemRandom().randrange(10**9) if seed is None else seed
    first = 0 if short else first
    print(f"{cases:,} cases from seed {first}{f', for {SHORT_S:.0f} s' if short else ''}", flush=True)
    started, outcomes, in_use_mb = time.monotonic(), Counter[str](), list[float]()
    with Embedder.open(threads=1) as embedder, tempfile.TemporaryDirectory(dir=_memory_folder()) as folder:
        if not short:
            embedder.warm_up()  # otherwise compiled grids would count as growth
        with_hashes, with_model = RequestFuzzer(embedder, real=False), RequestFuzzer(embedder, real=True)
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
                case = (with_model if number % REAL_MODEL_EVERY == 1 else with_hashes).run_case
            outcomes[f"{kind} {_outcome(case, first + number, kind)}"] += 1
        with_hashes.close()
        with_model.close()
    growth = [(after - before) / (cases // SLICES) * 1e6 for before, after in pairwise(in_use_mb)]
    leak = median(growth) if growth and cases >= MIN_CASES_TO_JUDGE and not short else 0.0
    findings = sum(count for name, count in outcomes.items() if name.endswith("wrong"))
    summary = ", ".join(f"{count:,} {name}" for name, count in sorted(outcomes.items()))
    print(f"{cases:,} cases in {time.monotonic() - started:.0f} s: {summary}")
    print(f"memory {leak:+,.0f} bytes per case")
    if leak > MAX_GROWTH_BYTES:
        print(f"memory grows by more than {MAX_GROWTH_BYTES:.0f} bytes per case")
    sys.exit(bool(findings) or leak > MAX_GROWTH_BYTES)


def _outcome(case: Callable[[int], str], seed: int, kind: str) -> str:
    try:
        return case(seed)
    except Exception as error:  # any exception counts as a wrong result
        where = traceback.format_tb(error.__traceback__)[-1].strip().replace("\n", " ")
        print(f"seed {seed}, {kind}: {type(error).__name__}: {error!s:.1000}\n  {where:.300}", flush=True)
        return "wrong"


def _memory_mb() -> float:
    """Return the memory in use, after garbage was collected and free blocks were released."""
    gc.collect()
    LIBC.malloc_trim(0)
    return machine.memory_mb("VmRSS")


def _memory_folder() -> str | None:
    """Return a folder in memory if the system has one, because syncing every shard to a disk is slow."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  # for a private folder in it


if __name__ == "__main__":
    main()
