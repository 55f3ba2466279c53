"""Rows from the files of a job, in order, from any position on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ov_minilm.bulk.inputs import STDIN, Inputs, Kind, called, expand
from ov_minilm.bulk.lines import Lines
from ov_minilm.bulk.rows import ROWS, Position, Rows, damaged

if TYPE_CHECKING:
    import pyarrow as pa

    from ov_minilm.bulk.parquet import Parquet

SAMPLE = 1000  # rows of JSON lines that decide the types of the columns to keep


def find(
    patterns: Sequence[str], *, column: str = "text", keep: Sequence[str] = (), kind: Kind | None = None
) -> Inputs:
    """Expand globs, and look into the first file for the types of the columns to keep.

    Raises:
        OSError: a file does not exist, or a pattern matches none.
        ValueError: a column to keep is not there, or its type cannot be told.
    """
    inputs = Inputs(tuple(expand(patterns)), column, tuple(dict.fromkeys(keep)), kind)
    if not inputs.keep:
        return inputs
    if not inputs.resumable:
        raise ValueError("columns of stdin cannot be kept; write it to a file first")
    return replace(inputs, schema=_schema(inputs, inputs.files[0]))


def _schema(inputs: Inputs, file: str) -> pa.Schema:
    """Tell the types of the columns to keep: Parquet says them, CSV has text only, JSON shows a sample."""
    import pyarrow as pa

    kind = inputs.kind_of(file)
    if kind == "parquet":
        from ov_minilm.bulk.parquet import read_schema

        return read_schema(inputs, file)
    if kind == "csv":
        return pa.schema([(name, pa.string()) for name in inputs.keep])
    if kind == "text":
        if inputs.keep != (inputs.column,):
            raise ValueError(f"{file}: plain text has no columns but its lines, {inputs.column!r}")
        return pa.schema([(inputs.column, pa.string())])
    from ov_minilm.bulk.columns import type_of

    lines = Lines(inputs, file, Position())
    rows = list(lines.values(SAMPLE))
    lines.close()
    columns = zip(*rows, strict=True) if rows else ((),) * len(inputs.keep)
    return pa.schema(
        [(name, type_of(values, name, file)) for name, values in zip(inputs.keep, columns, strict=True)]
    )


class Reader:
    """Reads the inputs from a position on, a few thousand rows at a time."""

    def __init__(self, inputs: Inputs, start: Position = Position()) -> None:  # noqa: B008  # a frozen value
        self._inputs = inputs
        self.at = start
        self._file: Lines | Parquet | None = None
        self._before = sum(Path(name).stat().st_size for name in inputs.files[: start.file])

    def take(self, most: int) -> Rows | None:
        """Return the next rows, at least one and at most `most`; None at the end.

        A damaged file gives what can be read of it, and then one bad row that says so.
        """
        while self.at.file < len(self._inputs.files):
            rows = self._read(self._inputs.files[self.at.file], min(most, ROWS))
            self.at = rows.end
            if rows.texts:
                return replace(rows, done=self._before + (self._file.bytes_read() if self._file else 0))
        return None

    def skip(self, most: int) -> int:
        """Pass over the next rows, those of Parquet without reading them; return how many there were."""
        left = most
        while left and self.at.file < len(self._inputs.files):
            name = self._inputs.files[self.at.file]
            if self._inputs.kind_of(name) == "parquet":
                rows = self._count(name) - self.at.row
                passed = min(left, rows)
                self.at = self.at._replace(row=self.at.row + passed) if passed < rows else _after(self.at)
            else:
                read = self._read(name, min(left, ROWS))
                passed, self.at = len(read.texts), read.end
            left -= passed
        return most - left

    def _count(self, name: str) -> int:
        """Return the rows of a Parquet file; one that is damaged has a single bad one."""
        from ov_minilm.bulk.parquet import count

        try:
            return count(name)
        except (OSError, ValueError) as error:
            if not damaged(error):
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

    def _read(self, name: str, most: int) -> Rows:
        try:
            self._file = self._file or self._open(name)
            rows = self._file.take(most)
        except (OSError, ValueError) as error:
            if not damaged(error):
                raise
            rows = self._lost(name, f"from here on the file cannot be read: {error}")
        else:
            if rows.texts:
                return rows
        self._close()
        if name != STDIN:
            self._before += Path(name).stat().st_size
        return replace(rows, end=_after(self.at))

    def _open(self, name: str) -> Lines | Parquet:
        if self._inputs.kind_of(name) != "parquet":
            return Lines(self._inputs, name, self.at)
        from ov_minilm.bulk.parquet import Parquet

        return Parquet(self._inputs, name, self.at)

    def _lost(self, name: str, reason: str) -> Rows:
        """Stand for all that is left of a damaged file."""
        bad = {0: reason}
        columns = None
        if self._inputs.schema is not None:
            from ov_minilm.bulk.columns import build

            columns = build([()], self._inputs.schema, bad)
        return Rows(called(name), "row", self.at.row + 1, [None], columns, bad, self.at)


def _after(at: Position) -> Position:
    return Position(at.file + 1)
