"""sentence-transformers: a module for a real SentenceTransformer. Extra: sentence-transformers.

    model = SentenceTransformer(modules=[MiniLMModule()])

for BERTopic, KeyBERT, MTEB and the library's evaluators, which check isinstance. The model can be saved and
loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ov_minilm.integrations import Adapter, extra, with_prompt

with extra("sentence-transformers"):
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import InputModule


class _Features(dict[str, Any]):
    def __missing__(self, key: str) -> None:
        raise ValueError(f"no {key}: this model gives vectors of texts, not of tokens")


class MiniLMModule(Adapter, InputModule):  # type: ignore[misc]  # mypy does not follow torch
    """Embeds texts in a SentenceTransformer, which applies prompts and precisions itself.

    Packing works best with many texts: pass batch_size=1024 to encode.
    """

    config_keys = ("model", "device", "threads", "truncate")  # what save_pretrained stores

    def __post_init__(self) -> None:
        """Become a torch module, then open the model."""
        InputModule.__init__(self)
        super().__post_init__()

    def preprocess(self, inputs: Sequence[str], prompt: str = "", **_task: object) -> dict[str, list[str]]:
        """Return the texts with their prompt; the Embedder tokenizes."""
        return {"texts": list(with_prompt(prompt or "", inputs))}

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Add "sentence_embedding", float32 (N, D)."""
        vectors = self.embedder.encode(features["texts"], progress=False, truncate=self.truncate)
        return _Features(features, sentence_embedding=torch.from_numpy(vectors))

    def on_model_ready(self, model: SentenceTransformer) -> None:
        """Set the model's maximum length, and the artefact's prompts unless the model has its own."""
        model.prompts |= {name: text for name, text in self.embedder.spec.prompts.items() if text}
        self.max_seq_length = self.embedder.spec.max_tokens

    def get_embedding_dimension(self) -> int:
        """Return the number of components of a vector."""
        return self.embedder.spec.dim

    def save(self, output_path: str, safe_serialization: bool = True) -> None:
        """Write this module's options, from which SentenceTransformer(folder) restores it."""
        self.save_config(output_path)
