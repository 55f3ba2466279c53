"""Columns to keep: every value comes through without loss, or its row is bad and says why.

Values of all types, through files, are those of test_random_files.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from ov_minilm.bulk import columns
from ov_minilm.bulk.rows import select


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
        (pa.struct([("a", pa.int64())]), {"a": 1, "b": 2}),
    ],
)
def test_a_value_that_does_not_fit_makes_its_row_bad(kind: pa.DataType, value: object) -> None:
    """It is named with its column; the rest is kept, and half a pair is U+FFFD."""
    bad: dict[int, str] = {}

    found = columns.build(
        [(None, "\ud800"), (value, "b"), ()], pa.schema([("n", kind), ("s", pa.string())]), bad
    )

    assert {"n": [None, None, None], "s": ["\ufffd", "b", None]} == found.to_pydict()
    assert {1: f"'n' is {value!r}, expected {kind} as in the first rows; -o NAME.jsonl keeps any type"} == bad


@pytest.mark.parametrize("kind", [pa.int8(), pa.string_view(), pa.list_(pa.binary_view()), pa.null()])
def test_rows_of_any_type_are_selected(kind: pa.DataType) -> None:
    """Some of them, or none: what is left when bad rows are skipped."""
    batch = pa.RecordBatch.from_arrays([pa.nulls(3, kind), pa.array([1, 2, 3])], names=["x", "n"])

    assert [1, 3] == select(batch, [0, 2])["n"].to_pylist()
    assert batch.slice(0, 0) == select(batch, [])


BROKEN = pa.array([b"a", b"\xff", None], pa.binary()).view(pa.string())  # Arrow takes strings at their word
BIG = pa.array([1, 2**53 + 1, 3])
EPOCH = "1970-01-01 00:00:00"
FAR = pa.array([1, 10**15 * 300, None], pa.timestamp("us"))


def conform_as(kind: pa.DataType) -> Callable[[pa.RecordBatch, dict[int, str]], Any]:
    """Give a column another type."""
    return lambda batch, bad: (
        columns.conform(batch, pa.schema([("x", kind)]), bad)["x"].cast(pa.string()).to_pylist()
    )


def render(batch: pa.RecordBatch, bad: dict[int, str]) -> list[Any]:
    """Make JSON of a column, and read it."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return [json.loads(f"{{{text}}}", parse_constant=refuse)["x"] for text in columns.render(batch, bad)]


@pytest.mark.parametrize(
    ("array", "convert", "values", "reason"),
    [
        (BROKEN, conform_as(pa.string()), ["a", None, None], "'x' is not UTF-8"),
        (BIG, conform_as(pa.float64()), ["1", None, "3"], "'x' is 9007199254740993, expected double as in"),
        (FAR, conform_as(pa.timestamp("ns")), [f"{EPOCH}.000001000", None, None], "'x' is a timestamp[us]"),
        (pa.array([0, 2**60], pa.timestamp("s")), render, [EPOCH, None], "'x' cannot be written as JSON"),
        (pa.array([float("nan"), 0.1, float("-inf")]), render, [None, 0.1, None], None),
        (pa.array([{"a": float("inf"), "b": b"\xff"}]), render, [{"a": None, "b": "/w=="}], None),
        (pa.array([2**64 - 1], pa.uint64()), render, [2**64 - 1], None),
        (pa.array([Decimal("1.10")]), render, ["1.10"], None),
        (pa.array([1], pa.timestamp("ns")), render, [f"{EPOCH}.000000001"], None),
        (pa.array([1], pa.duration("ns")), render, [1], None),
        (pa.array(["x", "x"]).dictionary_encode(), render, ["x", "x"], None),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), render, [[["k", 1]]], None),
    ],
)
def test_values_are_converted_alone(
    array: pa.Array, convert: Any, values: list[Any], reason: str | None
) -> None:
    """Into another type or JSON, never as NaN; only what has no such value is lost, and says why."""
    bad: dict[int, str] = {}

    assert values == convert(pa.RecordBatch.from_arrays([array], names=["x"]), bad)
    assert (reason is None) == (not bad)
    assert bad.get(1, "").startswith(reason or "")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([True, None], pa.bool_()),
        (["a"], pa.string()),
        ([["a"], []], pa.list_(pa.string())),
        ([None, None], pa.null()),
        ([1, "a"], None),
        ([True, 1], None),
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
    """In either order; what casts without loss is cast, what does not is said before the first row."""
    for first, second in ((one, other), (other, one)):
        found = [("a", first), ("b", second)]
        if common is None:
            with pytest.raises(ValueError, match=r"b: column 'x' is .*, in a .*; cast one of them"):
                columns.common_field("x", found, of_json=True)
        else:
            expected = columns.json_field("x") if common == "json" else pa.field("x", common)
            assert expected.equals(columns.common_field("x", found, of_json=True), True)
