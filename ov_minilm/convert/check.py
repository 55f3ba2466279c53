"""The packed FP32 graph against what it was made from: the untouched export, and sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ov_minilm.backend import ov
from ov_minilm.spec import FloatArray, IntArray

LEAST_COSINE = 0.999999


def export_vectors(exported: ov.Model, samples: Sequence[dict[str, IntArray]]) -> FloatArray:  # -> [N, D]
    """Run the untouched export one text at a time and pool its hidden states here."""
    compiled = ov.compile_model(exported, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    vectors = []
    for sample in samples:
        ids = sample["input_ids"].astype(np.int64)
        request.infer(
            {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        )
        mean = request.get_output_tensor(0).data[0].mean(0)
        vectors.append(mean / np.linalg.norm(mean))
    return np.array(vectors, np.float32)


def original_vectors(folder: Path, texts: Sequence[str]) -> FloatArray:  # -> [N, D]
    """Encode with sentence-transformers, FP32 on torch."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    vectors: FloatArray = model.encode(list(texts), show_progress_bar=False, normalize_embeddings=True)
    return vectors


def require_equal(name: str, expected: FloatArray, found: FloatArray) -> float:
    """Return the least cosine between rows; one under the limit stops the build.

    Raises:
        RuntimeError: naming the reference and the text whose vector differs.
    """
    cosines = (expected.astype(np.float64) * found).sum(1)
    worst = int(cosines.argmin())
    if not cosines[worst] >= LEAST_COSINE:
        raise RuntimeError(
            f"FP32 differs from {name}: cosine {cosines[worst]:.7f} at text {worst}, limit {LEAST_COSINE}"
        )
    return float(cosines[worst])
