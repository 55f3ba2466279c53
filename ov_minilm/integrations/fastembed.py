"""fastembed: the methods of its TextEmbedding, without fastembed installed. No extra."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import InitVar, dataclass
from itertools import chain
from typing import Any

from ov_minilm.integrations import DOCUMENT, QUERY, Adapter, missing, refuse
from ov_minilm.runtime.texts import iterate
from ov_minilm.spec import FloatArray


@dataclass(eq=False)
class TextEmbedding(Adapter):
    """Yields one vector after another while it reads texts, as fastembed's TextEmbedding does."""

    model_name: InitVar[str | None] = None  # fastembed's name of `model`

    @property
    def embedding_size(self) -> int:
        """The number of components of a vector."""
        return self.embedder.spec.dim

    def embed(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **other: object,
    ) -> Iterator[FloatArray]:
        """Yield float32 (384,) for each document, in order, reading a bounded number of them ahead.

        batch_size and parallel have no effect: packing forms the batches, and `threads` sets the cores.
        """
        refuse("embed takes no", other)
        texts = [documents] if isinstance(documents, str) else iterate(documents)
        return chain.from_iterable(self.embedder.encode_iter(texts, truncate=self.truncate))

    def query_embed(self, query: str | Iterable[str], **options: Any) -> Iterator[FloatArray]:
        """Yield float32 (384,) for each query, with the artefact's prompt for queries if it has one."""
        return self.embed(self._prompted([query] if isinstance(query, str) else query, QUERY), **options)

    def passage_embed(self, texts: Iterable[str], **options: Any) -> Iterator[FloatArray]:
        """Yield float32 (384,) for each passage, with the artefact's prompt for passages if it has one."""
        return self.embed(self._prompted([texts] if isinstance(texts, str) else texts, DOCUMENT), **options)

    __getattr__ = missing
