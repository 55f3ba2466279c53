"""Columns to keep: every value comes through, or its row is bad and says why."""

from __future__ import annotations

import pyarrow as pa
import pytest

from ov_minilm.bulk import columns


def test_values_become_columns() -> None:
    """Nulls and what is missing are null; integers go where numbers are; half a pair becomes U+FFFD."""
    schema = pa.schema([("n", pa.float64()), ("s", pa.string())])
    bad: dict[int, str] = {}

    found = columns.build([(1, "a"), (None, "\ud800"), (), (2.5, None)], schema, bad)

    assert {"n": [1.0, None, None, 2.5], "s": ["a", "\ufffd", None, None]} == found.to_pydict()
    assert {} == bad


def test_a_value_that_does_not_fit_makes_its_row_bad() -> None:
    """It is named with its column; the rest of the row and the other rows are kept."""
    schema = pa.schema([("n", pa.int64()), ("s", pa.string())])
    bad: dict[int, str] = {}

    found = columns.build([(1, "a"), ("one", "b"), (2**70, "c"), (4, 5)], schema, bad)

    assert {"n": [1, None, None, 4], "s": ["a", "b", "c", None]} == found.to_pydict()
    assert {1, 2, 3} == bad.keys()
    assert "'n' is 'one', expected int64 as in the first rows" == bad[1]


def test_broken_strings_of_parquet_are_found() -> None:
    """Arrow takes them at their word until they are read."""
    broken = pa.array([b"a", b"\xff", None], pa.binary()).view(pa.string())
    batch = pa.RecordBatch.from_arrays([pa.array([1, 2, 3]), broken], names=["n", "s"])
    bad: dict[int, str] = {}

    found = columns.check(batch, bad)

    assert {"n": [1, 2, 3], "s": ["a", None, None]} == found.to_pydict()
    assert {1: "'s' is not UTF-8"} == bad


@pytest.mark.parametrize(
    ("values", "kind"),
    [([1, None], pa.int64()), ([1, 2.5], pa.float64()), ([["a"], []], pa.list_(pa.string()))],
)
def test_the_first_values_say_the_type(values: list[object], kind: pa.DataType) -> None:
    """As Arrow reads them."""
    assert kind == columns.type_of(values, "n", "f.jsonl")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, "a"], "'n' has no one type"),
        ([None, None], "'n' is in none of the first 2 rows"),
        ([], "'n' is in none"),
    ],
)
def test_a_type_that_cannot_be_told_is_refused(values: list[object], message: str) -> None:
    """Guessing would fail later, in the middle of the work."""
    with pytest.raises(ValueError, match=message):
        columns.type_of(values, "n", "f.jsonl")
