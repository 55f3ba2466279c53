"""The adapter of this package itself, for worker.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from ov_minilm.runtime.embedder import Embedder
from ov_minilm.spec import FloatArray

BATCHES: tuple[int, ...] = ()  # the package decides
SORTED = False
CONCURRENT = True
LOWERINGS: dict[str, Literal["native", "conv"]] = {"native": "native", "conv": "conv"}  # by variant

_opened: dict[str, Any] = {}  # what `facts` tells of; a worker loads once


def load(variant: str, models: dict[str, str], threads: int) -> Callable[[list[str], int], FloatArray]:
    """Open the artefact in the folder `models["model"]`, "" being the one in the package.

    What else `models` names is an option of `Embedder.open` in MB.
    """
    options: dict[str, Any] = {name: int(value) for name, value in models.items() if name != "model"}
    embedder = Embedder.open(
        models["model"] or None,
        lowering=LOWERINGS.get(variant, "auto"),
        precision="f32" if variant == "fp32" else "auto",
        threads=threads,
        **options,
    )
    _opened.update(embedder.info.as_dict())
    return lambda texts, _: embedder.encode(texts, progress=False)


def facts(_: str) -> dict[str, str]:
    """Versions, and what really runs."""
    names = ("precision", "lowering", "kernel")
    return {**_opened["versions"], **{name: str(_opened[name]) for name in names}}
