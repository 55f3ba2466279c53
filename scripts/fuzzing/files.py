"""Bulk jobs over random files; csv, json and pyarrow say what must come.

A case holds up to three files of any format, some with an oddity. Its job must give exactly the rows that the
independent reader sees, name each bad one, or stop before its output is in its place.
"""

from __future__ import annotations

import base64
import bz2
import csv
import gzip
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuzzing.stub import HashEmbedder, vector
from ov_minilm.bulk import job
from ov_minilm.bulk.inputs import OPTION_FORMATS, Dialect
from ov_minilm.bulk.outputs import Output
from ov_minilm.bulk.pipeline import BulkOptions
from ov_minilm.bulk.reader import find
from ov_minilm.errors import OvMiniLMError
from ov_minilm.runtime.texts import mend_surrogates

REFUSALS = (ValueError, TypeError, OSError, OvMiniLMError)  # in their own words; subclasses are of libraries
TEXTS = (
    *(
        "a kettle",
        "",
        " ",
        "naïve café",
        "日本語",
        "😀 ok",
        'say "hi"',
        "a, b",
        "a;b",
        "a\tb",
        "l1\nl2",
        "l1\r\nl2",
    ),
    *(
        "\ufefflead",
        "x\u2028y\x85z",
        "it's",
        "back\\slash",
        "NaN",
        "null",
        "1",
        "[1]",
        '{"text": "x"}',
        "end\\",
    ),
    *("a\rb", "\x00", "\x1f", " padded ", "\x1a", '"', "'", '""', "#", "w " * 400),
)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2**53 + 1,
        2**63 - 1,
        -(2**63),
        2**64,
        10**30,
        0.5,
        1.1,
        -0.0,
        1e300,
        1e-7,
    ),
    *(
        "",
        "x",
        "naïve",
        "\n",
        {},
        [],
        {"a": 1},
        {"a": {"b": [1, None]}},
        [1, 2],
        ["x"],
        [[1], []],
        [None],
        "\ud800",
    ),
)
JSON_NUMBERS = ("1.10", "1e400", "12345678901234567.89", "-0", "1E5", "NaN", "-Infinity", "Infinity")
NAMES = ("id", "tag", "meta", "naïve", "a b", 'q"q', "x,y", "embedding_", "")
ENDINGS = {
    "text": (".txt", ".text", ".TXT"),
    "jsonl": (".jsonl", ".ndjson", ".json", ".JSONL", ".2024.jsonl"),
    "csv": (".csv", ".CSV"),
    "tsv": (".tsv",),
    "parquet": (".parquet", ".pq", ".PARQUET"),
}
UNKNOWN = (".log", "", ".dat", ".arrow", ".xlsx", ".xz", ".avro", ".feather", ".csv.zip", ".gz")
NO_VALUE = object()


@dataclass
class Row:
    """What an independent reader sees of a row."""

    text: str | None  # None: there is none, and the row must be named as bad
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass
class Made:
    """A file, and what is in it."""

    name: str
    content: bytes
    rows: list[Row]
    odd: bool = False  # it may be refused
    refused: bool = False  # it must be
    torn: bool = False  # what comes after these rows is not known
    broken: bool = False  # a row is bad, where it is


class Finding(AssertionError):
    """What must not happen."""


def run_case(seed: int, folder: Path) -> str:
    """Run one case; return "done" or "refused".

    Raises:
        Finding: the result is not right.
    """
    rng = random.Random(seed)  # noqa: S311  # no secrets
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    column = rng.choice(("text", "text", "text", "body", "naïve text", "a,b"))
    keep = rng.sample(NAMES, rng.choice((0, 0, 1, 1, 2, 3)))
    dialect = _dialect(rng)
    kinds = rng.choices(tuple(ENDINGS), k=rng.choice((1, 1, 1, 2, 3)))
    if len(set(kinds)) > 1 and rng.random() < 0.6:
        kinds = kinds[:1] * len(kinds)
    if "text" in kinds:
        column, keep = "text", rng.choice(([], ["text"]))
    with_effect = [name for name, formats in OPTION_FORMATS.items() if set(kinds) & set(formats)]
    dialect = Dialect(**{name: getattr(dialect, name) for name in with_effect})
    files = [_make(rng, kind, number, column, keep, dialect) for number, kind in enumerate(kinds)]
    forced = kinds[0] if len(set(kinds)) == 1 and rng.random() < 0.2 else None
    if rng.random() < 0.04 and forced is None:
        unknown = rng.choice(UNKNOWN)
        files[0].name, files[0].refused = f"f0{unknown}", True
    paths = []
    for made in files:
        path = folder / made.name
        path.write_bytes(made.content)
        paths.append(str(path))
    pipe = None
    if (
        forced
        and forced != "parquet"
        and len(files) == 1
        and len(files[0].content) < 60_000
        and rng.random() < 0.3
    ):
        pipe = _pipe(files[0], paths)
    form = rng.choice(("parquet", "jsonl", "jsonl", "npy", "stdout"))
    if form == "npy" and keep:
        form = "parquet"
    case = Case(seed, files, paths, column, keep, forced, dialect, form, rng.choice(("stop", "skip", "null")))
    try:
        return case.check(folder, rng)
    finally:
        if pipe is not None:
            os.close(pipe)


def _pipe(made: Made, paths: list[str]) -> int:
    read, write = os.pipe()
    os.write(write, made.content)
    os.close(write)
    if made.name.lower().endswith((".gz", ".bz2", ".zst")):  # the name of a pipe says nothing of its content
        made.refused = True
    paths[0] = f"/dev/fd/{read}"
    return read


@dataclass
class Case:
    """One job."""

    seed: int
    files: list[Made]
    paths: list[str]
    column: str
    keep: list[str]
    forced: Any
    dialect: Dialect
    form: str
    on_error: Any

    def check(self, folder: Path, rng: random.Random) -> str:
        """Run the job, and compare what it wrote."""
        said: list[str] = []
        output = folder / f"out.{'jsonl' if self.form == 'stdout' else self.form}"
        rows_per_shard = rng.choice((1, 3, 1000))
        interrupt = rng.randrange(1, 5) if rng.random() < 0.1 and not self.paths[0].startswith("/dev") else 0
        try:
            for call in (interrupt, 0) if interrupt else (0,):
                try:
                    self._run(output, rows_per_shard, HashEmbedder(call), said)
                except KeyboardInterrupt:  # noqa: PERF203  # two turns
                    if output.exists() and self.form != "stdout":
                        raise Finding("an output after an interrupt") from None
        except REFUSALS as error:
            self._check_refusal(error, output)
            return "refused"
        if any(made.refused for made in self.files):
            raise Finding("a file that had to be refused was read")
        self._compare(output, said)
        return "done"

    def _run(self, output: Path, rows_per_shard: int, embedder: Any, said: list[str]) -> None:
        to_file = self.form != "stdout"
        inputs = find(
            self.paths,
            column=self.column,
            keep=self.keep,
            kind=self.forced,
            dialect=self.dialect,
            typed=self.form == "parquet",
            on_error=self.on_error,
        )
        options = BulkOptions(on_error=self.on_error, rows_per_shard=rows_per_shard)
        if not to_file:
            said.clear()
            with output.open("wb", 0) as file:
                job.stream(inputs, options, file, embedder, say=said.append)
            return
        target = Output.parse(str(output))
        job.run(inputs, target, options, job.Local(embedder), say=lambda _: None)

    def _check_refusal(self, error: Exception, output: Path) -> None:
        if type(error).__module__ not in ("builtins", "ov_minilm.errors") or isinstance(
            error, UnicodeError | json.JSONDecodeError
        ):
            raise Finding(f"{type(error).__name__} instead of an error in words") from error
        if self.form != "stdout" and output.exists():
            raise Finding("an output beside an error")
        bad = any(row.text is None for made in self.files for row in made.rows)
        if not (bad and self.on_error == "stop") and not any(
            made.odd or made.refused or made.torn for made in self.files
        ):
            if self.form == "parquet" and self.keep and "-o NAME.jsonl" in str(error):
                return  # values that no column holds, by the stated rule
            raise Finding(f"refused without need: {error}") from error
        words = str(error)
        if (
            not any(Path(path).name in words for path in self.paths)
            and "column" not in words
            and "--" not in words
        ):
            raise Finding(f"the error names no file, column or option: {words}") from error

    def _compare(self, output: Path, said: list[str]) -> None:
        torn = any(made.torn for made in self.files)
        expected: list[Row] = []
        for made in self.files:
            expected += made.rows
            if made.torn:
                break
        found = self._read(output)
        if self.form == "stdout":
            bad = len(said)
        else:
            errors = output.with_name(output.name + ".errors.jsonl")
            bad = len(errors.read_text().splitlines()) if errors.exists() else 0
        missing = sum(row.text is None for row in expected)
        broken = any(made.broken for made in self.files)
        if self.on_error == "stop" and (bad or missing or broken):
            raise Finding(f"{missing} bad rows passed with --on-error stop")
        if bad < missing + broken or (
            bad > missing and not torn and self.form != "parquet" and not self._lossy()
        ):
            raise Finding(f"{bad} rows were named as bad, {missing} are")
        pending = iter(expected)
        for got in found:
            row = next(pending, None)
            if self.on_error == "skip":
                while row is not None and (row.text is None or not self._same(row, got)) and bad:
                    bad -= 1
                    row = next(pending, None)
            if row is None:
                if torn:
                    return
                raise Finding(f"a row was invented: {got}")
            if got.text is None:  # a row that is bad, with --on-error null
                if row.text is not None and not torn and not bad:
                    raise Finding(f"lost: {row}")
                continue
            if not self._same(row, got):
                raise Finding(f"expected {row}, got {got}")
        rest = [row for row in pending if row.text is not None]
        if len(rest) > (bad if self.on_error == "skip" else 0) and not torn:
            raise Finding(f"{len(rest)} rows were lost, the first of them {rest[0]}")

    def _lossy(self) -> bool:
        """Return whether a value may be one that JSON cannot say: then its row is bad by the stated rule."""
        return bool(self.keep) and any(made.name.lower().endswith((".parquet", ".pq")) for made in self.files)

    def _same(self, row: Row, got: Row) -> bool:
        if row.text is None or got.text is None:
            return row.text is got.text
        if (
            self.form != "npy"
            and not self.keep
            and mend_surrogates(got.kept["text"]) != mend_surrogates(row.text)
        ):
            return False
        if not np.array_equal(vector(row.text), np.array(got.kept["embedding"], np.float32)):
            return False
        return all(_equal(row.kept.get(name), got.kept[name]) for name in self.keep)

    def _read(self, output: Path) -> list[Row]:
        if self.form == "npy":
            rows = np.load(output)
            return [Row(None if np.isnan(one).any() else "", {"embedding": one}) for one in rows]
        if self.form == "parquet":
            table = pq.read_table(output)
            json_columns = [one.name for one in table.schema if b"ov_minilm.json" in (one.metadata or {})]
            columns = {
                name: _values(table[name]) if name != "embedding" else table[name].to_pylist()
                for name in table.schema.names
            }
            for name in json_columns:
                columns[name] = [None if one is None else _exact(one) for one in columns[name]]
            names = list(columns)
            objects = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            if table.schema.metadata is None or b"ov_minilm.fingerprint" not in table.schema.metadata:
                raise Finding("an output does not say what made it")
        else:
            objects = [_exact(line.decode()) for line in output.read_bytes().split(b"\n")[:-1]]
            for one in objects:
                if one["embedding"] is not None:
                    one["embedding"] = [np.float32(str(number)) for number in one["embedding"]]
        return [Row(None if one["embedding"] is None else "", one) for one in objects]


def _exact(line: str) -> Any:
    """Read JSON without rounding; NaN is no JSON."""

    def refuse(name: str) -> None:
        raise Finding(f"{name} in JSON")

    return json.loads(line, parse_float=Decimal, parse_constant=refuse)


def _equal(expected: Any, found: Any) -> bool:
    """Compare values by what they say: 1 and 1.0 are the same number, 1 and true are not."""
    if isinstance(expected, bool) or isinstance(found, bool):
        return expected is found
    if isinstance(expected, int | float | Decimal) and isinstance(found, int | float | Decimal):
        if isinstance(expected, float) and isinstance(found, Decimal):
            return expected == float(found)  # the shortest digits that read back
        if isinstance(expected, Decimal) and isinstance(found, float):
            return float(expected) == found
        return _number(expected) == _number(found)
    if isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        return len(expected) == len(found) and all(map(_equal, expected, found))
    if isinstance(expected, dict) and isinstance(found, dict):
        return list(expected) == list(found) and all(_equal(expected[name], found[name]) for name in expected)
    if isinstance(expected, str) and isinstance(found, str):
        return mend_surrogates(expected) == mend_surrogates(found)
    if isinstance(expected, bytes) and isinstance(found, str):
        return base64.b64encode(expected).decode() == found
    if isinstance(expected, str) and isinstance(found, bytes):  # in a column of strings and of bytes
        return expected.encode() == found
    if isinstance(expected, float | Decimal) and found is None:
        return not Decimal(expected).is_finite()
    if isinstance(expected, str | int | float | bytes | dict | list | type(None)):
        return type(expected) is type(found) and expected == found
    return str(expected) == str(found)


def _number(value: float | Decimal) -> Decimal | str:
    number = Decimal(value)
    return "NaN" if number.is_nan() else number


# What is made, format by format.


def _dialect(rng: random.Random) -> Dialect:
    if rng.random() < 0.7:
        return Dialect()
    delimiter = rng.choice((None, ";", "|", "\t", ":"))
    quote = rng.choice(('"', '"', "'", ""))
    escape = rng.choice(("", "", "\\"))
    encoding = rng.choice(
        ("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "utf-32")
    )
    return Dialect(delimiter, quote, escape, encoding)


def _make(rng: random.Random, kind: str, number: int, column: str, keep: list[str], dialect: Dialect) -> Made:
    ending = rng.choice(ENDINGS[kind])
    count = rng.choice((0, 1, 2, 3, 5, 8, 13)) if rng.random() < 0.97 else 1100
    made = MAKERS[kind](rng, count, column, keep, dialect)
    made.name = f"f{number}{ending}"
    if kind != "parquet" and rng.random() < 0.2:
        codec = rng.choice((".gz", ".bz2", ".zst", ".GZ"))
        made.content = _compress(made.content, codec.lower())
        made.name += codec
    return made


def _compress(content: bytes, codec: str) -> bytes:
    if codec == ".zst":
        return bytes(pa.compress(content, codec="zstd", asbytes=True))
    return gzip.compress(content) if codec == ".gz" else bz2.compress(content)


def _texts(rng: random.Random, count: int, encoding: str = "utf-8", without: str = "") -> Iterator[str]:
    for number in range(count):
        text = rng.choice(TEXTS) if rng.random() < 0.7 else f"text {number} {rng.random()}"
        text = text.encode(encoding, "replace").decode(encoding)
        yield "".join(character for character in text if character not in without)


def _encode(rng: random.Random, text: str, dialect: Dialect, made: Made) -> None:
    """Encode as the dialect says; sometimes another way, or with a byte that is none."""
    encoding = dialect.encoding
    if encoding == "utf-8" and rng.random() < 0.15:
        text = f"\ufeff{text}"
    made.content = text.encode(encoding, "surrogatepass" if "utf" in encoding else "replace")
    if rng.random() < 0.04 and made.rows:
        made.content, made.torn, made.odd = text.encode("utf-16"), encoding != "utf-16", True
        if made.torn:
            made.rows, made.refused, made.torn = [], dialect.is_utf8, not dialect.is_utf8
    elif b"\0" in made.content[:2] and dialect.is_utf8:
        made.odd = True  # as UTF-16 begins
    elif encoding == "utf-8" and rng.random() < 0.04 and made.content:
        at = rng.randrange(len(made.content))
        made.content = made.content[:at] + b"\xff" + made.content[at:]
        made.rows, made.torn, made.odd = [], True, True


def _text(rng: random.Random, count: int, column: str, keep: list[str], dialect: Dialect) -> Made:
    del column
    lines = list(_texts(rng, count, dialect.encoding, "\r\n\ufeff"))
    end = rng.choice(("\n", "\n", "\r\n"))
    content = end.join(lines) + (end if lines and (rng.random() < 0.8 or not lines[-1]) else "")
    made = Made("", b"", [Row(line, dict.fromkeys(keep, line)) for line in lines])
    filled = [line for line in lines if line.strip()]
    made.odd = bool(filled) and all(line.startswith("{") for line in filled)  # lines of JSON in a text file
    _encode(rng, content, dialect, made)
    return made


def _jsonl(rng: random.Random, count: int, column: str, keep: list[str], dialect: Dialect) -> Made:
    lines: list[str] = []
    uniform = {name: rng.choice(VALUES) for name in keep} if rng.random() < 0.3 else {}
    for text in _texts(rng, count):
        members = [(column, json.dumps(text))]
        for name in keep:
            if rng.random() < 0.1:
                continue
            value = uniform.get(name, rng.choice(VALUES))
            token = json.dumps(value, ensure_ascii=True)
            if not uniform and rng.random() < 0.15:
                token = rng.choice(JSON_NUMBERS)
            members.append((name, token))
        if rng.random() < 0.3:
            members.append((rng.choice(("other", "k")), json.dumps(rng.choice(VALUES))))
        if rng.random() < 0.05:
            members.append(rng.choice(members))
        rng.shuffle(members)
        comma, colon = rng.choice(((", ", ": "), (",", ":"), (" , ", " :\t")))
        line = "{" + comma.join(f"{json.dumps(name)}{colon}{token}" for name, token in members) + "}"
        if rng.random() < 0.04:
            line = rng.choice((line[:-1], "null", "[1]", "3", f"{line} x", "{", '"', "{'a': 1}", line + line))
        lines.append(line)
        if rng.random() < 0.08:
            lines.append(rng.choice(("", " ", "\t")))
    rows = [_json_row(line, column, keep) for line in lines if line.strip(" \t")]
    end = rng.choice(("\n", "\n", "\r\n"))
    content = end.join(lines) + (end if lines and rng.random() < 0.8 else "")
    odd = bool(rows) and rows[0].text is None  # of .json: the first line is no object
    made = Made("", b"", rows, odd)
    _encode(rng, content, dialect, made)
    return made


def _json_row(line: str, column: str, keep: list[str]) -> Row:
    try:
        found = json.loads(line, parse_float=Decimal, parse_constant=lambda _: None)
    except ValueError:
        return Row(None)
    if not isinstance(found, dict) or not isinstance(found.get(column), str):
        return Row(None)
    return Row(found[column], {name: found.get(name) for name in keep})


def _csv(
    rng: random.Random, count: int, column: str, keep: list[str], dialect: Dialect, tab: bool = False
) -> Made:
    delimiter = dialect.delimiter or ("\t" if tab else ",")
    header = [column, *keep, *(["other"] if rng.random() < 0.5 else [])]
    rng.shuffle(header)
    odd = False
    if rng.random() < 0.03 and len(header) > 1:
        header[-1], odd = header[0], True
    end = rng.choice(("\n", "\r\n"))
    without = ("\0" + "\r" * (end == "\n")) if dialect.quote else f"\0\r\n{delimiter}\\"
    options: dict[str, Any] = {
        "delimiter": delimiter,
        "quotechar": dialect.quote or None,
        "quoting": rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)) if dialect.quote else csv.QUOTE_NONE,
        "escapechar": dialect.escape or None,
        "doublequote": not dialect.escape,
        "lineterminator": end,
    }
    out = io.StringIO()
    writer = csv.writer(out, **options)
    try:
        writer.writerow(header)
        for text in _texts(rng, count, dialect.encoding, without + ("" if dialect.quote else '"')):
            values = [
                text
                if name == column
                else next(_texts(rng, 1, dialect.encoding, without + '"' * (not dialect.quote)))
                for name in header
            ]
            chance = rng.random()
            if chance < 0.02:
                values.append("more")
            elif chance < 0.04 and len(values) > 1:
                values.pop()
            elif chance < 0.06:
                out.write(rng.choice((end, f"  {end}")))
            elif chance < 0.07 and dialect.quote:
                out.write(f"{dialect.quote}open")
            writer.writerow(values)
    except csv.Error:  # what this dialect cannot say
        out = io.StringIO()
        csv.writer(out, **{**options, "escapechar": None}).writerow(["x"])
        odd = True
    content = out.getvalue()
    if rng.random() < 0.2:
        content = content.removesuffix(end)
    made = _read_csv(content, column, keep, dialect, delimiter)
    made.odd |= odd
    _encode(rng, content, dialect, made)
    return made


def _read_csv(content: str, column: str, keep: list[str], dialect: Dialect, delimiter: str) -> Made:
    rows: list[Row] = []
    reader = csv.reader(
        io.StringIO(content, newline=""),
        delimiter=delimiter,
        quotechar=dialect.quote or None,
        quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
        escapechar=dialect.escape or None,
        strict=True,
    )
    header: list[str] | None = None
    try:
        for fields in reader:
            if not fields:
                continue
            if header is None:
                header = fields
                if any(header.count(name) != 1 for name in (column, *keep)):
                    return Made("", b"", [], odd=True, refused=True)
                continue
            if len(fields) == 1 < len(header) and not fields[0].strip():
                continue
            if len(fields) != len(header):
                rows.append(Row(None))
                continue
            cells = dict(zip(header, fields, strict=True))
            rows.append(Row(cells[column], {name: cells[name] for name in keep}))
    except csv.Error:
        return Made("", b"", rows, odd=True, torn=True, broken=True)
    return Made("", b"", rows)


def _tsv(rng: random.Random, count: int, column: str, keep: list[str], dialect: Dialect) -> Made:
    return _csv(rng, count, column, keep, dialect, tab=True)


TEXT_TYPES = (
    *(
        pa.string(),
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
    ),
    *(pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.large_string()), pa.null()),
)
NO_TEXT_TYPES = (pa.int64(), pa.list_(pa.string()), pa.float32(), pa.bool_(), pa.struct([("a", pa.string())]))
KEPT = (
    *(
        pa.int8(),
        pa.int16(),
        pa.int32(),
        pa.int64(),
        pa.uint8(),
        pa.uint16(),
        pa.uint32(),
        pa.uint64(),
        pa.bool_(),
    ),
    *(
        pa.float16(),
        pa.float32(),
        pa.float64(),
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
    ),
    *(
        pa.large_binary(),
        pa.binary(4),
        pa.binary_view(),
        pa.date32(),
        pa.date64(),
        pa.time32("ms"),
        pa.time64("us"),
    ),
    *(pa.time64("ns"), pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns")),
    *(pa.timestamp("us", "UTC"), pa.timestamp("ms", "Europe/Berlin"), pa.duration("s"), pa.duration("ns")),
    *(
        pa.decimal128(10, 2),
        pa.decimal256(50, 5),
        pa.null(),
        pa.list_(pa.int32()),
        pa.large_list(pa.string()),
    ),
    *(
        pa.list_(pa.float32(), 2),
        pa.struct([("a", pa.int32()), ("b", pa.string())]),
        pa.map_(pa.string(), pa.int8()),
    ),
    *(
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int16(), pa.int64()),
        pa.list_(pa.struct([("x", pa.binary())])),
    ),
)


def _parquet(rng: random.Random, count: int, column: str, keep: list[str], dialect: Dialect) -> Made:
    del dialect
    kind, odd, refused = rng.choice(TEXT_TYPES), False, False
    if rng.random() < 0.03:
        kind, refused = rng.choice(NO_TEXT_TYPES), True
    texts: list[Any] = [None if rng.random() < 0.03 else text for text in _texts(rng, count)]
    if pa.types.is_null(kind):
        texts = [None] * count
    if refused:
        texts = [_value(rng, kind) for _ in range(count)]
    columns = {column: _array(texts, kind)}
    for name in keep:
        if name == column:
            continue
        kept = rng.choice(KEPT)
        values = [None if rng.random() < 0.15 else _value(rng, kept) for _ in range(count)]
        columns[name] = _array(values, kept)
    if rng.random() < 0.3:
        columns["other"] = pa.nulls(count)
    names = list(columns)
    rng.shuffle(names)
    table = pa.table({name: columns[name] for name in names})
    content = pa.BufferOutputStream()
    options = {"version": "2.6"} if rng.random() < 0.8 else {"store_schema": False}
    try:
        pq.write_table(table, content, row_group_size=rng.choice((1, 3, 1000)), **options)
    except (pa.ArrowException, OSError):  # a type that Parquet has not
        return Made("", b"", [], odd=True, refused=True)
    raw = content.getvalue().to_pybytes()
    there = pq.read_table(io.BytesIO(raw))
    texts = [one.decode() if isinstance(one, bytes) else one for one in _values(there[column])]
    kept_values = {name: _values(there[name]) for name in keep}
    rows = [Row(text, {name: kept_values[name][row] for name in keep}) for row, text in enumerate(texts)]
    if refused:
        rows = []
    made = Made("", raw, rows, odd, refused)
    if rng.random() < 0.03:
        made.content, made.rows, made.torn, made.odd = raw[: len(raw) // 2], [], True, True
        made.broken, made.refused = True, False
    return made


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        encoded = pa.array(values, kind.value_type).dictionary_encode()
        return encoded.cast(kind) if len(encoded.dictionary) < 128 else encoded
    return pa.array(values, kind)


def _value(rng: random.Random, kind: pa.DataType) -> Any:
    """Make a value of a type; extremes too."""
    types = pa.types
    if types.is_dictionary(kind):
        return _value(rng, kind.value_type)
    if types.is_boolean(kind):
        return rng.random() < 0.5
    if types.is_integer(kind):
        bits = kind.bit_width
        low, high = (
            (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if types.is_signed_integer(kind) else (0, 2**bits - 1)
        )
        return rng.choice((low, high, 0, 1, rng.randint(low, high)))
    if types.is_float16(kind):
        return np.float16(rng.choice((0.5, -1, float("nan"), float("inf"))))
    if types.is_floating(kind):
        return rng.choice((0.1, -0.0, float("nan"), float("inf"), 1e30, rng.random()))
    if types.is_decimal(kind):
        return Decimal(rng.choice(("1.10", "-0.01", "99999999.99", "0")))
    if types.is_fixed_size_binary(kind):
        return rng.randbytes(kind.byte_width)
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return rng.choice((b"", b"\xff\x00", b"text"))
    if types.is_date(kind):
        return rng.choice((0, 1, -1, 20_000)) * (1 if types.is_date32(kind) else 86_400_000)
    if types.is_time(kind):
        return rng.choice((0, 1, 86_399))
    if types.is_temporal(kind):
        return rng.choice((0, 1, -1, 1_700_000_000))
    if types.is_fixed_size_list(kind):
        return [_value(rng, kind.value_type) for _ in range(kind.list_size)]
    if types.is_map(kind):
        return [(f"k{n}", n) for n in range(rng.randrange(3))]
    if types.is_nested(kind) and types.is_struct(kind):
        return {one.name: _value(rng, one.type) for one in kind}
    if types.is_nested(kind):
        return [_value(rng, kind.value_type) for _ in range(rng.randrange(3))]
    if types.is_null(kind):
        return None
    return rng.choice(TEXTS)


def _values(array: pa.ChunkedArray) -> list[Any]:
    """Return Python's values; times of a nanosecond, which it has not, as Arrow writes them."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _values(array.cast(kind.value_type))
    if pa.types.is_temporal(kind) and getattr(kind, "unit", "") == "ns":
        if pa.types.is_duration(kind):
            return _values(array.cast(pa.int64()))
        return list(array.cast(pa.string()).to_pylist())
    return list(array.to_pylist())


MAKERS: dict[str, Callable[[random.Random, int, str, list[str], Dialect], Made]] = {
    "text": _text,
    "jsonl": _jsonl,
    "csv": _csv,
    "tsv": _tsv,
    "parquet": _parquet,
}
