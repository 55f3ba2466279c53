"""What is done of a job, line by line in a file: a job that is killed at any moment goes on from it.

The first line says which job it is: everything that decides the bytes of the output. Each further line says
that one shard is in its place, and is written after it is. A last line that was cut off was not written.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ov_minilm.bulk.rows import Position
from ov_minilm.errors import JobRefused

NAME = "_job.log"  # readers of folders of Parquet pass over names that begin with _


@dataclass(frozen=True, slots=True)
class Done:
    """One shard in its place."""

    shard: int
    end: Position  # where the next one starts
    rows: int  # written
    tokens: int
    truncated: int  # texts that lost their ends
    bad: int  # rows without a text; a file beside the shard names them

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
        """Take hold of the journal of a folder, and make one if there is none.

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

    def clear(self) -> None:
        """Forget what an earlier job did."""
        self._file.truncate(0)

    def resume(self, job: Mapping[str, Any]) -> None:
        """Begin a job, or go on with it if the journal is of the same.

        Raises:
            JobRefused: it is of another job; says what differs.
        """
        self._file.seek(0)
        content = self._file.read()
        lines = content[: content.rfind(b"\n") + 1]
        self._file.truncate(len(lines))
        first, *others = lines.decode("utf-8").splitlines() or [""]
        if first:
            _compare(self._folder, json.loads(first), json.loads(json.dumps(job)))
        else:
            self._append(json.dumps(job))
        self.done = {done.shard: done for done in map(Done.parse, others)}

    def forget(self, lost: Callable[[Done], bool]) -> None:
        """Do a shard again of which somebody removed the file."""
        self.done = {shard: done for shard, done in self.done.items() if not lost(done)}

    def add(self, done: Done) -> None:
        """Write down that a shard is in its place; it is on the disk when this returns."""
        self._append(json.dumps(asdict(done)))
        self.done[done.shard] = done

    def _append(self, line: str) -> None:
        self._file.write(line.encode("utf-8") + b"\n")
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


def _compare(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differences = [
        f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
        for name in dict(before) | dict(now)
        if before.get(name) != now.get(name)
    ]
    if differences:
        raise JobRefused(folder, differences)
