"""Systems other than Linux: the package uses only modules that exist there."""

import ast
from pathlib import Path

import pytest
from support.processes import python

import ov_minilm

ROOT = Path(ov_minilm.__file__).parent
MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "uvloop")  # modules that Windows lacks
FUNCTIONS = """
fork register_at_fork getuid geteuid getloadavg sched_getaffinity sched_setaffinity killpg setsid mkfifo
O_NOFOLLOW O_CLOEXEC
""".split()
PROGRAM = f"""
import os, sys, mmap, asyncio, concurrent.futures, multiprocessing, subprocess, tempfile, numpy
sys.modules |= dict.fromkeys({MODULES!r})  # importing one raises ImportError now
[delattr(os, name) for name in {FUNCTIONS!r} if hasattr(os, name)]
[delattr(mmap, name) for name in dir(mmap) if name.startswith('MADV_')]
from pathlib import Path
from ov_minilm import encode
from ov_minilm.doctor import probe_memory
from ov_minilm.files import atomic_write
from ov_minilm.runtime.cpus import available_cpus
print(encode('a').shape, available_cpus() > 0)
with atomic_write(Path('v')) as file:
    file.write(b'new')
print(Path('v').read_bytes())
probe_memory('{{"options": {{}}}}')
"""


def test_the_package_runs_without_posix_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors, threads, files and doctor work without modules that only Unix has."""
    monkeypatch.chdir(tmp_path)
    imports = [
        f"{path.relative_to(ROOT)}: {alias.name}"
        for path in ROOT.rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name in MODULES
    ]

    result = python(PROGRAM)

    assert (0, []) == (result.returncode, imports), result.stderr
    *actual, memory = result.stdout.splitlines()
    assert ["(384,) True", "b'new'"] == actual
    assert '"state": "ok"' in memory
