"""Which rows a job reads: files, the column of the texts, and the columns to keep."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["text", "jsonl", "csv", "parquet"]

STDIN = "-"
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
KINDS = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files and what is taken of each row; reader.find makes it from what a user says."""

    files: tuple[str, ...]
    column: str = "text"
    keep: tuple[str, ...] = ()
    kind: Kind | None = None  # None: by each file's name
    schema: pa.Schema | None = None  # of the columns to keep; None without any

    def kind_of(self, file: str) -> Kind:
        """Tell how to read a file: as asked, or by its name, else as text."""
        if self.kind is not None:
            return self.kind
        path = Path(file.lower())
        suffix = Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
        return cast("Kind", KINDS.get(suffix, "text"))

    @property
    def resumable(self) -> bool:
        """Files can be read again; stdin is gone."""
        return STDIN not in self.files

    def size(self) -> int | None:
        """Bytes of all files, as they lie on the disk; None with stdin among them."""
        return sum(Path(file).stat().st_size for file in self.files) if self.resumable else None


def expand(patterns: Sequence[str]) -> Iterator[str]:
    """Yield file names: one that exists is taken as it is, others as glob patterns, in sorted order.

    Raises:
        OSError: a name does not exist or is a folder, or a pattern matches no file.
    """
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            raise IsADirectoryError(f"{pattern} is a folder; name its files: '{path / '*.parquet'}'")
        if pattern == STDIN or path.exists():
            yield pattern
            continue
        found = [name for name in glob.glob(pattern, recursive=True) if not Path(name).is_dir()]  # noqa: PTH207  # with a root too
        if not found:
            raise FileNotFoundError(
                f"{pattern} {'matches no file' if glob.has_magic(pattern) else 'does not exist'}"
            )
        yield from sorted(found)


def called(name: str) -> str:
    """Return what a file is called in messages."""
    return "stdin" if name == STDIN else name


def index(names: Sequence[str], name: str, file: str) -> int:
    """Find a column, or say which there are."""
    if name not in names:
        raise ValueError(f"{called(file)}: no column {name!r}; it has {', '.join(names) or 'none'}")
    return list(names).index(name)
