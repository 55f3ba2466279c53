"""Gives each process on a shared machine its own CPUs, by means of lock files.

With fewer threads than CPUs, OpenVINO always uses the lowest-numbered CPUs, in every process and regardless
of ENABLE_CPU_PINNING, so several processes would compete for them. OpenVINO respects an affinity mask that is
set before the first `ov.Core()` of the process.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def claim_cpus(count: int, folder: Path | None = None) -> set[int]:
    """Restrict this thread, and threads that it starts, to CPUs that no other process claims.

    Return the claimed CPUs.

    If there are too few CPUs, or if the system has no affinity masks, nothing is changed. A claim ends with
    its process. `folder` contains the lock files; None is a private folder of this user in the system's
    temporary folder.
    """
    if not hasattr(os, "sched_setaffinity"):
        return set()
    import fcntl  # available on every system that has affinity masks

    allowed = os.sched_getaffinity(0)
    folder = folder or _own_folder()
    claimed: dict[int, int] = {}  # CPU -> its lock file, which stays open
    for cpu in sorted(allowed):
        file = os.open(
            folder / f"cpu{cpu}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            claimed[cpu] = file
        except BlockingIOError:
            os.close(file)
        if len(claimed) == count:
            os.sched_setaffinity(0, claimed)
            os.sched_setaffinity(os.getpid(), claimed)  # OpenVINO uses the mask of the main thread
            return set(claimed)
    for file in claimed.values():
        os.close(file)
    return allowed


def _own_folder() -> Path:
    """Return a folder that only this user can write to.

    In any other folder, users could replace locks by links.

    Raises:
        PermissionError: the folder belongs to another user, or others may write to it.
    """
    folder = Path(tempfile.gettempdir()) / f"ov_minilm-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if not folder.is_dir() or folder.is_symlink() or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise PermissionError(f"{folder} is not a folder of this user alone; remove it, or set TMPDIR")
    return folder
