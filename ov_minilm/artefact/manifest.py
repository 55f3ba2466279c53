"""manifest.json: the model, origin, recipe, drift and file hashes of an artefact, as frozen dataclasses.

Unknown and missing keys are errors, and every file must match its hash. Only fields of the spec with a
default may be missing: artefacts of earlier versions do not have them. The manifest is written last, so a
folder without one is incomplete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ov_minilm.artefact.drift_record import Drift, Gate
from ov_minilm.artefact.golden import Golden
from ov_minilm.errors import FileMismatch, ManifestInvalid
from ov_minilm.spec import SLOTS, Grid, ModelSpec

NAME = "manifest.json"
GRAPH, WEIGHTS, TOKENIZER = "model.xml", "model.bin", "tokenizer.json"
FORMAT = 1
SHIPPED = Path(__file__).parent.parent / "model"  # folder of the artefact in the package


@dataclass(frozen=True, slots=True)
class Source:
    """The checkpoint that was converted."""

    name: str
    revision: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """How FP32 became INT8."""

    smooth_quant_alpha: float
    activation_range: str  # how the range of an activation is computed over the calibration texts
    float_channels: int  # GELU channels of all feed-forward layers that stay in float
    pair_limit: int  # upper bound of |w[2k]| + |w[2k + 1]| if both weights have the same sign
    calibration: str
    calibration_sha256: str
    calibration_texts: int


@dataclass(frozen=True, slots=True)
class FileFacts:
    """The size and hash that a file of the artefact must have."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of manifest.json."""

    format: int
    weights: Literal["int8", "f32"]
    spec: ModelSpec
    source: Source
    recipe: Recipe | None  # how INT8 was made; None for FP32
    grids: tuple[Grid, ...]
    tools: dict[str, str]
    files: dict[str, FileFacts]
    gate: Gate | None
    drift: tuple[Drift, ...]
    golden: Golden
    fingerprint: str

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Parse folder/manifest.json, then check the size and hash of every file it lists.

        Raises:
            ManifestInvalid: no manifest, not JSON, an unknown or missing key, a wrong type or format.
            FileMismatch: a file is missing, truncated or changed.
        """
        path = folder / NAME
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ManifestInvalid(
                path, "not found; is this a folder written by `ov-minilm convert`?"
            ) from None
        except OSError as error:
            raise ManifestInvalid(path, str(error)) from error
        except ValueError as error:
            raise ManifestInvalid(path, f"not JSON in UTF-8: {error}") from error
        if isinstance(raw, dict) and raw.get("format") != FORMAT:
            raise ManifestInvalid(path, f"format {raw.get('format')!r}, this version reads {FORMAT}")
        try:
            manifest: Manifest = _parse(cls, raw, "manifest")
        except ValueError as error:
            raise ManifestInvalid(path, str(error)) from None
        if manifest.files.keys() != {GRAPH, WEIGHTS, TOKENIZER}:
            raise ManifestInvalid(path, f"files: expected {GRAPH}, {WEIGHTS}, {TOKENIZER}")
        _check_grids(path, manifest.grids, manifest.spec)
        for name, facts in manifest.files.items():
            check_file(folder / name, facts)
        if manifest.fingerprint != fingerprint(manifest.spec, manifest.files):
            raise ManifestInvalid(path, "fingerprint does not belong to these files")
        _check_golden(path, manifest)
        return manifest

    def write(self, folder: Path) -> None:
        """Write folder/manifest.json; the last step of a build."""
        (folder / NAME).write_text(self.to_json() + "\n", encoding="utf-8", newline="\n")

    def to_json(self) -> str:
        """Return the exact text of the file, without the final newline."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)


def _check_grids(path: Path, grids: tuple[Grid, ...], spec: ModelSpec) -> None:
    """Raise ManifestInvalid for grids that the graph or the packing cannot use."""
    for grid in grids:
        if grid.rows < 1 or grid.width < 2 or grid.slots != SLOTS:
            raise ManifestInvalid(
                path, f"grid {grid} with {grid.slots} slots; the graph has {SLOTS} slots a row"
            )
    for kind, widths in (
        ("single-row", [grid.width for grid in grids if grid.rows == 1]),
        ("many-row", [grid.width for grid in grids if grid.rows > 1]),
    ):
        if max(widths, default=0) < spec.max_tokens:
            raise ManifestInvalid(path, f"no {kind} grid holds {spec.max_tokens} tokens")


def _check_golden(path: Path, manifest: Manifest) -> None:
    """Raise ManifestInvalid for a golden vector of another size, or a text that does not fit every grid."""
    try:
        components = len(manifest.golden.array())
    except ValueError as error:
        raise ManifestInvalid(path, str(error)) from None
    if components != manifest.spec.dim:
        raise ManifestInvalid(path, f"golden.vector: {components} components, expected {manifest.spec.dim}")
    tokens, width = len(manifest.golden.ids), min(grid.width for grid in manifest.grids)
    if not 2 <= tokens <= width:
        raise ManifestInvalid(path, f"golden.ids: {tokens} tokens, the narrowest grid holds 2 to {width}")


def file_facts(path: Path) -> FileFacts:
    """Return a file's size and SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return FileFacts(file.tell(), digest.hexdigest())


def check_file(path: Path, expected: FileFacts) -> None:
    """Raise FileMismatch for a file that is missing, truncated or changed."""
    if not path.is_file():
        raise FileMismatch(path, f"{expected.bytes} bytes", "no file")
    actual = file_facts(path)
    if actual.bytes != expected.bytes:
        raise FileMismatch(path, f"{expected.bytes} bytes", f"{actual.bytes} bytes")
    if actual.sha256 != expected.sha256:
        raise FileMismatch(path, f"sha256 {expected.sha256[:16]}…", f"sha256 {actual.sha256[:16]}…")


def fingerprint(spec: ModelSpec, files: Mapping[str, FileFacts]) -> str:
    """Return 16 hexadecimal digits of a hash of spec, graph, weights and tokenizer.

    Fields of the spec with their default value are not hashed, so that an artefact that is older than such
    a field keeps its fingerprint.
    """
    defaults = _defaults(ModelSpec)
    hashed_fields = {
        key: value for key, value in dataclasses.asdict(spec).items() if value != defaults.get(key)
    }
    facts = {"spec": hashed_fields, "files": {name: files[name].sha256 for name in sorted(files)}}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _defaults(kind: type[Any]) -> dict[str, Any]:
    """Return the default values of a dataclass, by field."""
    made = {f.name: f.default_factory() for f in dataclasses.fields(kind) if callable(f.default_factory)}
    given = {f.name: f.default for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}
    return made | given


def _parse(kind: Any, raw: Any, where: str) -> Any:
    """Turn JSON values into a value of type `kind`; raise ValueError for other keys and types."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if raw is None else _parse(next(a for a in args if a is not type(None)), raw, where)
    if origin is Literal:
        if raw not in args:
            raise ValueError(f"{where}: {raw!r}, expected one of {args}")
        return raw
    if origin is tuple:
        _expect(list, raw, where)
        return tuple(_parse(args[0], item, f"{where}[{i}]") for i, item in enumerate(raw))
    if origin is dict:
        _expect(dict, raw, where)
        return {key: _parse(args[1], item, f"{where}.{key}") for key, item in raw.items()}
    if dataclasses.is_dataclass(kind):
        _expect(dict, raw, where)
        all_fields = {field.name for field in dataclasses.fields(kind)}
        required = all_fields - _defaults(kind).keys() if kind is ModelSpec else all_fields
        if not required <= raw.keys() <= all_fields:
            found = {"missing": required - raw.keys(), "unknown": raw.keys() - all_fields}
            problems = (f"{problem} {', '.join(sorted(names))}" for problem, names in found.items() if names)
            raise ValueError(f"{where}: {'; '.join(problems)}")
        hints = typing.get_type_hints(kind)
        return kind(**{name: _parse(hints[name], raw[name], f"{where}.{name}") for name in raw})  # type: ignore[operator]  # a dataclass
    if kind is float and type(raw) is int:
        return float(raw)
    _expect(kind, raw, where)
    return raw


def _expect(kind: type, raw: Any, where: str) -> None:
    """Raise ValueError unless the type is exactly `kind`: bool is not int here."""
    if type(raw) is not kind:
        raise ValueError(f"{where}: {type(raw).__name__}, expected {kind.__name__}")
