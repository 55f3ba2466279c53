"""The tensors of a BERT encoder: names, shapes, and reading them from files as FP32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ov_minilm.errors import SourceRefused
from ov_minilm.spec import FloatArray, ModelSpec

TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
NORMS = ("attention.output.LayerNorm", "output.LayerNorm")
LINEAR = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
RENAMED = {  # names in old checkpoints -> names in transformers
    "bert.": "",
    "LayerNorm.gamma": "LayerNorm.weight",
    "LayerNorm.beta": "LayerNorm.bias",
}
PARTS = (".weight", ".bias")
FLOATS = {"F32": "<f4", "F16": "<f2"}  # safetensors' name of a type -> numpy type


def tables() -> list[str]:
    """Return the names of the embedding tables."""
    return [f"embeddings.{table}" for table in TABLES]


def norms(layers: int) -> list[str]:
    """Return the names of the LayerNorms; each has a weight and a bias."""
    inner = [f"encoder.layer.{layer}.{name}" for layer in range(layers) for name in NORMS]
    return ["embeddings.LayerNorm", *inner]


def linear(layers: int) -> list[str]:
    """Return the names of the linear layers; each has a weight [O, C] and a bias [O]."""
    return [f"encoder.layer.{layer}.{name}" for layer in range(layers) for name in LINEAR]


def read(paths: Sequence[Path]) -> dict[str, FloatArray]:
    """Read every float tensor of safetensors files or of a pickle, with the names of transformers.

    Raises:
        SourceRefused: a file cannot be read; the message names it and the reason.
    """
    tensors = {}
    for path in paths:
        for name, tensor in (_pickled if path.suffix == ".bin" else _stored)(path):
            new = name
            for old_name, new_name in RENAMED.items():
                new = new.replace(old_name, new_name)
            if new in tensors:
                raise SourceRefused(f"{path}: {name} occurs twice in the checkpoint")
            tensors[new] = tensor
    return tensors


def check(path: Path, tensors: Mapping[str, FloatArray], spec: ModelSpec) -> None:
    """Raise SourceRefused if a tensor is missing, not finite, or has another shape than config.json says."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name in linear(spec.layers):
        outputs = spec.intermediate if name.endswith("intermediate.dense") else spec.dim
        inputs = spec.dim if "attention" in name or outputs != spec.dim else spec.intermediate
        shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    for name in norms(spec.layers):
        shapes |= {f"{name}.{part}": (spec.dim,) for part in ("weight", "bias")}
    rows = dict(zip(tables(), (spec.vocab_size, spec.max_tokens, 1), strict=True))
    missing = [name for name in (*(f"{table}.weight" for table in rows), *shapes) if name not in tensors]
    if missing:
        raise SourceRefused(
            f"{path}: {missing[0]} and {len(missing) - 1} more are missing; "
            f"config.json says {spec.layers} layers"
        )
    for table, min_rows in rows.items():
        shape = tensors[f"{table}.weight"].shape
        if len(shape) != 2 or shape[0] < min_rows or shape[1] != spec.dim:
            raise SourceRefused(
                f"{path}: {table} is {shape}; config.json says {spec.dim} components "
                f"and {min_rows} rows or more"
            )
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise SourceRefused(f"{path}: {name} is {tensors[name].shape}; config.json says {shape}")
    for name in (*(f"{table}.weight" for table in rows), *shapes):
        if not np.isfinite(tensors[name]).all():
            raise SourceRefused(f"{path}: {name} has NaN or infinite values")


def _stored(path: Path) -> Iterator[tuple[str, FloatArray]]:
    from safetensors import SafetensorError, deserialize

    try:
        items = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise SourceRefused(f"{path}: {error}") from error
    for name, item in items:
        kind, data = item["dtype"], item["data"]
        if kind == "BF16":  # a BF16 number is the upper half of an FP32 number
            values = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
        elif kind in FLOATS:
            values = np.frombuffer(data, FLOATS[kind]).astype(np.float32, copy=False)
        elif not name.endswith(PARTS):  # old checkpoints store position_ids, which are not weights
            continue
        else:
            raise _unsupported(path, name, kind)
        yield name, values.reshape(item["shape"])


def _pickled(path: Path) -> Iterator[tuple[str, FloatArray]]:
    """Read a file of torch.save with weights_only: a pickle that would run code is refused."""
    import pickle

    import torch

    try:
        items = torch.load(path, map_location="cpu", weights_only=True)
        for name, tensor in items.items():
            if tensor.dtype in (torch.float32, torch.float16, torch.bfloat16):
                yield name, tensor.detach().float().numpy()
            elif name.endswith(PARTS):
                raise _unsupported(path, name, str(tensor.dtype))
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise SourceRefused(
            f"{path}: not a plain file of tensors ({reason}); save it as safetensors"
        ) from error


def _unsupported(path: Path, name: str, kind: str) -> SourceRefused:
    return SourceRefused(f"{path}: {name} is {kind}; only FP32, FP16 and BF16 weights are converted")
