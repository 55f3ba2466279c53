"""Evaluation files are read as they are: no quoting, no guessing, errors by file and line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ov_minilm.evaluation import FOLDER_VARIABLE, Evaluation, Pairs, find, read_pairs, read_texts


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test writes its file."""
    return tmp_path / "file.txt"


def test_pairs_are_three_columns(file: Path) -> None:
    """Score, sentence, sentence; the last line needs no newline."""
    file.write_bytes("4.5\ta b\tnaïve\n0\tc\td".encode())

    assert Pairs([4.5, 0.0], ["a b", "c"], ["naïve", "d"]) == read_pairs(file)


def test_texts_of_pairs_are_distinct_and_in_order() -> None:
    """A sentence of several pairs is encoded once."""
    assert Pairs([1.0, 2.0, 3.0], ["b", "a", "b"], ["c", "b", "a"]).texts == ["b", "a", "c"]


def test_quotes_are_letters(file: Path) -> None:
    """A lone quote opens nothing, and doubled ones stay two."""
    file.write_bytes(b'1\t"open\tsays ""hi""\n2\t\'x\'\t"y"\n')

    assert Pairs([1.0, 2.0], ['"open', "'x'"], ['says ""hi""', '"y"']) == read_pairs(file)


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1e"], ids=ascii)
def test_only_a_newline_ends_a_line(file: Path, inside: str) -> None:
    """Separators that str.splitlines would cut at are part of a text."""
    file.write_bytes(f"a{inside}b\nc\n".encode())

    assert [f"a{inside}b", "c"] == read_texts(file)


def test_a_lone_carriage_return_ends_no_line(file: Path) -> None:
    """It is as much part of a text as U+2028."""
    file.write_bytes(b"a\rb\nc\n")

    assert read_texts(file) == ["a\rb", "c"]


def test_windows_line_ends_are_line_ends(file: Path) -> None:
    """The carriage return before a newline is not in the last sentence."""
    file.write_bytes(b"1\ta\tb\r\n2\tc\td\r\n")

    assert Pairs([1.0, 2.0], ["a", "c"], ["b", "d"]) == read_pairs(file)


def test_texts_are_one_a_line(file: Path) -> None:
    """Tabs and blanks at the ends stay; empty lines are skipped."""
    file.write_bytes(b"a\n\n b\tc \n   \nd\n")

    assert read_texts(file) == ["a", " b\tc ", "d"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1\ta\tb\n2\tc\n", "line 2: 2 tab-separated fields, expected 3"),
        (b"1\ta\tb\tc\n", "line 1: 4 tab-separated fields, expected 3"),
        (b"1\ta\tb\n\n", "line 2: 1 tab-separated fields, expected 3"),
        (b"", "line 1: 1 tab-separated fields, expected 3"),
        (b"score\ta\tb\n", "line 1: score 'score' is not a number"),
        (b"1\ta\tb\n\ta\tb\n", "line 2: score '' is not a number"),
    ],
)
def test_a_line_that_is_no_pair_is_named(file: Path, content: bytes, message: str) -> None:
    """The error says which file, which line and what is wrong with it."""
    file.write_bytes(content)

    with pytest.raises(ValueError, match=f"^{re.escape(f'{file}, {message}')}$"):
        read_pairs(file)


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\t\n"])
def test_a_file_without_texts_is_refused(file: Path, content: bytes) -> None:
    """Measuring nothing would pass every gate."""
    file.write_bytes(content)

    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}: no text in it"):
        read_texts(file)


@pytest.mark.parametrize("read", [read_pairs, read_texts])
def test_another_encoding_is_refused(file: Path, read: Callable[[Path], object]) -> None:
    """Latin-1 is not read as something else; the error names the file."""
    file.write_bytes("1\tcafé\tb\n".encode("latin-1"))

    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}: not UTF-8"):
        read(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Fill a folder with evaluation files, and one that is none."""
    (tmp_path / "stsb_test.tsv").write_text("1\ta\tb\n", encoding="utf-8")
    (tmp_path / "stsb_dev.tsv").write_text("2\tc\td\n", encoding="utf-8")
    (tmp_path / "passages.txt").write_text("e\n", encoding="utf-8")
    (tmp_path / "notes.tsv").write_text("not pairs\n", encoding="utf-8")
    return tmp_path


def test_find_reads_the_folder_of_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files go by their names without ending; others in the folder are left alone."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))

    expected = Evaluation(
        {"stsb_dev": Pairs([2.0], ["c"], ["d"]), "stsb_test": Pairs([1.0], ["a"], ["b"])}, {"passages": ["e"]}
    )
    assert FOLDER_VARIABLE == "OV_MINILM_STSB"
    assert expected == find([], [])


def test_find_reads_what_is_named_and_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments win over the environment, one kind alone too."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    pairs, passages = Pairs([1.0], ["a"], ["b"]), ["e"]

    assert Evaluation({"stsb_test": pairs}, {}) == find([folder / "stsb_test.tsv"], [])
    assert Evaluation({}, {"passages": passages}) == find([], [folder / "passages.txt"])
    assert Evaluation({"stsb_test": pairs}, {"passages": passages}) == find(
        [folder / "stsb_test.tsv"], [folder / "passages.txt"]
    )


@pytest.mark.parametrize("value", [None, ""])
def test_find_without_files_is_empty(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No argument and no folder named: there is nothing to measure."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(FOLDER_VARIABLE, value)

    assert Evaluation({}, {}) == find([], [])


def test_a_missing_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that was named but is not there is not the same as none named."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "gone"))

    with pytest.raises(
        ValueError, match=f"^{FOLDER_VARIABLE}={re.escape(str(tmp_path / 'gone'))}: no such folder$"
    ):
        find([], [])


def test_two_things_of_one_name_are_refused(tmp_path: Path) -> None:
    """Neither two files of one name nor pairs and texts of one name may hide each other."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dev.tsv").write_text("1\tx\ty\n")

    with pytest.raises(ValueError, match="files of the same name"):
        find([tmp_path / "a/dev.tsv", tmp_path / "b/dev.tsv"], [])
    with pytest.raises(ValueError, match="dev: pairs and texts of the same name"):
        Evaluation({"dev": Pairs([1.0], ["x"], ["y"])}, {"dev": ["z"]})


def test_a_folder_without_evaluation_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measuring nothing would pass every gate."""
    monkeypatch.setenv("OV_MINILM_STSB", str(tmp_path))

    with pytest.raises(ValueError, match=r"neither stsb_\*\.tsv nor passages\.txt"):
        find([], [])
