"""Artefacts that take minutes to make, kept in pytest's cache until anything that they depend on changes.

Each test session reads a copy, so no test can change the kept one. `pytest --cache-clear` removes them.
"""

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
PARTS = [PACKAGE / name for name in ("artefact", "convert", "drift", "runtime")]


def current_key() -> str:
    """Return a key of everything that a conversion depends on: code, packages and CPU."""
    sources = [*PACKAGE.glob("*.py"), CHECKPOINTS, *(path for part in PARTS for path in part.rglob("*.*"))]
    core = ov.Core()
    inputs = {
        "files": {str(path): file_facts(path).sha256 for path in sources if path.suffix != ".pyc"},
        "packages": sorted(f"{package.name}=={package.version}" for package in distributions()),
        "python": sys.version,
        "cpu": [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")],
        "limits": [item for item in os.environ.items() if item[0].startswith(("ONEDNN_", "DNNL_"))],
    }
    return json.dumps(inputs, indent=1, sort_keys=True)


class ArtefactCache:
    """Makes each named folder once per session, or copies it from an earlier session if nothing changed."""

    def __init__(self, kept: Path, session: Path) -> None:
        self._kept = kept
        self._session = session
        self._session.mkdir(parents=True, exist_ok=True)

    def folder(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return this session's copy of the folder that `make(folder)` fills; all workers share it."""
        copy, kept, key = self._session / name, self._kept / name, self._kept / f"{name}.json"
        with FileLock(f"{copy}.lock"), FileLock(f"{kept}.lock"):
            if copy.exists():
                return copy
            current, new = current_key(), copy.with_name(f"{name}.new")
            if key.is_file() and key.read_text(encoding="utf-8") == current:
                shutil.copytree(kept, new)
            else:
                make(new)
                # the key says that the folder is complete, so it is removed first and written last
                key.unlink(missing_ok=True)
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(new, kept)
                key.write_text(current, encoding="utf-8")
            return new.rename(copy)
