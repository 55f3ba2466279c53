"""sentence-transformers: encode with its arguments, without it and without torch. No extra."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ov_minilm.integrations import Adapter
from ov_minilm.output import Dtype
from ov_minilm.spec import MINILM, FloatArray


@dataclass(eq=False)
class SentenceTransformer(Adapter):
    """Has the methods of SentenceTransformer("all-MiniLM-L6-v2") that make vectors and compare them.

    normalize_embeddings changes nothing: vectors have length one, cut ones too. Nor does batch_size: texts
    are packed. int8 has fixed ranges, not the batch's. For isinstance, see sentence_transformers_module.
    """

    truncate_dim: int | None = None
    max_seq_length, similarity_fn_name = MINILM.max_tokens, "cosine"

    # fmt: off
    def encode(
        self, sentences: str | Iterable[str], prompt_name: str | None = None, prompt: str | None = None,
        batch_size: int = 32, show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding", precision: Dtype = "float32",
        convert_to_numpy: bool = True, convert_to_tensor: bool = False, device: object = None,
        normalize_embeddings: bool = False, truncate_dim: int | None = None,
    ) -> Any:
        """Return (384,) for a str, (N, 384) for N sentences: numpy, or torch where it is asked for."""
        if output_value != "sentence_embedding":
            raise ValueError(f"no {output_value}: the graph pools, vectors of tokens never leave it")
        if device is not None and str(device).upper() != self.device:
            raise ValueError(f"device={device}: this model runs on {self.device}, chosen when it was made")
        if prompt_name not in (None, "query", "document"):  # empty prompts, as in the library
            raise ValueError(f"prompt_name={prompt_name!r}: this model has none, give the text as prompt")
        texts = [sentences] if isinstance(sentences, str) else sentences
        vectors = self.embedder.encode(
            (prompt + text for text in texts) if prompt else texts,
            progress=show_progress_bar, truncate=self.truncate,
            dimensions=self.truncate_dim if truncate_dim is None else truncate_dim, dtype=precision,
        )
        if convert_to_tensor or not convert_to_numpy:
            vectors = import_module("torch").from_numpy(vectors)
        return vectors[0] if isinstance(sentences, str) else vectors
    # fmt: on

    encode_query = encode_document = encode

    def get_sentence_embedding_dimension(self) -> int:
        """Return how many components a vector has."""
        return self.truncate_dim or MINILM.dim

    def similarity(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """Return numpy's cosines (N, M) of a (N, D) and b (M, D)."""
        return self.embedder.similarity(a, b)
