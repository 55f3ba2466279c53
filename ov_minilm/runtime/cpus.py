"""How many CPUs this process may use: the affinity mask and the cgroup quota.

OpenVINO ignores cgroup quotas. In a container with one CPU on a large host, OpenVINO would start a thread for
each CPU of the host, and the kernel would throttle the container.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ov_minilm.errors import check_integers

VARIABLE = "OV_MINILM_THREADS"


def threads(asked: int | None) -> int:
    """Return the number of threads to use: `asked`, otherwise OV_MINILM_THREADS, otherwise available_cpus().

    Raises:
        TypeError: `asked` is not an integer.
        ValueError: `asked` or the variable is not a number of 1 or more.
    """
    check_integers(threads=asked)
    if asked is not None:
        if asked < 1:
            raise ValueError(f"threads={asked}; at least 1, or None for the CPUs that this process may use")
        return asked
    variable = os.environ.get(VARIABLE, "")
    if variable and not (variable.isdecimal() and int(variable) >= 1):
        raise ValueError(f"{VARIABLE}={variable!r}; use a number of 1 or more, or unset it")
    return int(variable) if variable else available_cpus()


def available_cpus(root: Path = Path("/")) -> int:
    """Return how many whole CPUs this process may use, at least 1; `root` is the root of the file system."""
    has_mask = hasattr(os, "sched_getaffinity")
    mask = len(os.sched_getaffinity(0)) if has_mask else os.cpu_count() or 1
    quota = _quota(root)
    return mask if quota is None else max(1, min(mask, int(quota)))


def _quota(root: Path) -> float | None:
    """Return the lowest CPU limit of this process's cgroups (v2 cpu.max, v1 cfs_quota); None: no limit."""
    limits = [_v2_quota(folder) if v2 else _v1_quota(folder) for v2, folder in cgroup_folders("cpu", root)]
    return min((limit for limit in limits if limit is not None), default=None)


def cgroup_folders(controller: str, root: Path = Path("/")) -> Iterator[tuple[bool, Path]]:
    """Yield (is cgroup v2, folder) for each folder whose limits apply to this process.

    The first folder is where the cgroup file system is mounted, the last one is the group of this process. In
    a container both may be the same folder.
    """
    table = root / "proc/self/cgroup"
    for line in table.read_text(encoding="utf-8").splitlines() if table.exists() else ():
        number, controllers, group = line.split(":", 2)
        v2 = number == "0"
        if v2 or controller in controllers.split(","):
            folder = root / "sys/fs/cgroup" / ("" if v2 else controller)
            yield v2, folder
            for part in filter(None, group.split("/")):
                folder = folder / part
                yield v2, folder


def _v2_quota(folder: Path) -> float | None:
    path = folder / "cpu.max"
    if not path.exists():
        return None
    quota, period = path.read_text(encoding="ascii").split()
    return None if quota == "max" else int(quota) / int(period)


def _v1_quota(folder: Path) -> float | None:
    quota, period = folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"
    if not quota.exists() or not period.exists():
        return None
    microseconds = int(quota.read_text(encoding="ascii"))
    return None if microseconds < 0 else microseconds / int(period.read_text(encoding="ascii"))
