"""System calls show that no process uses a network; see also test_public.py and test_build.py."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ENCODE = [sys.executable, "-c", "from ov_minilm import encode; print(encode('a').shape)"]


@pytest.mark.parametrize("without_network", ["unshare", "strace"])
def test_encode_needs_no_network_and_opens_no_connection(tmp_path: Path, without_network: str) -> None:
    """`encode` works without a loopback device; no system call connects or opens an internet socket."""
    log = tmp_path / "log"
    command = {
        "unshare": ["unshare", "--user", "--map-root-user", "--net"],
        "strace": ["strace", "-f", "-e", "trace=network", "-o", str(log)],
    }[without_network]
    # Some machines lack or forbid one of the two programs; either of them is enough for this test.
    if shutil.which(without_network) is None:
        pytest.skip(f"needs {without_network}(1)")
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"this container does not allow {without_network}")

    result = subprocess.run([*command, *ENCODE], capture_output=True, text=True, check=False)

    assert (0, "(384,)\n") == (result.returncode, result.stdout), result.stderr
    calls = log.read_text().splitlines() if without_network == "strace" else []
    assert [] == [line for line in calls if "connect(" in line or "AF_INET" in line]
