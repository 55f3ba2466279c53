"""Systems that are not Linux: what Python lacks there is not asked for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from support.processes import python

import ov_minilm

ROOT = Path(ov_minilm.__file__).parent
POSIX = ("fcntl", "grp", "pwd", "resource", "termios", "uvloop")  # modules that Windows has not
FUNCTIONS = (  # and functions
    *(
        "fork",
        "register_at_fork",
        "getuid",
        "geteuid",
        "getloadavg",
        "sched_getaffinity",
        "sched_setaffinity",
    ),
    *("killpg", "setsid", "mkfifo", "O_NOFOLLOW", "O_CLOEXEC"),
)
WITHOUT = (
    "import os, sys, mmap, asyncio, concurrent.futures, multiprocessing, subprocess, tempfile, numpy\n"
    f"sys.modules |= dict.fromkeys({POSIX!r})\n"  # to import one is an ImportError now
    f"[delattr(os, name) for name in {FUNCTIONS!r} if hasattr(os, name)]\n"
    "[delattr(mmap, name) for name in dir(mmap) if name.startswith('MADV_')]\n"
)


def test_posix_modules_are_imported_late() -> None:
    """No file imports one when it is imported itself: only where the system was asked for."""
    early = [
        f"{path.relative_to(ROOT)}: {alias.name}"
        for path in ROOT.rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name in POSIX
    ]

    assert [] == early


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from ov_minilm import encode; print(encode('a').shape)", "(384,)\n"),
        ("from ov_minilm.runtime.cpus import granted; print(granted() > 0)", "True\n"),
        (
            "from pathlib import Path; from ov_minilm.files import atomic_write\n"
            "with atomic_write(Path('v')) as file: file.write(b'new')\n"
            "print(Path('v').read_bytes())",
            "b'new'\n",
        ),
        (
            "from ov_minilm import Embedder; from ov_minilm.doctor import _memory\n"
            "print(_memory(Embedder.open(), 'a').state)",
            "ok\n",
        ),
    ],
    ids=["encode", "threads", "files", "doctor"],
)
def test_it_runs_without_what_windows_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, expected: str
) -> None:
    """With POSIX's modules and functions taken away, the result is the same."""
    monkeypatch.chdir(tmp_path)

    done = python(WITHOUT + code)

    assert (0, expected) == (done.returncode, done.stdout), done.stderr
