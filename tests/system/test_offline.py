"""Nothing phones home, seen from outside the process. See test_public, and test_build for convert."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ENCODE = "from ov_minilm import encode; print(encode('a').shape)\n"


@pytest.mark.parametrize("tool", ["unshare", "strace"])
def test_encode_needs_and_asks_for_no_network(tmp_path: Path, tool: str) -> None:
    """It works without a loopback device; none of its system calls connects or makes an internet socket."""
    command = {
        "unshare": ["unshare", "--user", "--map-root-user", "--net"],
        "strace": ["strace", "-f", "-e", "trace=network", "-o", str(tmp_path / "log")],
    }[tool]
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}(1)")
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"this container does not allow {tool}")

    done = subprocess.run(
        [*command, sys.executable, "-c", ENCODE], capture_output=True, text=True, check=False
    )

    assert (0, "(384,)\n") == (done.returncode, done.stdout), done.stderr
    calls = (tmp_path / "log").read_text().splitlines() if tool == "strace" else []
    assert [] == [line for line in calls if "connect(" in line or "AF_INET" in line]
