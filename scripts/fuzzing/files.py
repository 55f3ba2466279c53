"""Fuzz tests of bulk jobs with random files; csv, json and pyarrow give the expected rows.

A case has up to three files of any format, some of them damaged or unusual. The job must write exactly the
rows that the independent reader finds and name every bad row, or refuse to run without writing an output.
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

# errors with messages of this package; subclasses come from libraries
REFUSAL_TYPES = (ValueError, TypeError, OSError, OvMiniLMError)
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
KEPT_VALUES: tuple[Any, ...] = (
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
COLUMN_NAMES = ("id", "tag", "meta", "naïve", "a b", 'q"q', "x,y", "embedding_", "")
ENDINGS = {
    "text": (".txt", ".text", ".TXT"),
    "jsonl": (".jsonl", ".ndjson", ".json", ".JSONL", ".2024.jsonl"),
    "csv": (".csv", ".CSV"),
    "tsv": (".tsv",),
    "parquet": (".parquet", ".pq", ".PARQUET"),
}
UNKNOWN_ENDINGS = (".log", "", ".dat", ".arrow", ".xlsx", ".xz", ".avro", ".feather", ".csv.zip", ".gz")
NO_VALUE = object()


@dataclass
class Row:
    """A row that an independent reader has read."""

    text: str | None  # None: the row is bad, and must be reported
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass
class GeneratedFile:
    """A generated file, and the rows that a job should read from it."""

    name: str
    content: bytes
    rows: list[Row]
    may_be_refused: bool = False
    must_be_refused: bool = False
    rest_unknown: bool = False  # unknown rows may follow `rows`
    has_bad_row: bool = False  # one row is bad; its number is unknown


class WrongResult(AssertionError):
    """The result of a job or request is wrong."""


def run_case(seed: int, folder: Path) -> str:
    """Run one case; return "done" or "refused".

    Raises:
        WrongResult: the result is wrong.
    """
    rng = random.Random(seed)  # noqa: S311  # not for security
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    column = rng.choice(("text", "text", "text", "body", "naïve text", "a,b"))
    keep = rng.sample(COLUMN_NAMES, rng.choice((0, 0, 1, 1, 2, 3)))
    dialect = _dialect(rng)
    kinds = rng.choices(tuple(ENDINGS), k=rng.choice((1, 1, 1, 2, 3)))
    if len(set(kinds)) > 1 and rng.random() < 0.6:
        kinds = kinds[:1] * len(kinds)
    if "text" in kinds:
        column, keep = "text", rng.choice(([], ["text"]))
    with_effect = [name for name, formats in OPTION_FORMATS.items() if set(kinds) & set(formats)]
    dialect = Dialect(**{name: getattr(dialect, name) for name in with_effect})
    files = [_generate_file(rng, kind, number, column, keep, dialect) for number, kind in enumerate(kinds)]
    forced = kinds[0] if len(set(kinds)) == 1 and rng.random() < 0.2 else None
    if rng.random() < 0.04 and forced is None:
        unknown = rng.choice(UNKNOWN_ENDINGS)
        files[0].name, files[0].must_be_refused = f"f0{unknown}", True
    paths = []
    for file in files:
        path = folder / file.name
        path.write_bytes(file.content)
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


def _pipe(file: GeneratedFile, paths: list[str]) -> int:
    read, write = os.pipe()
    os.write(write, file.content)
    os.close(write)
    # the name of a pipe has no ending, so compressed data is not recognized
    if file.name.lower().endswith((".gz", ".bz2", ".zst")):
        file.must_be_refused = True
    paths[0] = f"/dev/fd/{read}"
    return read


@dataclass
class Case:
    """A job with generated files."""

    seed: int
    files: list[GeneratedFile]
    paths: list[str]
    column: str
    keep: list[str]
    forced: Any
    dialect: Dialect
    form: str
    on_error: Any

    def check(self, folder: Path, rng: random.Random) -> str:
        """Run the job, and compare its output with the expected rows."""
        bad_rows: list[str] = []
        output = folder / f"out.{'jsonl' if self.form == 'stdout' else self.form}"
        rows_per_shard = rng.choice((1, 3, 1000))
        interrupt = rng.randrange(1, 5) if rng.random() < 0.1 and not self.paths[0].startswith("/dev") else 0
        try:
            for call in (interrupt, 0) if interrupt else (0,):
                try:
                    self._run(output, rows_per_shard, HashEmbedder(call), bad_rows)
                except KeyboardInterrupt:  # noqa: PERF203  # at most two runs
                    if output.exists() and self.form != "stdout":
                        raise WrongResult("there is an output after an interrupt") from None
        except REFUSAL_TYPES as error:
            self._check_refusal(error, output)
            return "refused"
        if any(file.must_be_refused for file in self.files):
            raise WrongResult("a file that must be refused was read")
        self._compare(output, bad_rows)
        return "done"

    def _run(self, output: Path, rows_per_shard: int, embedder: Any, bad_rows: list[str]) -> None:
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
            bad_rows.clear()
            with output.open("wb", 0) as file:
                job.stream(inputs, options, file, embedder, say=bad_rows.append)
            return
        target = Output.parse(str(output))
        job.run(inputs, target, options, job.Local(embedder), say=lambda _: None)

    def _check_refusal(self, error: Exception, output: Path) -> None:
        if type(error).__module__ not in ("builtins", "ov_minilm.errors") or isinstance(
            error, UnicodeError | json.JSONDecodeError
        ):
            raise WrongResult(f"{type(error).__name__} instead of an error with a message") from error
        if self.form != "stdout" and output.exists():
            raise WrongResult("there is an output after an error")
        bad = any(row.text is None for file in self.files for row in file.rows)
        if not (bad and self.on_error == "stop") and not any(
            file.may_be_refused or file.must_be_refused or file.rest_unknown for file in self.files
        ):
            if self.form == "parquet" and self.keep and "-o NAME.jsonl" in str(error):
                return  # documented: no column type for these values
            raise WrongResult(f"refused without a reason: {error}") from error
        message = str(error)
        if (
            not any(Path(path).name in message for path in self.paths)
            and "column" not in message
            and "--" not in message
        ):
            raise WrongResult(f"the error names no file, column or option: {message}") from error

    def _compare(self, output: Path, bad_rows: list[str]) -> None:
        any_torn = any(file.rest_unknown for file in self.files)
        expected: list[Row] = []
        for file in self.files:
            expected += file.rows
            if file.rest_unknown:
                break
        found = self._read(output)
        if self.form == "stdout":
            bad = len(bad_rows)
        else:
            errors = output.with_name(output.name + ".errors.jsonl")
            bad = len(errors.read_text().splitlines()) if errors.exists() else 0
        missing = sum(row.text is None for row in expected)
        any_broken = any(file.has_bad_row for file in self.files)
        if self.on_error == "stop" and (bad or missing or any_broken):
            raise WrongResult(f"{missing} bad rows were accepted with --on-error stop")
        if bad < missing + any_broken or (
            bad > missing and not any_torn and self.form != "parquet" and not self._lossy()
        ):
            raise WrongResult(f"{bad} rows were named as bad, {missing} rows are bad")
        expected_rows = iter(expected)
        for actual in found:
            row = next(expected_rows, None)
            if self.on_error == "skip":
                while row is not None and (row.text is None or not self._same(row, actual)) and bad:
                    bad -= 1
                    row = next(expected_rows, None)
            if row is None:
                if any_torn:
                    return
                raise WrongResult(f"an unexpected row: {actual}")
            if actual.text is None:  # a bad row, with --on-error null
                if row.text is not None and not any_torn and not bad:
                    raise WrongResult(f"lost: {row}")
                continue
            if not self._same(row, actual):
                raise WrongResult(f"expected {row}, got {actual}")
        lost_rows = [row for row in expected_rows if row.text is not None]
        if len(lost_rows) > (bad if self.on_error == "skip" else 0) and not any_torn:
            raise WrongResult(f"{len(lost_rows)} rows were lost, the first of them {lost_rows[0]}")

    def _lossy(self) -> bool:
        """Return whether files may have values that JSON cannot express; a row with such a value is bad."""
        return bool(self.keep) and any(file.name.lower().endswith((".parquet", ".pq")) for file in self.files)

    def _same(self, row: Row, actual: Row) -> bool:
        if row.text is None or actual.text is None:
            return row.text is actual.text
        if (
            self.form != "npy"
            and not self.keep
            and mend_surrogates(actual.kept["text"]) != mend_surrogates(row.text)
        ):
            return False
        if not np.array_equal(vector(row.text), np.array(actual.kept["embedding"], np.float32)):
            return False
        return all(_equal_values(row.kept.get(name), actual.kept[name]) for name in self.keep)

    def _read(self, output: Path) -> list[Row]:
        if self.form == "npy":
            rows = np.load(output)
            return [Row(None if np.isnan(record).any() else "", {"embedding": record}) for record in rows]
        if self.form == "parquet":
            table = pq.read_table(output)
            json_columns = [
                record.name for record in table.schema if b"ov_minilm.json" in (record.metadata or {})
            ]
            columns = {
                name: _values(table[name]) if name != "embedding" else table[name].to_pylist()
                for name in table.schema.names
            }
            for name in json_columns:
                columns[name] = [
                    None if record is None else _parse_exactly(record) for record in columns[name]
                ]
            names = list(columns)
            objects = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            if table.schema.metadata is None or b"ov_minilm.fingerprint" not in table.schema.metadata:
                raise WrongResult("an output without metadata")
        else:
            objects = [_parse_exactly(line.decode()) for line in output.read_bytes().split(b"\n")[:-1]]
            for record in objects:
                if record["embedding"] is not None:
                    record["embedding"] = [np.float32(str(number)) for number in record["embedding"]]
        return [Row(None if record["embedding"] is None else "", record) for record in objects]


def _parse_exactly(line: str) -> Any:
    """Parse JSON without rounding numbers; NaN is refused."""

    def refuse(name: str) -> None:
        raise WrongResult(f"{name} in JSON")

    return json.loads(line, parse_float=Decimal, parse_constant=refuse)


def _equal_values(expected: Any, actual: Any) -> bool:
    """Compare values by meaning: 1 equals 1.0, but 1 does not equal true."""
    if isinstance(expected, bool) or isinstance(actual, bool):
        return expected is actual
    if isinstance(expected, int | float | Decimal) and isinstance(actual, int | float | Decimal):
        if isinstance(expected, float) and isinstance(actual, Decimal):
            return expected == float(actual)  # the output has the fewest digits that give the same float
        if isinstance(expected, Decimal) and isinstance(actual, float):
            return float(expected) == actual
        return _number(expected) == _number(actual)
    if isinstance(expected, list | tuple) and isinstance(actual, list | tuple):
        return len(expected) == len(actual) and all(map(_equal_values, expected, actual))
    if isinstance(expected, dict) and isinstance(actual, dict):
        return list(expected) == list(actual) and all(
            _equal_values(expected[name], actual[name]) for name in expected
        )
    if isinstance(expected, str) and isinstance(actual, str):
        return mend_surrogates(expected) == mend_surrogates(actual)
    if isinstance(expected, bytes) and isinstance(actual, str):
        return base64.b64encode(expected).decode() == actual
    # a column that has strings in one file and bytes in another file
    if isinstance(expected, str) and isinstance(actual, bytes):
        return expected.encode() == actual
    if isinstance(expected, float | Decimal) and actual is None:
        return not Decimal(expected).is_finite()
    if isinstance(expected, str | int | float | bytes | dict | list | type(None)):
        return type(expected) is type(actual) and expected == actual
    return str(expected) == str(actual)


def _number(value: float | Decimal) -> Decimal | str:
    number = Decimal(value)
    return "NaN" if number.is_nan() else number


# Generators, one for each format.


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


def _generate_file(
    rng: random.Random, kind: str, number: int, column: str, keep: list[str], dialect: Dialect
) -> GeneratedFile:
    ending = rng.choice(ENDINGS[kind])
    count = rng.choice((0, 1, 2, 3, 5, 8, 13)) if rng.random() < 0.97 else 1100
    file = GENERATORS[kind](rng, count, column, keep, dialect)
    file.name = f"f{number}{ending}"
    if kind != "parquet" and rng.random() < 0.2:
        codec = rng.choice((".gz", ".bz2", ".zst", ".GZ"))
        file.content = _compress(file.content, codec.lower())
        file.name += codec
    return file


def _compress(content: bytes, codec: str) -> bytes:
    if codec == ".zst":
        return bytes(pa.compress(content, codec="zstd", asbytes=True))
    return gzip.compress(content) if codec == ".gz" else bz2.compress(content)


def _texts(rng: random.Random, count: int, encoding: str = "utf-8", forbidden: str = "") -> Iterator[str]:
    for number in range(count):
        text = rng.choice(TEXTS) if rng.random() < 0.7 else f"text {number} {rng.random()}"
        text = text.encode(encoding, "replace").decode(encoding)
        yield "".join(character for character in text if character not in forbidden)


def _encode(rng: random.Random, text: str, dialect: Dialect, file: GeneratedFile) -> None:
    """Encode with the dialect's encoding; sometimes with another encoding, or add an invalid byte."""
    encoding = dialect.encoding
    if encoding == "utf-8" and rng.random() < 0.15:
        text = f"\ufeff{text}"
    file.content = text.encode(encoding, "surrogatepass" if "utf" in encoding else "replace")
    if rng.random() < 0.04 and file.rows:
        file.content, file.may_be_refused = text.encode("utf-16"), True
        if encoding != "utf-16":
            file.rows, file.must_be_refused, file.rest_unknown = [], dialect.is_utf8, not dialect.is_utf8
    elif dialect.is_utf8 and any(
        0 in high_bytes and max(high_bytes) < 0x23
        for high_bytes in (file.content[::2], file.content[1::2], file.content[::4], file.content[3::4])
    ):
        file.may_be_refused = True  # the file looks like UTF-16 or UTF-32
    elif encoding == "utf-8" and rng.random() < 0.04 and file.content:
        at = rng.randrange(len(file.content))
        file.content = file.content[:at] + b"\xff" + file.content[at:]
        file.rows, file.rest_unknown, file.may_be_refused = [], True, True


def _text(rng: random.Random, count: int, column: str, keep: list[str], dialect: Dialect) -> GeneratedFile:
    del column
    lines = list(_texts(rng, count, dialect.encoding, "\r\n\ufeff"))
    end = rng.choice(("\n", "\n", "\r\n"))
    content = end.join(lines) + (end if lines and (rng.random() < 0.8 or not lines[-1]) else "")
    file = GeneratedFile("", b"", [Row(line, dict.fromkeys(keep, line)) for line in lines])
    nonblank = [line for line in lines if line.strip()]
    # a text file is refused if all its lines look like JSON
    file.may_be_refused = bool(nonblank) and all(line.startswith("{") for line in nonblank)
    _encode(rng, content, dialect, file)
    return file


def _jsonl(rng: random.Random, count: int, column: str, keep: list[str], dialect: Dialect) -> GeneratedFile:
    lines: list[str] = []
    same_in_all_rows = {name: rng.choice(KEPT_VALUES) for name in keep} if rng.random() < 0.3 else {}
    for text in _texts(rng, count):
        members = [(column, json.dumps(text))]
        for name in keep:
            if rng.random() < 0.1:
                continue
            value = same_in_all_rows.get(name, rng.choice(KEPT_VALUES))
            token = json.dumps(value, ensure_ascii=True)
            if not same_in_all_rows and rng.random() < 0.15:
                token = rng.choice(JSON_NUMBERS)
            members.append((name, token))
        if rng.random() < 0.3:
            members.append((rng.choice(("other", "k")), json.dumps(rng.choice(KEPT_VALUES))))
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
    odd = bool(rows) and rows[0].text is None  # a .json file is refused if its first line is no object
    file = GeneratedFile("", b"", rows, odd)
    _encode(rng, content, dialect, file)
    return file


def _json_row(line: str, column: str, keep: list[str]) -> Row:
    try:
        record = json.loads(line, parse_float=Decimal, parse_constant=lambda _: None)
    except ValueError:
        return Row(None)
    if not isinstance(record, dict) or not isinstance(record.get(column), str):
        return Row(None)
    return Row(record[column], {name: record.get(name) for name in keep})


def _csv(
    rng: random.Random, count: int, column: str, keep: list[str], dialect: Dialect, tab: bool = False
) -> GeneratedFile:
    delimiter = dialect.delimiter or ("\t" if tab else ",")
    header = [column, *keep, *(["other"] if rng.random() < 0.5 else [])]
    rng.shuffle(header)
    odd = False
    if rng.random() < 0.03 and len(header) > 1:
        header[-1], odd = header[0], True
    end = rng.choice(("\n", "\r\n"))
    forbidden = ("\0" + "\r" * (end == "\n")) if dialect.quote else f"\0\r\n{delimiter}\\"
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
        for text in _texts(rng, count, dialect.encoding, forbidden + ("" if dialect.quote else '"')):
            values = [
                text
                if name == column
                else next(_texts(rng, 1, dialect.encoding, forbidden + '"' * (not dialect.quote)))
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
    except csv.Error:  # values that this dialect cannot express
        out = io.StringIO()
        csv.writer(out, **{**options, "escapechar": None}).writerow(["x"])
        odd = True
    content = out.getvalue()
    if rng.random() < 0.2:
        content = content.removesuffix(end)
    file = _read_csv(content, column, keep, dialect, delimiter)
    file.may_be_refused |= odd
    _encode(rng, content, dialect, file)
    return file


def _read_csv(content: str, column: str, keep: list[str], dialect: Dialect, delimiter: str) -> GeneratedFile:
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
                    return GeneratedFile("", b"", [], may_be_refused=True, must_be_refused=True)
                continue
            if len(fields) == 1 < len(header) and not fields[0].strip():
                continue
            if len(fields) != len(header):
                rows.append(Row(None))
                continue
            cells = dict(zip(header, fields, strict=True))
            rows.append(Row(cells[column], {name: cells[name] for name in keep}))
    except csv.Error:
        return GeneratedFile("", b"", rows, may_be_refused=True, rest_unknown=True, has_bad_row=True)
    return GeneratedFile("", b"", rows)


def _tsv(rng: random.Random, count: int, column: str, keep: list[str], dialect: Dialect) -> GeneratedFile:
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
NON_TEXT_TYPES = (
    pa.int64(),
    pa.list_(pa.string()),
    pa.float32(),
    pa.bool_(),
    pa.struct([("a", pa.string())]),
)
KEPT_TYPES = (
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


def _parquet(rng: random.Random, count: int, column: str, keep: list[str], dialect: Dialect) -> GeneratedFile:
    del dialect
    kind, odd, refused = rng.choice(TEXT_TYPES), False, False
    if rng.random() < 0.03:
        kind, refused = rng.choice(NON_TEXT_TYPES), True
    texts: list[Any] = [None if rng.random() < 0.03 else text for text in _texts(rng, count)]
    if pa.types.is_null(kind):
        texts = [None] * count
    if refused:
        texts = [_value(rng, kind) for _ in range(count)]
    columns = {column: _array(texts, kind)}
    for name in keep:
        if name == column:
            continue
        kept = rng.choice(KEPT_TYPES)
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
    except (pa.ArrowException, OSError):  # a type that Parquet does not support
        return GeneratedFile("", b"", [], may_be_refused=True, must_be_refused=True)
    raw = content.getvalue().to_pybytes()
    read_back = pq.read_table(io.BytesIO(raw))
    texts = [value.decode() if isinstance(value, bytes) else value for value in _values(read_back[column])]
    kept_values = {name: _values(read_back[name]) for name in keep}
    rows = [Row(text, {name: kept_values[name][row] for name in keep}) for row, text in enumerate(texts)]
    if refused:
        rows = []
    file = GeneratedFile("", raw, rows, odd, refused)
    if rng.random() < 0.03:
        file.content, file.rows, file.rest_unknown, file.may_be_refused = raw[: len(raw) // 2], [], True, True
        file.has_bad_row, file.must_be_refused = True, False
    return file


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        encoded = pa.array(values, kind.value_type).dictionary_encode()
        return encoded.cast(kind) if len(encoded.dictionary) < 128 else encoded
    return pa.array(values, kind)


def _value(rng: random.Random, kind: pa.DataType) -> Any:
    """Return a random value of a type, sometimes an extreme one."""
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
        return {field.name: _value(rng, field.type) for field in kind}
    if types.is_nested(kind):
        return [_value(rng, kind.value_type) for _ in range(rng.randrange(3))]
    if types.is_null(kind):
        return None
    return rng.choice(TEXTS)


def _values(array: pa.ChunkedArray) -> list[Any]:
    """Return values as Python objects; values with nanoseconds, which Python lacks, as Arrow's text."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _values(array.cast(kind.value_type))
    if pa.types.is_temporal(kind) and getattr(kind, "unit", "") == "ns":
        if pa.types.is_duration(kind):
            return _values(array.cast(pa.int64()))
        return list(array.cast(pa.string()).to_pylist())
    return list(array.to_pylist())


GENERATORS: dict[str, Callable[[random.Random, int, str, list[str], Dialect], GeneratedFile]] = {
    "text": _text,
    "jsonl": _jsonl,
    "csv": _csv,
    "tsv": _tsv,
    "parquet": _parquet,
}
