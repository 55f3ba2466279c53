"""sentence-transformers: the one module of a real SentenceTransformer. Extra: sentence-transformers.

    model = SentenceTransformer(modules=[MiniLMModule()])

is what BERTopic, KeyBERT, MTEB and the library's evaluators ask for by isinstance. It saves and loads too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ov_minilm.integrations import Adapter, after, extra

with extra("sentence-transformers"):
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import InputModule


class _Features(dict[str, Any]):
    def __missing__(self, key: str) -> None:
        raise ValueError(f"no {key}: the graph pools, vectors of tokens never leave it")


class MiniLMModule(Adapter, InputModule):  # type: ignore[misc]  # mypy does not follow torch
    """Takes texts straight to sentence embeddings; prompts, precisions and the rest stay the library's own.

    Texts are packed best when there are many: give encode a batch_size of 1024.
    """

    config_keys = ("model", "device", "threads", "truncate")  # what save_pretrained stores

    def __post_init__(self) -> None:
        """Become a torch module, then open the model."""
        InputModule.__init__(self)
        super().__post_init__()

    def preprocess(self, inputs: Sequence[str], prompt: str = "", **_task: object) -> dict[str, list[str]]:
        """Hand the texts on, after their prompt: tokenization belongs to the Embedder."""
        return {"texts": list(after(prompt or "", inputs))}

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Add "sentence_embedding", float32 (N, D)."""
        vectors = self.embedder.encode(features["texts"], progress=False, truncate=self.truncate)
        return _Features(features, sentence_embedding=torch.from_numpy(vectors))

    def on_model_ready(self, model: SentenceTransformer) -> None:
        """Give the model the artefact's facts: prompts for those that it has none for, and the length."""
        model.prompts |= {name: text for name, text in self.embedder.spec.prompts.items() if text}
        self.max_seq_length = self.embedder.spec.max_tokens

    def get_embedding_dimension(self) -> int:
        """Return how many components a vector has."""
        return self.embedder.spec.dim

    def save(self, output_path: str, safe_serialization: bool = True) -> None:
        """Write this module's options, from which SentenceTransformer(folder) makes it again."""
        self.save_config(output_path)
