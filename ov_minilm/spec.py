"""Frozen facts, and the shape letters used in every comment.

N texts, T tokens, R rows, W width (tokens a row), S slots (texts a row), D components of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]


SLOTS = 32  # texts that may share a row; the graph returns this many vectors for each


@dataclass(frozen=True, slots=True)
class Grid:
    """The fixed input shape of one compiled model."""

    rows: int
    width: int
    slots: int = SLOTS

    @property
    def cells(self) -> int:
        """Places for tokens."""
        return self.rows * self.width

    def __str__(self) -> str:
        return f"{self.rows}x{self.width}"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the runtime and the conversion must know of the checkpoint."""

    name: str
    dim: int
    max_tokens: int  # sentence_bert_config.json, the truth; tokenizer.json says 128 and config.json 512
    vocab_size: int
    layers: int
    heads: int
    intermediate: int


MINILM = ModelSpec(
    name="sentence-transformers/all-MiniLM-L6-v2",
    dim=384,
    max_tokens=256,
    vocab_size=30522,
    layers=6,
    heads=12,
    intermediate=1536,
)

LONG = 64  # tokens; the widest row that short texts share

# About 512 tokens a batch keep activations in cache; single rows serve a lone text with all threads.
GRIDS = (
    Grid(8, 64),
    Grid(2, 256),
    Grid(1, 16),
    Grid(1, 32),
    Grid(1, 64),
    Grid(1, 128),
    Grid(1, 256),
)
