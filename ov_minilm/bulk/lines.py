"""Files of lines: text, JSON lines and CSV, plain or compressed.

They are read line by line, because only so a broken line costs no more than itself, and has a number.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from ov_minilm.bulk.inputs import COMPRESSED, STDIN, Inputs, called, index
from ov_minilm.bulk.rows import CHARS, Position, Rows
from ov_minilm.runtime.texts import has_surrogates

LONGEST = 1 << 24  # characters of a CSV field: an unclosed quote shall not swallow the file
BYTE_ORDER_MARK = "\ufeff"

# Byte at which the next record starts; text; why there is none; values of the columns to keep, or none.
Record = tuple[int, str | None, str, Sequence[Any]]


class Lines:
    """One file, from a position on."""

    def __init__(self, inputs: Inputs, name: str, at: Position) -> None:
        kind = inputs.kind_of(name)
        self._name = called(name)
        self._unit = "row" if kind == "csv" else "line"
        self._schema = inputs.schema
        self._at = at
        self._raw = sys.stdin.buffer if name == STDIN else open(name, "rb")  # noqa: PTH123, SIM115  # close() does
        self._stream = _decompressed(self._raw, name)  # its end would close the file below it
        self._records = RECORDS[kind](self._stream, at.byte, inputs, name)
        self._damage: OSError | None = None

    def take(self, most: int) -> Rows:
        """Return the next rows, none at the end of the file.

        Raises:
            OSError: without errno: the compressed stream is damaged or cut short here.
        """
        if self._damage is not None:
            raise self._damage
        texts: list[str | None] = []
        bad: dict[int, str] = {}
        values: list[Sequence[Any]] = []
        start, chars = self._at, 0
        try:
            for end, text, reason, kept in self._records:
                if text is None:
                    bad[len(texts)] = reason
                texts.append(text)
                values.append(kept)
                self._at = Position(start.file, start.row + len(texts), end)
                chars += len(text or "")
                if len(texts) >= most or chars >= CHARS:
                    break
        except OSError as error:
            if not texts:
                raise
            self._damage = error  # what came before it counts; the next call says it
        columns = None
        if self._schema is not None:
            from ov_minilm.bulk.columns import build

            columns = build(values, self._schema, bad)
        for row in bad:
            texts[row] = None
        return Rows(self._name, self._unit, start.row + 1, texts, columns, bad, self._at)

    def values(self, most: int) -> Iterator[Sequence[Any]]:
        """Yield the values of the columns to keep of the first rows that can be read."""
        for _, (_, _, _, kept) in zip(range(most), self._records, strict=False):
            if kept:
                yield kept

    def bytes_read(self) -> int:
        """Return how far it is into the file as it lies on the disk."""
        return 0 if self._raw is sys.stdin.buffer else self._raw.tell()

    def close(self) -> None:
        """Close the file."""
        self._raw.close()


def _decompressed(raw: BinaryIO, name: str) -> BinaryIO:
    codec = COMPRESSED.get(Path(name.lower()).suffix)
    if codec is None:
        return raw
    import pyarrow as pa

    return cast("BinaryIO", io.BufferedReader(pa.CompressedInputStream(raw, codec)))


def _forward(stream: BinaryIO, at: int, byte: int) -> None:
    """Go to a byte. A compressed stream is read up to it by lines, so that damage is met at the same line."""
    if at < byte and stream.seekable():
        stream.seek(byte)
    else:
        while at < byte:
            at += len(stream.readline())


def _text(stream: BinaryIO, at: int, inputs: Inputs, name: str) -> Iterator[Record]:
    """Lines end at a newline and nowhere else, and an empty line is an empty text."""
    del name
    _forward(stream, 0, at)
    for raw in stream:
        text, reason = _decode(raw, at)
        at += len(raw)
        yield at, text, reason, (text,) * len(inputs.keep)


def _jsonl(stream: BinaryIO, at: int, inputs: Inputs, name: str) -> Iterator[Record]:
    """Each line is an object; its field `column` is the text, and fields to keep may be missing."""
    del name
    _forward(stream, 0, at)
    for raw in stream:
        line, reason = _decode(raw, at)
        at += len(raw)
        if line is None:
            yield at, None, reason, ()
            continue
        try:
            record = json.loads(line)
            value = record[inputs.column]
            kept = [record.get(name) for name in inputs.keep]
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            yield at, None, f"no JSON object with a field {inputs.column!r}", ()
            continue
        reason = f"{inputs.column!r} is {type(value).__name__}, expected a string"
        yield at, value if isinstance(value, str) else None, reason, kept


def _decode(raw: bytes, at: int) -> tuple[str | None, str]:
    """Return the text of a line, or None and the reason."""
    try:
        line = raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 ({error.reason})"
    return (line if at else line.removeprefix(BYTE_ORDER_MARK)), ""


def _csv(stream: BinaryIO, at: int, inputs: Inputs, name: str) -> Iterator[Record]:
    """RFC 4180 with a header. All columns are text, and blank lines are no rows, as for other readers."""
    byte = 0

    def lines() -> Iterator[str]:
        nonlocal byte
        for raw in stream:
            line = raw.decode("utf-8", "surrogateescape")  # broken bytes are looked for in the row
            line = line if byte else line.removeprefix(BYTE_ORDER_MARK)
            byte += len(raw)
            yield line

    csv.field_size_limit(LONGEST)
    reader = csv.reader(lines(), strict=True)
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise ValueError(f"{name}: no CSV header: {error}") from error
    if header is None:  # an empty file
        return
    text = index(header, inputs.column, name)
    keep = [index(header, column, name) for column in inputs.keep]
    if at:
        _forward(stream, byte, at)
        byte = at
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield byte, None, f"no CSV record: {error}", ()
            continue
        if len(row) == len(header):
            kept = [row[column] for column in keep]
            sound = not any(map(has_surrogates, (row[text], *kept)))
            yield byte, row[text] if sound else None, "not UTF-8", kept if sound else ()
        elif row:
            yield byte, None, f"{len(row)} fields, the header has {len(header)}", ()


RECORDS: dict[str, Callable[[BinaryIO, int, Inputs, str], Iterator[Record]]] = {
    "text": _text,
    "jsonl": _jsonl,
    "csv": _csv,
}
