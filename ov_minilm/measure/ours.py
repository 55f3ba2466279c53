"""The adapter for ov_minilm itself, used by worker.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from ov_minilm.runtime.embedder import Embedder
from ov_minilm.spec import FloatArray

BATCHES: tuple[int, ...] = ()  # packing needs no batch size
SORTED = False
CONCURRENT = True
LOWERINGS: dict[str, Literal["native", "conv"]] = {"native": "native", "conv": "conv"}  # by variant

_info: dict[str, Any] = {}  # the `info` of the Embedder that `load` opened


def load(variant: str, models: dict[str, str], threads: int) -> Callable[[list[str], int], FloatArray]:
    """Open the artefact in the folder `models["model"]`, "" being the one in the package.

    Other entries of `models` are options of `Embedder.open` in MB: memory_mb, cache_mb.
    """
    options: dict[str, Any] = {name: int(value) for name, value in models.items() if name != "model"}
    embedder = Embedder.open(
        models["model"] or None,
        lowering=LOWERINGS.get(variant, "auto"),
        precision="f32" if variant == "fp32" else "auto",
        threads=threads,
        **options,
    )
    _info.update(embedder.info.as_dict())
    return lambda texts, _: embedder.encode(texts, progress=False)


def versions(_: str) -> dict[str, str]:
    """Return versions, and the precision, lowering and kernel that run."""
    names = ("precision", "lowering", "kernel")
    return {**_info["versions"], **{name: str(_info[name]) for name in names}}
