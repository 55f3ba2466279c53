"""Writes vectors to Parquet, .npy or JSON lines.

The bytes depend only on the rows, not on the size of the blocks or on the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ov_minilm.bulk.json_text import json_text
from ov_minilm.bulk.rows import VECTOR, Block

if TYPE_CHECKING:
    import pyarrow as pa

Form = Literal["parquet", "npy", "jsonl"]
FORMS: tuple[Form, ...] = ("parquet", "npy", "jsonl")


@dataclass(frozen=True, slots=True)
class Sink:
    """Writes files of one format, with the same type of vectors, kept columns and metadata."""

    form: Form
    empty: NDArray[Any]  # [0, D], of the vectors' type
    schema: pa.Schema | None  # types of the kept columns
    metadata: Mapping[str, str]  # model, fingerprint and other facts, for Parquet's metadata

    def write(self, file: IO[bytes], blocks: Iterable[Block]) -> int:
        """Write one complete file; return its number of rows."""
        if self.form == "jsonl":
            return _write_jsonl(file, blocks)
        if self.form == "npy":
            return _write_npy(self.empty, file, blocks)
        from ov_minilm.bulk import parquet

        return parquet.write(parquet.output_schema(self.schema, self.empty, self.metadata), file, blocks)

    def join(self, file: IO[bytes], parts: Sequence[Path]) -> None:
        """Write one file with the rows of several."""
        if self.form == "jsonl":
            for part in parts:
                with part.open("rb") as source:
                    _copy(source, file)
        elif self.form == "npy":
            _join_npy(self.empty, file, parts)
        else:
            from ov_minilm.bulk import parquet

            parquet.join(parquet.output_schema(self.schema, self.empty, self.metadata), file, parts)


def json_lines(block: Block) -> Iterator[str]:
    """Yield a JSON object for each row; numbers have as few digits as possible without losing bits."""
    for text, head, vector in zip(block.texts, _row_prefixes(block), block.vectors, strict=True):
        numbers = "null" if text is None else f"[{', '.join(map(str, vector))}]"
        yield f'{{{head}, "{VECTOR}": {numbers}}}\n'


def _row_prefixes(block: Block) -> Iterator[str]:
    """Yield the JSON members before the vector: the kept columns, or the text if no columns are kept."""
    if isinstance(block.columns, list):
        yield from block.columns
        return
    for text in block.texts:
        yield f'"text": {json_text(text)}'


def _write_jsonl(file: IO[bytes], blocks: Iterable[Block]) -> int:
    rows = 0
    for block in blocks:
        file.writelines(line.encode("utf-8") for line in json_lines(block))
        rows += len(block.texts)
    return rows


def _write_npy(empty: NDArray[Any], file: IO[bytes], blocks: Iterable[Block]) -> int:
    start = _header(file, empty, 0)
    rows = 0
    for block in blocks:
        vectors = np.array(block.vectors, empty.dtype, order="C")
        without_text = [row for row, text in enumerate(block.texts) if text is None]
        if without_text:
            vectors[without_text] = np.nan
        file.write(vectors.data)
        rows += len(vectors)
    _close_header(file, empty, rows, start)
    return rows


def _join_npy(empty: NDArray[Any], file: IO[bytes], parts: Sequence[Path]) -> None:
    start = _header(file, empty, 0)
    rows = 0
    for part in parts:
        with part.open("rb") as source:
            npy.read_magic(source)
            rows += npy.read_array_header_1_0(source)[0][0]
            _copy(source, file)
    _close_header(file, empty, rows, start)


def _header(file: IO[bytes], empty: NDArray[Any], rows: int) -> int:
    """Write the header of an array [rows, D]; return its length."""
    shape = (rows, empty.shape[1])
    kind = npy.dtype_to_descr(empty.dtype)
    npy.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.tell()


def _close_header(file: IO[bytes], empty: NDArray[Any], rows: int, start: int) -> None:
    """Write the header again with the number of rows. numpy pads headers, so the length stays the same."""
    file.seek(0)
    if _header(file, empty, rows) != start:
        raise RuntimeError(f"the .npy header of {rows} rows is longer than that of 0 rows")
    file.seek(0, 2)


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    while block := source.read(1 << 20):
        target.write(block)
