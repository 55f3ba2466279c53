"""Reads files of lines: text, JSON lines and CSV, plain or compressed, in any encoding.

Each line is parsed separately, so a broken line makes only its own row bad, and the message has its number.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from ov_minilm.bulk.detect import detect_format
from ov_minilm.bulk.inputs import (
    COMPRESSED,
    COMPRESSED_MAGIC,
    Inputs,
    check_start,
    column_index,
    display_name,
    first_names,
    import_arrow,
)
from ov_minilm.bulk.json_text import json_text, members
from ov_minilm.bulk.refusals import bad_row, refusal
from ov_minilm.bulk.rows import Kept, Position, Rows, rows_per_block
from ov_minilm.runtime.texts import has_surrogates

MAX_BYTES = 1 << 24  # maximum bytes of a line, or of a field of CSV, to bound memory
BYTE_ORDER_MARK = "\ufeff"
JSON_SPACE = " \t\r"  # a line that has only these bytes is blank
TEXT_SAMPLE = 16  # number of first lines of a text file that are searched for signs of another format
# first line of a CSV file for Excel, which names the delimiter
SEPARATOR = re.compile('"?sep=(.)"?\r?\n?', re.I)


class Record(NamedTuple):
    """One row of a file of lines."""

    end: int  # byte at which the next record starts, after decompression
    number: int  # number of the line, or of the CSV record, from 1
    text: str | None
    reason: str  # why the row has no text; otherwise empty
    kept: Sequence[Any]  # values of the columns to keep; empty if there are none or the row cannot be read


class Lines:
    """Reads one file, starting at a position."""

    def __init__(self, inputs: Inputs, name: str, at: Position) -> None:
        self._inputs = inputs
        self._name = name
        self._kind = inputs.kind_of(name)
        self._at = at
        self._raw: BinaryIO = cast("BinaryIO", inputs.pipes.get(name) or open(name, "rb"))  # noqa: PTH123, SIM115  # close() does
        self._bytes = _buffered(_decompressed(self._raw, name))
        encoding = inputs.dialect.encoding
        utf8 = self._bytes if inputs.dialect.is_utf8 else _buffered(_Utf8(self._bytes, encoding, name))
        self._records = RECORD_READERS[self._kind](utf8, at, inputs, name)
        self._damage: OSError | None = None

    def take(self, max_rows: int) -> Rows:
        """Return the next rows; none at the end of the file.

        Raises:
            OSError: without errno, if the compressed stream is damaged or truncated.
        """
        if self._damage is not None:
            raise self._damage
        found: list[Record] = []
        try:
            for record in self._records:
                found.append(record)
                row_bytes = max(1, record.end - self._at.byte) / len(found)
                if len(found) >= min(max_rows, rows_per_block(row_bytes)):
                    break
        except OSError as error:
            if not found:
                raise
            self._damage = error  # the next call raises it, after the rows before the damage
        bad = {row: record.reason for row, record in enumerate(found) if record.text is None}
        kept = self._kept([record.kept for record in found], bad)
        texts = [None if row in bad else record.text for row, record in enumerate(found)]
        if found:
            self._at = Position(self._at.file, found[-1].number, found[-1].end)
        unit = "row" if self._kind in ("csv", "tsv") else "line"
        numbers = [record.number for record in found]
        return Rows(display_name(self._name), unit, numbers, texts, kept, bad, self._at)

    def _kept(self, values: list[Sequence[Any]], bad: dict[int, str]) -> Kept:
        """Convert kept values to columns: Arrow arrays if they have types, otherwise JSON."""
        if not self._inputs.keep:
            return None
        if self._inputs.schema is None:
            return members(self._inputs.keep, values)
        from ov_minilm.bulk.columns import to_columns

        return to_columns(values, self._inputs.schema, bad)

    def preview(self, rows: int) -> list[Sequence[Any]]:
        """Check the format and the header of the file; return the kept values of its first rows.

        Raises:
            ValueError: the file has another format, or lacks a header or a column.
        """
        start = self._bytes.peek(32)
        check_start(self._inputs, self._name, start)
        if self._kind == "text" and self._name not in self._inputs.pipes:
            rows = TEXT_SAMPLE
            if b"\r" in start.rstrip(b"\r") and b"\n" not in start and self._inputs.kind is None:
                raise refusal("text_return", file=display_name(self._name))
        records = []
        for record in islice(self._records, rows):
            records.append(record)
            if record.end > MAX_BYTES:
                break
        if self._kind == "text" and self._inputs.kind is None:
            texts = [record.text for record in records if record.text is not None]
            if found := detect_format(texts, self._inputs.column):
                found_format, advice = found
                advice += ", or --format text to encode lines as they are"
                name = display_name(self._name)
                raise refusal("looks_like", file=name, what=found_format, kind="text", instead=advice)
        return [record.kept for record in records if record.kept]

    def bytes_read(self) -> int:
        """Return how many bytes of the file on the disk were read; 0 for a pipe."""
        return 0 if self._inputs.pipes.get(self._name) else self._raw.tell()

    def close(self) -> None:
        """Close the file."""
        self._raw.close()


def _decompressed(raw: BinaryIO, name: str) -> BinaryIO:
    suffix = Path(name.lower()).suffix
    codec = COMPRESSED.get(suffix)
    if codec is None:
        return raw
    start = raw.peek(4) if isinstance(raw, io.BufferedReader) else b""
    if start and not start.startswith(COMPRESSED_MAGIC[codec]):
        raw.close()
        raise OSError(
            f"the file does not begin like {codec}; if it is not compressed, remove {suffix} from its name"
        )
    if codec == "gzip":
        return cast("BinaryIO", _Gzip(raw))
    return cast("BinaryIO", import_arrow(f"reading {name}").CompressedInputStream(raw, codec))


class _Gzip(io.RawIOBase):
    """Decompresses gzip, of several members too, and with zero bytes at the end, as tar writes them.

    Arrow refuses such zeros. As with Arrow, a damaged stream raises OSError without errno.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = gzip.GzipFile(fileobj=_buffered(stream))

    def readable(self) -> bool:
        """Return True, as BufferedReader requires."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read decompressed bytes into the buffer."""
        try:
            block = self._stream.read1(len(buffer))
        except (EOFError, zlib.error) as error:
            raise OSError(str(error)) from error
        buffer[: len(block)] = block
        return len(block)


class _Utf8(io.RawIOBase):
    """Converts a stream in another encoding to UTF-8.

    Bytes that cannot be decoded become a surrogate, which is invalid in UTF-8, so the row is reported as bad.
    """

    def __init__(self, stream: BinaryIO, encoding: str, name: str) -> None:
        self._stream = stream
        self._name = name
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("ov_minilm.surrogate")
        self._left = b""

    def readable(self) -> bool:
        """Return True, as BufferedReader requires."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read converted bytes into the buffer."""
        while not self._left:
            block = self._stream.read(1 << 16)
            try:
                decoded = self._decoder.decode(block, final=not block)
            except UnicodeDecodeError:
                raise
            except UnicodeError as error:  # utf-16 and utf-32 need a byte order mark
                name, encoding = display_name(self._name), self._encoding
                raise refusal("no_byte_order", file=name, encoding=encoding) from error
            self._left = decoded.encode("utf-8", "surrogatepass")
            if not block:
                break
        size = min(len(self._left), len(buffer))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


def _surrogate(error: UnicodeError) -> tuple[str, int]:
    return "\udcff", cast("UnicodeDecodeError", error).end


codecs.register_error("ov_minilm.surrogate", _surrogate)


def _buffered(stream: BinaryIO | io.RawIOBase) -> io.BufferedReader:
    if isinstance(stream, io.BufferedReader):
        return stream
    return io.BufferedReader(cast("io.RawIOBase", stream))


def _skip_to(stream: BinaryIO, at: int, byte: int) -> None:
    """Skip to a byte; a compressed stream is read by lines, so that damage is found at the same line."""
    if at < byte and stream.seekable():
        stream.seek(byte)
    else:
        while at < byte:
            at += len(stream.readline(min(byte - at, MAX_BYTES)))


def _split_lines(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield each line, cut at MAX_BYTES, and its full length in bytes."""
    while line := stream.readline(MAX_BYTES):
        part, size = line, len(line)
        while len(part) == MAX_BYTES and not part.endswith(b"\n"):
            part = stream.readline(MAX_BYTES)
            size += len(part)
        yield line, size


def _text_lines(stream: BinaryIO, at: Position, inputs: Inputs) -> Iterator[tuple[int, int, str | None, str]]:
    """Yield a record for each line, with its text, or with the reason why the line has no text."""
    byte, encoding = at.byte, inputs.dialect.encoding
    _skip_to(stream, 0, byte)
    for number, (raw, size) in enumerate(_split_lines(stream), at.row + 1):
        first, byte = not byte, byte + size
        if first and raw == codecs.BOM_UTF8:  # an empty file
            return
        if size > MAX_BYTES:
            yield byte, number, None, bad_row("long", most=MAX_BYTES)
            continue
        try:
            line = raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            yield byte, number, None, bad_row("encoding", encoding=encoding.upper(), error=error.reason)
        else:
            yield byte, number, line.removeprefix(BYTE_ORDER_MARK) if first else line, ""


def _text(stream: BinaryIO, at: Position, inputs: Inputs, name: str) -> Iterator[Record]:
    """Read text: only a newline ends a line, and an empty line is an empty text."""
    del name
    for end, number, text, reason in _text_lines(stream, at, inputs):
        kept = () if text is None else _fields([text] * len(inputs.keep), inputs)
        yield Record(end, number, text, reason, kept)


def _jsonl(stream: BinaryIO, at: Position, inputs: Inputs, name: str) -> Iterator[Record]:
    """Read JSON lines: each line is an object; fields to keep may be missing."""
    document = not at.byte and ".json" in Path(name.lower()).suffixes[-2:]
    for end, number, line, reason in _text_lines(stream, at, inputs):
        if line is None:
            yield Record(end, number, None, reason, ())
        elif line.strip(JSON_SPACE):
            record = _parse(line)
            if document and isinstance(record, str):
                raise refusal("json_document", file=name)
            document = False
            yield _record(line, record, end, number, inputs)


def _parse(line: str) -> dict[str, Any] | str:
    """Return the JSON object in a line, or the reason why it is not one."""
    try:
        found = DECODER.decode(line)
    except RecursionError:
        return bad_row("not_json", error="nested too deep")
    except ValueError as error:
        if not isinstance(error, json.JSONDecodeError):  # a number has more digits than Python's int accepts
            return bad_row("digits", most=sys.get_int_max_str_digits())
        return bad_row("not_json", error=error)
    return found if isinstance(found, dict) else bad_row("not_json", error=f"it is {_json_name(found)}")


def _record(line: str, record: dict[str, Any] | str, end: int, number: int, inputs: Inputs) -> Record:
    if isinstance(record, str):
        return Record(end, number, None, record, ())
    if inputs.column not in record:
        reason = bad_row("no_field", column=inputs.column, names=first_names(list(record)))
        return Record(end, number, None, reason, ())
    text = record[inputs.column]
    kept = _kept_members(line, record, inputs) if inputs.keep else ()
    if isinstance(text, str):
        return Record(end, number, text, "", kept)
    reason = "null" if text is None else _json_name(text)
    return Record(end, number, None, bad_row("not_string", column=inputs.column, found=reason), kept)


def _kept_members(line: str, record: dict[str, Any], inputs: Inputs) -> list[Any]:
    """Return the values to keep: as JSON text, or as Python values for columns that have a type.

    JSON text with fractional numbers is copied from the line, because Python would round them.
    """
    values: list[Any] = []
    texts: dict[str, str] = {}
    for name in inputs.keep:
        value = record.get(name)
        if inputs.is_typed(name):
            values.append(value)
        elif isinstance(value, float | list | dict):
            texts = texts or dict(_members_as_written(line))
            values.append(texts[name])
        elif value is None and inputs.schema is not None:
            values.append(None)
        else:
            values.append(json_text(value))
    return values


def _members_as_written(line: str) -> Iterator[tuple[str, str]]:
    """Yield the names and values of a valid JSON object as written; NaN and infinities become null."""
    at = line.index("{") + 1
    while match := MEMBER.match(line, at):
        value, at = DECODER.raw_decode(line, match.end())
        text = line[match.end() : at]
        yield json.loads(match[1]), json.dumps(value) if NOT_JSON.search(text) else text


MEMBER = re.compile(r'[\s,]*("(?:[^"\\]|\\.)*")\s*:\s*')
NOT_JSON = re.compile("NaN|Infinity")
DECODER = json.JSONDecoder(parse_constant=lambda _: None)


def _json_name(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array"}
    return "null" if value is None else names.get(type(value), "an object")


def _fields(values: Sequence[str], inputs: Inputs) -> Sequence[str]:
    """Return texts to keep, unchanged for a column of strings, otherwise as JSON."""
    if not values or inputs.schema is not None:
        return values
    return [json_text(value) for value in values]


class _CsvLines:
    """Supplies csv.reader with lines, and counts the bytes of these lines."""

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = _split_lines(stream)
        self.byte = 0

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        raw, size = next(self._lines)
        first, self.byte = not self.byte, self.byte + size
        if size > MAX_BYTES:
            raise csv.Error(bad_row("long", most=MAX_BYTES))  # csv.reader then skips only this record
        line = raw.decode("utf-8", "surrogateescape")  # broken bytes are detected when the row is complete
        return line.removeprefix(BYTE_ORDER_MARK) if first else line


def _csv(stream: BinaryIO, at: Position, inputs: Inputs, name: str) -> Iterator[Record]:
    """Read CSV as in RFC 4180, with a header.

    All columns are text, and blank lines are skipped, as in other readers.
    """
    lines = _CsvLines(stream)
    csv.field_size_limit(MAX_BYTES)
    hint = ""
    try:
        named = SEPARATOR.fullmatch(first := next(lines, ""))
        default_delimiter = named[1] if named else "\t" if inputs.kind_of(name) == "tsv" else ","
        delimiter = inputs.dialect.delimiter or default_delimiter
        hint = f"; if the delimiter is not {delimiter!r}, pass --delimiter"
        # csv.reader refuses a quote that equals the delimiter
        dialect = replace(inputs.dialect, delimiter=delimiter)
        reader = csv.reader(
            lines if named else chain([first], lines),
            delimiter=delimiter,
            quotechar=dialect.quote or None,
            quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
            escapechar=dialect.escape or None,
            strict=True,
        )
        header = next((row for row in reader if row), None)
    except csv.Error as error:
        reason, hint = (_csv_reason(error), "") if _ends_in_return(error) else (error, hint)
        raise refusal("no_header", file=display_name(name), error=reason, hint=hint) from error
    if header is None:  # an empty file
        return
    if any(map(has_surrogates, header)):
        raise refusal("no_header", file=display_name(name), error="not UTF-8", hint="; pass --encoding")
    text = column_index(header, inputs.column, name, hint)
    keep = [column_index(header, column, name, hint) for column in inputs.keep]
    if at.byte:
        _skip_to(stream, lines.byte, at.byte)
        lines.byte = at.byte
    number = at.row
    while True:
        row: list[str] = []
        try:
            row = next(reader)
            reason = bad_row("fields", found=len(row), expected=len(header))
        except StopIteration:
            return
        except csv.Error as error:
            reason = _csv_reason(error)
        else:
            if not row or (len(row) == 1 < len(header) and not row[0].strip()):
                continue
        number += 1
        if len(row) != len(header):
            yield Record(lines.byte, number, None, reason, ())
            continue
        kept = [row[column] for column in keep]
        if any(map(has_surrogates, (row[text], *kept))):
            reason = bad_row("encoding", encoding=dialect.encoding.upper(), error="invalid bytes")
            yield Record(lines.byte, number, None, reason, ())
        else:
            yield Record(lines.byte, number, row[text], "", _fields(kept, inputs))


def _csv_reason(error: csv.Error) -> str:
    return bad_row("csv_return") if _ends_in_return(error) else bad_row("csv", error=error)


def _ends_in_return(error: csv.Error) -> bool:
    return "new-line character seen in unquoted field" in str(error)


RECORD_READERS: dict[str, Callable[[BinaryIO, Position, Inputs, str], Iterator[Record]]] = {
    "text": _text,
    "jsonl": _jsonl,
    "csv": _csv,
    "tsv": _csv,
}
