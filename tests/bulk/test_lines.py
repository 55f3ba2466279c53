"""Files of lines: every record has its number, and a broken record affects no other record.

test_random_files.py compares the rows with the rows of other readers.
"""

import bz2
import gzip
import io
import sys
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from ov_minilm.bulk.inputs import Dialect, Inputs, open_pipes
from ov_minilm.bulk.lines import Lines
from ov_minilm.bulk.rows import Position, Rows

START, PLAIN_CSV = Position(), Dialect()


def open_lines(path: Path | str, at: Position = START, dialect: Dialect = PLAIN_CSV) -> Lines:
    """Open a file at a position."""
    files = (str(path),)
    return Lines(Inputs(files, "text", (), None, dialect, pipes=open_pipes(files)), *files, at)


def read(path: Path | str, at: Position = START, dialect: Dialect = PLAIN_CSV, max_rows: int = 2000) -> Rows:
    """Read rows of a file, starting at a position."""
    with closing(open_lines(path, at, dialect)) as lines:
        return lines.take(max_rows)


@pytest.mark.parametrize(
    ("name", "content", "texts", "numbers"),
    [
        ("a.txt", "\ufeffa\r\n\n \n\ufeffb", ["a", "", " ", "\ufeffb"], [1, 2, 3, 4]),
        ("a.txt", "a\u2028b\x85c\rd\n", ["a\u2028b\x85c\rd"], [1]),
        ("a.txt", "\ufeff", [], []),
        ("a.txt", "a\0b\n\0\n\0\0\0\0\0", ["a\0b", "\0", "\0" * 5], [1, 2, 3]),  # NUL is valid in UTF-8
        ("a.txt", "é#\n\0\na\n\0\n", ["é#", "\0", "a", "\0"], [1, 2, 3, 4]),  # every second byte is NUL
        ("a.jsonl", '\n{"text": "a"}\n\r\n  \t\n{"text": 3}\n{"text": "b"}\n\n', ["a", None, "b"], [2, 5, 6]),
        ("a.jsonl", '{"text": "a"}\n{"text": "b', ["a", None], [1, 2]),
        ("a.csv", "\n\nid,text\n1,a\n\n   \n2,b\n", ["a", "b"], [1, 2]),
        ("a.csv", 'text\n  \n\n""\n"b', ["  ", "", None], [1, 2, 3]),
        ("a.csv", "", [], []),
        ("a.csv", "\ufeffsep=;\r\n\r\nid;text\r\n1;a, b\r\n2;c\r\n", ["a, b", "c"], [1, 2]),
        ("a.tsv", "sep=,\nid,text\n1,a\tb\n", ["a\tb"], [1]),
    ],
)
def test_rows_have_the_numbers_of_an_editor(
    tmp_path: Path, name: str, content: str, texts: list[str | None], numbers: list[int]
) -> None:
    """Lines are counted as an editor does, CSV by records; blank lines of JSON and CSV are not rows."""
    (tmp_path / name).write_bytes(content.encode())

    with closing(open_lines(tmp_path / name)) as lines:
        lines.preview(1)  # raises no error about another format
    assert (texts, numbers) == (read(tmp_path / name).texts, read(tmp_path / name).numbers)


def test_stdin_is_text_in_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    """The locale does not matter; errors call the input "stdin"."""
    stream = io.TextIOWrapper(io.BytesIO("naïve\n".encode() + b"\xff\n"), encoding="ascii")
    monkeypatch.setattr(sys, "stdin", stream)

    rows = read("-")

    assert ["naïve", None] == rows.texts
    assert str(rows.errors()[0]).startswith("stdin, line 2: not UTF-8")


GOOD_LINES = {"jsonl": b'{"text": "good"}\n', "txt": b"good\n", "csv": b"1,good\n"}


@pytest.mark.parametrize(
    ("ending", "line", "message"),
    [
        ("jsonl", b"{", "not a JSON object: Expecting property name enclosed in double quotes: line 1 col"),
        ("jsonl", b'{"body": "", "id": 3}', "no field 'text'; it has 'body', 'id'; choose one with --column"),
        ("jsonl", b"{}", "no field 'text'; it has none; choose one with --column"),
        ("jsonl", b'{"text": "", "n": %b}' % (b"9" * 5000), "not a JSON object: it has a number of more"),
        ("jsonl", b'["a"]', "not a JSON object: it is an array"),
        ("jsonl", b'"text"', "not a JSON object: it is a string"),
        ("jsonl", b"null", "not a JSON object: it is null"),
        ("jsonl", b"[" * 100_000, "not a JSON object: nested too deep"),
        ("jsonl", b'{"text": NaN}', "'text' is null, expected a string"),
        ("jsonl", b'{"text": 3}', "'text' is a number, expected a string"),
        ("jsonl", b'{"text": true}', "'text' is a boolean, expected a string"),
        ("jsonl", b'{"text": {}}', "'text' is an object, expected a string"),
        ("jsonl", b'{"text": "\xe9"}', "not UTF-8 (invalid continuation byte); set another with --encoding"),
        ("txt", b"\xff", "not UTF-8 (invalid start byte); set another with --encoding"),
        ("csv", b"2,\xff", "not UTF-8 (invalid bytes); set another with --encoding"),
        ("csv", b"2", "1 fields, the header has 2"),
        ("csv", b"2,a,b", "3 fields, the header has 2"),
        ("csv", b'2,"a"b', "not a CSV record: ',' expected after '\"'"),
        ("txt", b"x" * 201, "longer than 200 bytes; split it"),
        ("jsonl", b'{"text": "%b"}' % (b"x" * 1000), "longer than 200 bytes; split it"),
        ("csv", b'2,"%b"' % (b"x" * 1000), "not a CSV record: longer than 200 bytes; split it"),
    ],
)
def test_a_bad_line_loses_only_itself(
    tmp_path: Path, ending: str, line: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has file, line and reason; later rows are read, also if reading starts after the line."""
    if b"xx" in line:
        monkeypatch.setattr("ov_minilm.bulk.lines.MAX_BYTES", 200)
    path, header = tmp_path / f"a.{ending}", b"id,text\n" * (ending == "csv")
    path.write_bytes(header + GOOD_LINES[ending] + line + b"\n" + GOOD_LINES[ending])

    rows = read(path)

    assert (["good", None], "good") == (rows.texts[:2], rows.texts[-1])
    assert str(rows.errors()[0]).startswith(f"{path}, {'row' if header else 'line'} 2: {message}")
    assert rows.texts[2:] == read(path, at=read(path, max_rows=2).end).texts


@pytest.mark.parametrize("codec", ["", ".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("ending", ["txt", "jsonl", "csv"])
def test_reading_starts_at_any_row(tmp_path: Path, ending: str, codec: str) -> None:
    """After any row, reading can start and gives the same later rows, compressed or not."""
    row = {"txt": "text {}\n", "jsonl": '{{"text": "text {}"}}\n', "csv": '"text {}"\n'}[ending]
    content = ("text\n" * (ending == "csv") + "".join(map(row.format, range(9)))).encode()
    path = tmp_path / f"in.{ending}{codec}"
    members = gzip.compress(content[:20]) + gzip.compress(content[20:]) + bytes(512)  # as tar pads files
    packed = {"": content, ".gz": members, ".bz2": bz2.compress(content)}
    path.write_bytes(packed.get(codec) or pa.compress(content, codec="zstd", asbytes=True))
    whole = read(path)
    assert [f"text {number}" for number in range(9)] == whole.texts

    with closing(open_lines(path)) as lines:
        for count in range(1, 10):
            end = lines.take(1).end
            rest = read(path, at=end)
            assert (whole.texts[count:], whole.numbers[count:]) == (rest.texts, rest.numbers)
            assert (count, whole.end) == (end.row, rest.end)


@pytest.mark.parametrize(
    ("content", "dialect", "texts"),
    [
        ("id;text\n1;a, b\n", Dialect(";"), ["a, b"]),
        ("id|text\n1|'a|b'\n", Dialect("|", "'"), ["a|b"]),
        ('id,text\n1,"a \\"b\\""\n', Dialect(escape="\\"), ['a "b"']),
        ('id,text\n1,"a\n2,b"\n', Dialect(quote=""), ['"a', 'b"']),
        ("sep=,\nid|text\n1|a,b\n2|c\n", Dialect("|"), ["a,b", "c"]),  # the option overrides the line `sep=`
        ("id,text\n1,naïve\n", Dialect(encoding="cp1252"), ["naïve"]),
        ("id,text\n1,naïve 😉\n2,b\n", Dialect(encoding="utf-16"), ["naïve 😉", "b"]),
        ("\ufeffid,text\n1,é 😉\n2,\ud83d\n3,c\n", Dialect(encoding="utf-16-be"), ["é 😉", None, "c"]),
    ],
)
def test_csv_is_read_in_its_dialect(
    tmp_path: Path, content: str, dialect: Dialect, texts: list[str | None]
) -> None:
    """The options apply also if reading starts at a later row; half of a surrogate pair is a bad row."""
    path, errors = tmp_path / "in.csv", "strict" if "cp" in dialect.encoding else "surrogatepass"
    path.write_bytes(content.encode(dialect.encoding, errors))

    assert texts == read(path, dialect=dialect).texts
    assert texts[1:] == read(path, dialect=dialect, at=read(path, dialect=dialect, max_rows=1).end).texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", gzip.compress(b"{}", mtime=0), r"a\.jsonl begins like gzip, not like jsonl; .* in \.gz"),
        ("a.txt", bz2.compress(b"a", 1), r"bzip2, not like text; let its name end in \.bz2"),
        ("a.csv", b"PK\x03\x04...", "a .zip or .xlsx file, not like csv"),
        *(("a.txt", "a\nb".encode(f"utf-{n}"), f"UTF-{n}, .* pass --encoding utf-{n}") for n in (16, 32)),
        *(
            ("a.txt", f"Привет — мир,\n{code} a b".encode(code), f"{code[:6].upper()}, .* --encoding {code},")
            for code in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
        ),
        ("a.txt", "你好\n世界\n再见\n".encode("utf-16-le"), "UTF-16, .* --encoding utf-16-le,"),
        ("a.txt", b"a\rb\r", r"a\.txt has carriage returns and no newline; convert it: tr"),
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
        ("a.csv", b"id,text\r1,a\r", "no CSV header: a line ends in a carriage return without .*: tr"),
        ("a.csv", b'"text', "no CSV header: unexpected end of data"),
        ("a.csv", b'sep="\ntext\n', "--delimiter '\"' must differ from the other two"),
        ("a.txt", b'{"text": "a"}', "like JSON, not like text; pass --format jsonl .*, or --format text to"),
    ],
)
def test_a_file_in_another_format_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """The file is refused before its first row is read; the error says what to type."""
    (tmp_path / name).write_bytes(content)

    with closing(open_lines(tmp_path / name)) as lines, pytest.raises(ValueError, match=message):
        lines.preview(1)


def test_utf_16_without_byte_order_mark_is_refused(tmp_path: Path) -> None:
    """The error names the two encodings that need no byte order mark."""
    (tmp_path / "a.txt").write_bytes(b"\0a")

    with pytest.raises(ValueError, match="no byte order mark; pass --encoding utf-16-le or utf-16-be"):
        read(tmp_path / "a.txt", dialect=Dialect(encoding="utf-16"))
