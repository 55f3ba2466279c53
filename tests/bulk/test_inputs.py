"""Names and patterns become files, and files are read as their names say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ov_minilm.bulk.inputs import Inputs, expand


def test_patterns_are_sorted_and_names_stay_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """** goes deep; a file whose name looks like a pattern is taken by its name; folders are passed over."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.csv", "a.csv", "deep/down/c.csv", "odd[1].csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.csv").mkdir()

    assert ["a.csv", "b.csv", "odd[1].csv"] == list(expand(["*.csv"]))
    assert ["deep/down/c.csv", "b.csv", "-"] == list(expand(["deep/**/*.csv", "b.csv", "-"]))
    assert ["odd[1].csv"] == list(expand(["odd[1].csv"]))


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        ("*.parquet", FileNotFoundError, r"^\*\.parquet matches no file$"),
        ("none.txt", FileNotFoundError, "^none.txt does not exist$"),
        (".", IsADirectoryError, r"^\. is a folder; name its files: '\*\.parquet'$"),
    ],
)
def test_what_is_not_there_is_said(
    pattern: str, error: type[OSError], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pattern that matches nothing is an error, not an empty job."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(error, match=message):
        list(expand([pattern]))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.parquet", "parquet"),
        ("a.JSONL", "jsonl"),
        ("a.csv.gz", "csv"),
        ("a.jsonl.zst", "jsonl"),
        ("a.txt", "text"),
        ("a.gz", "text"),
        ("a.log", "text"),
        ("-", "text"),
    ],
)
def test_the_name_says_the_kind(name: str, kind: str) -> None:
    """Below .gz and .zst too; whatever is unknown is text."""
    assert kind == Inputs((name,)).kind_of(name)
