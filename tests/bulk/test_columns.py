"""Columns to keep: every value comes through without loss, or its row is bad and says why."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from ov_minilm.bulk import columns
from ov_minilm.bulk.rows import select


def test_values_become_columns() -> None:
    """Nulls and what is missing are null; integers go where numbers are; half a pair becomes U+FFFD."""
    schema = pa.schema([("n", pa.float64()), ("s", pa.string())])
    bad: dict[int, str] = {}

    found = columns.build([(1, "a"), (None, "\ud800"), (), (2.5, None)], schema, bad)

    assert {"n": [1.0, None, None, 2.5], "s": ["a", "\ufffd", None, None]} == found.to_pydict()
    assert {} == bad


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.int64(), "one"),
        (pa.int64(), 2**70),
        (pa.int64(), 2.5),
        (pa.int64(), True),
        (pa.bool_(), 1),
        (pa.float64(), 2**53 + 1),
        (pa.float64(), float("inf")),
        (pa.string(), 5),
        (pa.list_(pa.string()), ["a", 1]),
        (pa.list_(pa.string()), "a"),
        (pa.struct([("a", pa.int64())]), {"a": 1, "b": 2}),
    ],
)
def test_a_value_that_does_not_fit_makes_its_row_bad(kind: pa.DataType, value: object) -> None:
    """It is named with its column; the rest of the row and the other rows are kept."""
    schema = pa.schema([("n", kind), ("s", pa.string())])
    bad: dict[int, str] = {}

    found = columns.build([(None, "a"), (value, "b"), (None, "c")], schema, bad)

    assert {"n": [None, None, None], "s": ["a", "b", "c"]} == found.to_pydict()
    expected = f"'n' is {value!r}, expected {kind} as in the first rows; -o NAME.jsonl keeps any type"
    assert {1: expected} == bad


@pytest.mark.parametrize("kind", [pa.int8(), pa.string_view(), pa.list_(pa.binary_view()), pa.null()])
def test_rows_of_any_type_are_selected(kind: pa.DataType) -> None:
    """Some of them, or none: what is left when bad rows are skipped."""
    batch = pa.RecordBatch.from_arrays([pa.nulls(3, kind), pa.array([1, 2, 3])], names=["x", "n"])

    assert [1, 3] == select(batch, [0, 2])["n"].to_pylist()
    assert batch.slice(0, 0) == select(batch, [])


def test_broken_strings_of_parquet_are_found() -> None:
    """Arrow takes them at their word until they are read."""
    broken = pa.array([b"a", b"\xff", None], pa.binary()).view(pa.string())
    batch = pa.RecordBatch.from_arrays([pa.array([1, 2, 3]), broken], names=["n", "s"])
    bad: dict[int, str] = {}

    found = columns.conform(batch, batch.schema, bad)

    assert {"n": [1, 2, 3], "s": ["a", None, None]} == found.to_pydict()
    assert {1: "'s' is not UTF-8"} == bad


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([True, None], pa.bool_()),
        (["a"], pa.string()),
        ([["a"], []], pa.list_(pa.string())),
        ([], pa.null()),
        ([None, None], pa.null()),
        ([1, "a"], None),
        ([True, 1], None),
        ([{"a": 1}], None),
        ([{}], None),
        ([[]], None),
        ([[{"a": 1}]], None),
        ([[1], "a"], None),
        ([2**64], None),
        ([2**60, 2.5], None),
    ],
)
def test_the_first_values_of_json_say_the_type(values: list[object], kind: pa.DataType | None) -> None:
    """One that holds all of them without loss; of others there is none, and they stay JSON."""
    assert kind == columns.json_type(values)


DICTIONARY = pa.dictionary(pa.int8(), pa.string())


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.string(), pa.null(), pa.string()),
        (DICTIONARY, DICTIONARY, DICTIONARY),
        (DICTIONARY, pa.dictionary(pa.int16(), pa.string()), pa.string()),
        (DICTIONARY, pa.string(), pa.string()),
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.int32(), pa.float32(), pa.float64()),
        (pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ns")),
        (pa.decimal128(10, 2), pa.decimal128(12, 4), pa.decimal128(12, 4)),
        (pa.list_(pa.int32()), pa.list_(pa.int64()), pa.list_(pa.int64())),
        (pa.string(), pa.int64(), None),
        (pa.bool_(), pa.int64(), None),
        (pa.decimal128(10, 2), pa.float64(), None),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), None),
        (None, None, "json"),
        (None, pa.null(), "json"),
        (None, pa.string(), None),
    ],
)
def test_files_have_a_common_type_or_are_refused(one: Any, other: Any, common: Any) -> None:
    """In either order; what casts without loss is cast, what does not is said before the first row."""
    for first, second in ((one, other), (other, one)):
        found = [("a", first), ("b", second)]
        if common is None:
            with pytest.raises(ValueError, match=r"b: column 'x' is .*, in a .*; cast one of them"):
                columns.common_field("x", found, of_json=True)
        elif common == "json":
            assert columns.json_field("x").equals(columns.common_field("x", found, of_json=True), True)
        else:
            assert pa.field("x", common) == columns.common_field("x", found, of_json=True)


def test_a_cast_that_loses_makes_its_row_bad() -> None:
    """A whole number that a double cannot hold, and a date that nanoseconds do not reach."""
    far = pa.array([10**15 * 300, 1, None], pa.timestamp("us"))
    batch = pa.RecordBatch.from_arrays([pa.array([1, 2**53 + 1, 3]), far], names=["n", "t"])
    bad: dict[int, str] = {}

    found = columns.conform(batch, pa.schema([("n", pa.float64()), ("t", pa.timestamp("ns"))]), bad)

    assert [1.0, None, 3.0] == found["n"].to_pylist()
    assert [None, 1000, None] == found["t"].cast(pa.int64()).to_pylist()
    assert (
        "'n' is 9007199254740993, expected double as in the first rows; -o NAME.jsonl keeps any type"
        == bad[1]
    )
    assert bad[0].startswith("'t' is a timestamp[us], expected timestamp[ns]")


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (pa.array([float("nan"), float("-inf"), 0.1]), [None, None, 0.1]),
        (pa.array([[float("nan"), 1.5]]), [[None, 1.5]]),
        (pa.array([{"a": float("inf"), "b": b"\xff"}]), [{"a": None, "b": "/w=="}]),
        (pa.array([b"\xff\x00", None]), ["/wA=", None]),
        (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
        (pa.array([Decimal("1.10")]), ["1.10"]),
        (pa.array([1], pa.timestamp("ns")), ["1970-01-01 00:00:00.000000001"]),
        (pa.array([1], pa.time64("ns")), ["00:00:00.000000001"]),
        (pa.array([0], pa.date32()), ["1970-01-01"]),
        (pa.array(["x", "x"]).dictionary_encode(), ["x", "x"]),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), [[["k", 1]]]),
    ],
)
def test_every_type_is_valid_json(array: pa.Array, values: list[object]) -> None:
    """What JSON cannot say is null or a string, and never NaN or Python's notation."""
    bad: dict[int, str] = {}

    texts = columns.render(pa.RecordBatch.from_arrays([array], names=["x"]), bad)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    assert [{"x": value} for value in values] == [
        json.loads(f"{{{text}}}", parse_constant=refuse) for text in texts
    ]
    assert {} == bad


def test_a_value_without_json_makes_its_row_bad() -> None:
    """A year of five digits is no date of Python; the rows around it are kept."""
    far = pa.RecordBatch.from_arrays([pa.array([0, 2**60, 0], pa.timestamp("s"))], names=["t"])
    bad: dict[int, str] = {}

    texts = columns.render(far, bad)

    assert ['"t": "1970-01-01 00:00:00"', '"t": null', '"t": "1970-01-01 00:00:00"'] == texts
    assert bad[1].startswith("'t' cannot be written as JSON (")
