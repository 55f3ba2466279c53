"""The golden text, whose vector is known: a compiled grid must reproduce this vector before it is used.

Broken drivers and stale caches can produce plausible-looking but wrong vectors.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ov_minilm.spec import FloatArray

TEXT = "A lighthouse keeper counts the ships that pass in the night."
MIN_COSINE = 0.99  # a correct INT8 grid has 0.998; an unrelated vector has about 0


@dataclass(frozen=True, slots=True)
class Golden:
    """A text, its token ids, and its vector by the original model."""

    text: str
    ids: tuple[int, ...]
    vector: str  # base64 of D little-endian float16

    @classmethod
    def of(cls, text: str, ids: Sequence[int], vector: FloatArray) -> Golden:
        """Make a Golden from a text, its token ids, and its unit vector [D] float32."""
        return cls(text, tuple(map(int, ids)), base64.b64encode(vector.astype("<f2").tobytes()).decode())

    def array(self) -> FloatArray:
        """Return the vector [D] float32.

        Raises:
            ValueError: the stored text is not base64 of float16, or the vector's length is not 1.
        """
        try:
            vector = np.frombuffer(base64.b64decode(self.vector, validate=True), "<f2").astype(np.float32)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"golden.vector: not base64 of float16 ({error})") from error
        if not abs(float(np.linalg.norm(vector)) - 1) < 0.01:
            raise ValueError("golden.vector: its length is not 1")
        return vector

    def min_cosine(self, vectors: FloatArray) -> float:  # [N, D]
        """Return the lowest cosine of the vectors with the golden one; NaN if any vector has a NaN.

        The cosine is computed as 1 - distance² / 2, so that a vector whose length is not 1 gets a lower
        value.
        """
        distances = np.square(vectors.astype(np.float64) - self.array()).sum(-1)
        return 1 - float(distances.max()) / 2
