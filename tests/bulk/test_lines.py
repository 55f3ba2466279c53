"""Files of lines: every record has its number, and a broken one costs no more than itself."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from ov_minilm.bulk.inputs import Inputs, Kind
from ov_minilm.bulk.lines import Lines
from ov_minilm.bulk.rows import Position, Rows


def read(path: Path | str, kind: Kind | None = None, column: str = "text", at: Position = Position()) -> Rows:  # noqa: B008
    """Read up to 2,000 rows of a file from a position on."""
    lines = Lines(Inputs((str(path),), column, kind=kind), str(path), at)
    rows = lines.take(2000)
    if path != "-":
        lines.close()
    return rows


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\n\n \n", ["a", "", " "]),
        (b"", []),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
        (b'{"text": "a"}\n', ['{"text": "a"}']),
        ("a\u2028b\x85c\rd\n".encode(), ["a\u2028b\x85c\rd"]),
    ],
)
def test_text_is_read_by_lines(tmp_path: Path, content: bytes, texts: list[str]) -> None:
    """Only newlines end a line, and an empty line is an empty text: line n is row n."""
    (tmp_path / "in.txt").write_bytes(content)

    assert texts == read(tmp_path / "in.txt").texts


def test_jsonl_is_read_by_field(tmp_path: Path) -> None:
    """The field named is the text, whatever else the line holds."""
    path = tmp_path / "in.jsonl"
    path.write_bytes('{"id": 1, "body": "naïve\\nb"}\r\n{"body": "", "text": 3}\n'.encode())

    assert ["naïve\nb", ""] == read(path, column="body").texts


def test_csv_is_read_by_column(tmp_path: Path) -> None:
    """Quotes hold commas, quotes and newlines; blank lines are no rows; an empty field is an empty text."""
    path = tmp_path / "in.csv"
    path.write_bytes(b'\xef\xbb\xbfid,text\r\n1,"a, ""b""\r\nc"\r\n\r\n2,\n3,d')

    assert ['a, "b"\r\nc', "", "d"] == read(path).texts


def test_the_kind_given_wins_over_the_name(tmp_path: Path) -> None:
    """JSON lines under any name, and plain lines in a file called .jsonl."""
    named, other = tmp_path / "in.jsonl", tmp_path / "in.log"
    for path in (named, other):
        path.write_bytes(b'{"text": "a"}\n')

    assert ['{"text": "a"}'] == read(named, "text").texts
    assert ["a"] == read(other, "jsonl").texts


@pytest.mark.parametrize("kind", [None, "jsonl", "csv"])
def test_a_dash_is_stdin(kind: Kind | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stdin is text unless said otherwise, and UTF-8 whatever the locale."""
    content = {None: "naïve\n", "jsonl": '{"text": "naïve"}\n', "csv": "text\nnaïve\n"}[kind]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode()), encoding="ascii"))

    assert ["naïve"] == read("-", kind).texts


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("in.jsonl", b"{", "no JSON object with a field 'text'"),
        ("in.jsonl", b"", "no JSON object with a field 'text'"),
        ("in.jsonl", b'{"body": "a"}', "no JSON object with a field 'text'"),
        ("in.jsonl", b'["a"]', "no JSON object with a field 'text'"),
        ("in.jsonl", b'"text"', "no JSON object with a field 'text'"),
        ("in.jsonl", b"null", "no JSON object with a field 'text'"),
        ("in.jsonl", b"[" * 100_000, "no JSON object with a field 'text'"),
        ("in.jsonl", b'{"text": null}', "'text' is NoneType, expected a string"),
        ("in.jsonl", b'{"text": 3}', "'text' is int, expected a string"),
        ("in.jsonl", b'{"text": "caf\xe9"}', "not UTF-8 (invalid continuation byte)"),
        ("in.txt", b"\xff", "not UTF-8 (invalid start byte)"),
        ("in.csv", b"2,\xff", "not UTF-8"),
        ("in.csv", b"2", "1 fields, the header has 2"),
        ("in.csv", b"2,a,b", "3 fields, the header has 2"),
        ("in.csv", b'2,"a"b', "no CSV record: ',' expected after '\"'"),
    ],
)
def test_a_bad_line_costs_only_itself(tmp_path: Path, name: str, line: bytes, message: str) -> None:
    """The rows around it are read; the error says file, line and reason."""
    good = {"in.jsonl": b'{"text": "good"}\n', "in.txt": b"good\n", "in.csv": b"1,good\n"}[name]
    header = b"id,text\n" if name == "in.csv" else b""
    (tmp_path / name).write_bytes(header + good + line + b"\n" + good)

    rows = read(tmp_path / name)

    unit = "row" if name == "in.csv" else "line"
    assert ["good", None, "good"] == rows.texts
    assert [f"{tmp_path / name}, {unit} 2: {message}"] == [str(error) for error in rows.errors()]


def test_a_bad_line_of_stdin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stdin has a name in errors too."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n\xff\n")))

    assert ["stdin, line 2: not UTF-8 (invalid start byte)"] == [str(e) for e in read("-", "text").errors()]


def test_a_torn_record_at_the_end_is_bad(tmp_path: Path) -> None:
    """Half a JSON object and an open quote are seen; half a line of text cannot be told from a whole one."""
    (tmp_path / "in.jsonl").write_bytes(b'{"text": "a"}\n{"text": "b')
    (tmp_path / "in.csv").write_bytes(b'text\na\n"b')

    assert ["no JSON object with a field 'text'"] == list(read(tmp_path / "in.jsonl").bad.values())
    assert ["no CSV record: unexpected end of data"] == list(read(tmp_path / "in.csv").bad.values())


@pytest.mark.parametrize("codec", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
def test_reading_goes_on_at_any_position(tmp_path: Path, kind: str, codec: str) -> None:
    """From the end of each row on, the rest is read as if from the start, compressed or not."""
    form = {"txt": "text {}\n", "jsonl": '{{"text": "text {}"}}\n', "csv": '"text {}"\n'}[kind]
    content = ("text\n" if kind == "csv" else "") + "".join(form.format(number) for number in range(9))
    path = tmp_path / f"in.{kind}{codec}"
    path.write_bytes(compress(content.encode(), codec))
    expected = read(path).texts
    reader = Lines(Inputs((str(path),)), str(path), Position())

    ends = [reader.take(1).end for _ in range(9)]

    reader.close()
    assert [f"text {number}" for number in range(9)] == expected
    for row, end in enumerate(ends, 1):
        assert (row, expected[row:]) == (end.row, read(path, at=end).texts)


@pytest.mark.parametrize("codec", [".gz", ".zst"])
def test_a_stream_cut_short_is_an_error_after_its_rows(tmp_path: Path, codec: str) -> None:
    """What could be decompressed is read, then the damage is said, from wherever reading started."""
    content = "".join(f"line {number * number}\n" for number in range(20_000))
    path = tmp_path / f"in.txt{codec}"
    path.write_bytes(compress(content.encode(), codec)[:-500])
    inputs = Inputs((str(path),))
    reader = Lines(inputs, str(path), Position())
    found: list[str | None] = []
    ends = []

    def read_all() -> None:
        while True:
            rows = reader.take(1000)
            found.extend(rows.texts)
            ends.append(rows.end)

    with pytest.raises(OSError, match="Truncated compressed stream"):
        read_all()

    assert content.split("\n")[: len(found)] == found
    assert len(found) > 1000
    assert found[ends[2].row :][:50] == Lines(inputs, str(path), ends[2]).take(50).texts
    with pytest.raises(OSError, match="Truncated compressed stream"):
        Lines(inputs, str(path), ends[-1]).take(1)


def compress(content: bytes, codec: str) -> bytes:
    """Compress as the ending says."""
    if codec == ".gz":
        return gzip.compress(content)
    packed: bytes = pa.compress(content, codec="zstd", asbytes=True) if codec else content
    return packed
