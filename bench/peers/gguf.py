# /// script
# dependencies = [
#   "gguf==0.19.0",
#   "safetensors==0.8.0",
# ]
# ///
"""Makes GGUF files in Q8_0 and F16 for the peer llama_cpp; this peer is not measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

VARIANTS = {}
PROVIDES = ("gguf",)
REQUIRES = ("checkpoint",)

FILES = {"Q8_0": "MOSTLY_Q8_0", "F16": "MOSTLY_F16"}


def prepare(models: dict[str, str]) -> None:
    """Write header, vocabulary and tensors as llama.cpp's own convert_hf_to_gguf.py does for BERT."""
    import gguf
    from safetensors.numpy import load_file

    folder = Path(models["checkpoint"])
    config = json.loads((folder / "config.json").read_text())
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    tensors = load_file(folder / "model.safetensors")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for name, file_type in FILES.items():
        writer = gguf.GGUFWriter(Path(models["gguf"], f"{name}.gguf"), "bert")
        writer.add_name("all-MiniLM-L6-v2")
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_layer_norm_eps(config["layer_norm_eps"])
        writer.add_causal_attention(False)
        writer.add_pooling_type(gguf.PoolingType.MEAN)
        writer.add_file_type(gguf.LlamaFileType[file_type])
        tokens = [_phantom_space(token) for token in sorted(vocabulary, key=vocabulary.__getitem__)]
        writer.add_tokenizer_model("bert")
        writer.add_token_type_count(config["type_vocab_size"])
        writer.add_token_list(tokens)
        special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        # 3 is the type of control tokens, 1 that of normal ones
        types = [3 if token in special or token.startswith("[unused") else 1 for token in tokens]
        writer.add_token_types(types)
        for number, add in (
            ("[PAD]", writer.add_pad_token_id),
            ("[UNK]", writer.add_unk_token_id),
            ("[CLS]", writer.add_bos_token_id),
            ("[SEP]", writer.add_eos_token_id),
            ("[SEP]", writer.add_sep_token_id),
            ("[MASK]", writer.add_mask_token_id),
        ):
            add(vocabulary[number])
        for source_name, tensor in tensors.items():
            if source_name.startswith("pooler") or source_name.endswith("position_ids"):
                continue
            ours = names.get_name(source_name, try_suffixes=(".weight", ".bias"))
            float32 = gguf.GGMLQuantizationType.F32
            if tensor.ndim == 2 and ours not in ("position_embd.weight", "token_types.weight"):
                float32 = gguf.GGMLQuantizationType[name]
            tensor = gguf.quants.quantize(tensor.astype(np.float32), float32)
            writer.add_tensor(ours, tensor, raw_dtype=float32)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _phantom_space(token: str) -> str:
    """Return a word piece as llama.cpp writes it: with U+2581 if it begins a word, otherwise without ##."""
    if token.startswith("[") and token.endswith("]"):
        return token
    return token.removeprefix("##") if token.startswith("##") else f"\u2581{token}"
