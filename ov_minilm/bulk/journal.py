"""The journal of a job: a file that lists the finished shards, so that a killed job can resume.

The first line identifies the job and its inputs. Each other line is a finished shard, and is added when the
shard's file is complete. An incomplete last line is ignored.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ov_minilm.bulk.rows import Position
from ov_minilm.errors import JobRefused

JOURNAL_NAME = "_job.log"  # begins with _, so programs that read a folder of Parquet files ignore it


@dataclass(frozen=True, slots=True)
class Header:
    """Identifies a job and its inputs."""

    facts: Mapping[str, Any]  # everything that determines the output, except the two fields below
    inputs: Sequence[Sequence[str]]  # name, size and time of last change of each file
    on_error: str

    def to_json(self) -> str:
        """Return the header as the first line of the journal."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, line: str) -> Header:
        """Return the header in the first line of a journal."""
        raw = json.loads(line)
        # the header of an earlier version of this package has fewer fields
        if raw.keys() != {"facts", "inputs", "on_error"}:
            return cls({"format": raw.get("format")}, [], "")
        return cls(**raw)


@dataclass(frozen=True, slots=True)
class Done:
    """A finished shard."""

    shard: int
    end: Position  # where the next shard starts
    rows: int  # number of rows that were written
    tokens: int
    truncated: int  # number of texts that were cut at their end
    bad: int  # number of rows without a text, which are listed in a file in the same folder
    digest: str  # digest of the rows of the shard
    size: int | None = None  # size of the shard's file; None in journals of earlier versions

    @classmethod
    def parse(cls, line: str) -> Done:
        """Return the shard in a line of a journal."""
        raw = json.loads(line)
        return cls(**{**raw, "end": Position(*raw["end"])})


class Journal:
    """The file of one job, locked by one process at a time."""

    def __init__(self, folder: Path, file: IO[bytes]) -> None:
        self._folder = folder
        self._file = file
        self.done: dict[int, Done] = {}

    @classmethod
    def open(cls, folder: Path) -> Journal:
        """Lock the journal of a folder; create the journal if the folder has none.

        Raises:
            BlockingIOError: another process has locked it.
        """
        file = (folder / JOURNAL_NAME).open("a+b")
        try:
            _lock(file, folder)
        except BaseException:
            file.close()
            raise
        return cls(folder, file)

    def read(self) -> Header | None:
        """Read the journal; return its header, None if it is empty."""
        self._file.seek(0)
        content = self._file.read()
        lines = content[: content.rfind(b"\n") + 1]
        self._file.truncate(len(lines))
        if not lines:
            return None
        try:
            first, *others = lines.decode("utf-8").splitlines()
            header = Header.parse(first)
            if header.inputs:
                self.done = {done.shard: done for done in map(Done.parse, others)}
        # the journal was changed by another program
        except (ValueError, TypeError, KeyError, AttributeError):
            self.done = {}
            return Header({"format": "unreadable"}, [], "")
        return header

    def write(self, header: Header, done: Mapping[int, Done]) -> None:
        """Replace the journal with a header and some finished shards."""
        self._file.truncate(0)
        self._append(header.to_json(), *(json.dumps(asdict(done[shard])) for shard in sorted(done)))
        self.done = dict(done)

    def remove_lost(self, lost: Callable[[Done], bool]) -> None:
        """Remove from `done` the shards for which `lost` returns true, so that they are computed again."""
        self.done = {shard: done for shard, done in self.done.items() if not lost(done)}

    def add(self, done: Done) -> None:
        """Add a finished shard; when this returns, the line is on disk."""
        self._append(json.dumps(asdict(done)))
        self.done[done.shard] = done

    def _append(self, *lines: str) -> None:
        self._file.write("".join(f"{line}\n" for line in lines).encode("utf-8"))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _lock(file: IO[bytes], folder: Path) -> None:
    """Lock the file until it is closed; not on Windows, where two jobs must not share a folder."""
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(f"{folder}: another process is working on it") from None


def compare(folder: Path, before: Header, now: Header) -> None:
    """Refuse a different job: one that would compute different vectors, or that lacks an input.

    Changed or additional files do not make a job different.

    Raises:
        JobRefused: the jobs differ; the message says how.
    """
    old, new = dict(before.facts), dict(now.facts)
    differences = [
        f"{name} was {old.get(name)!r}, is {new.get(name)!r}"
        for name in old | new
        if old.get(name) != new.get(name)
    ]
    names = (name for name, _ in now.inputs)
    # searching with `in` on an iterator continues after the last name that was found
    missing = [name for name, _ in before.inputs if name not in names]
    differences += [f"input {name} is missing, or in another place" for name in missing]
    if differences:
        raise JobRefused(folder, differences)
