# /// script
# dependencies = [
#   "sentence-transformers==6.2.0",
#   "transformers==5.5.4",
#   "optimum-intel[openvino]==2.2.0",
#   "openvino==2026.4.1",
#   "nncf==3.4.0",
#   "datasets==4.8.5",
#   "torch==2.14.1",
#   "torchvision==0.29.1",
# ]
# ///
"""sentence-transformers on OpenVINO, with default settings, and quantized to its own static INT8."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

VARIANTS = {"openvino": "default settings, FP32 or BF16", "int8": "its own static INT8"}
PROVIDES = ("sentence-transformers-openvino",)
REQUIRES = ("checkpoint", "texts")
BATCHES = (4, 8, 16, 32, 64)
SORTED = False  # encode sorts by length itself

MODEL = "sentence-transformers-openvino"
FILES = {  # file names chosen by the export
    "openvino": "openvino/openvino_model.xml",
    "int8": "openvino/openvino_model_qint8_quantized.xml",
}
# By default, the float layers of the INT8 model run in BF16 on CPUs with AMX. Some texts of a padded batch
# then get wrong vectors: cosine to FP32 down to 0.57, mean 0.98. In FP32 the lowest cosine is 0.99.
SETTINGS = {"openvino": {}, "int8": {"INFERENCE_PRECISION_HINT": "f32"}}

_precision_used: dict[str, str] = {}


def prepare(models: dict[str, str]) -> None:
    """Export, then quantize with defaults and our calibration texts: the library would download others."""
    from sentence_transformers import SentenceTransformer, export_static_quantized_openvino_model

    model = SentenceTransformer(models["checkpoint"], backend="openvino", local_files_only=True)
    model.save_pretrained(models[MODEL])
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(models["texts"]).read_text(encoding="utf-8").splitlines()
        rows = [json.dumps({"sentence": text}) for text in texts if text]
        Path(folder, "train.jsonl").write_text("\n".join(rows), encoding="utf-8")
        export_static_quantized_openvino_model(
            model, None, models[MODEL], folder, "default", "train", "sentence"
        )


def load(variant: str, models: dict[str, str], threads: int) -> Callable[[list[str], int], Any]:
    """Open the graph of the variant."""
    from sentence_transformers import SentenceTransformer

    settings = SETTINGS[variant] | {"INFERENCE_NUM_THREADS": str(threads)}
    model = SentenceTransformer(
        models[MODEL],
        backend="openvino",
        local_files_only=True,
        model_kwargs={"file_name": FILES[variant], "ov_config": settings},
    )
    model.max_seq_length = 256
    compiled = model.transformers_model.request
    _precision_used["precision"] = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    return lambda texts, batch: model.encode(
        texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False
    )


def versions(_: str) -> dict[str, str]:
    """Return the versions, and the float type that OpenVINO chose."""
    return {
        name: version(name) for name in ("sentence-transformers", "optimum-intel", "openvino")
    } | _precision_used
