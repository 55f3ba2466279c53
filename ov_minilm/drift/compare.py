"""Measure the drift of an artefact on this machine for each lowering (way to run the linear layers)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ov_minilm.artefact.drift_record import Drift
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.drift.evaluation import Evaluation
from ov_minilm.drift.scores import measure, memoize
from ov_minilm.runtime.embedder import Embedder

Lowering = Literal["auto", "native", "conv"]


def lowerings(model: Path | None) -> tuple[Lowering, ...]:
    """Return the lowerings that an artefact has on a CPU: two for INT8, one for FP32."""
    return ("native", "conv") if Manifest.read(model or SHIPPED).weights == "int8" else ("native",)


def compare(
    model: Path | None,
    reference: Path,
    data: Evaluation,
    *,
    chosen_lowerings: Sequence[Lowering],
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto",
    threads: int | None = None,
) -> list[Drift]:
    """Measure the drift from an FP32 artefact, one Drift for each lowering in `chosen_lowerings`.

    Raises:
        ValueError: the reference does not have FP32 weights.
        ArtefactError: a folder is not a complete, unchanged artefact.
    """
    manifest = Manifest.read(reference)
    if manifest.weights != "f32":
        raise ValueError(f"{reference} has {manifest.weights} weights; the reference must be FP32")
    drifts = []
    with Embedder.open(reference, precision="f32", threads=threads) as fp32:
        expected = memoize(fp32.encode)
        for lowering in chosen_lowerings:
            with Embedder.open(model, precision=precision, lowering=lowering, threads=threads) as embedder:
                info = embedder.info
                drifts.append(
                    measure(
                        expected,
                        embedder.encode,
                        fp32.count_tokens,
                        data,
                        precision=info.precision,
                        lowering=info.lowering,
                        max_tokens=manifest.spec.max_tokens,
                    )
                )
    return drifts
