"""Artefacts that take minutes to make, kept in pytest's cache under a key of everything they depend on.

A kept folder is used only if its key is that of now. Each test session reads a copy, so no test can change
what is kept; an artefact's own hashes show damaged files. `pytest --cache-clear` removes it all.
"""

from __future__ import annotations

import json
import os
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
ROOMS = [PACKAGE / room for room in ("artefact", "convert", "drift", "runtime")]
KEY = "key.json"


def current_key(version: str) -> str:
    """Return everything that decides the bytes of a conversion, or measures it: code, packages and CPU."""
    sources = [*PACKAGE.glob("*.py"), CHECKPOINTS, *(path for room in ROOMS for path in room.rglob("*.*"))]
    core = ov.Core()
    facts = {
        "version": version,
        "files": {str(path): file_facts(path).sha256 for path in sources if path.suffix != ".pyc"},
        "packages": sorted(f"{found.name}=={found.version}" for found in distributions()),
        "python": sys.version,
        "cpu": [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")],
        "limits": [item for item in os.environ.items() if item[0].startswith(("ONEDNN_", "DNNL_"))],
    }
    return json.dumps(facts, indent=1, sort_keys=True)


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
                key, new = current_key(version), mine.with_name(f"{name}.new")
                if (kept / KEY).is_file() and (kept / KEY).read_text(encoding="utf-8") == key:
                    shutil.copytree(kept / "folder", new)
                else:
                    make(new)
                    (kept / KEY).unlink(missing_ok=True)  # first, and written last: it says that all is there
                    shutil.rmtree(kept, ignore_errors=True)
                    shutil.copytree(new, kept / "folder")
                    (kept / KEY).write_text(key, encoding="utf-8")
                new.rename(mine)
        return mine
