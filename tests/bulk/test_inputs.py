"""Names and patterns become files, and files are read as their names say, or not at all."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from ov_minilm.bulk.inputs import Dialect, Inputs, Pipe, expand, open_pipes


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


KINDS = (
    "a.parquet:parquet a.pq:parquet a.JSONL:jsonl a.ndjson:jsonl a.json.gz:jsonl a.tsv.bz2:tsv a.csv.zst:csv"
)


@pytest.mark.parametrize(("name", "kind"), [pair.split(":") for pair in KINDS.split()])
def test_the_name_says_the_kind(name: str, kind: str) -> None:
    """Below .gz, .bz2 and .zst too, in any case; the kind that is given wins."""
    assert kind == Inputs((name,)).kind_of(name)
    assert "text" == Inputs((name,), kind="text").kind_of(name)


def kind_of(name: str) -> Callable[[], object]:
    """Ask for the format of a file."""
    return lambda: Inputs((name,)).kind_of(name)


def named(*names: str) -> Callable[[], object]:
    """Look for files."""
    return lambda: open_pipes(tuple(expand(names)))


def dialect(**options: str) -> Callable[[], object]:
    """Make a dialect."""
    return lambda: Dialect(**options)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (kind_of("a.log"), ValueError, "a.log: the ending '.log' is not known; pass --format text, jsonl"),
        (kind_of("a"), ValueError, "a: the ending '' is not known"),
        (kind_of("a.gz"), ValueError, "a.gz: the ending '.gz' is not known"),
        (kind_of("a.log.gz"), ValueError, "a.log.gz: the ending '.log.gz' is not known"),
        (kind_of("a.XLSX"), ValueError, r"a spreadsheet \(.xlsx\) is not read; save it as CSV"),
        (kind_of("a.arrow"), ValueError, r"an Arrow file \(.arrow\) is not read; write it as .parquet"),
        (kind_of("a.csv.xz"), ValueError, r"an archive \(.xz\) is not read; unpack it first"),
        (kind_of("a.parquet.gz"), ValueError, "is read from its end and cannot be compressed as a whole"),
        (named("*.parquet"), FileNotFoundError, r"^\*\.parquet matches no file$"),
        (named("none.txt"), FileNotFoundError, "^none.txt does not exist$"),
        (named("."), IsADirectoryError, r"^\. is a folder; name its files: '\*\.parquet'$"),
        (named("-", "-"), ValueError, "stdin is named twice, and can be read once"),
        (named("/dev/null", "/dev/null"), ValueError, "is named twice, and can be read once"),
        (dialect(delimiter=",,"), ValueError, "--delimiter ',,': must be one character"),
        (dialect(delimiter=""), ValueError, "--delimiter '': must be one character"),
        (dialect(delimiter="\n"), ValueError, "must be one character"),
        (dialect(delimiter='"'), ValueError, "must differ from the other two"),
        (dialect(escape='"'), ValueError, "must differ from the other two"),
        (dialect(quote="''"), ValueError, "--quote \"''\": must be one character"),
        (dialect(encoding="utf-9"), ValueError, "--encoding 'utf-9' is not known"),
        (dialect(encoding="base64"), ValueError, "--encoding 'base64' is not known"),
    ],
)
def test_what_cannot_be_is_refused(
    asked: Callable[[], object],
    error: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A structured file is never read as text, nor a missing one as none; the option or the file is named."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(error, match=message):
        asked()


def test_a_pipe_is_read_once_with_what_was_looked_at() -> None:
    """What was read before rewinding comes again, then the rest; closing leaves the stream open."""
    stream = io.BytesIO(b"one\ntwo\nthree\n")
    pipe = Pipe(stream)
    with io.BufferedReader(pipe, 4) as looker:
        assert b"one\n" == looker.readline()
    pipe.rewind()

    with io.BufferedReader(pipe) as reader:
        assert b"one\ntwo\nthree\n" == reader.read()
    assert not stream.closed
