# /// script
# dependencies = [
#   "onnxruntime==1.32.0",
#   "onnx==1.23.2",
#   "tokenizers==0.22.2",
# ]
# ///
"""ONNX Runtime in FP32, fused FP32, dynamic and static INT8; also makes the INT8 file of transformers_js."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

VARIANTS = {
    "int8": "dynamic INT8, fused",
    "static": "static INT8 (QDQ)",
    "f32": "FP32",
    "fused": "FP32, fused",
}
PROVIDES = ("onnx-int8", "onnx-static")
REQUIRES = ("onnx", "onnx-fused", "texts")
BATCHES = (2, 4, 8, 16, 32, 64)
CONCURRENT = True  # several threads may run one session at the same time
SORTED = True

FILES = {  # variant -> folder and file
    "int8": ("onnx-int8", "fused.onnx"),
    "static": ("onnx-static", "model.onnx"),
    "f32": ("onnx", "model.onnx"),
    "fused": ("onnx-fused", "model.onnx"),
}
CALIBRATION_TEXTS = 100


def prepare(models: dict[str, str]) -> None:
    """Quantize with one scale per weight channel: the plain graph for transformers_js, and the fused one."""
    import onnx
    from onnx import TensorProto
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    plain, fused = models["onnx"] + "/model.onnx", models["onnx-fused"] + "/model.onnx"
    for made in ("onnx-int8", "onnx-static"):
        without = shutil.ignore_patterns("*.onnx")
        shutil.copytree(models["onnx"], models[made], ignore=without, dirs_exist_ok=True)
    settings: dict[str, Any] = {"per_channel": True, "weight_type": QuantType.QInt8}
    quantize_dynamic(plain, models["onnx-int8"] + "/model_quantized.onnx", **settings)
    floats = {"DefaultTensorType": TensorProto.FLOAT}  # ONNX cannot infer types through fused operators
    quantize_dynamic(fused, models["onnx-int8"] + "/fused.onnx", extra_options=floats, **settings)

    class Texts(CalibrationDataReader):
        def __init__(self) -> None:
            tokenizer = _tokenizer(models["onnx"])
            lines = Path(models["texts"]).read_text(encoding="utf-8").splitlines()
            self._feeds = iter([_feed(tokenizer.encode_batch([line])) for line in lines[:CALIBRATION_TEXTS]])

        def get_next(self) -> Any:
            return next(self._feeds, None)

    inferred = models["onnx-static"] + "/inferred.onnx"
    quant_pre_process(plain, inferred, skip_symbolic_shape=True)
    graph = onnx.load(inferred).graph
    weights = {tensor.name for tensor in graph.initializer}
    scores = [n.name for n in graph.node if n.op_type == "MatMul" and not weights & set(n.input)]
    # if these operators are quantized too, the cosine to FP32 is 0.77
    settings |= {"op_types_to_quantize": ["MatMul"], "nodes_to_exclude": scores}
    quantize_static(inferred, models["onnx-static"] + "/model.onnx", Texts(), **settings)


def _tokenizer(folder: str) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    return tokenizer


def _feed(encoded: list[Any]) -> dict[str, Any]:
    ids, mask = (np.array([getattr(row, name) for row in encoded]) for name in ("ids", "attention_mask"))
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def load(variant: str, models: dict[str, str], threads: int) -> Callable[[list[str]], Any]:
    """Open a session; tokenizing, pooling and normalization are done here, outside of the library."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = threads
    folder, file = FILES[variant]
    session = InferenceSession(f"{models[folder]}/{file}", options, ["CPUExecutionProvider"])
    tokenizer = _tokenizer(models[folder])

    def encode(texts: list[str]) -> Any:  # -> [N, D]
        feed = _feed(tokenizer.encode_batch(texts))
        hidden = session.run(None, feed)[0]  # [N, T, D]
        # a sum is enough, because the next line normalizes it
        vectors = (hidden * feed["attention_mask"][..., None]).sum(1)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return encode


def versions(variant: str) -> dict[str, str]:
    """Return the versions of the libraries."""
    return {name: version(name) for name in ("onnxruntime", "tokenizers")} | {"precision": VARIANTS[variant]}
