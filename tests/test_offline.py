"""Nothing phones home: encode and convert work where every socket fails, and try none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import python

from ov_minilm.convert.source import PACKAGE
from ov_minilm.drift.evaluation import FOLDER_VARIABLE

HOOK = (
    "import sys\n"
    "def hook(event, arguments):\n"
    "    if event.startswith('socket.'):\n"
    "        open(LOG, 'a').write(f'{event} {arguments}\\n')\n"
    "        raise OSError('no network in this test')\n"
    "sys.addaudithook(hook)\n"
)
ENCODE = "from ov_minilm import encode; print(encode('a').shape)\n"


def test_encode_opens_no_socket(tmp_path: Path) -> None:
    """With every socket call of Python failing, encode works and has tried none."""
    log = tmp_path / "log"

    done = python(f"LOG = {str(log)!r}\n{HOOK}{ENCODE}")

    assert (0, "(384,)\n", False) == (done.returncode, done.stdout, log.exists()), done.stderr


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


@pytest.mark.slow
@pytest.mark.convert
def test_convert_opens_no_socket(built: Path, tmp_path: Path) -> None:
    """With every socket call of Python failing, a whole conversion works and has tried none."""
    log = tmp_path / "log"

    done = python(
        f"LOG = {str(log)!r}\n{HOOK}"
        f"sys.argv = ['ov-minilm', 'convert', {PACKAGE!r}, '-o', {str(tmp_path / 'out')!r}]\n"
        "import warnings; warnings.simplefilter('default')\n"  # of the tools
        "from ov_minilm.cli import main\n"
        "main()",
        HOME=str(tmp_path),
        **{FOLDER_VARIABLE: ""},
    )

    assert 0 == done.returncode, done.stderr
    assert "" == (log.read_text() if log.exists() else "")
    assert (built / "int8/model.bin").read_bytes() == (tmp_path / "out/int8/model.bin").read_bytes()
