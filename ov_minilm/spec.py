"""Frozen facts, and the shape letters used in every comment.

N texts, T tokens, R rows, W width (tokens a row), S slots (texts a row), D components of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
Pooling = Literal["mean", "cls"]  # of a text's tokens, or its first token alone; then L2

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
    """What the runtime and the conversion must know of the checkpoint.

    A fact with a default came after the first artefacts: manifests without it mean the default.
    """

    name: str
    dim: int
    max_tokens: int  # by sentence_bert_config.json; of MiniLM tokenizer.json says 128, config.json 512
    vocab_size: int
    layers: int
    heads: int
    intermediate: int
    pooling: Pooling = "mean"
    prompts: dict[str, str] = field(default_factory=dict)  # what to put before a text of each kind, by name


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


def grids(max_tokens: int) -> tuple[Grid, ...]:
    """Return the grids for texts of up to this many tokens: widths double up to the first that holds them.

    About 512 tokens a batch keep activations in cache; two short rows are for a few texts, which streams then
    share; single rows serve a lone text with all threads.
    """
    widths = [16, 32, 64]
    while widths[-1] < max_tokens:
        widths.append(2 * widths[-1])
    wide = sorted({LONG, min(256, widths[-1]), widths[-1]})
    many = [Grid(max(2, 512 // width), width) for width in wide] + [Grid(2, LONG)]
    return (*many, *(Grid(1, width) for width in widths))


GRIDS = grids(MINILM.max_tokens)
