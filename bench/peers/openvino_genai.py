# /// script
# dependencies = [
#   "openvino-genai==2026.4.1.0",
#   "openvino==2026.4.1",
# ]
# ///
"""openvino-genai's TextEmbeddingPipeline, with tokenizer, model and pooling in C++."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

VARIANTS = {"pipeline": "openvino-genai's TextEmbeddingPipeline, default settings"}
PROVIDES = ()
REQUIRES = ("openvino",)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
SORTED = True


def load(_: str, models: dict[str, str], threads: int) -> Callable[[list[str]], Any]:
    """Open the exported model with mean pooling, as the model was trained; the default is CLS."""
    from openvino_genai import TextEmbeddingPipeline

    config = TextEmbeddingPipeline.Config(
        pooling_type=TextEmbeddingPipeline.PoolingType.MEAN, normalize=True, max_length=256
    )
    pipeline = TextEmbeddingPipeline(models["openvino"], "CPU", config, INFERENCE_NUM_THREADS=threads)
    return pipeline.embed_documents


def versions(_: str) -> dict[str, str]:
    """Return the versions, and the CPU plugin's default precision; the pipeline does not show its own."""
    import openvino

    precision = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").to_string()
    return {name: version(name) for name in ("openvino-genai", "openvino")} | {"precision": precision}
