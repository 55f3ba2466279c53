"""Nothing phones home, seen from outside the process. See test_public, and test_build for convert."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ENCODE = "from ov_minilm import encode; print(encode('a').shape)\n"


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare(1)")
def test_encode_works_without_any_network() -> None:
    """In a namespace of its own, without even a loopback device, C++ code included."""
    command = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this container may not make network namespaces")

    done = subprocess.run(
        [*command, sys.executable, "-c", ENCODE], capture_output=True, text=True, check=False
    )

    assert (0, "(384,)\n") == (done.returncode, done.stdout), done.stderr


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace(1)")
def test_no_system_call_reaches_the_network(tmp_path: Path) -> None:
    """Of all system calls of the process and its threads, none connects or makes an internet socket."""
    log = tmp_path / "log"
    command = ["strace", "-f", "-e", "trace=network", "-o", str(log)]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this container may not trace")

    done = subprocess.run([*command, sys.executable, "-c", ENCODE], capture_output=True, check=False)

    assert 0 == done.returncode, done.stderr
    assert [] == [line for line in log.read_text().splitlines() if "connect(" in line or "AF_INET" in line]
