"""Adapters for the tools that people already use, a file for each; importing one imports only its library.

An adapter holds plain values only: frameworks copy, pickle and store their components, and rebuild them
elsewhere. The Embedder behind them is opened once a process for each artefact, device and number of threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import cast

from ov_minilm.runtime.embedder import Embedder, Truncate
from ov_minilm.spec import FloatArray

# Names of prompts, in the order in which sentence-transformers looks for them.
QUERY = ("query",)
DOCUMENT = ("document", "passage", "corpus")

_opening = threading.Lock()
_open = cache(Embedder.open)


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Say which extra brings a library whose import fails within."""
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{error}; pip install 'ov-minilm[{name}]'", name=error.name) from error


@dataclass(eq=False)
class Adapter:
    """What every adapter is made of. A wrong folder, device or option is said when it is made.

    Args:
        model: a folder written by `ov-minilm convert`; None is the INT8 artefact in the package.
        device: an OpenVINO device string.
        threads: for inference; None is what this process is granted.
        truncate: what to do with a text of more than 256 tokens; see Embedder.encode.
    """

    model: str | None = None
    device: str = "CPU"
    threads: int | None = None
    truncate: Truncate = "end"

    def __post_init__(self) -> None:
        self.embedder.encode([], truncate=self.truncate)

    @property
    def embedder(self) -> Embedder:
        """The process's Embedder for these values, kept until the process ends."""
        with _opening:
            return _open(self.model, device=self.device, threads=self.threads)

    @property
    def prompts(self) -> dict[str, str]:
        """What the artefact wants before a text, by kind of text. MiniLM wants nothing."""
        return {"query": "", "document": ""} | self.embedder.spec.prompts

    def _prompted(self, texts: Iterable[str], names: Sequence[str]) -> Iterable[str]:
        """Put before each text the prompt of the first of these names."""
        prompt = next((self.prompts[name] for name in names if self.prompts.get(name)), "")
        return (prompt + text for text in texts) if prompt else texts

    def _vectors(self, texts: Iterable[str], names: Sequence[str]) -> FloatArray:
        """Return the vectors (N, D) of texts after their prompt."""
        texts = self._prompted(texts, names)
        return cast(FloatArray, self.embedder.encode(texts, progress=False, truncate=self.truncate))

    def _lists(self, texts: Iterable[str], names: Sequence[str]) -> list[list[float]]:
        """Return them as lists of Python floats, each exactly its float32."""
        return cast("list[list[float]]", self._vectors(texts, names).tolist())

    async def _alists(self, texts: Iterable[str], names: Sequence[str]) -> list[list[float]]:
        """Return the same without holding up the event loop; calls that wait together are packed together."""
        vectors = await self.embedder.aencode(self._prompted(texts, names), truncate=self.truncate)
        return cast("list[list[float]]", vectors.tolist())
