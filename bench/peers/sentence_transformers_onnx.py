# /// script
# dependencies = [
#   "sentence-transformers==5.7.0",
#   "transformers==4.57.6",
#   "optimum-onnx[onnxruntime]==0.1.0",
#   "onnxruntime==1.32.0",
#   "onnx==1.23.2",
#   "torch==2.14.1",
# ]
# ///
"""sentence-transformers on ONNX Runtime; it also exports the ONNX files that other peers run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

VARIANTS = {"int8": "sentence-transformers on ONNX Runtime, its own dynamic INT8"}
PROVIDES = ("onnx", "onnx-fused", "sentence-transformers-onnx")
REQUIRES = ("checkpoint",)
BATCHES = (4, 8, 16, 32, 64)
SORTED = False  # encode sorts by length itself

QUANTIZED = "onnx/model_qint8_avx512_vnni.onnx"  # file name chosen by the export


def prepare(models: dict[str, str]) -> None:
    """Export three ONNX files: plain, fused, and quantized by sentence-transformers."""
    from onnxruntime.transformers.optimizer import optimize_model
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    model = SentenceTransformer(models["checkpoint"], backend="onnx", local_files_only=True)
    model.save_pretrained(models["sentence-transformers-onnx"])
    export_dynamic_quantized_onnx_model(model, "avx512_vnni", models["sentence-transformers-onnx"])
    without = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(models["checkpoint"], models["onnx"], ignore=without, dirs_exist_ok=True)
    shutil.copy(models["sentence-transformers-onnx"] + "/onnx/model.onnx", models["onnx"])
    shutil.copytree(models["checkpoint"], models["onnx-fused"], ignore=without, dirs_exist_ok=True)
    fused = optimize_model(models["onnx"] + "/model.onnx", "bert", num_heads=12, hidden_size=384)
    fused.save_model_to_file(models["onnx-fused"] + "/model.onnx")


def load(_: str, models: dict[str, str], threads: int) -> Callable[[list[str], int], Any]:
    """Open the quantized file."""
    from onnxruntime import SessionOptions
    from sentence_transformers import SentenceTransformer

    options = SessionOptions()
    options.intra_op_num_threads = threads
    model = SentenceTransformer(
        models["sentence-transformers-onnx"],
        backend="onnx",
        local_files_only=True,
        model_kwargs={
            "file_name": QUANTIZED,
            "provider": "CPUExecutionProvider",
            "session_options": options,
        },
    )
    model.max_seq_length = 256
    return lambda texts, batch: model.encode(
        texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False
    )


def versions(_: str) -> dict[str, str]:
    """Return the versions of the libraries."""
    names = ("sentence-transformers", "optimum-onnx", "onnxruntime")
    return {name: version(name) for name in names} | {"precision": "dynamic int8, f32 between"}
