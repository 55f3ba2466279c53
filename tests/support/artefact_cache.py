"""Artefacts that take minutes to make, kept in pytest's cache under a key of everything they depend on.

A kept folder is used only if its key is that of now and every file has the hash it had when it was made.
Each test session reads a copy, so no test can change what is kept. `pytest --cache-clear` removes it all.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path

import openvino as ov
from filelock import FileLock

import ov_minilm
from ov_minilm.artefact.manifest import file_facts

PACKAGE = Path(ov_minilm.__file__).parent
CHECKPOINTS = Path(__file__).with_name("checkpoints.py")
SOURCES = (  # whatever decides the bytes of a conversion, or measures it
    *(PACKAGE / room for room in ("artefact", "convert", "drift", "runtime")),
    *PACKAGE.glob("*.py"),
    CHECKPOINTS,
)
FACTS = "facts.json"


def current_key() -> str:
    """Hash the code that converts, the versions of all installed packages, and what the CPU is."""
    files = sorted(
        path
        for source in SOURCES
        for path in (source.rglob("*") if source.is_dir() else [source])
        if path.is_file() and "__pycache__" not in path.parts
    )
    core = ov.Core()
    facts = {
        "files": {path.relative_to(PACKAGE.parent).as_posix(): file_facts(path).sha256 for path in files},
        "packages": sorted(f"{found.name}=={found.version}" for found in distributions()),
        "python": sys.version,
        "cpu": [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")],
        "machine": platform.machine(),
        "limits": [item for item in sorted(os.environ.items()) if item[0].startswith(("ONEDNN_", "DNNL_"))],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): file_facts(path).sha256
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class ArtefactCache:
    """Makes each named folder once per session, or takes it from an earlier session where nothing changed."""

    def __init__(self, kept: Path, session: Path) -> None:
        self._kept = kept
        self._session = session
        self._session.mkdir(parents=True, exist_ok=True)

    def folder(self, name: str, make: Callable[[Path], object], version: str = "") -> Path:
        """Return a copy of the folder that `make(folder)` fills; the workers of a session share it.

        `version` stands for what the folder depends on beside code, packages and CPU.
        """
        mine, kept = self._session / name, self._kept / name
        with FileLock(f"{mine}.lock"):
            if mine.exists():
                return mine
            with FileLock(f"{kept}.lock"):
                facts = {"key": current_key(), "version": version}
                if not self._restore(kept, mine, facts):
                    make(mine.with_name(f"{name}.new"))
                    mine.with_name(f"{name}.new").rename(mine)
                    self._keep(mine, kept, facts)
        return mine

    def _restore(self, kept: Path, mine: Path, facts: dict[str, str]) -> bool:
        try:
            found = json.loads((kept / FACTS).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        if {"key": found["key"], "version": found["version"]} != facts:
            return False
        copy = mine.with_name(f"{mine.name}.copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(kept / "folder", copy)
        if hashes(copy) != found["files"]:
            return False
        copy.rename(mine)
        return True

    def _keep(self, mine: Path, kept: Path, facts: dict[str, str]) -> None:
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(mine, kept / "folder")
        text = json.dumps({**facts, "files": hashes(kept / "folder")}, indent=1)
        (kept / FACTS).write_text(text, encoding="utf-8")  # last: a folder without it is not used
