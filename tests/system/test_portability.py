"""Systems that are not Linux: what Python lacks there is not asked for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from support.processes import python

import ov_minilm

ROOT = Path(ov_minilm.__file__).parent
POSIX = ("fcntl", "grp", "pwd", "resource", "termios", "uvloop")  # modules that Windows has not
FUNCTIONS = """
fork register_at_fork getuid geteuid getloadavg sched_getaffinity sched_setaffinity killpg setsid mkfifo
O_NOFOLLOW O_CLOEXEC
""".split()  # and functions
WITHOUT = f"""
import os, sys, mmap, asyncio, concurrent.futures, multiprocessing, subprocess, tempfile, numpy
sys.modules |= dict.fromkeys({POSIX!r})  # to import one is an ImportError now
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


def test_it_runs_without_what_windows_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file imports a POSIX module on import; without them, vectors, threads, files and doctor work."""
    monkeypatch.chdir(tmp_path)
    early = [
        f"{path.relative_to(ROOT)}: {alias.name}"
        for path in ROOT.rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name in POSIX
    ]

    done = python(WITHOUT)

    assert (0, []) == (done.returncode, early), done.stderr
    *found, memory = done.stdout.splitlines()
    assert ["(384,) True", "b'new'"] == found
    assert '"state": "ok"' in memory
