"""Compiled models kept between processes, each in a file that is whole, ours and unchanged or is not used.

OpenVINO's own cache notices an entry that was cut short, but not one whose bytes were changed, and an
unusable folder makes its compilation fail. Here nothing that is wrong with a folder or a file reaches
OpenVINO: it is said once, and the model is compiled as if there were no cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
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
Checked = TypeVar("Checked")
STALE = 3600  # seconds after which an unfinished file was left by a process that is gone


class Cache:
    """A folder of compiled models. Its methods raise nothing for whatever is wrong with the disk.

    A file is the SHA-256 of all that follows it in hexadecimal, a newline, the facts that decide the model
    as JSON, a newline, and what OpenVINO exported. The name has a hash of the facts.
    """

    def __init__(self, folder: Path, facts: Mapping[str, object]) -> None:
        """Use a folder; `facts`, and versions, decide which models in it can be used."""
        self.folder = folder
        self._facts = {"ov-minilm": __version__, "openvino": ov.get_version(), **facts}
        self._said = False
        self._full = False  # or read-only, or no folder: not tried again

    def path(self, name: str, facts: Mapping[str, object]) -> Path:
        """Return where the model of this name and these facts is kept."""
        return self.folder / f"{name}-{hashlib.sha256(self._header(facts)).hexdigest()[:16]}{SUFFIX}"

    def load_model(
        self,
        core: ov.Core,
        device: str,
        grid: str,
        config: Mapping[str, object],
        check: Callable[[ov.CompiledModel], Checked],
    ) -> Checked | None:
        """Return what `check` makes of a stored model; None if there is none, or none that works."""
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
        """Keep a compiled model, where the device can export it."""
        try:
            self.store(grid, {"grid": grid, "config": config}, compiled.export_model().getvalue())
        except RuntimeError:  # AUTO, MULTI and BATCH have no export
            self.say(f"{device} cannot export its models")

    def load(self, name: str, facts: Mapping[str, object]) -> bytes | None:
        """Return what was stored, or None if there is nothing or nothing that can be trusted."""
        path = self.path(name, facts)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self.say(f"{path} cannot be read ({error.strerror})")
            return None
        rest = _checked(content)
        if rest is None:
            self.drop(name, facts, "it is not what was written")
            return None
        header, _, blob = rest.partition(b"\n")
        if header != self._header(facts):
            self.drop(name, facts, "it belongs to another model or machine")
            return None
        return blob

    def store(self, name: str, facts: Mapping[str, object], blob: bytes) -> None:
        """Keep a compiled model; other processes see it whole or not at all."""
        if self._full:
            return
        path = self.path(name, facts)
        rest = self._header(facts) + b"\n" + blob
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            with atomic_write(path) as file:
                file.write(hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)
        except OSError as error:
            self._full = True
            self.say(f"compiled models cannot be kept in {self.folder} ({error.strerror})")

    def drop(self, name: str, facts: Mapping[str, object], why: str) -> None:
        """Forget a stored model that turned out to be unusable."""
        path = self.path(name, facts)
        self.say(f"{path} is not used: {why}")
        try:
            path.unlink()
        except OSError:  # read-only: the next process will say it again
            self._full = True

    def say(self, what: str) -> None:
        """Warn, the first time only: the rest of the folder is likely to be in the same state."""
        if not self._said:
            self._said = True
            warnings.warn(
                f"cache: {what}; compiled again instead, which is slower", CacheWarning, stacklevel=2
            )

    def _sweep(self) -> None:
        """Remove what processes that were killed left unfinished."""
        for left in self.folder.glob(f".*{SUFFIX}.*"):
            with contextlib.suppress(FileNotFoundError):  # another process sweeps too
                if time.time() - left.stat().st_mtime > STALE:
                    left.unlink()

    def _header(self, facts: Mapping[str, object]) -> bytes:
        return json.dumps({**self._facts, **facts}, sort_keys=True, default=str).encode()


def is_whole(path: Path) -> bool:
    """Return whether a file holds what was once stored in it."""
    return _checked(path.read_bytes()) is not None


def _checked(content: bytes) -> bytes | None:
    """Return what follows the hash of a file, if it has that hash."""
    digest, _, rest = content.partition(b"\n")
    return rest if digest == hashlib.sha256(rest).hexdigest().encode() else None
