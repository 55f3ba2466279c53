"""sentence-transformers: a class with the library's methods, without torch.

The class is not a subclass of the library's class, so isinstance checks fail.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import InitVar, dataclass
from functools import partialmethod
from importlib import import_module
from typing import Any

from ov_minilm.errors import check_choice
from ov_minilm.integrations import Adapter, missing, refuse, with_prompt
from ov_minilm.runtime.output import Dtype
from ov_minilm.spec import FloatArray


@dataclass(eq=False)
class SentenceTransformer(Adapter):
    """Makes and compares vectors, always of length one. batch_size has no effect: texts are packed."""

    truncate_dim: int | None = None
    model_name_or_path: InitVar[str | None] = None  # the library's name of `model`
    max_seq_length = property(lambda self: self.embedder.spec.max_tokens)

    # fmt: off
    def encode(
        self, sentences: str | Iterable[str], prompt_name: str | None = None, prompt: str | None = None,
        batch_size: int = 32, show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding", precision: Dtype = "float32",
        convert_to_numpy: bool = True, convert_to_tensor: bool = False, device: object = None,
        normalize_embeddings: bool = False, truncate_dim: int | None = None, **other: object,
    ) -> Any:
        """Return float32 (D,) for a str, (N, D) for N sentences: numpy, or torch with convert_to_tensor."""
        refuse("encode takes no", {name: value for name, value in other.items() if value is not None})
        if output_value != "sentence_embedding":
            raise ValueError(f"no {output_value}: this model gives vectors of texts, not of tokens")
        if device is not None:
            check_choice("device", str(device).upper(), [self.embedder.info.device])
        check_choice("prompt_name", prompt_name or "query", list(self.prompts))
        start = self.prompts.get(prompt_name or "", "") if prompt is None else prompt
        dimensions = self.truncate_dim if truncate_dim is None else truncate_dim
        texts = with_prompt(start, [sentences] if isinstance(sentences, str) else sentences)
        vectors: Any = self.embedder.encode(
            texts, progress=show_progress_bar, truncate=self.truncate, dimensions=dimensions, dtype=precision,
        )
        if convert_to_tensor or not convert_to_numpy:
            vectors = import_module("torch").from_numpy(vectors)
            vectors = vectors if convert_to_tensor else list(vectors)
        return vectors[0] if isinstance(sentences, str) else vectors
    # fmt: on

    encode_query = partialmethod(encode, prompt_name="query")
    encode_document = partialmethod(encode, prompt_name="document")

    def get_sentence_embedding_dimension(self) -> int:
        """Return the number of components of a vector."""
        return self.truncate_dim or self.embedder.spec.dim

    get_embedding_dimension = get_sentence_embedding_dimension

    def similarity(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """Return the cosines (N, M), as a numpy array, of a (N, D) and b (M, D)."""
        return self.embedder.similarity(a, b)

    __getattr__ = missing
