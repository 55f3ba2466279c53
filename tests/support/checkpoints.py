"""Small BERT checkpoints with random weights, in the layout of published sentence encoders.

`python checkpoints.py OUT KIND…` writes, for each kind, its checkpoint, the converted artefacts, and the
vectors and graphs that torch and its libraries make of it. They import slowly, so tests run it as a process.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from ov_minilm.artefact.golden import TEXT
from ov_minilm.convert.tensors import linear, norms
from ov_minilm.spec import FloatArray, Pooling

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!-'"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = tuple(
    dict.fromkeys((*SPECIAL_TOKENS, *CHARACTERS, *("##" + c for c in CHARACTERS), *TEXT[:-1].lower().split()))
)
MODULES = ("Transformer", "Pooling", "Normalize")
TEXTS = ["", "a", "One text.", "Ünïcode ΣΟΦΟΣ — dashes", "xxxxx"]
TEXTS += ["word " * words for words in (3, 15, 40, 110, 300)]
CALIBRATION = [f"{'some words of text, ' * (n % 9)}number {n}" for n in range(100)]


@dataclass(frozen=True)
class Kind:
    """The properties in which published encoders differ."""

    layers: int = 2
    width: int = 48
    heads: int = 4
    pooling: Pooling | Literal["max"] = "mean"
    max_tokens: int = 128
    modules: tuple[str, ...] = MODULES
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"  # dtype of the weights in model.safetensors
    vocabulary: bool = False  # vocab.txt instead of tokenizer.json
    lower: bool = False  # sentence-transformers lowercases the texts
    cased: bool = False  # the tokenizer keeps capitals
    onnx: bool = False  # a folder as for Transformers.js, without files of sentence-transformers
    arguments: dict[str, bool] = field(default_factory=dict)  # arguments of the model's class
    prompts: dict[str, str] = field(default_factory=dict)


NO_POOLER = {"add_pooling_layer": False}
KINDS = {
    "all-MiniLM-L12": Kind(layers=3),
    "multi-qa-MiniLM": Kind(max_tokens=512),
    "paraphrase-MiniLM": Kind(modules=MODULES[:2], vocabulary=True, dtype="bfloat16"),
    "bge": Kind(pooling="cls", max_tokens=512, lower=True),
    "e5": Kind(width=64, heads=2, max_tokens=512, dtype="float16"),
    "gte": Kind(layers=1, max_tokens=512),
    "Xenova": Kind(pooling="cls", max_tokens=512, onnx=True),
    "arctic": Kind(pooling="cls", max_tokens=100, arguments=NO_POOLER, prompts={"query": "find this: "}),
}
# the kinds that differ most: they are tested without -m slow
FAST_KINDS = ("paraphrase-MiniLM", "Xenova", "arctic")


def write(kind: Kind, folder: Path) -> None:
    """Write a checkpoint in the layout of sentence-transformers 2, as most are published."""
    from tokenizers import BertWordPieceTokenizer

    config = {"architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu"}
    sizes = {"hidden_size": kind.width, "intermediate_size": 3 * kind.width, "vocab_size": len(WORDS)}
    sizes |= {"num_hidden_layers": kind.layers, "num_attention_heads": kind.heads}
    sizes |= {"max_position_embeddings": 512, "type_vocab_size": 2}
    modes = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max", "mean_sqrt_len_tokens": "sqrt"}
    pooling = {f"pooling_mode_{name}": kind.pooling == mode for name, mode in modes.items()}
    lengths = {"max_seq_length": kind.max_tokens, "do_lower_case": kind.lower}
    folders = [f"{index}_{name}" if index else "" for index, name in enumerate(kind.modules)]
    for name in ("1_Pooling", "2_Normalize"):
        (folder / name).mkdir(parents=True)
    for name, values in {
        "config.json": config | sizes | {"torch_dtype": kind.dtype},
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "model_max_length": 512},
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
            for i, (path, name) in enumerate(zip(folders, kind.modules, strict=True))
        ],
        "sentence_bert_config.json": lengths | {"model_args": kind.arguments},
        "1_Pooling/config.json": {"word_embedding_dimension": kind.width} | pooling,
        "config_sentence_transformers.json": {"prompts": kind.prompts, "default_prompt_name": None},
    }.items():
        (folder / name).write_text(json.dumps(values, indent=1), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    if not kind.vocabulary:
        words = {word: i for i, word in enumerate(WORDS)}
        BertWordPieceTokenizer(words, lowercase=not kind.cased).save(str(folder / "tokenizer.json"))
    save(draw(kind), folder / "model.safetensors", kind.dtype)


def save(tensors: Mapping[str, FloatArray], path: Path, dtype: str = "float32") -> None:
    """Write tensors as a safetensors file."""
    import ml_dtypes  # noqa: F401  # registers bfloat16 in numpy
    from safetensors.numpy import save_file

    save_file({name: tensor.astype(dtype) for name, tensor in tensors.items()}, path, {"format": "pt"})


def draw(kind: Kind) -> dict[str, FloatArray]:
    """Draw random weights, so wide that attention and biases matter and INT8 is near FP32."""
    rng, width, inner = np.random.default_rng(0), kind.width, 3 * kind.width
    drawn = {
        f"embeddings.{name}_embeddings.weight": rng.normal(0, 0.3, (rows, width))
        for name, rows in {"word": len(WORDS), "position": 512, "token_type": 2}.items()
    }
    for name in norms(kind.layers):
        drawn[f"{name}.weight"], drawn[f"{name}.bias"] = rng.normal(1, 0.1, width), rng.normal(0, 0.1, width)
    for name in linear(kind.layers):
        outputs = inner if name.endswith("intermediate.dense") else width
        inputs = inner if name.endswith(".output.dense") and "attention" not in name else width
        drawn[f"{name}.weight"] = rng.normal(0, inputs**-0.5, (outputs, inputs))
        drawn[f"{name}.bias"] = rng.normal(0, 0.3, outputs)
    return {name: tensor.astype(np.float32) for name, tensor in drawn.items()}


def encode_with_sentence_transformers(kind: Kind, checkpoint: Path, saved: Path) -> dict[str, FloatArray]:
    """Return the vectors [N, D] of TEXTS by prompt name ("plain": none); save the checkpoint again."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(checkpoint), device="cpu", model_kwargs={"dtype": "float32"})
    model.save(str(saved))
    return {
        name or "plain": model.encode(TEXTS, prompt_name=name, normalize_embeddings=True)
        for name in (None, *kind.prompts)
    }


def export(checkpoint: Path, path: Path, *, fold: bool = True) -> None:
    """Export to ONNX with torch's older exporter, as most publishers do; `fold` removes transposes."""
    import torch
    from transformers import BertModel

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            options = {"add_pooling_layer": False, "attn_implementation": "eager", "dtype": "float32"}
            self.model = BertModel.from_pretrained(checkpoint, **options)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
            bias = (1.0 - mask[:, None, None, :]) * -1e9  # tracing fails in transformers' function
            states = self.model(input_ids=ids, attention_mask=bias, token_type_ids=types).last_hidden_state
            return cast("torch.Tensor", states)

    path.parent.mkdir(parents=True, exist_ok=True)
    ones = torch.ones((2, 8), dtype=torch.long)
    inputs, outputs = ["input_ids", "attention_mask", "token_type_ids"], ["last_hidden_state"]
    axes = {name: {0: "batch", 1: "tokens"} for name in (*inputs, *outputs)}
    options: dict[str, Any] = {"input_names": inputs, "output_names": outputs, "dynamic_axes": axes}
    options |= {"do_constant_folding": fold, "dynamo": False}
    torch.onnx.export(Encoder().eval(), (ones, ones, 0 * ones), str(path), **options)


def as_transformers_js(checkpoint: Path, folder: Path) -> Path:
    """Write a checkpoint as a Transformers.js folder; return the path of the graph."""
    export(checkpoint, folder / "onnx/model.onnx")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(checkpoint / name, folder / name)
    return folder / "onnx/model.onnx"


def export_by_optimum(checkpoint: str, path: str) -> None:
    """Write the graph that optimum-intel traces from torch's code."""
    import openvino
    from optimum.intel import OVModelForFeatureExtraction

    options: dict[str, Any] = {"export": True, "compile": False, "dtype": "float32", "load_in_8bit": False}
    made = OVModelForFeatureExtraction.from_pretrained(checkpoint, local_files_only=True, **options)
    openvino.save_model(made.model, path, compress_to_fp16=False)


def main(out: Path, names: list[str]) -> None:
    """Write OUT/KIND for each kind.

    It has checkpoint/; saved/, as sentence-transformers saves it; fp32/ and int8/; the vectors, plain.npy
    and a file for each prompt; for ONNX, onnx-checkpoint/ and unfolded.onnx.
    """
    from ov_minilm.artefact.drift_record import Gate
    from ov_minilm.artefact.manifest import file_facts
    from ov_minilm.convert import source
    from ov_minilm.convert.build import build
    from ov_minilm.drift.evaluation import find

    calibration, texts = out / "calibration.txt", out / "texts.txt"
    calibration.write_text("\n".join(CALIBRATION) + "\n", encoding="utf-8")
    texts.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    evaluation = find([], [texts])  # for random weights, too few texts to compare INT8 with a limit
    for name in names:
        kind, folder = KINDS[name], out / name / "checkpoint"
        write(kind, folder)
        for prompt, vectors in encode_with_sentence_transformers(kind, folder, out / name / "saved").items():
            np.save(out / name / f"{prompt}.npy", vectors)
        weights, pooling = folder / source.WEIGHTS, None
        if kind.onnx:
            export(folder, out / name / "unfolded.onnx", fold=False)
            folder = out / name / "onnx-checkpoint"
            weights = as_transformers_js(out / name / "checkpoint", folder)
            pooling = cast("Pooling", kind.pooling)
        checkpoint = source.find(str(folder), None, file_facts(weights).sha256, pooling)
        options: dict[str, Any] = {"calibration": calibration, "evaluation": evaluation}
        build(checkpoint, out / name, limits=Gate(), say=print, **options)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
