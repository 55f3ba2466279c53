"""Checks the packed FP32 graph against its source: sentence-transformers, or the ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ov_minilm.convert.calibrate import samples
from ov_minilm.convert.source import Checkpoint
from ov_minilm.runtime.backend import ov
from ov_minilm.runtime.tokens import Tokens
from ov_minilm.spec import FloatArray, IntArray, Pooling

MIN_COSINE = 0.999999


def graph_vectors(
    model: ov.Model, rows: Sequence[dict[str, IntArray]], pooling: Pooling
) -> FloatArray:  # -> [N, D]
    """Run a checkpoint's ONNX graph on one text at a time; pool its hidden states [1, T, D]."""
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    names = {name for port in compiled.inputs for name in port.names}
    hidden = next(
        i for i, port in enumerate(compiled.outputs) if port.get_partial_shape().rank.get_length() == 3
    )
    vectors = []
    for sample in rows:
        ids = sample["input_ids"].astype(np.int64)
        fed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        request.infer({name: fed[name] for name in names & fed.keys()})
        states = request.get_output_tensor(hidden).data[0]
        vector = states.mean(0) if pooling == "mean" else states[0]
        vectors.append(vector / np.linalg.norm(vector))
    return np.array(vectors, np.float32)


def original_vectors(checkpoint: Checkpoint, texts: Sequence[str], tokens: Tokens) -> FloatArray:  # -> [N, D]
    """Encode with the source model in FP32: sentence-transformers on torch, or its ONNX graph on OpenVINO."""
    if checkpoint.onnx is not None:
        graph = ov.Core().read_model(checkpoint.onnx)
        return graph_vectors(graph, samples(texts, tokens), checkpoint.spec.pooling)
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(checkpoint.folder), device="cpu", local_files_only=True, model_kwargs={"dtype": "float32"}
    )
    vectors: FloatArray = model.encode(list(texts), show_progress_bar=False, normalize_embeddings=True)
    return vectors


def require_equal(name: str, expected: FloatArray, actual: FloatArray) -> float:
    """Return the lowest cosine between rows of two sets of unit vectors [N, D].

    Raises:
        RuntimeError: a cosine is under MIN_COSINE; the message names the reference and the text.
    """
    cosines = (expected.astype(np.float64) * actual).sum(1)
    lowest = int(cosines.argmin())
    if not cosines[lowest] >= MIN_COSINE:
        raise RuntimeError(
            f"FP32 differs from {name}: cosine {cosines[lowest]:.7f} at text {lowest}, limit {MIN_COSINE}"
        )
    return float(cosines[lowest])
