"""A result as `measure` writes it, small enough to read."""

from __future__ import annotations

import copy
from typing import Any


def result() -> dict[str, Any]:
    """Return ours and FP32 with every figure, one peer that failed, and one noisy figure."""
    return copy.deepcopy(_RESULT)


def _contender(title: str, rate: float, ms: float, ratio: float) -> dict[str, Any]:
    spread = {"median": ratio, "min": ratio, "max": ratio, "spread": 0.0}
    return {
        "title": title,
        "facts": {
            "precision": "f32",
            "long_precision": "bf16",
            "lowering": "conv",
            "kernel": "brgemm_I8",
            "threads": "2",
        },
        "load_s": 0.5,
        "batch": {"short": 0},
        "peak_mb": 300,
        "rounds": 3,
        "throughput": {
            "short": {
                "median": rate,
                "min": rate * 0.9,
                "max": rate * 1.1,
                "best": rate * 1.1,
                "spread": 0.01,
                "tokens_per_s": 10 * rate,
                "ours_is_faster": spread,
            }
        },
        "latency_ms": {
            str(tokens): {
                "p50": ms * tokens,
                "p95": 1.1 * ms * tokens,
                "p99": 1.2 * ms * tokens,
                "calls": 60,
                "spread": 0.2 if tokens == 8 else 0.0,
                "ours_is_faster": spread,
            }
            for tokens in (8, 256)
        },
        "cost_ms": {"1": ms, "64": 20 * ms},
        "cosine": {"short": {"mean": 0.999, "min": 0.99}, "long": {"mean": 0.998, "min": 0.98}},
    }


_RESULT: dict[str, Any] = {
    "taken": "2026-01-02T03:04:05+00:00",
    "machine": {
        "cpu": "A <Fast> Processor",
        "family_model": "6/1",
        "isa": ["avx2"],
        "isa_limit": "none",
        "threads_granted": 2,
        "load": 0.1,
        "system": "Linux x86_64",
        "versions": {"ov-minilm": "0.1.0", "openvino": "2026.4"},
    },
    "threads": 2,
    "rounds": 3,
    "noise_bound": 0.15,
    "texts": "made here",
    "mode": "quick",
    "artefact": "0123456789abcdef",
    "workloads": {"short": {"texts": 1024, "tokens": 10240, "mean_tokens": 10.0, "sha256": "00"}},
    "contenders": {
        "fp32": _contender("FP32, packed", 1000.0, 0.2, 4.0),
        "int8": _contender("INT8, packed", 4000.0, 0.1, 1.0),
    },
    "unavailable": {"someone/else": "pip found no version for this Python"},
    "noisy": ["fp32, latency_ms 8"],
    "interrupted": False,
    "scatter": {"short": [[0.1, 0.9], [0.11, 0.88]], "long": [[0.2], [0.2]]},
    "startup": {
        "interpreter_s": 0.01,
        "import_package_s": 0.02,
        "import_encode_s": 0.2,
        "first_vector_s": 0.7,
    },
}
