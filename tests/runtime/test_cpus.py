"""Available CPUs: the minimum of affinity mask and cgroup quotas, read from invented system files."""

import os
from pathlib import Path

import pytest

from ov_minilm.runtime.cpus import VARIABLE, available_cpus, threads

HOST_CPUS = 64  # CPUs of the invented machine, more than most quotas below
CGROUP_V1 = "5:memory:/elsewhere\n4:cpu,cpuacct:/app\n3:cpuset:/elsewhere\n"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (None, {}, HOST_CPUS),  # no /proc, as on other systems
        # the quota of another group does not count
        ("0::/app", {"app/cpu.max": "max 100000", "other/cpu.max": "100000 100000"}, HOST_CPUS),
        ("0::/app", {"app/cpu.max": "299999 100000"}, 2),
        ("0::/app", {"app/cpu.max": "100000 50000"}, 2),
        ("0::/app", {"app/cpu.max": "50000 100000"}, 1),
        ("0::/app", {"app/cpu.max": "9900000 100000"}, HOST_CPUS),
        ("0::/", {"cpu.max": "300000 100000"}, 3),
        ("0::/pod/app", {"pod/cpu.max": "200000 100000", "pod/app/cpu.max": "max 100000"}, 2),
        ("0::/pod/app", {"pod/cpu.max": "500000 100000", "pod/app/cpu.max": "300000 100000"}, 3),
        ("0::/docker/gone", {"cpu.max": "200000 100000"}, 2),  # the group is outside of the namespace
        (CGROUP_V1, {"cpu/app": "-1", "cpu/elsewhere": "100000"}, HOST_CPUS),
        (CGROUP_V1, {"cpu/app": "250000", "cpu/elsewhere": "100000"}, 2),
        ("4:cpu:/pod/app", {"cpu/pod": "300000", "cpu/pod/app": "-1"}, 3),
        ("4:cpu:/app\n0::/app", {"cpu/app": "500000", "app/cpu.max": "700000 100000"}, 5),  # cgroup v1 and v2
    ],
)
def test_the_tightest_quota_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str | None, files: dict[str, str], expected: int
) -> None:
    """The smallest quota of the cgroup and its parents counts, rounded down, but at least one CPU."""
    contents = {} if groups is None else {"proc/self/cgroup": f"{groups.strip()}\n"}
    for name, content in files.items():
        path = f"sys/fs/cgroup/{name}"
        if name.startswith("cpu/"):
            contents[f"{path}/cpu.cfs_period_us"], path = "100000\n", f"{path}/cpu.cfs_quota_us"
        contents[path] = f"{content}\n"
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="ascii")

    for mask in (HOST_CPUS, 2):  # also for a process that may use two CPUs
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, mask=mask: set(range(mask)), raising=False)
        assert min(mask, expected) == available_cpus(tmp_path)


def test_without_affinity_masks_all_cpus_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On systems without masks, macOS and Windows, all CPUs count; an unknown number is 1."""
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for count, expected in ((12, 12), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert expected == available_cpus(tmp_path)


def test_threads_are_those_of_argument_environment_or_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument overrides the environment, which overrides the machine; an error names the source."""
    for argument, variable, expected in (
        (3, "5", 3),
        (1, "0", 1),
        (None, "5", 5),
        (None, "", available_cpus()),
    ):
        monkeypatch.setenv(VARIABLE, variable)
        assert expected == threads(argument)
    for argument, variable in ((0, ""), (-1, "2"), (None, "0"), (None, "two"), (None, "-1")):
        monkeypatch.setenv(VARIABLE, variable)
        message = f"{VARIABLE}={variable!r}" if argument is None else f"threads={argument}"
        with pytest.raises(ValueError, match=message):
            threads(argument)
