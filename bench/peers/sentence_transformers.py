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
"""sentence-transformers with default settings: PyTorch, FP32, its own sorting and batching."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

VARIANTS = {
    "torch": "sentence-transformers on PyTorch",
    "compile": "sentence-transformers on PyTorch, torch.compile",
}
PROVIDES = ()
REQUIRES = ("checkpoint",)
BATCHES = (8, 16, 32, 64, 128)
SORTED = False  # encode sorts by length itself


def load(variant: str, models: dict[str, str], threads: int) -> Callable[[list[str], int], Any]:
    """Open the checkpoint."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(models["checkpoint"], device="cpu", local_files_only=True)
    model.max_seq_length = 256
    if variant == "compile":
        model[0].auto_model = torch.compile(model[0].auto_model, dynamic=True)
    return lambda texts, batch: model.encode(
        texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False
    )


def versions(_: str) -> dict[str, str]:
    """Return the versions, and the instruction set that PyTorch uses."""
    import torch

    found = {name: version(name) for name in ("sentence-transformers", "transformers", "torch")}
    return found | {"precision": "f32", "isa": torch.backends.cpu.get_cpu_capability()}
