"""Constants of the model and its grids, and the letters that comments use for shapes of arrays.

N texts, T tokens, R rows, W width (tokens a row), S slots (texts a row), D components of a vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
Pooling = Literal["mean", "cls"]  # mean of all tokens, or the first token; then L2 normalization
Precision = Literal["f32", "bf16", "f16"]

SLOTS = 32  # maximum of texts in a row; the graph returns this many vectors per row
LONG_TEXT_TOKENS = 64  # longer texts may run in another precision, and have their own rows
BATCH_TOKENS = 512  # cells of a full batch; batches of 1,024 do not fit a core's cache and are 7 % slower
SMALL_BATCH_TOKENS = 128  # cells of a small batch, for a few short texts; all threads run it together


@dataclass(frozen=True, slots=True)
class Grid:
    """The fixed input shape of one compiled model."""

    rows: int
    width: int
    slots: int = SLOTS

    @property
    def cells(self) -> int:
        """Number of tokens that fit, rows x width."""
        return self.rows * self.width

    @property
    def uses_all_threads(self) -> bool:
        """Whether a batch runs alone, on all threads; larger grids run one batch in each stream."""
        return self.rows == 1 or self.cells <= SMALL_BATCH_TOKENS

    def __str__(self) -> str:
        return f"{self.rows}x{self.width}"


@dataclass(frozen=True, eq=False)  # compared by identity, so a lane is a fast dictionary key
class Lane:
    """Grids whose texts may share rows, because they run in one precision."""

    grids: tuple[Grid, ...]
    precision: Precision
    # texts start at multiples of this many tokens, so that their bits are the same in every row
    align: int = 1

    @cached_property
    def row_widths(self) -> list[int]:
        """Widths of the grids of several rows, and of wider single rows."""
        shared = {grid.width for grid in self.grids if grid.rows > 1}
        return sorted(shared | {grid.width for grid in self.grids if grid.width > max(shared, default=0)})


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Facts about the checkpoint that runtime and conversion need.

    Fields with a default are missing in manifests of earlier versions.
    """

    name: str
    dim: int
    # from sentence_bert_config.json (256); MiniLM's tokenizer.json has 128, its config.json has 512
    max_tokens: int
    vocab_size: int
    layers: int
    heads: int
    intermediate: int
    pooling: Pooling = "mean"
    prompts: dict[str, str] = field(default_factory=dict)  # kind of text -> prompt to put before it


MINILM = ModelSpec(
    name="sentence-transformers/all-MiniLM-L6-v2",
    dim=384,
    max_tokens=256,
    vocab_size=30522,
    layers=6,
    heads=12,
    intermediate=1536,
)

# Widths of single rows besides 64 and the maximum, the most useful first. A grid takes about 36 MB.
# Further widths (24, 48, 96, 160) would make texts of these lengths 15 to 25 % faster.
SINGLE_ROW_WIDTHS = (16, 32, 128, 208, 8)
# Widths of rows for texts over LONG_TEXT_TOKENS, as shares of the longest text: 256, 208, 160. Passages of
# 129 to 256 tokens run 30 % faster than with width 256 alone; with a fourth width, 34 % faster, for 60 MB
# more.
SHARES_OF_LONGEST = (1.0, 0.8125, 0.625)
# Long texts share rows of this width. Wider shared rows would be slower, because the cost of attention grows
# with the square of the width.
WIDE_ROW = 256


def grids(max_tokens: int) -> tuple[Grid, ...]:
    """Return the grids for texts of up to `max_tokens` tokens; a memory limit drops the last ones first.

    The first two grids are enough for every text. Then come grids for full batches, which make lists fast,
    and single rows of more widths, which make single texts fast.
    """
    longest = max(LONG_TEXT_TOKENS, 16 * math.ceil(max_tokens / 16))
    shared = min(longest, WIDE_ROW)
    wide = {longest} | {16 * round(share * shared / 16) for share in SHARES_OF_LONGEST}
    widths = sorted((width for width in wide if width > LONG_TEXT_TOKENS), reverse=True)
    singles = [width for width in SINGLE_ROW_WIDTHS if width < longest]
    return tuple(
        dict.fromkeys(
            [
                *(Grid(1, width) for width in (LONG_TEXT_TOKENS, longest)),
                *(Grid(max(2, BATCH_TOKENS // width), width) for width in (LONG_TEXT_TOKENS, *widths)),
                *(Grid(1, width) for width in singles[:3]),
                Grid(2, LONG_TEXT_TOKENS),
                *(Grid(1, width) for width in singles[3:]),
            ]
        )
    )


GRIDS = grids(MINILM.max_tokens)
