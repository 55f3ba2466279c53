"""fastembed: the same methods on the same names, without fastembed. No extra."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from ov_minilm.integrations import Adapter
from ov_minilm.spec import MINILM, FloatArray


class TextEmbedding(Adapter):
    """Yields one vector after another while it reads texts, as fastembed's TextEmbedding does."""

    embedding_size = MINILM.dim

    def embed(
        self, documents: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[FloatArray]:
        """Yield float32 (384,) for each document, in order, reading a bounded number of them ahead.

        Packing chooses the batches and `threads` the cores: batch_size and parallel change nothing.
        """
        texts = [documents] if isinstance(documents, str) else documents
        return chain.from_iterable(self.embedder.encode_iter(texts, truncate=self.truncate))

    def query_embed(self, query: str | Iterable[str]) -> Iterator[FloatArray]:
        """Yield the vectors of queries: the model was trained without prompts."""
        return self.embed(query)

    def passage_embed(self, texts: Iterable[str]) -> Iterator[FloatArray]:
        """Yield the vectors of passages: the model was trained without prompts."""
        return self.embed(texts)
