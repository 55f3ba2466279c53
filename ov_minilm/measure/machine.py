"""The machine on which a figure was measured."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cpuinfo

ISA = {  # flags -> how people write them, the strongest of each family first
    ("amx_int8", "amx_bf16"): "AMX",
    ("avx512_vnni",): "AVX-512 VNNI",
    ("avx512f",): "AVX-512",
    ("avx_vnni",): "AVX-VNNI",
    ("avx2",): "AVX2",
}
LIMIT = "ONEDNN_MAX_CPU_ISA"
PROBE_BYTES = 4 << 20  # hashed by every thread: 2 to 10 ms


def describe(threads: int) -> str:
    """Name the processor, its instruction sets, what holds them back, and the threads that run."""
    info = cpuinfo.get_cpu_info()
    flags = info.get("flags", [])
    isa = next((name for needed, name in ISA.items() if set(needed) <= set(flags)), "no AVX2")
    if "avx512_bf16" in flags and isa != "AMX":
        isa += " and BF16"
    if limit := os.environ.get(LIMIT):
        isa += f", held to {limit}"
    model = f"{info.get('family')}/{info.get('model')}"
    return f"{info['brand_raw']} {model}, {isa}, {threads} threads"


def memory_mb(name: str, pid: int | str = "self") -> float:
    """Read a figure of a process's memory from Linux in MB: VmRSS now, VmHWM at the peak, Pss its share."""
    status = Path(f"/proc/{pid}/{'smaps_rollup' if name == 'Pss' else 'status'}").read_text(encoding="ascii")
    kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:"))
    return kilobytes * 1024 / 1e6


def probe(threads: int) -> float:
    """Return the seconds of a fixed piece of work on all threads; it varies only with the machine's load."""
    with ThreadPoolExecutor(threads) as pool:  # hashing releases the GIL
        started = time.perf_counter()
        list(pool.map(lambda _: hashlib.sha256(bytes(PROBE_BYTES)).digest(), range(threads)))
        return time.perf_counter() - started
