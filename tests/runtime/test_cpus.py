"""CPUs granted: the affinity mask or the tightest cgroup quota, the lower of the two, on made-up machines."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ov_minilm.runtime.cpus import VARIABLE, granted, threads

Machine = Callable[[str, dict[str, str]], Path]

HOST = 64  # CPUs of the made-up machines: more than any quota below


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Make the file system of a large host, from /proc/self/cgroup and files under /sys/fs/cgroup."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(HOST)), raising=False)

    def make(cgroup: str, files: dict[str, str]) -> Path:
        for name, content in {"proc/self/cgroup": cgroup, **files}.items():
            path = tmp_path / (name if name.startswith("proc") else f"sys/fs/cgroup/{name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="ascii")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        pytest.param("0::/\n", {}, HOST, id="no limit file"),
        pytest.param("0::/app\n", {"app/cpu.max": "max 100000\n"}, HOST, id="max"),
        pytest.param("0::/app\n", {"app/cpu.max": "400000 100000\n"}, 4, id="four CPUs"),
        pytest.param("0::/app\n", {"app/cpu.max": "150000 100000\n"}, 1, id="one and a half"),
        pytest.param("0::/app\n", {"app/cpu.max": "299999 100000\n"}, 2, id="almost three"),
        pytest.param("0::/app\n", {"app/cpu.max": "100000 50000\n"}, 2, id="another period"),
        pytest.param("0::/app\n", {"app/cpu.max": "50000 100000\n"}, 1, id="half a CPU"),
        pytest.param("0::/app\n", {"app/cpu.max": "9900000 100000\n"}, HOST, id="more than the host has"),
        pytest.param("0::/\n", {"cpu.max": "300000 100000\n"}, 3, id="limit on the mount"),
        pytest.param(
            "0::/pod/app\n",
            {"pod/cpu.max": "200000 100000\n", "pod/app/cpu.max": "max 100000\n"},
            2,
            id="limit on the parent",
        ),
        pytest.param(
            "0::/pod/app\n",
            {"pod/cpu.max": "500000 100000\n", "pod/app/cpu.max": "300000 100000\n"},
            3,
            id="the tightest of two",
        ),
        pytest.param(
            "0::/app\n",
            {"app/cpu.max": "max 100000\n", "other/cpu.max": "100000 100000\n"},
            HOST,
            id="a neighbour's",
        ),
        pytest.param(
            "0::/docker/gone\n", {"cpu.max": "200000 100000\n"}, 2, id="group not in this namespace"
        ),
    ],
)
def test_cgroup_v2(machine: Machine, cgroup: str, files: dict[str, str], expected: int) -> None:
    """The quota of this group or of any above it, in whole CPUs and at least one."""
    assert expected == granted(machine(cgroup, files))


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("-1", HOST), ("250000", 2), ("20000", 1)],
    ids=["unlimited", "two and a half", "a fifth"],
)
def test_cgroup_v1(machine: Machine, quota: str, expected: int) -> None:
    """The cpu controller's quota, in any place among the controllers of its line."""
    root = machine(
        "5:memory:/elsewhere\n4:cpu,cpuacct:/app\n3:cpuset:/elsewhere\n",
        {
            "cpu/app/cpu.cfs_quota_us": f"{quota}\n",
            "cpu/app/cpu.cfs_period_us": "100000\n",
            "cpu/elsewhere/cpu.cfs_quota_us": "100000\n",
            "cpu/elsewhere/cpu.cfs_period_us": "100000\n",
        },
    )

    assert expected == granted(root)


def test_cgroup_v1_counts_parents(machine: Machine) -> None:
    """A limit on the pod binds the container in it."""
    root = machine(
        "4:cpu:/pod/app\n",
        {
            "cpu/pod/cpu.cfs_quota_us": "300000\n",
            "cpu/pod/cpu.cfs_period_us": "100000\n",
            "cpu/pod/app/cpu.cfs_quota_us": "-1\n",
            "cpu/pod/app/cpu.cfs_period_us": "100000\n",
        },
    )

    assert granted(root) == 3


def test_both_versions_at_once(machine: Machine) -> None:
    """On a hybrid host the tighter of both binds."""
    root = machine(
        "4:cpu:/app\n0::/app\n",
        {
            "cpu/app/cpu.cfs_quota_us": "500000\n",
            "cpu/app/cpu.cfs_period_us": "100000\n",
            "app/cpu.max": "700000 100000\n",
        },
    )

    assert granted(root) == 5


def test_no_cgroups(machine: Machine, tmp_path: Path) -> None:
    """Without /proc, as on other systems, the mask alone counts."""
    machine("", {})
    (tmp_path / "proc/self/cgroup").unlink()

    assert granted(tmp_path) == HOST


def test_the_mask_binds_below_the_quota(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process pinned to two CPUs has two, whatever its quota."""
    root = machine("0::/app\n", {"app/cpu.max": "800000 100000\n"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 7})

    assert granted(root) == 2


def test_a_system_without_masks_counts_its_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an affinity call, as on macOS and Windows, all CPUs count; an unknown count is one."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    twelve = granted(tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: None)

    assert (twelve, granted(tmp_path)) == (12, 1)


def test_this_machine() -> None:
    """Here, whatever the container, it is at least one CPU and no more than there are."""
    assert 1 <= granted() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("asked", "said", "expected"), [(3, "5", 3), (None, "5", 5), (None, "", None)])
def test_threads_are_asked_for_then_said_then_granted(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, said: str, expected: int | None
) -> None:
    """The argument goes before the environment, and that before what the machine grants."""
    monkeypatch.setenv(VARIABLE, said)

    assert (expected or granted()) == threads(asked)


@pytest.mark.parametrize(("asked", "said"), [(0, ""), (-1, "2"), (None, "0"), (None, "two"), (None, "-1")])
def test_threads_that_are_no_number_are_refused(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, said: str
) -> None:
    """The error says which of the two is wrong, and how."""
    monkeypatch.setenv(VARIABLE, said)

    with pytest.raises(ValueError, match=f"{VARIABLE}={said!r}" if asked is None else f"threads={asked}"):
        threads(asked)
