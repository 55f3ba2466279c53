"""Cache of compiled models in files. Damaged files, and those of another model or machine, are not used.

OpenVINO's own cache detects truncated entries but not changed bytes, and fails to compile if the folder is
unusable. This cache warns once if a file or the folder is unusable, and the model is then compiled without
the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from ov_minilm._version import __version__
from ov_minilm.errors import CacheWarning, SelfCheckFailed
from ov_minilm.files import atomic_write
from ov_minilm.runtime.backend import ov

SUFFIX = ".compiled"
AnyPath = str | os.PathLike[str]
Checked = TypeVar("Checked")
STALE_S = 3600  # seconds; an older unfinished file was left by a process that was killed


class Cache:
    """A folder of compiled models. Disk problems give warnings, never errors.

    A file has two lines and then OpenVINO's export of the model. Line 1 is the hexadecimal SHA-256 of
    everything after line 1; line 2 is a JSON object with the facts of the model. The file's name contains a
    hash of these facts.
    """

    def __init__(self, folder: Path, facts: Mapping[str, object]) -> None:
        """Open the cache in `folder`.

        Stored models are used only if their `facts` and versions are equal to these.
        """
        self.folder = folder
        self._facts = {"ov-minilm": __version__, "openvino": ov.get_version(), **facts}
        self._warned = False
        self._disabled = False  # set by the first failed write: nothing more is written

    @classmethod
    def open(cls, folder: AnyPath, fingerprint: str, facts: Mapping[str, object]) -> Cache:
        """Open the cache of one artefact in a folder. ValueError: the name is empty."""
        if folder == "":
            raise ValueError("cache_dir='' is empty; name a folder, or pass None")
        return cls(Path(folder) / fingerprint, facts)

    def path(self, name: str, facts: Mapping[str, object]) -> Path:
        """Return the path of the stored model with this name and these facts."""
        return self.folder / f"{name}-{hashlib.sha256(self._header(facts)).hexdigest()[:16]}{SUFFIX}"

    def load_model(
        self,
        core: ov.Core,
        device: str,
        grid: str,
        config: Mapping[str, object],
        check: Callable[[ov.CompiledModel], Checked],
    ) -> Checked | None:
        """Return `check(model)` for the stored model; None if no model is stored or if it fails the check."""
        facts = {"grid": grid, "config": config}
        blob = self.load(grid, facts)
        if blob is None:
            return None
        try:
            return check(core.import_model(blob, device, dict(config)))
        except (RuntimeError, SelfCheckFailed) as error:
            self.drop(grid, facts, str(error))
            return None

    def store_model(
        self, compiled: ov.CompiledModel, device: str, grid: str, config: Mapping[str, object]
    ) -> None:
        """Store a compiled model if the device can export it."""
        try:
            self.store(grid, {"grid": grid, "config": config}, compiled.export_model().getvalue())
        except RuntimeError:  # AUTO, MULTI and BATCH cannot export
            self._warn_once(f"{device} cannot export its models")

    def load(self, name: str, facts: Mapping[str, object]) -> bytes | None:
        """Return the stored bytes; None if the file does not exist, is damaged, or has other facts."""
        path = self.path(name, facts)
        try:
            stored = _read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn_once(f"{path} cannot be read ({error.strerror})")
            return None
        if stored is None:
            self.drop(name, facts, "its hash is wrong")
            return None
        header, blob = stored
        if header != self._header(facts):
            self.drop(name, facts, "it belongs to another model or machine")
            return None
        return blob

    def store(self, name: str, facts: Mapping[str, object], blob: bytes) -> None:
        """Store a compiled model; other processes see a complete file or none."""
        if self._disabled:
            return
        path = self.path(name, facts)
        header = self._header(facts)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            with atomic_write(path) as file:
                file.writelines((_hash(header, blob), header, blob))
        except OSError as error:
            self._disabled = True
            self._warn_once(f"compiled models cannot be kept in {self.folder} ({error.strerror})")

    def drop(self, name: str, facts: Mapping[str, object], reason: str) -> None:
        """Warn about an unusable stored model and delete it."""
        path = self.path(name, facts)
        self._warn_once(f"{path} is not used: {reason}")
        try:
            path.unlink()
        except OSError:  # on a read-only disk the next process warns again
            self._disabled = True

    def _warn_once(self, problem: str) -> None:
        """Warn of the first problem only: other files of the folder are likely to have the same problem."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"cache: {problem}; compiled again instead, which is slower", CacheWarning, stacklevel=2
            )

    def _sweep(self) -> None:
        """Delete unfinished files of processes that were killed."""
        for unfinished in self.folder.glob(f".*{SUFFIX}.*"):
            with contextlib.suppress(FileNotFoundError):  # another process deleted it first
                if time.time() - unfinished.stat().st_mtime > STALE_S:
                    unfinished.unlink()

    def _header(self, facts: Mapping[str, object]) -> bytes:
        return json.dumps({**self._facts, **facts}, sort_keys=True, default=str).encode() + b"\n"


def has_valid_hash(path: Path) -> bool:
    """Return whether the hash of a file is right."""
    return _read(path) is not None


def _read(path: Path) -> tuple[bytes, bytes] | None:
    """Return line 2 and the export of a file, without copying the export; None if the hash is wrong."""
    with path.open("rb") as file:
        digest, header, blob = file.readline(), file.readline(), file.read()
    return (header, blob) if digest == _hash(header, blob) else None


def _hash(header: bytes, blob: bytes) -> bytes:
    """Return the first line of a cache file: the hash of what follows."""
    digest = hashlib.sha256(header)
    digest.update(blob)
    return digest.hexdigest().encode() + b"\n"
