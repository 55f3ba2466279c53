"""ONNX Runtime by itself, FP32 and its dynamic INT8; Transformers.js runs the INT8 file too."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

BATCHES = (2, 4, 8, 16, 32, 64)
SORTED = True

FILES = {"int8": "model_quantized.onnx", "f32": "model.onnx"}


def prepare(models: dict[str, str]) -> None:
    """Quantize, with a scale for each weight channel, into the layout that Transformers.js reads."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    without = shutil.ignore_patterns("*.onnx")
    shutil.copytree(models["onnx"], models["onnx-int8"], ignore=without, dirs_exist_ok=True)
    quantize_dynamic(
        models["onnx"] + "/model.onnx",
        models["onnx-int8"] + "/model_quantized.onnx",
        per_channel=True,
        weight_type=QuantType.QInt8,
    )


def load(variant: str, models: dict[str, str], threads: int) -> Callable[[list[str]], Any]:
    """Open a session; tokenizing, pooling and unit length are the caller's here."""
    from onnxruntime import InferenceSession, SessionOptions
    from tokenizers import Tokenizer

    options = SessionOptions()
    options.intra_op_num_threads = threads
    folder = models["onnx-int8" if variant == "int8" else "onnx"]
    session = InferenceSession(f"{folder}/{FILES[variant]}", options, ["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()

    def encode(texts: list[str]) -> Any:  # -> [N, D]
        encoded = tokenizer.encode_batch(texts)
        ids, mask = (np.array([getattr(row, name) for row in encoded]) for name in ("ids", "attention_mask"))
        hidden = session.run(
            None, {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        )[0]  # [N, T, D]
        vectors = (hidden * mask[..., None]).sum(1)  # its length is all that the mean changes
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return encode


def facts(variant: str) -> dict[str, str]:
    """Versions."""
    return {name: version(name) for name in ("onnxruntime", "tokenizers")} | {
        "precision": "dynamic int8, f32 between" if variant == "int8" else variant
    }
