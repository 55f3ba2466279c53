"""What a figure was measured on, to stand beside it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import cpuinfo

from ov_minilm import cpus

ISA_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def facts() -> dict[str, object]:
    """Return processor, its instruction sets, threads granted, and versions."""
    info = cpuinfo.get_cpu_info()
    return {
        "cpu": info["brand_raw"],
        "family_model": f"{info.get('family')}/{info.get('model')}",
        "isa": [flag for flag in ISA_FLAGS if flag in info.get("flags", [])],
        "isa_limit": os.environ.get("ONEDNN_MAX_CPU_ISA", "none"),
        "threads_granted": cpus.granted(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in ("openvino", "tokenizers", "numpy")}
        | {"python": platform.python_version()},
    }
