"""Readiness: one text, and the vector it must have."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ov_minilm.spec import FloatArray

TEXT = "A server is ready when it has answered right."
LEAST = 0.99  # cosine; another pooling, a swapped weight or NaN is far below
VECTOR = Path(__file__).with_name("golden.npy")  # float16, of the FP32 model


def cosine(vector: FloatArray) -> float:
    """Return how close a vector of TEXT is to the one it must be."""
    golden = np.load(VECTOR).astype(np.float32)
    return float(golden @ vector / np.linalg.norm(golden))
