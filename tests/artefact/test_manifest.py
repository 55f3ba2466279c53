"""A wrong manifest is refused; files that do not match the manifest are refused too."""

import dataclasses
import functools
import hashlib
import json
import operator
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ov_minilm.artefact.drift_record import Cosine, Drift, Gate, Sts
from ov_minilm.artefact.golden import Golden
from ov_minilm.artefact.manifest import (
    GRAPH,
    NAME,
    SHIPPED,
    TOKENIZER,
    WEIGHTS,
    Manifest,
    Recipe,
    Source,
    file_facts,
    fingerprint,
)
from ov_minilm.errors import FileMismatch, ManifestInvalid
from ov_minilm.spec import MINILM, Grid

CONTENT = {GRAPH: b"<net/>", WEIGHTS: bytes(range(256)) * 5000, TOKENIZER: b'{"version": "1.0"}'}
BAD_BYTE = "invalid start byte"  # end of Python's message
GRAPH_FACTS = {"bytes": 6, "sha256": hashlib.sha256(CONTENT[GRAPH]).hexdigest()}


def describe(folder: Path, **changes: Any) -> Manifest:
    """Return a manifest of the three files in a folder, with a value in every field."""
    files = {name: file_facts(folder / name) for name in CONTENT}
    cosine, sts = Cosine(100, 0.999, 0.998, 0.99), Sts(1500, 86.7, 86.6, 85.1, 85.0, -0.2, 0.1)
    manifest = Manifest(
        format=1,
        weights="int8",
        spec=MINILM,
        source=Source("naïve/model", "0.1.0", "ab" * 32),
        recipe=Recipe(0.8, "minmax", 5, 128, "calibration.txt", "cd" * 32, 387),
        grids=(Grid(2, 256), Grid(1, 256)),
        tools={"openvino": "2026.1"},
        files=files,
        gate=Gate(0.9975, 0.95, 0.1),
        drift=(Drift("f32", "conv", {"1-64": cosine}, {"passages": 0.97}, {"stsb_dev": sts}),),
        golden=Golden.of("a text", [101, 1037, 102], np.full(384, 384**-0.5, np.float32)),
        fingerprint=fingerprint(changes.get("spec", MINILM), files),
    )
    return dataclasses.replace(manifest, **changes)


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    """A complete folder: three small files and their manifest."""
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    describe(tmp_path).write(tmp_path)
    return tmp_path


def edit(folder: Path, changes: dict[str, Any]) -> None:
    """Set values in the manifest's JSON by path, such as "spec/dim"; `...` removes a value."""
    raw = json.loads((folder / NAME).read_text(encoding="utf-8"))
    for path, value in changes.items():
        *parent_keys, last_key = (int(key) if key.isdigit() else key for key in path.split("/"))
        target = functools.reduce(operator.getitem, parent_keys, raw)
        target[last_key] = value
        if value is ...:
            del target[last_key]
    (folder / NAME).write_text(json.dumps(raw), encoding="utf-8")


@pytest.mark.parametrize("changes", [{}, {"weights": "f32", "recipe": None, "gate": None, "drift": ()}])
def test_a_written_manifest_is_read_back_equal(artefact: Path, changes: dict[str, Any]) -> None:
    """A manifest is read back equal with and without its optional parts; the file is indented UTF-8."""
    written = describe(artefact, **changes)
    written.write(artefact)

    assert written == Manifest.read(artefact)
    text = (artefact / NAME).read_bytes().decode("utf-8")
    assert written.to_json() + "\n" == text
    assert '\n    "name": "naïve/model",\n' in text


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("extra", 1, "manifest: unknown extra"),
        ("tools", ..., "manifest: missing tools"),
        ("spec/heads", ..., "manifest.spec: missing heads"),
        ("grids/1/deep", 1, "manifest.grids[1]: unknown deep"),
        ("drift/0/sts/stsb_dev/pairs", ..., "manifest.drift[0].sts.stsb_dev: missing pairs"),
        ("spec/dim", "384", "manifest.spec.dim: str, expected int"),
        ("spec/dim", 384.0, "manifest.spec.dim: float, expected int"),
        ("spec/layers", True, "manifest.spec.layers: bool, expected int"),
        ("spec/pooling", "max", "manifest.spec.pooling: 'max', expected one of ('mean', 'cls')"),
        ("spec/prompts", {"query": 1}, "manifest.spec.prompts.query: int, expected str"),
        ("gate/overlap", True, "manifest.gate.overlap: bool, expected float"),
        ("tools/openvino", 2026, "manifest.tools.openvino: int, expected str"),
        ("grids", {}, "manifest.grids: dict, expected list"),
        ("tools", [], "manifest.tools: list, expected dict"),
        ("source", None, "manifest.source: NoneType, expected dict"),
        ("recipe", [], "manifest.recipe: list, expected dict"),
        ("weights", "int4", "manifest.weights: 'int4', expected one of ('int8', 'f32')"),
        ("format", True, "manifest.format: bool, expected int"),
        ("format", 2, "format 2, this version reads 1"),
        ("format", ..., "format None, this version reads 1"),
        ("files/model.bin", ..., "files: expected model.xml, model.bin, tokenizer.json"),
        ("files/other", GRAPH_FACTS, "files: expected model.xml, model.bin, tokenizer.json"),
        ("golden/vector", "!", "golden.vector: not base64 of float16 ("),
        ("golden/vector", "", "golden.vector: its length is not 1"),
        ("golden/vector", "ADw=", "golden.vector: 1 components, expected 384"),
        ("golden/ids", [101] * 257, "golden.ids: 257 tokens, the narrowest grid holds 2 to 256"),
        ("golden/ids", [101], "golden.ids: 1 tokens, the narrowest grid holds 2 to 256"),
        ("grids/0/rows", 0, "grid 0x256 with 32 slots; the graph has 32 slots a row"),
        ("grids/0/slots", 31, "grid 2x256 with 31 slots; the graph has 32 slots a row"),
        ("grids/0/slots", 33, "grid 2x256 with 33 slots; the graph has 32 slots a row"),
        ("grids/1/width", 1, "grid 1x1 with 32 slots; the graph has 32 slots a row"),
        ("grids/1", ..., "no single-row grid holds 256 tokens"),
        ("grids/0", ..., "no many-row grid holds 256 tokens"),
        ("grids/0/width", 255, "no many-row grid holds 256 tokens"),
        ("fingerprint", "0" * 16, "fingerprint does not belong to these files"),
        ("spec/dim", 768, "fingerprint does not belong to these files"),
        (NAME, b"", "not JSON in UTF-8: Expecting value: line 1 column 1 (char 0)"),
        (NAME, b"\xff", "not JSON in UTF-8: 'utf-8' codec can't decode byte 0xff in position 0: " + BAD_BYTE),
        (NAME, b"[]", "manifest: list, expected dict"),
        (NAME, ..., "not found; is this a folder written by `ov-minilm convert`?"),
    ],
)
def test_a_manifest_that_is_not_exact_is_refused(
    artefact: Path, path: str, value: object, reason: str
) -> None:
    """The error has path and reason of an unknown, missing, mistyped or inconsistent field."""
    if path != NAME:
        edit(artefact, {path: value})
    elif isinstance(value, bytes):
        (artefact / NAME).write_bytes(value)
    else:
        (artefact / NAME).unlink()

    with pytest.raises(ManifestInvalid) as caught:
        Manifest.read(artefact)
    # the message ends with Python's own error about base64, which depends on the version
    assert (artefact / NAME, reason) == (caught.value.path, caught.value.reason[: len(reason)])
    with pytest.raises(ManifestInvalid):
        Manifest.read(artefact / GRAPH)  # the path of a file instead of a folder


def test_the_smallest_valid_manifest_is_read(artefact: Path) -> None:
    """A grid of two tokens, a golden text that fills it, and an int for a float are valid."""
    grids = (Grid(1, 2), Grid(2, 256), Grid(1, 257))
    raw = [dataclasses.asdict(grid) for grid in grids]
    edit(artefact, {"grids": raw, "golden/ids": [101, 102], "gate/cosine_mean": 1})

    actual = Manifest.read(artefact)

    assert (grids, (101, 102)) == (actual.grids, actual.golden.ids)
    assert actual.gate is not None
    assert (1.0, float) == (actual.gate.cosine_mean, type(actual.gate.cosine_mean))


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_refused_by_name(artefact: Path, name: str, damage: str) -> None:
    """If a file is changed, shorter or missing, the error has its path and both sizes or hashes."""
    description, path, content = describe(artefact), artefact / name, CONTENT[name]
    damaged = content[:-1] + bytes([content[-1] ^ 1]) if damage == "flip" else content[:-1]
    path.write_bytes(damaged)
    if damage == "remove":
        path.unlink()
    sizes = f"{len(content)} bytes", "no file" if damage == "remove" else f"{len(damaged)} bytes"
    hashes = [f"sha256 {hashlib.sha256(data).hexdigest()[:16]}…" for data in (content, damaged)]

    with pytest.raises(FileMismatch) as caught:
        Manifest.read(artefact)
    actual = caught.value.path, caught.value.expected, caught.value.found
    assert (path, *(hashes if damage == "flip" else sizes)) == actual
    if damage != "remove":  # a manifest that describes the damaged files has another fingerprint
        assert description.fingerprint != describe(artefact).fingerprint
        describe(artefact, fingerprint=description.fingerprint).write(artefact)
        with pytest.raises(ManifestInvalid, match="fingerprint"):
            Manifest.read(artefact)


def test_the_fingerprint_depends_on_every_field_of_the_spec(artefact: Path) -> None:
    """A fingerprint has 16 hex digits and ignores the order of files; the shipped model's is fixed."""
    files = describe(artefact).files
    others: list[dict[str, Any]] = [{field.name: 7} for field in dataclasses.fields(MINILM)]
    actual = {fingerprint(dataclasses.replace(MINILM, **other), files) for other in ({}, *others)}

    assert 1 + len(others) == len(actual)
    assert all(re.fullmatch("[0-9a-f]{16}", digits) for digits in actual)
    assert fingerprint(MINILM, files) == fingerprint(MINILM, dict(reversed(files.items())))
    assert "3760c8c857a0f71e" == Manifest.read(SHIPPED).fingerprint


@pytest.mark.parametrize("newer", ["pooling", "prompts"])
def test_older_artefacts_without_newer_fields_are_read(artefact: Path, newer: str) -> None:
    """A missing field gets its default; if that changes its value, the fingerprint does not match."""
    edit(artefact, {f"spec/{newer}": ...})
    assert describe(artefact) == Manifest.read(artefact)

    with_cls_pooling = describe(artefact, spec=dataclasses.replace(MINILM, pooling="cls"))
    with_cls_pooling.write(artefact)
    assert with_cls_pooling == Manifest.read(artefact)
    edit(artefact, {"spec/pooling": ...})
    with pytest.raises(ManifestInvalid, match="fingerprint does not belong"):
        Manifest.read(artefact)
