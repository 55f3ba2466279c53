"""What a figure was measured on, to stand beside it."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import cpuinfo

from ov_minilm._version import __version__
from ov_minilm.runtime import cpus

ISA_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


@dataclass(frozen=True, slots=True)
class Limit:
    """One kind of CPU that a larger one can be held to, by environment variables of a new process."""

    flag: str  # what the machine must have
    environment: dict[str, str]


# Every library is held by what it offers. MLAS, which ONNX Runtime uses, and OpenVINO for FP32, has nothing
# of the kind: it asks the processor.
PATHS = {
    "amx": Limit("amx_int8", {"ONEDNN_MAX_CPU_ISA": "ALL"}),
    "bf16": Limit(
        "avx512_bf16",
        {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16", "MKL_ENABLE_INSTRUCTIONS": "AVX512_E2"},  # E2: with BF16
    ),
    "vnni": Limit(
        "avx512_vnni",
        {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI", "MKL_ENABLE_INSTRUCTIONS": "AVX512_E1"},  # E1: with VNNI
    ),
    "avx2": Limit(
        "avx2",
        {
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "ATEN_CPU_CAPABILITY": "avx2",
            "CT2_FORCE_CPU_ISA": "AVX2",
        },
    ),
}


def facts() -> dict[str, Any]:
    """Return processor, its instruction sets, threads granted, load, and versions."""
    info = cpuinfo.get_cpu_info()
    return {
        "cpu": info["brand_raw"],
        "family_model": f"{info.get('family')}/{info.get('model')}",
        "isa": [flag for flag in ISA_FLAGS if flag in info.get("flags", [])],
        "isa_limit": os.environ.get("ONEDNN_MAX_CPU_ISA", "none"),
        "threads_granted": cpus.granted(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"ov-minilm": __version__}
        | {name: version(name) for name in ("openvino", "tokenizers", "numpy")}
        | {"python": platform.python_version()},
    }


def own_path(isa: Collection[str]) -> str:
    """Return which of PATHS a machine with these instruction sets takes by itself; "other" if none."""
    return next((name for name, limit in PATHS.items() if limit.flag in isa), "other")


def kilobytes(what: str, pid: int | Literal["self"] = "self") -> int:
    """Read a figure of a process's memory, in kB, from Linux: VmRSS now, VmHWM at the peak."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{what}:"))
