"""All errors and warnings of this package.

OvMiniLMError
  ArtefactError          the model folder is not what its manifest says
    ManifestInvalid      .path .reason
    FileMismatch         .path .expected .found
  SourceRefused          the checkpoint to convert is not the one that was asked for
  DeviceUnavailable      .asked .available
  PrecisionUnavailable   .asked .device .reason
  SelfCheckFailed        .where .cosine .minimum
  TextTooLong            .index .tokens .limit
  DriftTooLarge          .broken
  ForkedProcess          OpenVINO was used before os.fork() and again in the child
  BadRow                 .file .unit .row .reason
  JobRefused             .output .differences
TruncationWarning        a text was cut (a UserWarning, not an error)
CacheWarning             the cache of compiled models cannot be used (a UserWarning, not an error)

Wrong types raise TypeError and wrong values ValueError; the message has the index or the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path


class OvMiniLMError(Exception):
    """The base class of all errors that this package raises on purpose.

    `args` are the arguments of the constructor, so that an error can be pickled to another process.
    """

    message: str | None = None

    def __str__(self) -> str:
        return super().__str__() if self.message is None else self.message


class ArtefactError(OvMiniLMError):
    """The model folder is incomplete, damaged or not an artefact."""


class ManifestInvalid(ArtefactError):
    """manifest.json is missing, unreadable, or has missing or unknown fields."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        self.message = f"{path}: {reason}"


class FileMismatch(ArtefactError):
    """A file of the artefact is missing, or its size or hash differs from the manifest."""

    def __init__(self, path: Path, expected: str, found: str) -> None:
        self.path = path
        self.expected = expected
        self.found = found
        self.message = (
            f"{path}: expected {expected}, found {found}; install the package or build the artefact again"
        )


class SourceRefused(OvMiniLMError):
    """The checkpoint does not have the expected hash, or has an architecture that cannot be converted."""


class DeviceUnavailable(OvMiniLMError):
    """OpenVINO does not have the requested device on this machine."""

    def __init__(self, asked: str, available: Sequence[str]) -> None:
        self.asked = asked
        self.available = tuple(available)
        self.message = f"device {asked!r} is not available; this machine has {', '.join(self.available)}"


class PrecisionUnavailable(OvMiniLMError):
    """The device cannot run the float layers in this precision with reproducible results."""

    def __init__(self, asked: str, device: str, reason: str) -> None:
        self.asked = asked
        self.device = device
        self.reason = reason
        self.message = f"precision {asked!r} on {device}: {reason}"


class SelfCheckFailed(OvMiniLMError):
    """A compiled model gives a wrong vector for the golden text, whose vector is known."""

    def __init__(self, where: str, cosine: float, minimum: float) -> None:
        self.where = where
        self.cosine = cosine
        self.minimum = minimum
        self.message = (
            f"{where} gives wrong vectors: cosine {cosine:.4f} to the known vector, less than {minimum}; "
            "run `ov-minilm doctor`, and try another device or version of its driver"
        )


class TextTooLong(OvMiniLMError):
    """A text has more tokens than the model reads, and `truncate` is "error"."""

    def __init__(self, index: int, tokens: int, limit: int) -> None:
        self.index = index
        self.tokens = tokens
        self.limit = limit
        self.message = (
            f"text {index} has {tokens} tokens, the model reads {limit}; "
            'shorten it, or pass truncate="mean" to average its windows or truncate="end" to cut it'
        )


class DriftTooLarge(OvMiniLMError):
    """A quantized artefact differs from FP32 more than the limits allow."""

    def __init__(self, broken: Sequence[str]) -> None:
        self.broken = tuple(broken)
        self.message = "drift exceeds the limits: " + "; ".join(self.broken)


class ForkedProcess(OvMiniLMError):
    """This process was forked from one that used OpenVINO, whose threads do not survive os.fork()."""

    def __init__(self, opened: int, here: int) -> None:
        self.message = (
            f"OpenVINO was started in process {opened} and does not work in its fork, process {here}; "
            "fork before the first Embedder is opened, or start processes with the 'spawn' method"
        )


class BadRow(OvMiniLMError):
    """A row of a file has no text to encode."""

    def __init__(self, file: str, unit: str, row: int, reason: str) -> None:
        self.file = file
        self.unit = unit  # "line" or "row": the kind of place in the file
        self.row = row  # number of the line or row, from 1
        self.reason = reason
        self.message = f"{file}, {unit} {row}: {reason}"


class JobRefused(OvMiniLMError):
    """The output belongs to a different job, with other inputs, another model, or other options."""

    def __init__(self, output: Path, differences: Sequence[str]) -> None:
        self.output = output
        self.differences = tuple(differences)
        shown = [*self.differences[:3], *([f"{len(differences) - 3} more"] if len(differences) > 3 else [])]
        self.message = (
            f"{output} belongs to another job ({'; '.join(shown)}); "
            "repeat its command to resume it, pass --overwrite to start over, or name another output"
        )


class TruncationWarning(UserWarning):
    """At least one text was longer than the model reads and was cut at its end."""

    def __init__(self, index: int, tokens: str, limit: int) -> None:
        super().__init__(
            f"text {index} has {tokens} tokens, the model reads {limit}: its end is cut. "
            'truncate="mean" averages windows, "error" raises an error. This warning is given once; '
            "Embedder.truncated counts all texts that are cut"
        )


class CacheWarning(UserWarning):
    """The cache of compiled models, or a file in it, is unusable.

    The model is compiled instead, which is slower.
    """


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse an invalid value of an option; the message lists the valid ones.

    Raises:
        ValueError: `value` is not one of the choices.
    """
    if value not in choices:
        raise ValueError(f"{name}={value!r}; choose one of {', '.join(choices)}")


def check_integers(**options: object) -> None:
    """Refuse options that are neither an integer nor None, such as True and "2".

    Raises:
        TypeError: an option is not an integer; the message has its name, value and type.
    """
    for name, value in options.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
            raise TypeError(f"{name}={value!r} is {type(value).__name__}; pass an integer")
