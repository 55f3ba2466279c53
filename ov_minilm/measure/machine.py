"""Describes the machine on which a figure was measured."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cpuinfo

ISA = {  # flags of the processor -> usual name; fastest first
    ("amx_int8", "amx_bf16"): "AMX",
    ("avx512_vnni",): "AVX-512 VNNI",
    ("avx512f",): "AVX-512",
    ("avx_vnni",): "AVX-VNNI",
    ("avx2",): "AVX2",
}
ISA_LIMIT_VARIABLE = "ONEDNN_MAX_CPU_ISA"
PROBE_BYTES = 4 << 20  # bytes that every thread hashes, which takes 2 to 10 ms


def describe(threads: int) -> str:
    """Return the processor, its instruction set, a limit set for oneDNN, and the number of threads."""
    info = cpuinfo.get_cpu_info()
    flags = info.get("flags", [])
    isa = next((name for needed, name in ISA.items() if set(needed) <= set(flags)), "no AVX2")
    if "avx512_bf16" in flags and isa != "AMX":
        isa += " and BF16"
    if limit := os.environ.get(ISA_LIMIT_VARIABLE):
        isa += f", limited to {limit}"
    model = f"{info.get('family')}/{info.get('model')}"
    return f"{info['brand_raw']} {model}, {isa}, {threads} threads"


def memory_mb(name: str, pid: int | str = "self") -> float:
    """Return memory of a process in MB.

    `name` is VmRSS (now), VmHWM (peak), or Pss (shared pages are divided among their processes).
    """
    status = Path(f"/proc/{pid}/{'smaps_rollup' if name == 'Pss' else 'status'}").read_text(encoding="ascii")
    kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:"))
    return kilobytes * 1024 / 1e6


def probe(threads: int) -> float:
    """Time a fixed piece of work on all threads, in seconds. The time varies only with the machine's load."""
    with ThreadPoolExecutor(threads) as pool:  # threads hash in parallel, because hashing releases the GIL
        started = time.perf_counter()
        list(pool.map(lambda _: hashlib.sha256(bytes(PROBE_BYTES)).digest(), range(threads)))
        return time.perf_counter() - started
