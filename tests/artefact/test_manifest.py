"""The artefact is a contract: a manifest that is not exact, or files that do not match it, are refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
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
    FileFacts,
    Manifest,
    Recipe,
    Source,
    file_facts,
    fingerprint,
)
from ov_minilm.errors import FileMismatch, ManifestInvalid
from ov_minilm.spec import MINILM, Grid

CONTENT = {GRAPH: b"<net/>", WEIGHTS: bytes(range(256)), TOKENIZER: b'{"version": "1.0"}'}

LONG = Golden.of("", [], np.full(385, 385**-0.5, np.float32)).vector

Edit = Callable[[dict[str, Any]], object]


def describe(folder: Path) -> Manifest:
    """Return a manifest, every field in use, of the three files in the folder."""
    files = {name: file_facts(folder / name) for name in CONTENT}
    return Manifest(
        format=1,
        weights="int8",
        spec=MINILM,
        source=Source("naïve/model", "0.1.0", "ab" * 32),
        recipe=Recipe(0.8, "minmax", 5, 128, "calibration.txt", "cd" * 32, 387),
        grids=(Grid(2, 256), Grid(1, 256)),
        tools={"openvino": "2026.1"},
        files=files,
        gate=Gate(0.9975, 0.95, 0.1),
        drift=(
            Drift(
                "f32",
                "conv",
                cosine={"1-64": Cosine(100, 0.999, 0.998, 0.99)},
                overlap={"passages": 0.97},
                sts={"stsb_dev": Sts(1500, 86.7, 86.6, 85.1, 85.0, -0.2, 0.1)},
            ),
        ),
        golden=Golden.of("a text", [101, 1037, 102], np.full(384, 384**-0.5, np.float32)),
        fingerprint=fingerprint(MINILM, files),
    )


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    """Write a complete folder: three small files and their manifest."""
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    describe(tmp_path).write(tmp_path)
    return tmp_path


def edit(folder: Path, change: Edit) -> None:
    """Change the JSON of the manifest in place."""
    raw = json.loads((folder / NAME).read_text(encoding="utf-8"))
    change(raw)
    (folder / NAME).write_text(json.dumps(raw), encoding="utf-8")


def test_what_was_written_is_read(artefact: Path) -> None:
    """A manifest comes back equal, tuples and nested records included."""
    assert describe(artefact) == Manifest.read(artefact)


def test_an_fp32_artefact_has_no_recipe_and_no_gate(artefact: Path) -> None:
    """What may be None stays None."""
    plain = dataclasses.replace(describe(artefact), weights="f32", recipe=None, gate=None, drift=())

    plain.write(artefact)

    assert plain == Manifest.read(artefact)


def test_the_file_is_the_json_of_the_manifest(artefact: Path) -> None:
    """The file is UTF-8 for people to read: indented, letters as they are, one newline at the end."""
    text = (artefact / NAME).read_text(encoding="utf-8")

    assert describe(artefact).to_json() + "\n" == text
    assert '\n    "name": "naïve/model",\n' in text


def test_an_int_serves_as_float(artefact: Path) -> None:
    """JSON writers drop the point of 1.0; the value read is a float all the same."""
    edit(artefact, lambda raw: raw["gate"].update(cosine_mean=1))

    gate = Manifest.read(artefact).gate

    assert gate is not None
    assert (1.0, float) == (gate.cosine_mean, type(gate.cosine_mean))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda raw: raw.update(extra=1), "manifest: missing [], unknown ['extra']"),
        (lambda raw: raw.pop("tools"), "manifest: missing ['tools'], unknown []"),
        (lambda raw: raw["spec"].pop("heads"), "manifest.spec: missing ['heads'], unknown []"),
        (lambda raw: raw["grids"][1].update(deep=1), "manifest.grids[1]: missing [], unknown ['deep']"),
        (
            lambda raw: raw["drift"][0]["sts"]["stsb_dev"].pop("pairs"),
            "manifest.drift[0].sts.stsb_dev: missing",
        ),
        (
            lambda raw: raw["recipe"].update(alpha=raw["recipe"].pop("smooth_quant_alpha")),
            "unknown ['alpha']",
        ),
        (lambda raw: raw["spec"].update(dim="384"), "manifest.spec.dim: str, expected int"),
        (lambda raw: raw["spec"].update(dim=384.0), "manifest.spec.dim: float, expected int"),
        (lambda raw: raw["spec"].update(layers=True), "manifest.spec.layers: bool, expected int"),
        (lambda raw: raw["gate"].update(overlap=True), "manifest.gate.overlap: bool, expected float"),
        (lambda raw: raw["gate"].update(overlap="0.95"), "manifest.gate.overlap: str, expected float"),
        (lambda raw: raw["tools"].update(openvino=2026), "manifest.tools.openvino: int, expected str"),
        (lambda raw: raw.update(grids={}), "manifest.grids: dict, expected list"),
        (lambda raw: raw.update(tools=[]), "manifest.tools: list, expected dict"),
        (lambda raw: raw.update(source=None), "manifest.source: NoneType, expected dict"),
        (lambda raw: raw.update(recipe=[]), "manifest.recipe: list, expected dict"),
        (lambda raw: raw.update(weights="int4"), "manifest.weights: 'int4', expected one of ('int8', 'f32')"),
        (lambda raw: raw.update(format=True), "manifest.format: bool, expected int"),
        (lambda raw: raw.update(format=2), "format 2, this version reads 1"),
        (lambda raw: raw.pop("format"), "format None, this version reads 1"),
        (lambda raw: raw["files"].pop(WEIGHTS), "files: expected model.xml, model.bin, tokenizer.json"),
        (lambda raw: raw["files"].update({"../x": raw["files"][GRAPH]}), "files: expected model.xml"),
        (lambda raw: raw.pop("golden"), "manifest: missing ['golden'], unknown []"),
        (lambda raw: raw["golden"].update(vector="!"), "golden.vector: no base64 of float16"),
        (lambda raw: raw["golden"].update(vector=""), "golden.vector: its length is not 1"),
        (lambda raw: raw["golden"].update(vector="ADw="), "golden.vector: 1 components, expected 384"),
        (
            lambda raw: raw["golden"].update(ids=[101] * 257),
            "golden.ids: 257 tokens, the narrowest grid holds",
        ),
        (lambda raw: raw["golden"].update(ids=[101]), "golden.ids: 1 tokens"),
        (lambda raw: raw["grids"][0].update(rows=0), "grid 0x256 with 32 slots; the graph has 32 slots"),
        (lambda raw: raw["grids"][0].update(slots=31), "grid 2x256 with 31 slots; the graph has 32"),
        (lambda raw: raw["grids"][0].update(slots=33), "grid 2x256 with 33 slots; the graph has 32"),
        (lambda raw: raw["grids"][1].update(width=1), "grid 1x1 with 32 slots; the graph has 32"),
        (lambda raw: raw["grids"].pop(1), "no single-row grid holds 256 tokens"),
        (lambda raw: raw["grids"].pop(0), "no many-row grid holds 256 tokens"),
        (lambda raw: raw["grids"][0].update(width=255), "no many-row grid holds 256 tokens"),
        (lambda raw: raw["grids"][1].update(width=255), "no single-row grid holds 256 tokens"),
        (lambda raw: raw.update(fingerprint="0" * 16), "fingerprint does not belong to these files"),
        (lambda raw: raw["spec"].update(pooling="max"), "expected one of ('mean', 'cls')"),
        (lambda raw: raw["spec"].update(prompts={"query": 1}), "manifest.spec.prompts.query: int"),
        (lambda raw: raw["spec"].update(dim=768), "fingerprint does not belong to these files"),
    ],
)
def test_a_manifest_that_is_not_exactly_right_is_refused(artefact: Path, change: Edit, reason: str) -> None:
    """Unknown is as wrong as missing, types are exact, and the error says where."""
    edit(artefact, change)

    with pytest.raises(ManifestInvalid) as caught:
        Manifest.read(artefact)

    assert artefact / NAME == caught.value.path
    assert reason in caught.value.reason


def test_the_smallest_that_is_allowed_is_read(artefact: Path) -> None:
    """A grid of one row of two tokens beside those that hold any text, and a golden text that fills it."""
    small = [{"rows": 1, "width": 2, "slots": 32}, {"rows": 2, "width": 256, "slots": 32}]
    edit(artefact, lambda raw: raw.update(grids=[*small, {"rows": 1, "width": 257, "slots": 32}]))
    edit(artefact, lambda raw: raw["golden"].update(ids=[101, 102]))

    found = Manifest.read(artefact)

    assert (Grid(1, 2), Grid(2, 256), Grid(1, 257)) == found.grids
    assert (101, 102) == found.golden.ids


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b'{"format": 1}\xff', "can't decode byte 0xff"),
        (b"[]", "manifest: list, expected dict"),
        (b"null", "manifest: NoneType, expected dict"),
    ],
)
def test_what_is_not_a_json_object_is_refused(artefact: Path, content: bytes, reason: str) -> None:
    """A cut or foreign file never gives a half-filled manifest."""
    (artefact / NAME).write_bytes(content)

    with pytest.raises(ManifestInvalid) as caught:
        Manifest.read(artefact)

    assert reason in caught.value.reason


def test_a_folder_without_manifest_is_no_artefact(artefact: Path) -> None:
    """A folder that was never finished is refused with the command that writes one."""
    (artefact / NAME).unlink()

    with pytest.raises(
        ManifestInvalid, match="not found; is this a folder written by `ov-minilm convert`"
    ) as caught:
        Manifest.read(artefact)

    assert artefact / NAME == caught.value.path


def test_a_file_is_no_folder(artefact: Path) -> None:
    """The path of the graph instead of its folder is an invalid manifest too, not a bare OSError."""
    with pytest.raises(ManifestInvalid):
        Manifest.read(artefact / GRAPH)


def flip(path: Path) -> None:
    """Change the lowest bit of the middle byte."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    """Drop the last byte."""
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize(
    ("damage", "found"),
    [(flip, "sha256 "), (truncate, " bytes"), (Path.unlink, "no file")],
    ids=["flipped", "truncated", "missing"],
)
def test_a_damaged_file_is_refused_by_name(
    artefact: Path, name: str, damage: Callable[[Path], None], found: str
) -> None:
    """One changed byte, one byte less or no file: the error carries the path and what was found."""
    damage(artefact / name)

    with pytest.raises(FileMismatch) as caught:
        Manifest.read(artefact)

    assert artefact / name == caught.value.path
    assert found in caught.value.found
    assert caught.value.expected != caught.value.found


@pytest.mark.parametrize("name", CONTENT)
def test_the_fingerprint_changes_with_every_file(artefact: Path, name: str) -> None:
    """Other bytes are another artefact, and a manifest that keeps the old fingerprint is refused."""
    before = describe(artefact)
    flip(artefact / name)
    after = describe(artefact)

    assert before.fingerprint != after.fingerprint
    dataclasses.replace(after, fingerprint=before.fingerprint).write(artefact)
    with pytest.raises(ManifestInvalid, match="fingerprint"):
        Manifest.read(artefact)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(MINILM)])
def test_the_fingerprint_changes_with_every_fact_of_the_spec(artefact: Path, field: str) -> None:
    """The spec decides the vectors as much as the files do."""
    change: dict[str, Any] = {field: "other" if field == "name" else 7}
    files = describe(artefact).files

    assert fingerprint(MINILM, files) != fingerprint(dataclasses.replace(MINILM, **change), files)


@pytest.mark.parametrize("later", ["pooling", "prompts"])
def test_a_fact_that_came_later_may_be_missing(artefact: Path, later: str) -> None:
    """An artefact from before the fact was in the spec is read as what it was, under its own fingerprint."""
    edit(artefact, lambda raw: raw["spec"].pop(later))

    assert describe(artefact) == Manifest.read(artefact)


def test_a_fact_that_is_not_the_default_may_not_be_missing(artefact: Path) -> None:
    """A manifest that lost its pooling is not taken for one with mean pooling."""
    spec = dataclasses.replace(MINILM, pooling="cls")
    manifest = describe(artefact)
    cls = dataclasses.replace(manifest, spec=spec, fingerprint=fingerprint(spec, manifest.files))
    cls.write(artefact)
    edit(artefact, lambda raw: raw["spec"].pop("pooling"))

    with pytest.raises(ManifestInvalid, match="fingerprint does not belong"):
        Manifest.read(artefact)


def test_the_shipped_artefact_keeps_its_fingerprint() -> None:
    """Facts added to the spec change nothing for indexes that were built with the model in the package."""
    assert "3760c8c857a0f71e" == Manifest.read(SHIPPED).fingerprint


def test_the_fingerprint_does_not_depend_on_the_order_of_files(artefact: Path) -> None:
    """Sixteen hexadecimal digits, the same however the files are listed."""
    files = describe(artefact).files
    found = fingerprint(MINILM, dict(reversed(files.items())))

    assert fingerprint(MINILM, files) == found
    assert len(found) == 16
    assert int(found, 16) >= 0


def test_a_file_is_measured_in_bytes_and_sha256(tmp_path: Path) -> None:
    """The hash is the plain SHA-256 that `sha256sum` prints."""
    (tmp_path / "abc").write_bytes(b"abc")

    expected = FileFacts(3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    assert expected == file_facts(tmp_path / "abc")
