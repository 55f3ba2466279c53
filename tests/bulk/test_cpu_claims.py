"""CPUs of their own for processes that share a machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ov_minilm.bulk.cpu_claims import claim_cpus

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no masks")

CLAIM = """
import os, sys
from pathlib import Path
from ov_minilm.bulk.cpu_claims import claim_cpus
print(sorted(claim_cpus(1, Path(sys.argv[1]))), sorted(os.sched_getaffinity(0)), flush=True)
sys.stdin.read()
"""


def test_processes_hold_cpus_of_their_own(tmp_path: Path) -> None:
    """Each gets another one while there are any, the next is left as it was, and who ends gives his back.

    A thread that asks for too many keeps its mask, and the CPUs that it had locked are free again.
    """
    cpus = sorted(os.sched_getaffinity(0))
    assert set(cpus) == claim_cpus(len(cpus) + 1, tmp_path) == os.sched_getaffinity(0)

    def holder() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", CLAIM, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    holders = [holder() for _ in cpus]
    late, left = holder()
    first = holders[0][0]
    first.kill()
    first.communicate()
    again, freed = holder()

    assert [f"[{cpu}] [{cpu}]" for cpu in cpus] == [said for _, said in holders]
    assert f"{cpus} {cpus}" == left
    assert holders[0][1] == freed
    for process in (late, again, *(process for process, _ in holders[1:])):
        process.communicate()


def test_locks_lie_in_a_folder_of_the_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to which others may write is refused, and a link in place of a lock is not followed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"ov_minilm-{os.getuid()}"
    folder.mkdir()
    for cpu in os.sched_getaffinity(0):
        (folder / f"cpu{cpu}.lock").symlink_to(tmp_path / "target")

    with pytest.raises(OSError, match="cpu"):
        claim_cpus(1, folder)
    assert not (tmp_path / "target").exists()
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="not a folder of this user alone"):
        claim_cpus(1)
