"""The input of a job: its files, their formats, the column of the texts and the columns to keep."""

from __future__ import annotations

import codecs
import difflib
import glob
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast

from ov_minilm.bulk.refusals import refusal
from ov_minilm.files import LFS_POINTER
from ov_minilm.runtime.texts import iterate

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["text", "jsonl", "csv", "tsv", "parquet"]

STDIN = "-"
SEPARATORS = re.escape(os.sep + (os.altsep or ""))
ERRORS = ".errors.jsonl"  # name of the list of bad rows, after the name of the output
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
COMPRESSED_MAGIC = {  # codec -> first bytes of a file; zstd may also begin with a skippable frame
    "gzip": (GZIP,),
    "zstd": (ZSTD, *(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))),
    "bz2": (b"BZh",),
}
KINDS: dict[str, Kind] = {
    ".txt": "text",
    ".text": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
UNSUPPORTED_ENDINGS = {  # ending -> format, and what to do instead
    **dict.fromkeys((".arrow", ".feather", ".ipc"), ("an Arrow file", "write it as .parquet with pyarrow")),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), ("a spreadsheet", "save it as CSV, UTF-8")),
    **dict.fromkeys((".orc", ".avro"), ("this format", "write it as .parquet")),
    **dict.fromkeys((".xz", ".lz4", ".br", ".zip", ".7z", ".tar", ".tgz"), ("an archive", "unpack it first")),
    **dict.fromkeys((".pdf", ".html", ".htm", ".xml", ".docx"), ("a document", "extract its text to .jsonl")),
    **dict.fromkeys((".npy", ".npz", ".pkl", ".db", ".sqlite"), ("this format", "write it as .jsonl")),
}
MAGIC = {  # first bytes -> format, and what to do instead
    GZIP: ("gzip", "let its name end in .gz"),
    ZSTD: ("zstd", "let its name end in .zst"),
    **{  # first bytes with each compression level, for files with and without data
        b"BZh%d%b" % (level, block): ("bzip2", "let its name end in .bz2")
        for level in range(1, 10)
        for block in (b"1AY&SY", b"\x17rE8P\x90")
    },
    b"\xfd7zXZ\0": ("xz", "unpack it first"),
    b"PK\x03\x04": ("a .zip or .xlsx file", "unpack it, or save it as CSV"),
    b"PAR1\x15": ("Parquet", "pass --format parquet"),
    b"ARROW1\0\0": ("an Arrow file", "write it as .parquet with pyarrow"),
    b"\xff\xff\xff\xff": ("an Arrow stream", "write it as .parquet with pyarrow"),
    LFS_POINTER: ("a Git LFS pointer", "fetch the file with git lfs pull"),
    # UTF-32 comes first, because its byte order mark starts with that of UTF-16.
    b"\xff\xfe\0\0": ("UTF-32", "pass --encoding utf-32"),
    b"\0\0\xfe\xff": ("UTF-32", "pass --encoding utf-32"),
    b"\xff\xfe": ("UTF-16", "pass --encoding utf-16"),
    b"\xfe\xff": ("UTF-16", "pass --encoding utf-16"),
}
MAX_HIGH_BYTE = 0x22  # in UTF-16, alphabets, punctuation and arrows have no larger high byte; ideographs have
DOUBLE_STAR = re.compile(rf"(?:^|(?<=[{SEPARATORS}]))\*\*(?:[{SEPARATORS}]|$)")  # a part of a pattern
# Python's codecs that are not encodings of text files.
NON_TEXT_CODECS = ("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape")
# field of Dialect -> formats of input for which this option has an effect
OPTION_FORMATS: dict[str, tuple[Kind, ...]] = {
    "delimiter": ("csv", "tsv"),
    "quote": ("csv", "tsv"),
    "escape": ("csv", "tsv"),
    "encoding": ("text", "jsonl", "csv", "tsv"),
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How fields of CSV are separated and quoted, and the encoding of files of lines."""

    delimiter: str | None = None  # None: a tab in .tsv, a comma in other files
    quote: str = '"'  # empty: none
    escape: str = ""  # empty: no escape character; a quote within quotes is doubled
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        """Raise ValueError for characters and encodings that the csv module does not accept."""
        used = {
            option: value
            for option, value in (
                ("--delimiter", self.delimiter),
                ("--quote", self.quote or None),
                ("--escape", self.escape or None),
            )
            if value is not None
        }
        for option, value in used.items():
            if len(value) != 1 or value in "\r\n\0\ufeff":
                raise refusal(
                    "one_character", option=option, value=value, rule="must be one character; a tab is '\\t'"
                )
        if self.escape and self.escape == self.quote:
            rule = (
                "is also the --quote; omit it: without an escape character, a quote within quotes is doubled"
            )
            raise refusal("one_character", option="--escape", value=self.escape, rule=rule)
        if len(set(used.values())) < len(used) or self.delimiter == " ":
            rule = "must differ from the other two, and from a space"
            raise refusal("one_character", option="--delimiter", value=self.delimiter, rule=rule)
        try:
            codec = codecs.lookup(self.encoding)
            if not codec._is_text_encoding or codec.name.replace("_", "-") in NON_TEXT_CODECS:
                raise LookupError
        except LookupError:
            raise refusal("no_encoding", encoding=self.encoding) from None

    @property
    def is_utf8(self) -> bool:
        """Whether files are UTF-8, so that bytes need no decoding; a byte order mark is always skipped."""
        return codecs.lookup(self.encoding).name in ("utf-8", "utf-8-sig", "ascii")


class Pipe(io.RawIOBase):
    """A stream that can be read only once. After `rewind`, bytes that were read before can be read again.

    Closing a Pipe leaves the underlying stream open, so that it can be read again and its writer gets no
    EPIPE.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream: Any = stream
        self._seen = bytearray()
        self._at = 0
        self._looking = True

    def readable(self) -> bool:
        """Return True, as BufferedReader requires."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the bytes that are available; do not wait until the buffer is full."""
        block = bytes(self._seen[self._at : self._at + len(buffer)])
        if not block:
            block = self._stream.read1(len(buffer))
            if self._looking:
                self._seen += block
        self._at += len(block)
        if not self._looking and self._at >= len(self._seen):
            self._seen.clear()
        buffer[: len(block)] = block
        return len(block)

    def rewind(self) -> None:
        """Start again at the first byte; this can be done once."""
        self._at, self._looking = 0, False

    def close(self) -> None:
        """Do nothing: the underlying stream stays open."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files of a job and the columns to read; `reader.find` creates it from the user's options."""

    files: tuple[str, ...]
    column: str = "text"
    keep: tuple[str, ...] = ()
    kind: Kind | None = None  # format of all files; None: each file's name implies it
    dialect: Dialect = Dialect()
    # Arrow types of the columns to keep; None if they are kept as JSON, or if no columns are kept
    schema: pa.Schema | None = None
    # Names and patterns as the user wrote them; `files` are the files that they match.
    patterns: tuple[str, ...] = field(default=(), compare=False)
    # The files that can be read only once.
    pipes: Mapping[str, Pipe] = field(default_factory=dict, compare=False)

    def kind_of(self, file: str) -> Kind:
        """Return the format of a file: `self.kind` if given, otherwise by its ending; stdin is text.

        Raises:
            ValueError: the ending is unknown, or belongs to a format that cannot be read.
        """
        path = Path(file.lower())
        packed = path.suffix in COMPRESSED
        kind = self.kind
        if kind is None:
            ending = Path(path.stem).suffix if packed else path.suffix
            if ending in UNSUPPORTED_ENDINGS:
                found_format, advice = UNSUPPORTED_ENDINGS[ending]
                raise refusal("not_read", file=file, what=f"{found_format} ({ending})", instead=advice)
            kind = "text" if file == STDIN else KINDS.get(ending)
        if kind is None:
            raise refusal("unknown_ending", file=file, ending="".join(path.suffixes[-2:]))
        if kind == "parquet" and (packed or file in self.pipes):
            how = "compressed as a whole" if packed else "piped"
            raise refusal("parquet_stream", file=display_name(file), how=how)
        return kind

    def is_typed(self, name: str) -> bool:
        """Return whether a column to keep has an Arrow type; other columns are kept as JSON text."""
        if self.schema is None:
            return False
        return b"ov_minilm.json" not in (self.schema.field(name).metadata or {})

    @property
    def resumable(self) -> bool:
        """Whether all inputs can be read again; a pipe cannot."""
        return not self.pipes

    def size(self) -> int | None:
        """Return the total size of all files on disk, in bytes; None if an input is a pipe."""
        return sum(Path(file).stat().st_size for file in self.files) if self.resumable else None


def name_list(option: str, values: Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    """Return names as a tuple.

    Raises:
        TypeError: it is a single name, whose letters would be taken for names; a set or mapping; or one of
            them is not a name.
    """
    if isinstance(values, str | bytes | os.PathLike):
        raise refusal("not_a_list", option=option, value=os.fspath(values))
    return tuple(map(os.fsdecode, iterate(values)))


def expand(patterns: Sequence[str]) -> Iterator[str]:
    """Yield file names: existing names unchanged, others as glob patterns, whose matches are sorted.

    A pattern yields each file of a folder once, even if links lead to the folder again.

    Raises:
        OSError: a name does not exist or is a folder, or a pattern matches no file.
    """
    for pattern in patterns:
        path = Path(pattern)
        if not pattern:
            raise refusal("not_there", name="a file without a name", hint="")
        if pattern == STDIN or (path.exists() and not path.is_dir()):
            yield pattern
            continue
        if path.is_dir():
            raise refusal("is_folder", name=pattern, example=path / "*.parquet")
        matches = [name for name in _matches(pattern) if not name.is_dir() and not _is_error_list(name)]
        if not matches:
            missing = "no_match" if glob.has_magic(pattern) else "not_there"
            raise refusal("is_url" if "://" in pattern else missing, name=pattern, hint=_hint(path))
        matches.sort(key=lambda name: len(name.parts), reverse=True)  # a file keeps its shortest path
        folders = {name.parent: name.parent.resolve() for name in matches}
        yield from sorted({(folders[name.parent], name.name): str(name) for name in matches}.values())


def _hint(missing: Path) -> str:
    """Return what to type instead of a file name that does not exist; empty if nothing is likely."""
    if " " in missing.name:
        return "; to encode this text itself: echo TEXT | ov-minilm encode"
    folder = missing.parent
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    similar = difflib.get_close_matches(missing.name, names, n=1)
    return f"; did you mean {folder / similar[0]}?" if similar else ""


def _matches(pattern: str) -> Iterator[Path]:
    """Yield what a glob pattern matches. For ** each folder is searched once, so links may form cycles."""
    stars = DOUBLE_STAR.search(pattern)
    if stars is None:
        yield from sorted(map(Path, glob.glob(pattern)))  # noqa: PTH207  # patterns may have a root
        return
    before, after = pattern[: stars.start()], pattern[stars.end() :] or "*"
    folders = list(_matches(before)) if before else [Path()]
    searched: set[Path] = set()
    for folder in folders:  # the list grows while it is read
        if (place := folder.resolve()) not in searched:
            searched.add(place)
            inside = glob.escape(str(folder))
            yield from _matches(str(Path(inside, after)))
            folders += filter(Path.is_dir, _matches(str(Path(inside, "*"))))


def _is_error_list(path: Path) -> bool:
    """Return whether a file lists the bad rows of an output in its folder; patterns ignore such a file."""
    output = path.with_name(path.name.removesuffix(ERRORS))
    return output != path and (output.exists() or output.with_name(f"{output.name}.parts").exists())


def open_pipes(files: Sequence[str]) -> dict[str, Pipe]:
    """Open all inputs that can be read only once: stdin, FIFOs and devices."""
    pipes: dict[str, Pipe] = {}
    names = [file for file in files if file == STDIN or not Path(file).is_file()]
    for file in names:
        if names.count(file) > 1:
            raise refusal("named_twice", file=display_name(file))
        if file == STDIN and sys.stdin is None:
            raise refusal("stdin_closed")
        stream = sys.stdin.buffer if file == STDIN else open(file, "rb")  # noqa: PTH123, SIM115  # until the end
        pipes[file] = Pipe(stream)
    return pipes


def check_options(inputs: Inputs) -> None:
    """Refuse options that have no effect on any input.

    Raises:
        ValueError: an option has no effect; the message has the option and the formats.
    """
    kinds = sorted({inputs.kind_of(file) for file in inputs.files})
    for name, formats in OPTION_FORMATS.items():
        changed = getattr(inputs.dialect, name) != getattr(Dialect(), name)
        if changed and not set(kinds) & set(formats):
            where = f"on {', '.join(kinds)}; it is for --format {', '.join(formats)}"
            raise refusal("no_effect", option=f"--{name}", where=where)
    named = [name for name in (inputs.column, *inputs.keep) if name != "text"]
    if kinds == ["text"] and named:
        raise refusal("text_columns", file=display_name(inputs.files[0]), column=named[0])


def check_start(inputs: Inputs, file: str, start: bytes) -> None:
    """Refuse a file whose first bytes, after decompression, belong to another format.

    Raises:
        ValueError: the file has another format; the message says what to do.
    """
    kind, name, utf8 = inputs.kind_of(file), display_name(file), inputs.dialect.is_utf8
    for magic, (found_format, advice) in MAGIC.items():
        if (
            start.startswith(magic)
            and found_format.lower() != kind
            and (utf8 or not found_format.startswith("UTF-"))
        ):
            if file in inputs.pipes and "its name" in advice:  # a pipe has no meaningful name
                advice = f"unpack it on the way: {found_format} -dc < FILE | ov-minilm encode"
            raise refusal("looks_like", file=name, what=found_format, kind=kind, instead=advice)
    if utf8 and kind != "parquet" and (encoding := _wide_encoding(start)):
        advice = f"pass --encoding {encoding}, or remove its NUL bytes: tr -d '\\000'"
        raise refusal("looks_like", file=name, what=encoding[:6].upper(), kind=kind, instead=advice)


def _wide_encoding(start: bytes) -> str | None:
    """Return the encoding of a file without a byte order mark, if its characters have two or four bytes.

    `start` has its first bytes. NUL bytes alone are valid UTF-8. In UTF-32, one byte of each character is
    NUL. In UTF-16, several characters have a NUL, always at the same place, and line feeds have one; and the
    bytes are not valid UTF-8, or all characters belong to alphabets, so that their high byte is small.
    """
    for encoding, high in (("utf-32-le", 3), ("utf-32-be", 0)):
        if len(start) >= 8 and not any(start[high::4]):
            return encoding
    for encoding, high in (("utf-16-le", 1), ("utf-16-be", 0)):
        highs, lows = start[high::2], start[1 - high :: 2]
        line_feed = b"\n" not in start or (10, 0) in zip(lows, highs, strict=False)
        only_alphabets = highs and max(highs) <= MAX_HIGH_BYTE
        if highs.count(0) > 1 and 0 not in lows and line_feed and (only_alphabets or not _is_utf8(start)):
            return encoding
    return None


def _is_utf8(start: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # the last character may be incomplete
    except UnicodeDecodeError:
        return False
    return True


def display_name(name: str) -> str:
    """Return the name of a file for messages."""
    return "stdin" if name == STDIN else name


def first_names(names: Sequence[str]) -> str:
    """Return the first names of columns for messages; a binary file may seem to have very many."""
    shown = [f"{name:.60}..." if len(name) > 60 else name for name in names[:8]]
    return ", ".join(map(repr, shown)) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "none"


def column_index(names: Sequence[str], name: str, file: str, hint: str = "") -> int:
    """Return the position of a column.

    Raises:
        ValueError: no column or several columns have this name.
    """
    places = [place for place, other in enumerate(names) if other == name]
    if not places:
        raise refusal("no_column", file=display_name(file), column=name, names=first_names(names), hint=hint)
    if len(places) > 1:
        raise refusal("column_twice", file=display_name(file), column=name, count=len(places))
    return places[0]


def import_arrow(purpose: str) -> Any:
    """Import pyarrow; `purpose` is for the error message.

    Raises:
        ImportError: the extra is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError(f"{purpose} needs pyarrow", name="pyarrow") from error
    return cast("Any", pyarrow)
