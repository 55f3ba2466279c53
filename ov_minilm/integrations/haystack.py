"""Haystack: an embedder for queries and one for documents. Extra: haystack.

Load pipelines with allowed_modules=["ov_minilm.integrations.haystack"]: Haystack trusts its own package only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ov_minilm.integrations import DOCUMENT, QUERY, Adapter, extra

with extra("haystack"):
    from haystack import Document, component


@component
class MiniLMTextEmbedder(Adapter):
    """Embeds the query of a pipeline."""

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """Return {"embedding": 384 floats}."""
        return {"embedding": self._lists([text], QUERY)[0]}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, list[float]]:
        """Do the same as `run` for asyncio."""
        return {"embedding": (await self._alists([text], QUERY))[0]}


@component
@dataclass(eq=False)
class MiniLMDocumentEmbedder(Adapter):
    """Embeds documents: first the named fields of a document's meta, one on each line, then its text."""

    meta_fields_to_embed: Sequence[str] = ()

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Return {"documents": copies of the documents, with their embeddings}."""
        return _with_vectors(documents, self._lists(self._texts(documents), DOCUMENT))

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Do the same as `run` for asyncio."""
        return _with_vectors(documents, await self._alists(self._texts(documents), DOCUMENT))

    def _texts(self, documents: list[Document]) -> list[str]:
        fields = [[d.meta[name] for name in self.meta_fields_to_embed if d.meta.get(name)] for d in documents]
        return [
            "\n".join([*map(str, above), document.content or ""])
            for above, document in zip(fields, documents, strict=True)
        ]


def _with_vectors(documents: list[Document], vectors: list[list[float]]) -> dict[str, list[Document]]:
    return {"documents": [replace(d, embedding=v) for d, v in zip(documents, vectors, strict=True)]}
