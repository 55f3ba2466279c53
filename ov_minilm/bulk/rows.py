"""The rows that a job reads, encodes and writes, and how bad rows are treated.

A row is bad if it has no text: a null, a number, broken UTF-8, a line that is not a JSON object, or the first
row of a damaged file that cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from numpy.typing import NDArray

from ov_minilm.errors import BadRow

if TYPE_CHECKING:
    import pyarrow as pa

# Size of a block of rows that are read and encoded at once: it ends at MAX_ROWS or TARGET_BYTES, but has at
# least MIN_ROWS, unless these have more than MAX_BYTES_OF_MIN_ROWS.
MAX_ROWS, TARGET_BYTES = 512, 1 << 15
MIN_ROWS, MAX_BYTES_OF_MIN_ROWS = 64, 1 << 20

VECTOR = "embedding"  # name of the column in the output

OnError = Literal["stop", "skip", "null"]

# Columns to keep, of N rows: Arrow arrays, or the members of a JSON object for each row; None: no columns.
Kept: TypeAlias = "pa.RecordBatch | list[str] | None"


def rows_per_block(row_bytes: float) -> int:
    """Return how many rows of this size, in bytes, are read and encoded at once."""
    rows = min(MAX_ROWS, max(MIN_ROWS, TARGET_BYTES / row_bytes), MAX_BYTES_OF_MIN_ROWS / row_bytes)
    return max(1, int(rows))


class Position(NamedTuple):
    """The start of a row, at which reading can continue."""

    file: int = 0  # index into the inputs
    row: int = 0  # number of rows (in text and JSON, of lines) before this row in the file
    byte: int = 0  # the row's first byte in a file of lines, after decompression; 0 in Parquet


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of one file."""

    file: str
    unit: str  # "line" or "row", for messages
    numbers: Sequence[int]  # [N] number of each row in its file, from 1
    texts: list[str | None]  # [N]; None if the row is bad
    columns: Kept
    bad: Mapping[int, str]  # index into texts -> reason
    end: Position  # start of the row after these rows
    done: int = 0  # bytes of all inputs that were read before `end`
    shard: int = 0
    digest: str = ""  # digest of the shard's rows up to `end`

    def errors(self) -> list[BadRow]:
        """Return the error of each bad row."""
        return [
            BadRow(self.file, self.unit, self.numbers[index], reason)
            for index, reason in sorted(self.bad.items())
        ]


@dataclass(frozen=True, slots=True)
class Block:
    """Rows with their vectors, ready to be written."""

    texts: Sequence[str | None]  # [N]
    columns: Kept  # None: the text is written with the vector
    vectors: NDArray[Any]  # [N, D]; meaningless for rows without a text


def apply_error_policy(rows: Rows, on_error: OnError) -> Rows:
    """Drop bad rows if `on_error` is "skip"; keep them without a text if `on_error` is "null".

    Raises:
        BadRow: the first bad row, if `on_error` is "stop".
    """
    if not rows.bad or on_error == "null":
        return rows
    if on_error == "stop":
        raise rows.errors()[0]
    good_rows = [index for index in range(len(rows.texts)) if index not in rows.bad]
    columns = rows.columns
    if isinstance(columns, list):
        columns = [columns[index] for index in good_rows]
    elif columns is not None:
        columns = select(columns, good_rows)
    numbers = [rows.numbers[index] for index in good_rows]
    return replace(rows, numbers=numbers, texts=[rows.texts[index] for index in good_rows], columns=columns)


def select(batch: pa.RecordBatch, rows: Sequence[int]) -> pa.RecordBatch:
    """Return these rows of an array; Arrow's `take` fails for view types and for no rows."""
    import pyarrow as pa  # imported only when needed

    arrays = [
        pa.concat_arrays([array.slice(row, 1) for row in rows]) if rows else array.slice(0, 0)
        for array in batch.columns
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def means_damage(error: OSError | ValueError) -> bool:
    """Return whether an error of Arrow means that a file is broken, and not a fault of the system."""
    if isinstance(error, OSError):
        return error.errno is None
    return type(error).__module__ == "pyarrow.lib"
