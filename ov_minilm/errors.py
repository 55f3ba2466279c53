"""Every error that a caller may want to tell apart.

OvMiniLMError
  ArtefactError          the model folder is not what its manifest says
    ManifestInvalid      .path .reason
    FileMismatch         .path .expected .found
  SourceRefused          the checkpoint to convert is not the one that was asked for
  DeviceUnavailable      .asked .available
  PrecisionUnavailable   .asked .device .reason
  TextTooLong            .index .tokens .limit
  DriftTooLarge          .broken
  ForkedProcess          an Embedder was opened before os.fork() and used after it
TruncationWarning        a text was cut (a UserWarning, not an error)

Wrong types raise TypeError and wrong values ValueError, both naming the index or the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class OvMiniLMError(Exception):
    """The root: catches everything this package raises on purpose."""


class ArtefactError(OvMiniLMError):
    """The model folder cannot be used as it is."""


class ManifestInvalid(ArtefactError):
    """manifest.json is missing, unreadable, or says more or less than it must."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class FileMismatch(ArtefactError):
    """A file of the artefact is missing or is not the one that was built."""

    def __init__(self, path: Path, expected: str, found: str) -> None:
        self.path = path
        self.expected = expected
        self.found = found
        super().__init__(
            f"{path}: expected {expected}, found {found}; install the package or build the artefact again"
        )


class SourceRefused(OvMiniLMError):
    """The checkpoint has another hash or another architecture than the one asked for."""


class DeviceUnavailable(OvMiniLMError):
    """OpenVINO has no such device on this machine."""

    def __init__(self, asked: str, available: Sequence[str]) -> None:
        self.asked = asked
        self.available = tuple(available)
        super().__init__(f"device {asked!r} is not available; this machine has {', '.join(self.available)}")


class PrecisionUnavailable(OvMiniLMError):
    """The device cannot run the float layers in this precision, or not reproducibly."""

    def __init__(self, asked: str, device: str, reason: str) -> None:
        self.asked = asked
        self.device = device
        self.reason = reason
        super().__init__(f"precision {asked!r} on {device}: {reason}")


class TextTooLong(OvMiniLMError):
    """A text has more tokens than the model reads, and truncate="error" was asked for."""

    def __init__(self, index: int, tokens: int, limit: int) -> None:
        self.index = index
        self.tokens = tokens
        self.limit = limit
        super().__init__(
            f"text {index} has {tokens} tokens, the model reads {limit}; "
            'shorten it, or pass truncate="mean" to average its windows or truncate="end" to cut it'
        )


class DriftTooLarge(OvMiniLMError):
    """A quantized artefact is further from FP32 than the gate allows."""

    def __init__(self, broken: Sequence[str]) -> None:
        self.broken = tuple(broken)
        super().__init__("drift over the gate: " + "; ".join(self.broken))


class ForkedProcess(OvMiniLMError):
    """OpenVINO's threads do not survive os.fork(); the child has to open its own Embedder."""

    def __init__(self, opened: int, here: int) -> None:
        super().__init__(
            f"this Embedder was opened in process {opened} and is used in its fork {here}; "
            "open it after the fork, or start processes with the 'spawn' method"
        )


class TruncationWarning(UserWarning):
    """At least one text was longer than the model reads and was cut at its end."""
