"""Reads Parquet in pieces of row groups, and writes it so that equal rows always give equal bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ov_minilm.bulk import columns
from ov_minilm.bulk.inputs import Inputs, column_index
from ov_minilm.bulk.lines import MAX_BYTES
from ov_minilm.bulk.refusals import bad_row, refusal
from ov_minilm.bulk.rows import VECTOR, Block, Kept, Position, Rows, means_damage, rows_per_block

# maximum rows in a row group of the output, and maximum bytes of its strings
GROUP_ROWS, GROUP_BYTES = 8192, 1 << 26
TEXTUAL = tuple(
    getattr(pa.types, f"is_{kind}")
    for kind in ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
)
BUFFER_BYTES = 1 << 16  # bytes read at a time, because a column of a row group may have gigabytes


@dataclass(frozen=True, slots=True)
class UnreadableRows:
    """Rows that cannot be read."""

    rows: int
    reason: str

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, which: slice) -> UnreadableRows:
        return replace(self, rows=len(range(self.rows)[which]))


Piece: TypeAlias = "pa.RecordBatch | UnreadableRows"


class Parquet:
    """Reads one file, starting at a position. Texts are strings, or binary values in UTF-8.

    If a row group is damaged, its remaining rows are bad, and reading continues with the next row group, so
    row numbers do not change.
    """

    def __init__(self, inputs: Inputs, name: str, at: Position) -> None:
        self._name = name
        self._column = inputs.column
        self._inputs = inputs
        self._at = at
        self._bytes = Path(name).stat().st_size
        self._file = pq.ParquetFile(name, buffer_size=BUFFER_BYTES, pre_buffer=False)
        kept_types(inputs, name, self._file.schema_arrow)
        metadata = self._file.metadata
        self._rows = metadata.num_rows
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        size = sum(group.total_byte_size for group in groups)
        self._max_rows = rows_per_block(max(1, size / max(1, self._rows)))
        self._groups = [group.num_rows for group in groups]
        self._too_long = [_holds_one_long_text(group, self._column) for group in groups]
        self._pieces = self._read(at.row)
        self._piece: Piece = pa.RecordBatch.from_pylist([], pa.schema([]))

    def take(self, max_rows: int) -> Rows:
        """Return the next rows; an empty result means the end of the file."""
        while not len(self._piece):
            next_piece = next(self._pieces, None)
            if next_piece is None:
                return Rows(self._name, "row", (), [], None, {}, self._at)
            self._piece = next_piece
        piece, self._piece = self._piece[:max_rows], self._piece[max_rows:]
        bad: dict[int, str] = {}
        texts: list[str | None] = [None] * len(piece)
        if isinstance(piece, UnreadableRows):
            bad = dict.fromkeys(range(len(piece)), piece.reason)
        else:
            texts = _texts(piece.column(self._column), bad)
        columns_to_keep = self._kept(piece, bad)
        for row in bad:
            texts[row] = None
        first = self._at.row + 1
        self._at = Position(self._at.file, self._at.row + len(texts))
        return Rows(
            self._name, "row", range(first, first + len(texts)), texts, columns_to_keep, bad, self._at
        )

    def _kept(self, piece: Piece, bad: dict[int, str]) -> Kept:
        """Cast the columns to keep to their types in the output, or convert them to JSON."""
        keep, schema = list(self._inputs.keep), self._inputs.schema
        if not keep:
            return None
        if isinstance(piece, UnreadableRows):
            return columns.null_columns(keep, schema, len(piece))
        if schema is None:
            return columns.render(piece.select(keep), bad)
        return columns.cast_columns(piece, schema, bad)

    def _read(self, skip: int) -> Iterator[Piece]:
        """Yield pieces of each row group from its first row on, so that damage is found at the same row."""
        names = [self._column, *self._inputs.keep]
        for group, rows in enumerate(self._groups):
            if skip >= rows:
                skip -= rows
                continue
            if self._too_long[group]:
                yield UnreadableRows(rows, bad_row("long", most=MAX_BYTES))
                continue
            rows_left = rows
            try:
                for batch in self._file.iter_batches(
                    self._max_rows, row_groups=[group], columns=list(dict.fromkeys(names)), use_threads=False
                ):
                    rows_left -= len(batch)
                    yield batch[min(skip, len(batch)) :]
                    skip -= min(skip, len(batch))
            except (OSError, ValueError) as error:
                if not means_damage(error):
                    raise
                yield UnreadableRows(rows_left, bad_row("group", group=group, error=error))[skip:]
                skip = 0

    def bytes_read(self) -> int:
        """Return how many bytes of the file were read, estimated by its rows."""
        return int(self._bytes * self._at.row / max(1, self._rows))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _holds_one_long_text(group: Any, column: str) -> bool:
    """Return whether a row group is a single row with a text that is too long, according to its metadata.

    Reading such a text would take three times its size in memory. Page headers may repeat a value up to three
    times, as statistics.
    """
    if group.num_rows != 1:
        return False
    chunks = (group.column(number) for number in range(group.num_columns))
    return any(
        chunk.path_in_schema == column and chunk.total_uncompressed_size > 4 * MAX_BYTES for chunk in chunks
    )


def count_rows(name: str) -> int:
    """Return the number of rows, from the metadata."""
    return int(pq.read_metadata(name).num_rows)


def kept_types(inputs: Inputs, name: str, schema: pa.Schema | None = None) -> dict[str, pa.DataType]:
    """Return the types of the columns to keep.

    Raises:
        ValueError: a column is missing or ambiguous, or the column of the texts has another type.
    """
    file_schema = pq.read_schema(name) if schema is None else schema
    kind = file_schema.field(column_index(file_schema.names, inputs.column, name)).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_null(kind) or any(is_a(kind) for is_a in TEXTUAL)):
        raise refusal("not_text", file=name, column=inputs.column, found=kind)
    return {
        column: file_schema.field(column_index(file_schema.names, column, name)).type
        for column in inputs.keep
    }


def written_by_encode(name: str) -> bool:
    """Return whether this package wrote a file, according to the file's metadata."""
    try:
        metadata = pq.read_schema(name).metadata or {}
    except (OSError, pa.ArrowException):  # a damaged file is reported when it is read
        return False
    return b"ov_minilm.fingerprint" in metadata


def read_kept(path: Path, names: Sequence[str]) -> list[str]:
    """Return the kept columns of a file that `write` wrote, as JSON."""
    table = pq.read_table(path, columns=list(names))
    return [text for batch in table.to_batches() for text in columns.render(batch, {})]


def check_schema(schema: pa.Schema) -> None:
    """Refuse a column type that cannot be written, before any work is done.

    Raises:
        ValueError: a type cannot be written; the message has the column and its type.
    """
    try:
        for field in schema:
            empty = pa.schema([field]).empty_table()
            with _writer(pa.BufferOutputStream(), empty.schema) as writer:
                writer.write_table(empty)
    # pyarrow raises NotImplementedError for tensors, and its own exceptions for other types
    except (pa.ArrowException, NotImplementedError, OSError) as error:
        raise refusal("not_written", column=field.name, found=field.type, error=error) from error


def _texts(array: pa.Array, bad: dict[int, str]) -> list[str | None]:
    """Return the texts of a column. A row without a text gets None, and its reason is added to `bad`."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not pa.types.is_null(array.type) and array.nbytes > MAX_BYTES:
        array = _drop_long_texts(array, bad)
    try:
        values = array.to_pylist()
    except UnicodeDecodeError:  # strings in Parquet may be invalid UTF-8
        values = array.cast(pa.large_binary()).to_pylist()
    for row, value in enumerate(values):
        if value is None:
            bad.setdefault(row, bad_row("null"))
        elif isinstance(value, bytes):
            try:
                values[row] = value.decode("utf-8")
            except UnicodeDecodeError as error:
                values[row], bad[row] = None, bad_row("encoding", encoding="UTF-8", error=error.reason)
    return cast("list[str | None]", values)


def _drop_long_texts(array: pa.Array, bad: dict[int, str]) -> pa.Array:
    """Replace texts that are too long with null, before they are copied to Python."""
    long = [row for row in range(len(array)) if array.slice(row, 1).nbytes > MAX_BYTES]
    bad |= dict.fromkeys(long, bad_row("long", most=MAX_BYTES))
    keep = np.ones(len(array), bool)
    keep[long] = False
    return pc.if_else(pa.array(keep), array, pa.nulls(len(array), array.type)) if long else array


def write(schema: pa.Schema, file: IO[bytes], blocks: Iterable[Block]) -> int:
    """Write one file in full row groups, independent of the size of the blocks; return the number of rows."""
    rows = 0
    with _writer(file, schema) as writer:
        waiting = pa.Table.from_batches([], schema)
        for block in blocks:
            rows += len(block.texts)
            waiting = pa.concat_tables([waiting, _table(block, schema)])
            while full := _full_group(waiting):
                writer.write_table(waiting.slice(0, full).combine_chunks(), GROUP_ROWS)
                waiting = waiting.slice(full)
        if waiting.num_rows:
            writer.write_table(waiting.combine_chunks(), GROUP_ROWS)
    return rows


def _full_group(table: pa.Table) -> int:
    """Return how many rows fill the next row group; 0 if there are too few rows for a full group."""
    size = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        if any(is_a(column.type) for is_a in TEXTUAL[:2]):
            size += pc.fill_null(pc.binary_length(column), 0).to_numpy()
    row_count = int(np.searchsorted(size.cumsum(), GROUP_BYTES, "right"))
    return (
        min(GROUP_ROWS, max(1, row_count))
        if row_count < table.num_rows or table.num_rows >= GROUP_ROWS
        else 0
    )


def join(schema: pa.Schema, file: IO[bytes], parts: Sequence[Path]) -> None:
    """Write one file with the row groups of several."""
    with _writer(file, schema) as writer:
        for part in parts:
            with pq.ParquetFile(part) as source:
                for group in range(source.num_row_groups):
                    writer.write_table(source.read_row_group(group, use_threads=False), GROUP_ROWS)


def _writer(file: IO[bytes], schema: pa.Schema) -> Any:
    """Return a writer that compresses only the kept columns: vectors hardly become smaller."""
    kept_columns = [name for name in schema.names if name != VECTOR]
    vector_compression = {f"{VECTOR}.list.element": "none"}
    return pq.ParquetWriter(
        file,
        schema,
        version="2.6",
        compression=dict.fromkeys(kept_columns, "zstd") | vector_compression,
        use_dictionary=kept_columns,
        write_statistics=kept_columns,
    )


def output_schema(
    kept_columns: pa.Schema | None, empty: NDArray[Any], metadata: Mapping[str, str]
) -> pa.Schema:
    """Return the schema of an output: the kept columns or the text, and vectors like those in `empty`."""
    leading_fields = [pa.field("text", pa.string())] if kept_columns is None else list(kept_columns)
    vector = pa.list_(pa.from_numpy_dtype(empty.dtype), empty.shape[1])
    schema_metadata = {f"ov_minilm.{name}": value for name, value in metadata.items()}
    return pa.schema([*leading_fields, pa.field(VECTOR, vector)], schema_metadata)


def _table(block: Block, schema: pa.Schema) -> pa.Table:
    if block.columns is None:
        arrays = [pa.array([columns.without_surrogates(text) for text in block.texts], pa.string())]
    else:
        arrays = cast("pa.RecordBatch", block.columns).columns
    is_null = [text is None for text in block.texts]
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(block.vectors).reshape(-1)),
        type=schema.field(VECTOR).type,
        mask=pa.array(is_null) if any(is_null) else None,
    )
    return pa.Table.from_arrays([*arrays, vectors], schema=schema)
