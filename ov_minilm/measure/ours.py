"""The adapter of this package itself, for worker.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from ov_minilm.runtime.embedder import Embedder
from ov_minilm.spec import FloatArray

BATCHES: tuple[int, ...] = ()  # the package decides
SORTED = False
CONCURRENT = True
VARIANTS: dict[str, Literal["auto", "native", "conv"]] = {
    "int8": "auto",
    "native": "native",
    "conv": "conv",
    "fp32": "auto",
}

_opened: dict[str, Any] = {}  # what `facts` tells of; a worker loads once


def load(variant: str, models: dict[str, str], threads: int) -> Callable[[list[str], int], FloatArray]:
    """Open the artefact in the folder `models["model"]`, "" being the one in the package.

    `models["memory_mb"]`, if it is there, is the memory budget.
    """
    budget: dict[str, Any] = {"memory_mb": int(models["memory_mb"])} if "memory_mb" in models else {}
    embedder = Embedder.open(
        models["model"] or None,
        lowering=VARIANTS[variant],
        precision="f32" if variant == "fp32" else "auto",
        threads=threads,
        **budget,
    )
    _opened.update(embedder.info.as_dict())
    return lambda texts, _: embedder.encode(texts, progress=False)


def facts(_: str) -> dict[str, str]:
    """Versions, and what really runs."""
    names = ("precision", "lowering", "kernel")
    return {**_opened["versions"], **{name: str(_opened[name]) for name in names}}
