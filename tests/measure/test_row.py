"""Rows: kept, replaced, and refused when they are of another artefact."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support.rows import row

from ov_minilm.measure.row import Row, StaleRows, merge, read, refuse_stale, shipped_fingerprint


def test_a_row_knows_what_it_is_about_and_its_conditions() -> None:
    """Workload, contender and quantity; a figure without machine, artefact, versions and date is none."""
    found = row("32 callers/ov_minilm FP32/texts_per_s")

    assert ("32 callers", "ov_minilm FP32", "texts_per_s") == (
        found.workload,
        found.contender,
        found.quantity,
    )
    names = {field.name for field in dataclasses.fields(Row)}
    assert {"machine", "artefact", "versions", "taken", "low", "high", "rounds", "unit"} <= names


def test_rows_are_kept_and_replaced(tmp_path: Path) -> None:
    """A newer one replaces that of its name and machine; other machines stay, another artefact's go."""
    path, first = tmp_path / "rows.jsonl", row("mix/a/texts_per_s", 1)
    elsewhere, newer = dataclasses.replace(first, machine="another"), row("mix/a/texts_per_s", 2)

    merge(path, [dataclasses.replace(row("query/a/p50_ms"), artefact="old")])
    merge(path, [first, elsewhere])
    merge(path, [newer])

    assert [newer, elsewhere] == sorted(read(path), key=lambda one: one.machine != newer.machine)


def test_rows_of_another_artefact_are_refused() -> None:
    """With both fingerprints and what to do."""
    with pytest.raises(StaleRows, match=r"measured with artefact old, this is .*: measure again"):
        refuse_stale([dataclasses.replace(row("mix/a/texts_per_s"), artefact="old")], shipped_fingerprint())


@pytest.mark.parametrize("line", ["{", '{"what": "a/b/c"}', '{"nothing": 1}'])
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str) -> None:
    """File and line stand in the error."""
    path = tmp_path / "rows.jsonl"
    merge(path, [row("query/a/p50_ms")])
    path.write_text(path.read_text(encoding="utf-8") + line, encoding="utf-8")

    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2: not a row"):
        read(path)
