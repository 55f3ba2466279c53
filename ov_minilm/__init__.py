"""Sentence embeddings of all-MiniLM-L6-v2 on CPUs: INT8, packed, the same bits for the same text.

>>> from ov_minilm import encode
>>> encode("one text").shape
(384,)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ov_minilm._version import __version__
from ov_minilm.errors import (
    ArtefactError,
    BadRow,
    CacheWarning,
    DeviceUnavailable,
    DriftTooLarge,
    FileMismatch,
    ForkedProcess,
    JobRefused,
    ManifestInvalid,
    OvMiniLMError,
    PrecisionUnavailable,
    SelfCheckFailed,
    SourceRefused,
    TextTooLong,
    TruncationWarning,
)

if TYPE_CHECKING:
    from ov_minilm.runtime.embedder import Embedder, Info, encode

__all__ = [
    "ArtefactError",
    "BadRow",
    "CacheWarning",
    "DeviceUnavailable",
    "DriftTooLarge",
    "Embedder",
    "FileMismatch",
    "ForkedProcess",
    "Info",
    "JobRefused",
    "ManifestInvalid",
    "OvMiniLMError",
    "PrecisionUnavailable",
    "SelfCheckFailed",
    "SourceRefused",
    "TextTooLong",
    "TruncationWarning",
    "__version__",
    "encode",
]

_LAZY = ("Embedder", "Info", "encode")


def __getattr__(name: str) -> Any:
    """Load the embedder at its first use, so that `--help` does not wait for OpenVINO."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("ov_minilm.runtime.embedder"), name)


def __dir__() -> list[str]:
    return __all__
