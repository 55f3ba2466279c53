"""Files that are written completely or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LFS_POINTER = b"version https://git-lfs"  # first bytes of a file that Git LFS has not fetched
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_writable(path: Path) -> None:
    """Refuse an output that cannot be written, before any work is done."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")
    folder = path.resolve().parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:  # the error names the folder instead of a temporary file
        raise OSError(error.errno, error.strerror, str(folder)) from error


@contextmanager
def atomic_write(path: Path, *, locked: bool = False) -> Iterator[IO[bytes]]:
    """Open a temporary file in the folder of `path`; rename it to `path` when everything is written.

    A killed process leaves the temporary file behind. With `locked`, for callers that hold a lock, the file
    always has the same name, so that the next run replaces it.
    """
    path = path.resolve()  # if `path` is a link, the file that it points to is replaced, not the link
    if locked:
        temporary = unfinished_name(path)
        temporary.unlink(missing_ok=True)
        file = temporary.open("xb")
    else:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary, file = Path(name), os.fdopen(handle, "wb")
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only the user can read
        temporary.replace(path)
        _sync(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)  # after an interrupt the rename may have happened already
        # errors of file objects do not name the file
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            error.filename = error.filename or str(path)
        raise


def unfinished_name(path: Path) -> Path:
    """Return the file that `atomic_write` writes before it has the name `path`, if it is locked."""
    return path.with_name(f".{path.name}.unfinished")


def _sync(folder: Path) -> None:
    """Make a rename survive a power failure, on systems that can sync a folder."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
