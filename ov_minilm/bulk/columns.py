"""The columns kept beside the vectors, as Arrow arrays; a value that does not fit makes its row bad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ov_minilm.runtime.texts import has_surrogates, mend_surrogates

MISFITS = (pa.ArrowException, TypeError, ValueError, OverflowError)  # what pa.array raises of a value


def build(values: Sequence[Sequence[Any]], schema: pa.Schema, bad: dict[int, str]) -> pa.RecordBatch:
    """Make columns of rows of values; a row that could not be read has no values, and gets nulls.

    A value that its column cannot hold becomes null, and `bad` gets the row and the reason.
    """
    arrays = []
    for number, field in enumerate(schema):
        column = [_valid(row[number]) if row else None for row in values]
        try:
            arrays.append(pa.array(column, field.type))
        except MISFITS:
            for row in _misfits(column, field.type):
                bad[row] = (
                    f"{field.name!r} is {column[row]!r:.60}, expected {field.type} as in the first rows"
                )
                column[row] = None
            arrays.append(pa.array(column, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def check(batch: pa.RecordBatch, bad: dict[int, str]) -> pa.RecordBatch:
    """Make null, and mark as bad, what a column calls a string and is not UTF-8."""
    arrays = []
    for field, array in zip(batch.schema, batch.columns, strict=True):
        try:
            array.validate(full=True)
        except pa.ArrowInvalid:
            broken = {row for row in range(len(array)) if not _sound(array.slice(row, 1))}
            bad |= dict.fromkeys(broken, f"{field.name!r} is not UTF-8")
            array = pa.array(
                [None if row in broken else array[row].as_py() for row in range(len(array))], field.type
            )
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def type_of(values: Sequence[Any], name: str, file: str) -> pa.DataType:
    """Tell the type of a column of JSON from its first values.

    Raises:
        ValueError: they have no type in common, or are all null or missing.
    """
    try:
        found = pa.array([_valid(value) for value in values]).type
    except MISFITS as error:
        raise ValueError(f"{file}: {name!r} has no one type in the first rows: {error}") from error
    if pa.types.is_null(found):
        raise ValueError(
            f"{file}: {name!r} is in none of the first {len(values)} rows; its type cannot be told"
        )
    return found


def _misfits(column: Sequence[Any], kind: pa.DataType) -> list[int]:
    return [row for row, value in enumerate(column) if not _fits(value, kind)]


def _fits(value: Any, kind: pa.DataType) -> bool:
    try:
        pa.array([value], kind)
    except MISFITS:
        return False
    return True


def _sound(one: pa.Array) -> bool:
    try:
        one.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _valid(value: Any) -> Any:
    """Arrow's strings are UTF-8, which has no lone surrogates."""
    return mend_surrogates(value) if isinstance(value, str) and has_surrogates(value) else value
