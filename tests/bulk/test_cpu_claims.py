"""Each process on a machine claims CPUs that no other process has claimed."""

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from ov_minilm.bulk.cpu_claims import claim_cpus

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no masks")

CLAIM_PROGRAM = """
import os, sys
from pathlib import Path
from ov_minilm.bulk.cpu_claims import claim_cpus
print(sorted(claim_cpus(1, Path(sys.argv[1]))), sorted(os.sched_getaffinity(0)), flush=True)
sys.stdin.read()
"""


def test_each_process_has_its_own_cpus(tmp_path: Path) -> None:
    """A process claims CPUs that are free, and frees them at its end; a failed claim changes nothing."""
    cpus = sorted(os.sched_getaffinity(0))
    assert set(cpus) == claim_cpus(len(cpus) + 1, tmp_path) == os.sched_getaffinity(0)
    command = [sys.executable, "-c", CLAIM_PROGRAM, str(tmp_path)]
    with ExitStack() as stack:

        def start() -> tuple[subprocess.Popen[str], str]:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)  # leaving the `with` block closes stdin, which ends the process
            assert process.stdout is not None
            return process, process.stdout.readline().strip()

        claims = [start() for _ in cpus]
        _, without_claim = start()
        first, claim_of_first = claims[0]
        first.kill()
        first.wait()
        _, claim_after_first = start()

    assert [f"[{cpu}] [{cpu}]" for cpu in cpus] == [claim for _, claim in claims]
    assert f"{cpus} {cpus}" == without_claim
    assert claim_of_first == claim_after_first


def test_locks_are_in_a_folder_of_this_user_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that other users may write to is refused; a link in place of a lock is not followed."""
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
