"""The list of finished shards, in a file: a job that is killed at any moment resumes from it.

The first line identifies the job and its inputs. Each further line is one finished shard, added when its file
is complete. An incomplete last line is ignored.
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

NAME = "_job.log"  # readers of folders of Parquet pass over names that begin with _


@dataclass(frozen=True, slots=True)
class Header:
    """Which job it is."""

    facts: Mapping[str, Any]  # all that decides the bytes of the output, but for the two below
    inputs: Sequence[Sequence[str]]  # of each file its name, and its size and time of last change
    on_error: str

    def to_json(self) -> str:
        """Return the first line."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, line: str) -> Header:
        """Read it back."""
        raw = json.loads(line)
        if raw.keys() != {"facts", "inputs", "on_error"}:  # of an earlier version of this package
            return cls({"format": raw.get("format")}, [], "")
        return cls(**raw)


@dataclass(frozen=True, slots=True)
class Done:
    """One shard in its place."""

    shard: int
    end: Position  # where the next one starts
    rows: int  # written
    tokens: int
    truncated: int  # texts that lost their ends
    bad: int  # rows without a text; a file beside the shard names them
    digest: str  # of the rows it was made of
    size: int | None = None  # bytes of its file; None in journals of earlier versions

    @classmethod
    def parse(cls, line: str) -> Done:
        """Read it back from JSON."""
        raw = json.loads(line)
        return cls(**{**raw, "end": Position(*raw["end"])})


class Journal:
    """The file of one job, held by one process at a time."""

    def __init__(self, folder: Path, file: IO[bytes]) -> None:
        self._folder = folder
        self._file = file
        self.done: dict[int, Done] = {}

    @classmethod
    def open(cls, folder: Path) -> Journal:
        """Lock the journal of a folder, and create it if there is none.

        Raises:
            BlockingIOError: another process is working on it.
        """
        file = (folder / NAME).open("a+b")
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
        except (ValueError, TypeError, KeyError, AttributeError):  # somebody else wrote into it
            self.done = {}
            return Header({"format": "unreadable"}, [], "")
        return header

    def write(self, header: Header, done: Mapping[int, Done]) -> None:
        """Replace the journal by that of a job of which some shards are done."""
        self._file.truncate(0)
        self._append(header.to_json(), *(json.dumps(asdict(done[shard])) for shard in sorted(done)))
        self.done = dict(done)

    def forget(self, lost: Callable[[Done], bool]) -> None:
        """Remove shards from `done` whose files are lost, so that they are computed again."""
        self.done = {shard: done for shard, done in self.done.items() if not lost(done)}

    def add(self, done: Done) -> None:
        """Add a finished shard; the line is on the disk when this returns."""
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
    """Hold the file as long as it is open; on Windows nothing does, and two jobs must not share a folder."""
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(f"{folder}: another process is working on it") from None


def compare(folder: Path, before: Header, now: Header) -> None:
    """Refuse another job: one whose rows would have other vectors, or that lacks an input.

    Files that changed or were added are the same job.

    Raises:
        JobRefused: says what differs.
    """
    old, new = dict(before.facts), dict(now.facts)
    differences = [
        f"{name} was {old.get(name)!r}, is {new.get(name)!r}"
        for name in old | new
        if old.get(name) != new.get(name)
    ]
    names = (name for name, _ in now.inputs)
    missing = [name for name, _ in before.inputs if name not in names]  # looks on from the last one it found
    differences += [f"input {name} is missing, or in another place" for name in missing]
    if differences:
        raise JobRefused(folder, differences)
