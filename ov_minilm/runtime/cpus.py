"""How many CPUs this process may really use: the affinity mask and the cgroup quota.

OpenVINO looks at the machine and ignores cgroup quotas, so a container with one CPU on a large host
would start as many threads as the host has and be throttled for it.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "OV_MINILM_THREADS"


def threads(asked: int | None) -> int:
    """Return how many threads to run on: what was asked for, else what the environment says, else granted().

    Raises:
        ValueError: one of them is not a number of 1 or more.
    """
    if asked is not None:
        if asked < 1:
            raise ValueError(f"threads={asked}; at least 1, or None for what this process is granted")
        return asked
    said = os.environ.get(VARIABLE, "")
    if said and not (said.isdecimal() and int(said) >= 1):
        raise ValueError(f"{VARIABLE}={said!r}; a number of 1 or more, or unset for what is granted")
    return int(said) if said else granted()


def granted(root: Path = Path("/")) -> int:
    """Return the whole CPUs granted to this process, at least 1. `root` is the file system to look in."""
    has_mask = hasattr(os, "sched_getaffinity")
    mask = len(os.sched_getaffinity(0)) if has_mask else os.cpu_count() or 1
    quota = _quota(root)
    return mask if quota is None else max(1, min(mask, int(quota)))


def _quota(root: Path) -> float | None:
    """CPUs by the tightest cgroup limit above this process (v2 cpu.max, v1 cfs_quota), None if unlimited."""
    table = root / "proc/self/cgroup"
    if not table.exists():
        return None
    limits = []
    for line in table.read_text(encoding="utf-8").splitlines():
        number, controllers, group = line.split(":", 2)
        if number == "0":
            limits += [_v2(folder) for folder in _upward(root / "sys/fs/cgroup", group)]
        elif "cpu" in controllers.split(","):
            limits += [_v1(folder) for folder in _upward(root / "sys/fs/cgroup/cpu", group)]
    found = [limit for limit in limits if limit is not None]
    return min(found) if found else None


def _upward(mount: Path, group: str) -> list[Path]:
    """List the folders from the mount down to the group: a limit on any of them binds."""
    folder, folders = mount, [mount]
    for part in group.strip("/").split("/"):
        folder = folder / part
        folders.append(folder)
    return folders


def _v2(folder: Path) -> float | None:
    path = folder / "cpu.max"
    if not path.exists():
        return None
    quota, period = path.read_text(encoding="ascii").split()
    return None if quota == "max" else int(quota) / int(period)


def _v1(folder: Path) -> float | None:
    quota, period = folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"
    if not quota.exists() or not period.exists():
        return None
    microseconds = int(quota.read_text(encoding="ascii"))
    return None if microseconds < 0 else microseconds / int(period.read_text(encoding="ascii"))
