"""The columns copied from input to output: as JSON for JSON lines, with Arrow types for Parquet.

JSON lines keep every value unchanged. For Parquet, a column that has different types in several files gets a
type that holds all of them without loss. JSON has no types: if the first values of a field are all 64-bit
integers, numbers, booleans or strings, or lists of one of these, the column gets that type. Other fields
(objects, values of several types, only nulls) become JSON text in a column of strings. If a later value does
not fit the type of its column, its row is bad.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa

from ov_minilm.bulk.inputs import display_name
from ov_minilm.bulk.json_text import json_text, members
from ov_minilm.bulk.refusals import bad_row, refusal
from ov_minilm.bulk.rows import Kept
from ov_minilm.runtime.texts import mend_surrogates

# exceptions of Arrow and Python for a value that does not fit a type
CONVERSION_ERRORS = (pa.ArrowException, TypeError, ValueError, OverflowError)
EXACT_INTEGERS = 1 << 53  # a double can hold every integer up to this limit exactly

T = TypeVar("T")
# file -> type of the column in this file; None: JSON values of several types
FoundType: TypeAlias = "tuple[str, pa.DataType | None]"


def json_field(name: str) -> pa.Field:
    """Return the Arrow field of a column that has JSON texts."""
    return pa.field(name, pa.string(), metadata={"ov_minilm.json": "1"})


def json_type(values: Iterable[Any]) -> pa.DataType | None:
    """Return the common type of the first values of a JSON field; None if there is no common type."""
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if kinds == {list}:
        items = json_type(chain.from_iterable(present))
        return None if items is None or pa.types.is_null(items) else pa.list_(items)
    if kinds == {int} and all(-(1 << 63) <= value < 1 << 63 for value in present):
        return pa.int64()
    if kinds <= {int, float} and float in kinds and all(abs(value) <= EXACT_INTEGERS for value in present):
        return pa.float64()
    return {frozenset(): pa.null(), frozenset({bool}): pa.bool_(), frozenset({str}): pa.string()}.get(
        frozenset(kinds)
    )


def common_field(name: str, types: Sequence[FoundType], of_json: bool) -> pa.Field:
    """Return a column type that holds the values of all files without loss.

    Raises:
        ValueError: no type holds all values; the message names the first two files that disagree.
    """
    if all(kind is None or pa.types.is_null(kind) for _, kind in types):
        return json_field(name) if of_json else pa.field(name, pa.null())
    first, common = next((file, kind) for file, kind in types if kind is None or not pa.types.is_null(kind))
    for file, kind in types:
        if kind == common or (kind is not None and pa.types.is_null(kind)):
            continue
        merged = None if kind is None or common is None else _common_type(common, kind)
        if merged is None:
            raise refusal(
                "no_common_type",
                file=display_name(file),
                column=name,
                found="JSON values of several types" if kind is None else kind,
                other=display_name(first),
                before="JSON values of several types" if common is None else common,
            )
        common = merged
    return pa.field(name, common)


def _common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    first, second = (kind.value_type if pa.types.is_dictionary(kind) else kind for kind in (first, second))
    decimal = pa.types.is_decimal(first) + pa.types.is_decimal(second)
    floating = pa.types.is_floating(first) + pa.types.is_floating(second)
    if decimal and floating:
        return None  # a double would round the decimal
    if floating == 1 and (pa.types.is_integer(first) or pa.types.is_integer(second)):
        return pa.float64()
    try:
        schemas = [pa.schema([("x", kind)]) for kind in (first, second)]
        common = pa.unify_schemas(schemas, promote_options="permissive").field("x").type
        for kind in (first, second):
            pa.nulls(0, kind).cast(common)
    except pa.ArrowException:
        return None
    return common


def to_columns(values: Sequence[Sequence[Any]], schema: pa.Schema, bad: dict[int, str]) -> pa.RecordBatch:
    """Convert rows of values to columns. Rows that could not be read have no values; their columns are null.

    A value that does not fit the type of its column becomes null, and its row and the reason are added to
    `bad`.
    """
    arrays = []
    for number, field in enumerate(schema):
        column = [without_surrogates(row[number]) if row else None for row in values]
        array = _array(column, field.type)
        if array is None:
            for row, value in enumerate(column):
                if _array([value], field.type) is None:
                    bad[row] = bad_row("misfit", column=field.name, value=repr(value), kind=field.type)
                    column[row] = None
            array = pa.array(column, field.type)
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(column: list[Any], kind: pa.DataType) -> pa.Array | None:
    """Return an array; None if Arrow refuses a value or would change it (2.5 to 2, or drop a key)."""
    try:
        array = pa.array(column, kind)
        same = pa.types.is_string(kind) or (array.to_pylist() == column and _finite(column))
    except CONVERSION_ERRORS:
        return None
    return array if same else None


def _finite(column: list[Any]) -> bool:
    """Return whether all numbers in a JSON value fit a double (1e400 does not fit)."""
    return not any(isinstance(value, float) and math.isinf(value) for value in column)


def cast_columns(batch: pa.RecordBatch, schema: pa.Schema, bad: dict[int, str]) -> pa.RecordBatch:
    """Cast columns read from Parquet to the types of the output.

    A value that does not fit the type, or is not UTF-8, becomes null, and its row is bad.
    """
    arrays = []
    for field in schema:
        array = batch.column(field.name)

        def misfit(row: int, error: Exception, field: pa.Field = field, array: pa.Array = array) -> pa.Array:
            bad[row] = _misfit(field, array[row], error)
            return pa.nulls(1, field.type)

        def cast(part: pa.Array, field: pa.Field = field) -> pa.Array:
            part.validate(full=True)  # strings in Parquet may be invalid UTF-8
            return part if part.type == field.type else part.cast(field.type)

        arrays.append(pa.concat_arrays(_convert(array, cast, misfit)))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _convert(
    array: pa.Array, convert: Callable[[pa.Array], T], failed: Callable[[int, Exception], T]
) -> list[T]:
    """Convert all rows at once; if that fails, row by row, so that only values that do not fit are lost."""

    def one(row: int) -> T:
        try:
            return convert(array.slice(row, 1))
        except CONVERSION_ERRORS as error:
            return failed(row, error)

    try:
        return [convert(array)]
    except CONVERSION_ERRORS:
        return [one(row) for row in range(len(array))]


def _misfit(field: pa.Field, value: pa.Scalar, error: Exception) -> str:
    if "UTF8" in str(error):
        return bad_row("broken", column=field.name)
    try:
        shown = str(value)
    except CONVERSION_ERRORS:  # a date outside of Python's range
        shown = f"a {value.type}"
    return bad_row("misfit", column=field.name, value=shown, kind=field.type)


def render(batch: pa.RecordBatch, bad: dict[int, str]) -> list[str]:
    """Return the members of a JSON object for each row: `"id": 1, "tag": null`."""
    columns = []
    for name, array in zip(batch.schema.names, batch.columns, strict=True):

        def failed(row: int, error: Exception, name: str = name) -> list[str]:
            bad[row] = bad_row("no_json", column=name, error=error)
            return ["null"]

        columns.append(chain.from_iterable(_convert(array, _json_texts, failed)))
    return members(batch.schema.names, list(zip(*columns, strict=True)))


def null_columns(names: Sequence[str], schema: pa.Schema | None, rows: int) -> Kept:
    """Return nulls for rows that cannot be read."""
    if schema is None:
        return members(names, [()] * rows)
    return pa.RecordBatch.from_arrays([pa.nulls(rows, field.type) for field in schema], schema=schema)


def _json_texts(array: pa.Array) -> list[str]:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _json_texts(array.dictionary_decode())
    if pa.types.is_temporal(kind) and getattr(kind, "unit", "") == "ns":
        if pa.types.is_duration(kind):
            return _json_texts(array.view(pa.int64()))
        array = array.cast(pa.string())  # Python's types have no nanoseconds
    return [json_text(value) for value in array.to_pylist()]


def without_surrogates(value: Any) -> Any:
    """Replace unpaired surrogates, which Arrow's strings (UTF-8) cannot hold."""
    if isinstance(value, list):
        return [without_surrogates(inner) for inner in value]
    return mend_surrogates(value) if isinstance(value, str) else value
