"""Chroma: an embedding function that a stored collection opens again automatically. Extra: chroma."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ov_minilm.integrations import DOCUMENT, QUERY, Adapter, extra

with extra("chroma"):
    from chromadb import Documents, EmbeddingFunction, Embeddings
    from chromadb.api.types import Space
    from chromadb.utils.embedding_functions import register_embedding_function


class MiniLMEmbeddingFunction(Adapter, EmbeddingFunction[Documents]):
    """Embeds documents and queries; a collection stores it with the artefact's fingerprint.

    If this module was imported, a collection that is opened without an embedding function gets this one, and
    ValueError if the artefact is not that of its vectors. Chroma makes no such check for a function passed
    explicitly.
    """

    def __call__(self, input: Documents) -> Embeddings:
        """Return a float32 (D,) for each document."""
        return list(self._vectors(input, DOCUMENT))

    def embed_query(self, input: Documents) -> Embeddings:
        """Return a float32 (D,) for each query."""
        return list(self._vectors(input, QUERY))

    @staticmethod
    def name() -> str:
        """Return the name under which Chroma stores this function."""
        return "ov_minilm"

    def default_space(self) -> Space:
        """Return "cosine": the vectors are unit vectors."""
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        """Return the options of this function, which a collection stores."""
        return asdict(self) | {"fingerprint": self.embedder.info.fingerprint}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> MiniLMEmbeddingFunction:
        """Return the function that a collection was made with, or ValueError if its artefact is another."""
        values = {key: value for key, value in config.items() if key != "fingerprint"}
        function = MiniLMEmbeddingFunction(**values)
        function.validate_config_update(config, function.get_config())
        return function

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Raise ValueError for another artefact: its vectors must not be mixed with the collection's."""
        old, new = old_config["fingerprint"], new_config["fingerprint"]
        if old != new:
            raise ValueError(
                f"the collection was made with artefact {old}, but this is {new}: embed its texts again"
            )


register_embedding_function(MiniLMEmbeddingFunction)  # type: ignore[no-untyped-call]
