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
from typing import Any

from ov_minilm.bulk.rows import Position
from ov_minilm.errors import JobRefused

NAME = "_job.log"  # readers of folders of Parquet pass over names that begin with _


@dataclass(frozen=True, slots=True)
class Done:
    """One shard in its place."""

    shard: int
    end: Position  # where the next one starts
    rows: int  # written
    bad: int  # rows without a text; a file beside the shard names them

    @classmethod
    def parse(cls, line: str) -> Done:
        """Read it back from JSON."""
        raw = json.loads(line)
        return cls(**{**raw, "end": Position(*raw["end"])})


class Journal:
    """The file of one job, held by one process at a time."""

    def __init__(self, file: Any, done: dict[int, Done]) -> None:
        self._file = file
        self.done = done

    @classmethod
    def open(cls, folder: Path, job: Mapping[str, Any]) -> Journal:
        """Begin a journal in a folder, or go on with the one that is there.

        Raises:
            JobRefused: it is of another job; says what differs.
            BlockingIOError: another process is working on it.
        """
        path = folder / NAME
        file = path.open("a+b")
        try:
            _lock(file, path)
            file.seek(0)
            whole, _, torn = file.read().rpartition(b"\n")
            lines = whole.decode("utf-8").split("\n") if whole else []
            if torn:
                file.truncate(len(whole) + bool(whole))
            if lines:
                _compare(folder, json.loads(lines[0]), dict(job))
            journal = cls(file, {done.shard: done for done in map(Done.parse, lines[1:])})
            if not lines:
                journal._append(json.dumps(job))
        except BaseException:
            file.close()
            raise
        return journal

    def add(self, done: Done) -> None:
        """Write down that a shard is in its place; it is on the disk when this returns."""
        self._append(json.dumps(asdict(done)))
        self.done[done.shard] = done

    def forget(self, lost: Callable[[Done], bool]) -> None:
        """Do a shard again of which somebody removed the file."""
        self.done = {shard: done for shard, done in self.done.items() if not lost(done)}

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


def _lock(file: Any, path: Path) -> None:
    """Hold the file as long as it is open, so that two processes never write the same shards."""
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(f"{path.parent}: another process is working on it") from None


def _compare(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    now = json.loads(json.dumps(now))
    differences = [
        f"{name} was {before.get(name)!r:.80}, is {now.get(name)!r:.80}"
        for name in before | now
        if before.get(name) != now.get(name)
    ]
    if differences:
        raise JobRefused(folder, differences)
