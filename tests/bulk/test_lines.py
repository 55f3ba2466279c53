"""Files of lines: every record has its number, and a broken one costs no more than itself.

What is read of files that are whole, test_random_files.py compares with other readers.
"""

from __future__ import annotations

import bz2
import gzip
import io
import sys
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from ov_minilm.bulk.inputs import Dialect, Inputs, Kind, open_pipes
from ov_minilm.bulk.lines import Lines
from ov_minilm.bulk.rows import Position, Rows

START = Position()
COMMA = Dialect()


def opened(
    path: Path | str, kind: Kind | None = None, at: Position = START, dialect: Dialect = COMMA
) -> Lines:
    """Open a file at a position."""
    files = (str(path),)
    return Lines(Inputs(files, "text", (), kind, dialect, pipes=open_pipes(files)), *files, at)


def read(
    path: Path | str,
    kind: Kind | None = None,
    at: Position = START,
    dialect: Dialect = COMMA,
    most: int = 2000,
) -> Rows:
    """Read rows of a file from a position on."""
    with closing(opened(path, kind, at, dialect)) as lines:
        return lines.take(most)


@pytest.mark.parametrize(
    ("name", "content", "texts", "numbers"),
    [
        ("a.txt", "\ufeffa\r\n\n \n\ufeffb", ["a", "", " ", "\ufeffb"], [1, 2, 3, 4]),
        ("a.txt", "a\u2028b\x85c\rd\n", ["a\u2028b\x85c\rd"], [1]),
        ("a.txt", "\ufeff", [], []),
        ("a.jsonl", '\n{"text": "a"}\n\r\n  \t\n{"text": 3}\n{"text": "b"}\n\n', ["a", None, "b"], [2, 5, 6]),
        ("a.jsonl", '{"text": "a"}\n{"text": "b', ["a", None], [1, 2]),
        ("a.csv", "\n\nid,text\n1,a\n\n   \n2,b\n", ["a", "b"], [1, 2]),
        ("a.csv", 'text\n  \n\n""\n"b', ["  ", "", None], [1, 2, 3]),
        ("a.csv", "", [], []),
        ("a.csv", "\ufeffsep=;\r\n\r\nid;text\r\n1;a, b\r\n2;c\r\n", ["a, b", "c"], [1, 2]),
        ("a.tsv", "sep=,\nid,text\n1,a\tb\n", ["a\tb"], [1]),
    ],
)
def test_rows_have_numbers(
    tmp_path: Path, name: str, content: str, texts: list[str | None], numbers: list[int]
) -> None:
    """Of lines as an editor shows them, of CSV as records; blank lines of JSON and CSV are no rows."""
    (tmp_path / name).write_bytes(content.encode())

    assert (texts, numbers) == (read(tmp_path / name).texts, read(tmp_path / name).numbers)


@pytest.mark.parametrize(
    ("kind", "content"), [(None, "naïve\n"), ("jsonl", '{"text": "naïve"}\n'), ("csv", "text\nnaïve\n")]
)
def test_a_dash_is_stdin(kind: Kind | None, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stdin is text unless said otherwise, UTF-8 whatever the locale, and has a name in errors."""
    raw = content.encode() + (b"\xff\n" if kind is None else b"")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="ascii"))

    rows = read("-", kind)

    assert "naïve" == rows.texts[0]
    assert ["stdin, line 2: not UTF-8"] * (kind is None) == [str(error)[:24] for error in rows.errors()]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("a.jsonl", b"{", "not a JSON object: Expecting property name enclosed in double quotes: line 1 col"),
        (
            "a.jsonl",
            b'{"body": "", "id": 3}',
            "no field 'text'; it has 'body', 'id'; choose one with --column",
        ),
        ("a.jsonl", b"{}", "no field 'text'; it has none; choose one with --column"),
        (
            "a.jsonl",
            b'{"text": "", "n": ' + b"9" * 5000 + b"}",
            "not a JSON object: it has a number of more than",
        ),
        ("a.jsonl", b'["a"]', "not a JSON object: it is an array"),
        ("a.jsonl", b'"text"', "not a JSON object: it is a string"),
        ("a.jsonl", b"null", "not a JSON object: it is null"),
        ("a.jsonl", b"[" * 100_000, "not a JSON object: nested too deep"),
        ("a.jsonl", b'{"text": NaN}', "'text' is null, expected a string"),
        ("a.jsonl", b'{"text": 3}', "'text' is a number, expected a string"),
        ("a.jsonl", b'{"text": true}', "'text' is a boolean, expected a string"),
        ("a.jsonl", b'{"text": {}}', "'text' is an object, expected a string"),
        (
            "a.jsonl",
            b'{"text": "\xe9"}',
            "not UTF-8 (invalid continuation byte); set another with --encoding",
        ),
        ("a.txt", b"\xff", "not UTF-8 (invalid start byte); set another with --encoding"),
        ("a.csv", b"2,\xff", "not UTF-8 (invalid bytes); set another with --encoding"),
        ("a.csv", b"2", "1 fields, the header has 2"),
        ("a.csv", b"2,a,b", "3 fields, the header has 2"),
        ("a.csv", b'2,"a"b', "not a CSV record: ',' expected after '\"'"),
        ("a.txt", b"x" * 201, "longer than 200 bytes; split it"),
        ("a.jsonl", b'{"text": "' + b"x" * 1000 + b'"}', "longer than 200 bytes; split it"),
        ("a.csv", b'2,"' + b"x" * 1000 + b'"', "not a CSV record: longer than 200 bytes; split it"),
    ],
)
def test_a_bad_line_costs_only_itself(
    tmp_path: Path, name: str, line: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows around it are read, from there on too; the error says file, line and reason."""
    if b"xx" in line:
        monkeypatch.setattr("ov_minilm.bulk.lines.MAX_BYTES", 200)
    good = {"a.jsonl": b'{"text": "good"}\n', "a.txt": b"good\n", "a.csv": b"1,good\n"}[name]
    header = b"id,text\n" if name == "a.csv" else b""
    (tmp_path / name).write_bytes(header + good + line + b"\n" + good)

    rows = read(tmp_path / name)

    unit = "row" if name == "a.csv" else "line"
    assert (["good", None], "good") == (rows.texts[:2], rows.texts[-1])
    assert str(rows.errors()[0]).startswith(f"{tmp_path / name}, {unit} 2: {message}")
    assert rows.texts[2:] == read(tmp_path / name, at=read(tmp_path / name, most=2).end).texts


@pytest.mark.parametrize("codec", ["", ".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
def test_reading_goes_on_at_any_position(tmp_path: Path, kind: str, codec: str) -> None:
    """From the end of each row on, the rest is read as if from the start, compressed or not."""
    form = {"txt": "text {}\n", "jsonl": '{{"text": "text {}"}}\n', "csv": '"text {}"\n'}[kind]
    content = (("text\n" if kind == "csv" else "") + "".join(map(form.format, range(9)))).encode()
    path = tmp_path / f"in.{kind}{codec}"
    packed = {"": content, ".gz": gzip.compress(content), ".bz2": bz2.compress(content)}
    path.write_bytes(packed.get(codec) or pa.compress(content, codec="zstd", asbytes=True))
    expected = [f"text {number}" for number in range(9)]

    with closing(opened(path)) as lines:
        for row in range(1, 10):
            end = lines.take(1).end
            assert (row, expected[row:]) == (end.row, read(path, at=end).texts)


@pytest.mark.parametrize(
    ("content", "dialect", "texts"),
    [
        ("id;text\n1;a, b\n", Dialect(";"), ["a, b"]),
        ("id|text\n1|'a|b'\n", Dialect("|", "'"), ["a|b"]),
        ('id,text\n1,"a \\"b\\""\n', Dialect(escape="\\"), ['a "b"']),
        ('id,text\n1,"a\n2,b"\n', Dialect(quote=""), ['"a', 'b"']),
        ("sep=,\nid|text\n1|a,b\n2|c\n", Dialect("|"), ["a,b", "c"]),  # the option wins
        ("id,text\n1,naïve\n", Dialect(encoding="cp1252"), ["naïve"]),
        ("id,text\n1,naïve 😉\n2,b\n", Dialect(encoding="utf-16"), ["naïve 😉", "b"]),
        (
            "\ufeffid,text\n1,naïve 😉\n2,\ud83d\n3,c\n",
            Dialect(encoding="utf-16-be"),
            ["naïve 😉", None, "c"],
        ),
    ],
)
def test_csv_of_other_dialects(
    tmp_path: Path, content: str, dialect: Dialect, texts: list[str | None]
) -> None:
    """As the options say, from any row on; half a surrogate pair is a bad row."""
    path = tmp_path / "in.csv"
    errors = "strict" if "cp" in dialect.encoding else "surrogatepass"
    path.write_bytes(content.encode(dialect.encoding, errors))

    assert texts == read(path, dialect=dialect).texts
    assert texts[1:] == read(path, dialect=dialect, at=read(path, dialect=dialect, most=1).end).texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", gzip.compress(b"{}", mtime=0), r"a\.jsonl begins like gzip, not like jsonl; .* in \.gz"),
        ("a.txt", bz2.compress(b"a", 1), r"bzip2, not like text; let its name end in \.bz2"),
        ("a.csv", b"PK\x03\x04...", "a .zip or .xlsx file, not like csv"),
        ("a.txt", "a\nb".encode("utf-16"), "UTF-16, not like text; pass --encoding utf-16"),
        ("a.txt", "a\nb".encode("utf-32"), "UTF-32, not like text; pass --encoding utf-32"),
        ("a.txt", "a\nb".encode("utf-16-le"), "UTF-16, not like text; pass --encoding utf-16-le"),
        ("a.txt", b"PAR1\x15\x00", "Parquet, not like text; pass --format parquet"),
        ("a.json", b'[\n{"text": "a"}]', "a.json: its first line is not a JSON object.*jq -c"),
        ("a.json.gz", gzip.compress(b"[]", mtime=0), "first line is not a JSON object"),
        ("a.csv", b"id;text\n1;a\n", "no column 'text'; it has 'id;text'; .* pass --delimiter"),
        ("a.csv", b"id, text\n1, a\n", "it has 'id', ' text'"),
        ("a.csv", b"text,id,text\n", "column 'text' occurs 2 times"),
        ("a.csv", b"x" * 99 + b",b" * 9, f"no column 'text'; it has '{'x' * 60}...', 'b',.* 'b' and 2 more;"),
        ("a.txt", b"\xff\xff\xff\xff\0", "an Arrow stream, not like text; write it as .parquet"),
        ("a.csv", b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer, .* with git lfs pull"),
        ("a.csv", b"caf\xe9,text\n", "no CSV header: not UTF-8; pass --encoding"),
        (
            "a.csv",
            b"id,text\r1,a\r",
            "no CSV header: a line ends in a carriage return without a newline; .*: tr",
        ),
        ("a.csv", b'"text', "no CSV header: unexpected end of data"),
        ("a.csv", b'sep="\ntext\n', "--delimiter '\"' must differ from the other two"),
        (
            "a.txt",
            b'{"text": "a"}',
            "begins like JSON, not like text; pass --format jsonl .*, or --format text to",
        ),
    ],
)
def test_a_file_in_another_format_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """At the first look, with what to type."""
    (tmp_path / name).write_bytes(content)

    with closing(opened(tmp_path / name)) as lines, pytest.raises(ValueError, match=message):
        lines.look(1)


def test_an_encoding_may_need_a_byte_order_mark(tmp_path: Path) -> None:
    """Without it the two encodings that need none are named."""
    (tmp_path / "a.txt").write_bytes(b"\0a")

    with pytest.raises(ValueError, match="no byte order mark; pass --encoding utf-16-le or utf-16-be"):
        read(tmp_path / "a.txt", dialect=Dialect(encoding="utf-16"))
