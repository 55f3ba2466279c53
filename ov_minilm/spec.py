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
Pooling = Literal["mean", "cls"]  # of a text's tokens, or its first token alone; then L2
Precision = Literal["f32", "bf16", "f16"]

SLOTS = 32  # texts that may share a row; the graph returns this many vectors for each
LONG_TEXT_TOKENS = 64  # texts with more may run in another precision, in rows of their own
BATCH_TOKENS = 512  # of a full batch: more falls out of one core's cache: 1,024 are 7 % slower
SMALL_BATCH_TOKENS = 128  # of a batch for a few short texts, which all threads run together


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

    @property
    def uses_all_threads(self) -> bool:
        """Whether one batch at a time runs, on all threads; of larger grids each stream runs its own."""
        return self.rows == 1 or self.cells <= SMALL_BATCH_TOKENS

    def __str__(self) -> str:
        return f"{self.rows}x{self.width}"


@dataclass(frozen=True, eq=False)  # compared by identity: it is a key at every batch
class Lane:
    """Grids whose texts may share rows, because they run in one precision."""

    grids: tuple[Grid, ...]
    precision: Precision
    align: int = 1  # tokens: where texts may start in a row for their bits to be the same in every row

    @cached_property
    def row_widths(self) -> list[int]:
        """Widths of grids of several rows, and of single rows that are wider."""
        shared = {grid.width for grid in self.grids if grid.rows > 1}
        return sorted(shared | {grid.width for grid in self.grids if grid.width > max(shared, default=0)})


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the runtime and the conversion must know of the checkpoint.

    Fields with a default are younger than the first artefacts: a manifest without them means the default.
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

# Widths of single rows beside 64 and the longest, the most useful first. Each takes some 36 MB; 24, 48, 96
# and 160 would make the texts that need them 15 to 25 % faster.
SINGLE_ROW_WIDTHS = (16, 32, 128, 208, 8)
# Widths of rows for texts over LONG_TEXT_TOKENS, as shares of the longest text: 256, 208, 160. On passages of
# 129 to 256 tokens they are 30 % faster than 256 alone; four widths would be 34 %, for 60 MB more.
SHARES_OF_LONGEST = (1.0, 0.8125, 0.625)
WIDE_ROW = 256  # tokens: texts up to this length share no wider rows, as attention grows with the square


def grids(max_tokens: int) -> tuple[Grid, ...]:
    """Return the grids for texts of up to this many tokens, in the order in which a memory budget keeps them.

    The first two serve every text. Then come full batches, which make lists fast, and single rows of more
    widths, which make single texts fast.
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
