"""Columns to keep: values are written without loss, or their row is bad and the error says why.

test_random_files.py reads values of all types from files.
"""

import json
from collections.abc import Callable
from decimal import Decimal
from itertools import permutations
from typing import Any

import pyarrow as pa
import pytest

from ov_minilm.bulk import columns
from ov_minilm.bulk.rows import select


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((pa.int64(), value) for value in ("one", 2**70, 2.5, True)),
        (pa.bool_(), 1),
        *((pa.float64(), value) for value in (2**53 + 1, float("inf"))),
        (pa.string(), 5),
        (pa.list_(pa.string()), ["a", 1]),
        (pa.struct([("a", pa.int64())]), {"a": 1, "b": 2}),
    ],
)
def test_a_value_of_another_type_makes_its_row_bad(kind: pa.DataType, value: object) -> None:
    """The error names the column; other values are kept, and half of a surrogate pair becomes U+FFFD."""
    bad: dict[int, str] = {}
    schema = pa.schema([("n", kind), ("s", pa.string())])

    actual = columns.to_columns([(None, "\ud800"), (value, "b"), ()], schema, bad)

    assert {"n": [None, None, None], "s": ["\ufffd", "b", None]} == actual.to_pydict()
    assert {1: f"'n' is {value!r}, expected {kind} as in the first rows; -o NAME.jsonl keeps any type"} == bad


@pytest.mark.parametrize("kind", [pa.int8(), pa.string_view(), pa.list_(pa.binary_view()), pa.null()])
def test_rows_of_any_type_can_be_selected(kind: pa.DataType) -> None:
    """Any rows can be selected, or none, as when all rows are bad and skipped."""
    batch = pa.RecordBatch.from_arrays([pa.nulls(3, kind), pa.array([1, 2, 3])], names=["x", "n"])

    assert [1, 3] == select(batch, [0, 2])["n"].to_pylist()
    assert batch.slice(0, 0) == select(batch, [])


NOT_UTF8 = pa.array([b"a", b"\xff", None], pa.binary()).view(pa.string())  # Arrow does not check strings
LARGE = pa.array([1, 2**53 + 1, 3])
EPOCH = "1970-01-01 00:00:00"
DATES = pa.array([1, 10**15 * 300, None], pa.timestamp("us"))
MAP = pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))
SECONDS = pa.array([0, 2**60], pa.timestamp("s"))

Convert = Callable[[pa.RecordBatch, dict[int, str]], list[Any]]


def convert_to(kind: pa.DataType) -> Convert:
    """Return a function that converts a column to a type and returns the values as strings."""
    schema = pa.schema([("x", kind)])
    return lambda batch, bad: columns.cast_columns(batch, schema, bad)["x"].cast(pa.string()).to_pylist()


def to_json(batch: pa.RecordBatch, bad: dict[int, str]) -> list[Any]:
    """Convert a column to JSON and parse it; NaN and infinities are not JSON."""
    return [json.loads(f"{{{text}}}", parse_constant=pytest.fail)["x"] for text in columns.render(batch, bad)]


@pytest.mark.parametrize(
    ("array", "convert", "values", "reason"),
    [
        (NOT_UTF8, convert_to(pa.string()), ["a", None, None], "'x' is not UTF-8"),
        (LARGE, convert_to(pa.float64()), ["1", None, "3"], "'x' is 9007199254740993, expected double as in"),
        (DATES, convert_to(pa.timestamp("ns")), [f"{EPOCH}.000001000", None, None], "'x' is a timestamp[us]"),
        (SECONDS, to_json, [EPOCH, None], "'x' cannot be written as JSON"),
        (pa.array([float("nan"), 0.1, float("-inf")]), to_json, [None, 0.1, None], ""),
        (pa.array([{"a": float("inf"), "b": b"\xff"}]), to_json, [{"a": None, "b": "/w=="}], ""),
        (pa.array([2**64 - 1], pa.uint64()), to_json, [2**64 - 1], ""),
        (pa.array([Decimal("1.10")]), to_json, ["1.10"], ""),
        (pa.array([1], pa.timestamp("ns")), to_json, [f"{EPOCH}.000000001"], ""),
        (pa.array([1], pa.duration("ns")), to_json, [1], ""),
        (pa.array(["x", "x"]).dictionary_encode(), to_json, ["x", "x"], ""),
        (MAP, to_json, [[["k", 1]]], ""),
    ],
)
def test_a_value_without_equivalent_loses_only_itself(
    array: pa.Array, convert: Convert, values: list[Any], reason: str
) -> None:
    """If a value cannot be converted, only its row is bad; the error has the reason."""
    bad: dict[int, str] = {}

    assert values == convert(pa.RecordBatch.from_arrays([array], names=["x"]), bad)
    assert bool(reason) == bool(bad)
    assert bad.get(1, "").startswith(reason)


WITHOUT_TYPE: Any = [1, "a"], [True, 1], [{}], [[]], [[{"a": 1}]], [[1], "a"], [2**64], [2**53 + 1, 2.5]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([True, None], pa.bool_()),
        (["a"], pa.string()),
        ([["a"], []], pa.list_(pa.string())),
        ([None, None], pa.null()),
        *((values, None) for values in WITHOUT_TYPE),
    ],
)
def test_the_first_json_values_determine_the_type(values: list[object], kind: pa.DataType | None) -> None:
    """The type holds all values without loss; if no type does, the column stays JSON."""
    assert kind == columns.json_type(values)


DICTIONARY = pa.dictionary(pa.int8(), pa.string())


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.string(), pa.null(), pa.string()),
        (DICTIONARY, DICTIONARY, DICTIONARY),
        (DICTIONARY, pa.string(), pa.string()),
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int32(), pa.float32(), pa.float64()),
        (pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ns")),
        (pa.decimal128(10, 2), pa.decimal128(12, 4), pa.decimal128(12, 4)),
        (pa.list_(pa.int32()), pa.list_(pa.int64()), pa.list_(pa.int64())),
        (pa.string(), pa.int64(), None),
        (pa.bool_(), pa.int64(), None),
        (pa.decimal128(10, 2), pa.float64(), None),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), None),
        (None, pa.null(), "json"),
        (None, pa.string(), None),
    ],
)
def test_files_have_a_common_type_or_are_refused(one: Any, other: Any, common: Any) -> None:
    """Both types convert to the common type without loss, or an error comes before the first row."""
    for types in permutations((one, other)):
        columns_of_files = list(zip("ab", types, strict=True))
        if common is None:
            with pytest.raises(ValueError, match=r"b: column 'x' is .*, but .* in a; cast one of them"):
                columns.common_field("x", columns_of_files, of_json=True)
        else:
            expected = columns.json_field("x") if common == "json" else pa.field("x", common)
            assert expected.equals(columns.common_field("x", columns_of_files, of_json=True), True)
