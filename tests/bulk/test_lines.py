"""Files of lines: every record has its number, and a broken one costs no more than itself."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import sys
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from ov_minilm.bulk.inputs import Dialect, Inputs, Kind, open_pipes
from ov_minilm.bulk.lines import Lines
from ov_minilm.bulk.rows import Position, Rows


def read(
    path: Path | str,
    kind: Kind | None = None,
    column: str = "text",
    at: Position = Position(),  # noqa: B008
    dialect: Dialect = Dialect(),  # noqa: B008
) -> Rows:
    """Read up to 2,000 rows of a file from a position on."""
    files = (str(path),)
    inputs = Inputs(files, column, kind=kind, dialect=dialect, pipes=open_pipes(files))
    with closing(Lines(inputs, str(path), at)) as lines:
        return lines.take(2000)


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\n\n \n", ["a", "", " "]),
        (b"", []),
        (b"\xef\xbb\xbf", []),
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
        (
            "in.jsonl",
            b"{",
            "not a JSON object: Expecting property name enclosed in double quotes: line 1 column 2",
        ),
        (
            "in.jsonl",
            b'{"body": "a", "id": 3}',
            "no field 'text'; it has 'body', 'id'; --column names another",
        ),
        ("in.jsonl", b"{}", "no field 'text'; it has none; --column names another"),
        ("in.jsonl", b'["a"]', "not a JSON object: it is an array"),
        ("in.jsonl", b'"text"', "not a JSON object: it is a string"),
        ("in.jsonl", b"null", "not a JSON object: it is null"),
        ("in.jsonl", b"[" * 100_000, "not a JSON object: nested too deep"),
        ("in.jsonl", b'{"text": null}', "'text' is null, expected a string"),
        ("in.jsonl", b'{"text": 3}', "'text' is a number, expected a string"),
        ("in.jsonl", b'{"text": true}', "'text' is a boolean, expected a string"),
        ("in.jsonl", b'{"text": {}}', "'text' is an object, expected a string"),
        ("in.jsonl", b'{"text": NaN}', "'text' is null, expected a string"),
        (
            "in.jsonl",
            b'{"text": "caf\xe9"}',
            "not UTF-8 (invalid continuation byte); --encoding names another",
        ),
        ("in.txt", b"\xff", "not UTF-8 (invalid start byte); --encoding names another"),
        ("in.csv", b"2,\xff", "not UTF-8 (invalid bytes); --encoding names another"),
        ("in.csv", b"2", "1 fields, the header has 2"),
        ("in.csv", b"2,a,b", "3 fields, the header has 2"),
        ("in.csv", b'2,"a"b', "not a CSV record: ',' expected after '\"'"),
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
    (error,) = map(str, rows.errors())
    assert error.startswith(f"{tmp_path / name}, {unit} 2: {message}")


def test_a_bad_line_of_stdin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stdin has a name in errors too."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n\xff\n")))

    (error,) = map(str, read("-", "text").errors())
    assert error.startswith("stdin, line 2: not UTF-8 (invalid start byte)")


def test_a_torn_record_at_the_end_is_bad(tmp_path: Path) -> None:
    """Half a JSON object and an open quote are seen; half a line of text cannot be told from a whole one."""
    (tmp_path / "in.jsonl").write_bytes(b'{"text": "a"}\n{"text": "b')
    (tmp_path / "in.csv").write_bytes(b'text\na\n"b')

    (reason,) = read(tmp_path / "in.jsonl").bad.values()
    assert reason.startswith("not a JSON object: Unterminated string")
    assert ["not a CSV record: unexpected end of data"] == list(read(tmp_path / "in.csv").bad.values())


@pytest.mark.parametrize("codec", ["", ".gz", ".bz2", ".zst"])
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
    """What could be decompressed is read, then the damage is said, at every start of reading."""
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


def test_blank_lines_of_json_are_no_rows(tmp_path: Path) -> None:
    """In any place; what is bad has the number of its line as an editor shows it."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'\n{"text": "a"}\n\r\n  \t\n{"text": 3}\n{"text": "b"}\n\n')

    rows = read(path)

    assert ["a", None, "b"] == rows.texts
    assert [2, 5, 6] == rows.numbers
    assert f"{path}, line 5: " in str(rows.errors()[0])
    assert ["b"] == read(path, at=Position(0, 5, path.read_bytes().index(b"3}") + 3)).texts


@pytest.mark.parametrize("name", ["in.csv", "in.tsv"])
def test_blank_lines_of_csv_are_no_rows(tmp_path: Path, name: str) -> None:
    """Before the header too; of one column, spaces are a text."""
    (tmp_path / name).write_bytes(
        b"\n\nid,text\n1,a\n\n   \n2,b\n".replace(b",", b"," if "csv" in name else b"\t")
    )
    (tmp_path / f"one.{name}").write_bytes(b'text\n  \n\n""\n')

    assert (["a", "b"], [1, 2]) == (read(tmp_path / name).texts, read(tmp_path / name).numbers)
    assert ["  ", ""] == read(tmp_path / f"one.{name}").texts


@pytest.mark.parametrize(
    ("content", "dialect", "texts"),
    [
        ("id;text\n1;a, b\n", Dialect(";"), ["a, b"]),
        ("id|text\n1|'a|b'\n", Dialect("|", "'"), ["a|b"]),
        ("id,text\n1,a\\,b\n", Dialect(escape="\\"), ["a,b"]),
        ('id,text\n1,"a \\"b\\""\n', Dialect(escape="\\"), ['a "b"']),
        ('id,text\n1,"a\n2,b"\n', Dialect(quote=""), ['"a', 'b"']),
        ("id,text\n1,naïve\n", Dialect(encoding="cp1252"), ["naïve"]),
        ("id,text\n1,naïve 😉\n2,b\n", Dialect(encoding="utf-16"), ["naïve 😉", "b"]),
        ("\ufeffid,text\n1,naïve 😉\n", Dialect(encoding="utf-16-be"), ["naïve 😉"]),
    ],
)
def test_csv_of_other_dialects(tmp_path: Path, content: str, dialect: Dialect, texts: list[str]) -> None:
    """As the options say, from any row on."""
    path = tmp_path / "in.csv"
    path.write_bytes(content.encode(dialect.encoding))
    with closing(Lines(Inputs((str(path),), dialect=dialect), str(path), Position())) as lines:
        first = lines.take(1)

    assert texts == read(path, dialect=dialect).texts
    assert texts[1:] == read(path, dialect=dialect, at=first.end).texts


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_an_unknown_byte_order_is_refused(tmp_path: Path, encoding: str) -> None:
    """Without a mark at its start, with what to type."""
    (tmp_path / "in.txt").write_bytes("a\n".encode(f"{encoding}-be"))

    with pytest.raises(
        ValueError, match=rf"in\.txt has no byte order mark; pass --encoding {encoding}-le or"
    ):
        read(tmp_path / "in.txt", dialect=Dialect(encoding=encoding))


def test_what_an_encoding_has_not_is_a_bad_row(tmp_path: Path) -> None:
    """Half a surrogate pair, and a byte without a letter; the rows around them are read."""
    (tmp_path / "in.txt").write_bytes("a\n\ud83d\nb\n".encode("utf-16-le", "surrogatepass"))
    (tmp_path / "in.jsonl").write_bytes(b'{"text": "\xe4"}\n{"text": "\x81"}\n{"text": "b"}\n')

    utf16 = read(tmp_path / "in.txt", dialect=Dialect(encoding="utf-16-le"))
    cp1252 = read(tmp_path / "in.jsonl", dialect=Dialect(encoding="cp1252"))

    assert ["a", None, "b"] == utf16.texts
    assert ["ä", None, "b"] == cp1252.texts
    assert "not CP1252 (invalid" in cp1252.bad[1]


@pytest.mark.parametrize(
    ("name", "row"), [("in.txt", b"%b\n"), ("in.jsonl", b'{"text": "%b"}\n'), ("in.csv", b'"%b"\n')]
)
def test_a_line_that_never_ends_is_one_bad_row(
    tmp_path: Path, name: str, row: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is passed over a piece at a time, never held whole, and the rows after it are read."""
    monkeypatch.setattr("ov_minilm.bulk.lines.MAX_BYTES", 100)
    header = b"text\n" if name == "in.csv" else b""
    rows = [row % (b"x" * size) for size in (50, 1000, 20)]
    (tmp_path / name).write_bytes(header + b"".join(rows))

    found = read(tmp_path / name)

    assert ["x" * 50, None, "x" * 20] == found.texts
    assert "longer than 100 bytes; split it" in found.bad[1]
    assert ["x" * 20] == read(tmp_path / name, at=Position(0, 2, len(header + rows[0] + rows[1]))).texts


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ('{"text": "a", "k": 1.10, "m": 12345678901234567890123}', ["1.10", "12345678901234567890123"]),
        ('{"text": "a", "k": 1e400 ,"m": {"z": 1, "a": [1.0, {}]}}', ["1e400", '{"z": 1, "a": [1.0, {}]}']),
        ('{"k": {"x":  "}"}, "text": "a"}', ['{"x":  "}"}', "null"]),
        ('{"k": {}, "m": [], "text": "a"}', ["{}", "[]"]),
        ('{"k": 1, "k": [2], "text": "a", "\\u006d": true}', ["[2]", "true"]),
        ('{"k": NaN, "m": [-Infinity, "NaN"], "text": "a"}', ["null", '[null, "NaN"]']),
        ('{"k": "\\ud800", "m": "é\\n", "text": "a"}', ['"\\ud800"', '"é\\n"']),
    ],
)
def test_json_is_kept_as_it_was(tmp_path: Path, line: str, kept: list[str]) -> None:
    """Every digit, key and order; what is no JSON, though Python reads it, is null."""
    path = tmp_path / "in.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with closing(Lines(Inputs((str(path),), keep=("k", "m")), str(path), Position())) as lines:
        rows = lines.take(1)

    assert [f'"k": {kept[0]}, "m": {kept[1]}'] == rows.columns
    json.loads(f"{{{rows.columns[0]}}}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", gzip.compress(b"{}"), r"a\.jsonl begins like gzip, not jsonl; let its name end in \.gz"),
        ("a.csv", b"PK\x03\x04...", "a .zip or .xlsx file, not csv"),
        ("a.txt", "a\nb".encode("utf-16"), "UTF-16, not text; pass --encoding utf-16"),
        ("a.txt", "a\nb".encode("utf-16-le"), "UTF-16, not text; pass --encoding utf-16-le"),
        ("a.txt", b"PAR1\x15\x00", "Parquet, not text; pass --format parquet"),
        ("a.json", b'[\n{"text": "a"}]', "a.json: its first line is not a JSON object.*jq -c"),
        ("a.json.gz", gzip.compress(b'[{"text": "a"}]'), "first line is not a JSON object"),
        (
            "a.csv",
            b"id;text\n1;a\n",
            "no column 'text'; it has 'id;text'; if it is not ',' .* pass --delimiter",
        ),
        ("a.csv", b"id, text\n1, a\n", "it has 'id', ' text'"),
        ("a.csv", b"text,id,text\n", "column 'text' is there 2 times"),
        ("a.csv", b"caf\xe9,text\n", "no CSV header: not UTF-8; pass --encoding"),
        ("a.csv", b'"text', "no CSV header: unexpected end of data"),
    ],
)
def test_a_file_in_another_format_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """At the first look, with what to type."""
    path = tmp_path / name
    path.write_bytes(content)

    with (
        closing(Lines(Inputs((str(path),)), str(path), Position())) as lines,
        pytest.raises(ValueError, match=message),
    ):
        lines.look(1)


def compress(content: bytes, codec: str) -> bytes:
    """Compress as the ending says."""
    if codec in (".gz", ".bz2"):
        return gzip.compress(content) if codec == ".gz" else bz2.compress(content)
    packed: bytes = pa.compress(content, codec="zstd", asbytes=True) if codec else content
    return packed
