"""Reads the rows of a job's files in order, starting at any position."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, get_args

from ov_minilm.bulk.inputs import (
    Dialect,
    Inputs,
    Kind,
    check_options,
    check_start,
    display_name,
    expand,
    import_arrow,
    name_list,
    open_pipes,
)
from ov_minilm.bulk.lines import Lines
from ov_minilm.bulk.refusals import WARNINGS, bad_row, refusal
from ov_minilm.bulk.rows import MAX_ROWS, OnError, Position, Rows, means_damage
from ov_minilm.errors import BadRow, check_choice

if TYPE_CHECKING:
    import pyarrow as pa

    from ov_minilm.bulk.parquet import Parquet

# number of first rows of each JSON lines file that determine the types of the columns to keep
SAMPLE_ROWS = 1000


def find(
    patterns: Iterable[str | os.PathLike[str]],
    *,
    column: str = "text",
    keep: Iterable[str] = (),
    kind: Kind | None = None,
    dialect: Dialect = Dialect(),  # noqa: B008  # a frozen value
    typed: bool = True,
    on_error: OnError = "stop",
) -> Inputs:
    """Expand patterns and check every file: its format, its columns and their types.

    Args:
        typed: give the columns to keep Arrow types, as Parquet needs them; otherwise they are kept as JSON.
        on_error: with "stop" a damaged file is refused; otherwise it is one bad row.

    Raises:
        OSError: a file does not exist, or a pattern matches none.
        ValueError: a file cannot be read with these options, a column is missing or has no common type, or an
            option has no such value or no effect.
        TypeError: a single name where a list is expected.
        BadRow: a file is damaged.
    """
    check_choice("on_error", on_error, get_args(OnError))
    if kind is not None:
        check_choice("kind", kind, get_args(Kind))
    patterns, keep = name_list("patterns", patterns), tuple(dict.fromkeys(name_list("keep", keep)))
    (column,) = name_list("column", [column])
    files = tuple(expand(patterns))
    if not files:
        raise refusal("no_files")
    pipes = open_pipes(files)
    inputs = Inputs(files, column, keep, kind, dialect, None, patterns, pipes)
    check_options(inputs)
    found: dict[str, list[tuple[str, pa.DataType | None]]] = {name: [] for name in keep}
    found_columns = [_inspect(inputs, file, typed=typed, on_error=on_error) for file in files]
    for file, found_in_file in zip(files, found_columns, strict=True):
        for name, data_type in found_in_file.types.items():
            found[name].append((file, data_type))
    for pipe in pipes.values():
        pipe.rewind()
    for name in keep:
        if found_columns and all(name in found_in_file.nulls for found_in_file in found_columns):
            warnings.warn(WARNINGS["no_value"].format(column=name, rows=SAMPLE_ROWS), stacklevel=2)
    if not keep or not typed:
        return inputs
    import pyarrow as pa

    from ov_minilm.bulk.columns import common_field
    from ov_minilm.bulk.parquet import check_schema

    of_json = any(inputs.kind_of(file) == "jsonl" for file in files)
    schema = pa.schema([common_field(name, types, of_json) for name, types in found.items()])
    check_schema(schema)
    return replace(inputs, schema=schema)


class FoundColumns(NamedTuple):
    """The columns to keep, as found at the start of a file."""

    # empty if the output needs no types, or if the file is damaged
    types: Mapping[str, pa.DataType | None] = {}
    nulls: Collection[str] = ()  # columns without a value in the first rows


def _inspect(inputs: Inputs, file: str, *, typed: bool, on_error: OnError) -> FoundColumns:
    """Check a file. A damaged file is accepted, unless bad rows stop the job."""
    try:
        return _columns(inputs, file, typed=typed)
    except (OSError, ValueError) as error:
        if not means_damage(error):
            raise
        if on_error == "stop":
            raise BadRow(display_name(file), "row", 1, bad_row("damaged", error=error)) from error
        return FoundColumns()


def _columns(inputs: Inputs, file: str, *, typed: bool) -> FoundColumns:
    """Return the columns to keep.

    Parquet files name their types, text and CSV have strings; for JSON, rows are read.
    """
    kind = inputs.kind_of(file)
    if kind == "parquet":
        import_arrow("Parquet")
        from ov_minilm.bulk.parquet import kept_types

        with Path(file).open("rb") as stream:
            check_start(inputs, file, stream.read(32))
        return FoundColumns(kept_types(inputs, file))
    others = [name for name in inputs.keep if name != inputs.column]
    if kind == "text" and others:
        raise refusal("text_columns", file=display_name(file), column=others[0])
    # If the output needs no types, only one row of a pipe is awaited, because its writer may be slow.
    needs_sample = kind == "jsonl" and bool(inputs.keep) and (typed or file not in inputs.pipes)
    lines = Lines(inputs, file, Position())
    try:
        rows = lines.preview(SAMPLE_ROWS if needs_sample else 1)
    finally:
        lines.close()
    if kind != "jsonl":
        return FoundColumns(
            dict.fromkeys(inputs.keep, import_arrow("Parquet").string()) if typed and inputs.keep else {}
        )
    columns = dict(zip(inputs.keep, zip(*rows, strict=True), strict=True)) if rows and needs_sample else {}
    nulls = [name for name, values in columns.items() if set(values) <= {"null"}]
    if not typed or not inputs.keep:
        return FoundColumns({}, nulls)
    import_arrow("Parquet")
    from ov_minilm.bulk.columns import json_type

    return FoundColumns(
        {name: json_type(map(json.loads, columns.get(name, ()))) for name in inputs.keep}, nulls
    )


class Reader:
    """Reads the inputs, starting at a position, up to MAX_ROWS rows at a time."""

    def __init__(self, inputs: Inputs, start: Position = Position()) -> None:  # noqa: B008  # a frozen value
        self._inputs = inputs
        self.at = start
        self._file: Lines | Parquet | None = None
        self._bytes_before = sum(Path(name).stat().st_size for name in inputs.files[: start.file])

    def take(self, max_rows: int) -> Rows | None:
        """Return the next rows, at least one and at most `max_rows`; None at the end.

        For a damaged file, return the rows that can be read, and then one bad row.
        """
        while self.at.file < len(self._inputs.files):
            rows = self._read(self._inputs.files[self.at.file], min(max_rows, MAX_ROWS))
            self.at = rows.end
            if rows.texts:
                return replace(rows, done=self._bytes_before + (self._file.bytes_read() if self._file else 0))
        return None

    def skip(self, max_rows: int) -> int:
        """Skip up to `max_rows` rows, in Parquet without reading them; return how many were skipped."""
        rows_left = max_rows
        while rows_left and self.at.file < len(self._inputs.files):
            name = self._inputs.files[self.at.file]
            if self._inputs.kind_of(name) == "parquet":
                rows = self._count_rows(name) - self.at.row
                skipped = min(rows_left, rows)
                self.at = (
                    self.at._replace(row=self.at.row + skipped)
                    if skipped < rows
                    else _start_of_next_file(self.at)
                )
            else:
                read = self._read(name, min(rows_left, MAX_ROWS))
                skipped, self.at = len(read.texts), read.end
            rows_left -= skipped
        return max_rows - rows_left

    def _count_rows(self, name: str) -> int:
        """Return the number of rows of a Parquet file; a damaged file counts as one bad row."""
        from ov_minilm.bulk.parquet import count_rows

        try:
            return count_rows(name)
        except (OSError, ValueError) as error:
            if not means_damage(error):
                raise
            return 1

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self, name: str, max_rows: int) -> Rows:
        try:
            self._file = self._file or self._open(name)
            rows = self._file.take(max_rows)
        except (OSError, ValueError) as error:
            if not means_damage(error):
                raise
            rows = self._unreadable_rest(name, bad_row("damaged", error=error))
        else:
            if rows.texts:
                return rows
        self._close()
        if name not in self._inputs.pipes:
            self._bytes_before += Path(name).stat().st_size
        return replace(rows, end=_start_of_next_file(self.at))

    def _open(self, name: str) -> Lines | Parquet:
        if self._inputs.kind_of(name) != "parquet":
            return Lines(self._inputs, name, self.at)
        from ov_minilm.bulk.parquet import Parquet

        return Parquet(self._inputs, name, self.at)

    def _unreadable_rest(self, name: str, reason: str) -> Rows:
        """Return one bad row for the unreadable rest of a damaged file."""
        columns = None
        if self._inputs.keep:
            from ov_minilm.bulk.columns import null_columns

            columns = null_columns(self._inputs.keep, self._inputs.schema, 1)
        return Rows(display_name(name), "row", [self.at.row + 1], [None], columns, {0: reason}, self.at)


def _start_of_next_file(at: Position) -> Position:
    return Position(at.file + 1)
