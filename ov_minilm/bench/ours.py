"""The rungs of the ladder that are ours: one change from each to the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ov_minilm.artefact.manifest import SHIPPED, TOKENIZER, Manifest
from ov_minilm.runtime.embedder import Embedder
from ov_minilm.runtime.engine import Engine
from ov_minilm.runtime.packing import Pool
from ov_minilm.runtime.tokens import Tokens
from ov_minilm.spec import FloatArray, Grid

BATCHES: tuple[int, ...] = ()  # the grids decide
SORTED = False

# A text a row, as a fixed-shape runtime without packing has it; 512 tokens a batch, like the packed grids.
PADDED = tuple(
    Grid(rows, width, slots=1)
    for rows, width in (
        *((32, 16), (16, 32), (8, 64), (4, 128), (2, 256)),
        *((1, 16), (1, 32), (1, 64), (1, 128), (1, 256)),
    )
)


@dataclasses.dataclass(frozen=True, slots=True)
class Rung:
    """One way to run an artefact."""

    title: str
    weights: Literal["fp32", "int8"]
    precision: Literal["auto", "f32", "bf16"]
    lowering: Literal["auto", "native", "conv"]
    packed: bool


RUNGS = {
    "fp32-padded": Rung("FP32, fixed shapes, a text a row", "fp32", "f32", "auto", packed=False),
    "bf16-padded": Rung("BF16, fixed shapes, a text a row", "fp32", "bf16", "auto", packed=False),
    "int8-native-padded": Rung("INT8, native kernels, a text a row", "int8", "f32", "native", packed=False),
    "int8-conv-padded": Rung("INT8 as 1×1 convolutions, a text a row", "int8", "f32", "conv", packed=False),
    "int8-packed": Rung("INT8, packed, float layers in FP32", "int8", "f32", "auto", packed=True),
    "fp32": Rung("FP32, packed", "fp32", "f32", "auto", packed=True),
    "int8": Rung("INT8, packed, BF16 where it helps: ov_minilm", "int8", "auto", "auto", packed=True),
}

_opened: dict[str, Any] = {}  # what `facts` tells of; a worker loads once


def load(variant: str, models: dict[str, str], threads: int) -> Callable[[list[str], int], FloatArray]:
    """Open a rung; `models` names the folders "fp32" and "int8", "" being the artefact in the package."""
    rung = RUNGS[variant]
    folder = Path(models[rung.weights]) if models[rung.weights] else SHIPPED
    if rung.packed:
        embedder = Embedder.open(folder, precision=rung.precision, lowering=rung.lowering, threads=threads)
        _opened.update(embedder.info.as_dict())
        return lambda texts, _: embedder.encode(texts, progress=False)

    manifest = Manifest.read(folder)
    engine = Engine.open(
        folder,
        dataclasses.replace(manifest, grids=PADDED),
        device="CPU",
        precision=rung.precision,
        lowering=rung.lowering,
        threads=threads,
        max_batch_tokens=None,
        cache_dir=None,
    )
    engine._grids.limit = 100  # all: what memory the padded shapes take is not what this rung is about
    tokens = Tokens.open(folder / TOKENIZER, manifest.spec)
    _opened.update(
        dataclasses.asdict(engine.plan), long_precision=engine.plan.long, fingerprint=manifest.fingerprint
    )
    dim = manifest.spec.dim
    return lambda texts, _: _padded(tokens, engine, texts, np.empty((len(texts), dim), np.float32))


def facts(_: str) -> dict[str, str]:
    """Say what really runs."""
    names = ("precision", "long_precision", "lowering", "kernel", "threads", "fingerprint")
    return {name: str(_opened[name]) for name in names}


def _padded(tokens: Tokens, engine: Engine, texts: list[str], out: FloatArray) -> FloatArray:  # [N, D]
    """Encode with one text a row: the same graph, whose slots after the first stay empty."""
    first, _ = tokens.encode(texts)
    pool = Pool(PADDED)
    pool.add(dict(enumerate(first)))
    for batch, vectors in engine.stream(pool.take_all()):
        used = batch.owner[:, 0] >= 0
        out[batch.owner[used, 0]] = vectors[used, 0]
    return out
