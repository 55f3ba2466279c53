"""The rows that a job reads, encodes and writes, and how bad rows are treated.

A row is bad if it has no text: a null, a number, broken UTF-8, a line that is not a JSON object, or the
place from which a damaged file cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from numpy.typing import NDArray

from ov_minilm.errors import BadRow

if TYPE_CHECKING:
    import pyarrow as pa

# Rows that are read and encoded together.
MAX_ROWS, FULL_BYTES = 512, 1 << 15  # the one that is reached first
MIN_ROWS, MAX_BYTES_OF_MIN_ROWS = 64, 1 << 20  # of long rows so many, unless they are longer than this

VECTOR = "embedding"  # the name of the output's column

OnError = Literal["stop", "skip", "null"]

# Columns to keep, of N rows: with types of Arrow, or as the members of a JSON object a row; None without any.
Kept: TypeAlias = "pa.RecordBatch | list[str] | None"


def rows_together(row_bytes: float) -> int:
    """Return how many rows of this size, in bytes, are read and encoded together."""
    rows = min(MAX_ROWS, max(MIN_ROWS, FULL_BYTES / row_bytes), MAX_BYTES_OF_MIN_ROWS / row_bytes)
    return max(1, int(rows))


class Position(NamedTuple):
    """Where a row starts, so that reading can go on there."""

    file: int = 0  # index into the inputs
    row: int = 0  # rows before it in that file; in text and JSON, lines
    byte: int = 0  # its first byte in a file of lines, after decompression; 0 in parquet


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of one file."""

    file: str
    unit: str  # what a row of this file is called: line or row
    numbers: Sequence[int]  # [N] of each in its file, from 1
    texts: list[str | None]  # [N]; None where the row is bad
    columns: Kept
    bad: Mapping[int, str]  # index into texts -> reason
    end: Position  # where the row after the last one starts
    done: int = 0  # bytes of all inputs that were read before `end`
    shard: int = 0
    digest: str = ""  # of the rows of the shard up to `end`

    def errors(self) -> list[BadRow]:
        """Name each bad row."""
        return [
            BadRow(self.file, self.unit, self.numbers[index], reason)
            for index, reason in sorted(self.bad.items())
        ]


@dataclass(frozen=True, slots=True)
class Block:
    """Rows with their vectors, ready to be written."""

    texts: Sequence[str | None]  # [N]
    columns: Kept  # None: the text stands beside the vector
    vectors: NDArray[Any]  # [N, D]; without meaning in rows that have no text


def apply_error_policy(rows: Rows, on_error: OnError) -> Rows:
    """With "skip" drop the bad rows; with "null" keep them, without a text.

    Raises:
        BadRow: with "stop", for the first of them.
    """
    if not rows.bad or on_error == "null":
        return rows
    if on_error == "stop":
        raise rows.errors()[0]
    kept = [index for index in range(len(rows.texts)) if index not in rows.bad]
    columns = rows.columns
    if isinstance(columns, list):
        columns = [columns[index] for index in kept]
    elif columns is not None:
        columns = select(columns, kept)
    numbers = [rows.numbers[index] for index in kept]
    return replace(rows, numbers=numbers, texts=[rows.texts[index] for index in kept], columns=columns)


def select(batch: pa.RecordBatch, rows: Sequence[int]) -> pa.RecordBatch:
    """Return these rows, of any type; Arrow's own `take` has none for views, nor for no rows."""
    import pyarrow as pa  # only a batch's caller needs it

    arrays = [
        pa.concat_arrays([array.slice(row, 1) for row in rows]) if rows else array.slice(0, 0)
        for array in batch.columns
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def damaged(error: OSError | ValueError) -> bool:
    """Return whether Arrow says that a file is broken, unlike errors of the system and of this package."""
    if isinstance(error, OSError):
        return error.errno is None
    return type(error).__module__ == "pyarrow.lib"
