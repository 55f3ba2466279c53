"""The steps from checkpoint to artefact, in order. The destination is written only if all steps succeed."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ov_minilm._version import __version__
from ov_minilm.artefact.drift_record import Drift, Gate, gate, summarize
from ov_minilm.artefact.golden import TEXT, Golden
from ov_minilm.artefact.manifest import (
    FORMAT,
    GRAPH,
    NAME,
    SHIPPED,
    TOKENIZER,
    WEIGHTS,
    Manifest,
    Recipe,
    file_facts,
    fingerprint,
)
from ov_minilm.convert import calibrate, check, graph, outliers, quiet, scales
from ov_minilm.convert.source import Checkpoint
from ov_minilm.drift.evaluation import Evaluation, read_texts
from ov_minilm.drift.scores import measure, memoize
from ov_minilm.errors import DriftTooLarge, TruncationWarning
from ov_minilm.runtime.backend import ov
from ov_minilm.runtime.embedder import Embedder
from ov_minilm.runtime.plan import Kernels
from ov_minilm.runtime.tokens import Tokens
from ov_minilm.spec import GRIDS, grids

REQUIRED_MODULES = ("nncf", "sentence_transformers", "safetensors")  # modules of the `convert` extra
TOOLS = ("openvino", "nncf", "sentence-transformers", "transformers", "torch", "tokenizers", "safetensors")

Say = Callable[[str], None]


def require_installed(*modules: str) -> None:
    """Raise ImportError for a module that is missing, before anything is downloaded or computed."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"{name} is not installed", name=name)


def build_fp32(checkpoint: Checkpoint, out: Path, *, say: Say) -> Manifest:
    """Write OUT/fp32 only, the reference for the model in the package; needs no torch and no `convert` extra.

    Raises:
        ValueError: the weights do not reproduce the golden vector of the model in the package.
        RuntimeError: the FP32 graph does not reproduce the golden vector.
        OSError: the destination cannot be written.
    """
    known = Manifest.read(SHIPPED)
    if checkpoint.source.weights_sha256 != known.source.weights_sha256:
        raise ValueError(
            f"{checkpoint.source.name} is not {known.spec.name}; convert it without --fp32-only (needs torch)"
        )
    step = _Steps(say)
    with _staging(out) as staging:
        fp32 = staging / "fp32"
        with step("build the FP32 graph"):
            manifest = _write_fp32(checkpoint, fp32, known.golden)
        with (
            step("check against the golden vector") as note,
            Embedder.open(fp32, precision="f32") as embedder,
        ):
            vector = known.golden.array()[None]
            vector /= np.linalg.norm(vector)  # the golden vector is stored in float16
            found = embedder.encode([known.golden.text], progress=False)
            note(_cosine(check.require_equal("sentence-transformers", vector, found)))
        _sync(fp32)
        publish(fp32, out / "fp32")
    return manifest


def build(
    checkpoint: Checkpoint,
    out: Path,
    *,
    calibration: Path = calibrate.CALIBRATION,
    evaluation: Evaluation,
    limits: Gate,
    say: Say,
) -> Manifest:
    """Write OUT/fp32 and OUT/int8 and return the INT8 manifest.

    Raises:
        DriftTooLarge: the INT8 artefact exceeds a drift limit; files at the destination are unchanged.
        OSError: the destination cannot be written; raised before the work starts.
        ValueError: too few calibration texts.
    """
    step = _Steps(say)
    texts = read_texts(calibration)
    if len(texts) < calibrate.MIN_TEXTS:
        raise ValueError(
            f"{calibration}: {len(texts)} texts; calibration needs at least {calibrate.MIN_TEXTS}"
        )
    quiet.no_telemetry()
    if not checkpoint.normalized:
        say(
            "  the vectors of the source are not normalized; those of the artefacts are, and have "
            "the same directions"
        )
    with _staging(out) as staging, warnings.catch_warnings():
        # all models of a comparison must cut texts at the same length
        warnings.simplefilter("ignore", TruncationWarning)
        fp32, int8 = staging / "fp32", staging / "int8"
        int8.mkdir()
        (int8 / TOKENIZER).write_bytes(checkpoint.tokenizer.encode())
        tokens = Tokens.open(int8 / TOKENIZER, checkpoint.spec)
        samples = calibrate.samples(texts, tokens)

        source = "sentence-transformers" if checkpoint.onnx is None else "the ONNX graph"
        with step(f"encode with {source}"), quiet.silence():
            text = _golden_text(tokens)
            original = check.original_vectors(checkpoint, [text, *texts], tokens)
            golden = Golden.of(text, tokens.windows([text])[0][0].tolist(), original[0])
        with step("build the FP32 graph"):
            _write_fp32(checkpoint, fp32, golden)
        with step(f"check against {source}") as note, Embedder.open(fp32, precision="f32") as reference:
            vectors = reference.encode(texts, progress=False)
            note(_cosine(check.require_equal(source, original[1:], vectors)))

        with step("find outlier channels") as note:
            plain = ov.Core().read_model(fp32 / GRAPH)
            channels = [outliers.select(peak) for peak in outliers.peaks(plain, samples)]
            outliers.split(plain, channels)
            note(f"{sum(map(len, channels))} of {len(channels) * checkpoint.spec.intermediate} stay in float")
        with step("quantize with NNCF") as note, quiet.silence():
            quantized = calibrate.quantize(plain, samples)
            note(f"{len(samples)} calibration texts")
        with step("scales: pair-safe, and exact in BF16") as note:
            layers, tables = scales.apply(quantized, plain), scales.apply_to_tables(quantized, plain)
            note(f"{layers} layers, {tables} tables")
            graph.save(quantized, int8 / GRAPH)
        recipe = calibrate.recipe(calibration, len(texts), sum(map(len, channels)), scales.PAIR_LIMIT)
        _manifest(checkpoint, int8, recipe, limits, (), golden).write(int8)

        if evaluation.empty:
            say("  no evaluation files: drift is measured on the calibration texts, without STS")
            evaluation = Evaluation(collections={calibration.stem: texts})
        with Embedder.open(fp32, precision="f32") as reference:
            drifts = tuple(_drifts(reference, int8, evaluation, checkpoint.spec.max_tokens, step))
        # If BF16 exceeds the limits, the build is still accepted: precision "auto" then does not choose BF16.
        broken = gate([drift for drift in drifts if drift.precision == "f32"], limits)
        if broken:
            raise DriftTooLarge(broken)
        manifest = _manifest(checkpoint, int8, recipe, limits, drifts, golden)
        with step(f"write {out / 'fp32'} and {out / 'int8'}"):
            manifest.write(int8)
            for folder in (fp32, int8):
                _sync(folder)
                publish(folder, out / folder.name)
    return manifest


def _write_fp32(checkpoint: Checkpoint, folder: Path, golden: Golden) -> Manifest:
    folder.mkdir()
    (folder / TOKENIZER).write_bytes(checkpoint.tokenizer.encode())
    graph.save(graph.pack(checkpoint.tensors, checkpoint.spec, checkpoint.epsilon), folder / GRAPH)
    manifest = _manifest(checkpoint, folder, None, None, (), golden)
    manifest.write(folder)
    return manifest


def _golden_text(tokens: Tokens) -> str:
    """Return the first words of the golden text that fit into the narrowest grid with this tokenizer."""
    words, narrowest = TEXT.split(), min(grid.width for grid in GRIDS)
    texts = (" ".join(words[:count]) for count in range(len(words), -1, -1))
    return next(text for text in texts if len(tokens.windows([text])[0][0]) <= narrowest)


def _drifts(
    reference: Embedder, int8: Path, evaluation: Evaluation, max_tokens: int, step: _Steps
) -> Iterator[Drift]:
    """Yield the drift with each precision and lowering that this CPU supports."""
    expected = memoize(partial(reference.encode, progress=False))
    precisions = ["f32", "bf16"] if Kernels.probe(ov.Core()).native_bf16 else ["f32"]
    for precision in precisions:
        for lowering in ("native", "conv"):
            with (
                step(f"drift, {lowering} {precision}") as note,
                Embedder.open(int8, precision=precision, lowering=lowering) as candidate,  # type: ignore[arg-type]
            ):
                drift = measure(
                    expected,
                    partial(candidate.encode, progress=False),
                    reference.count_tokens,
                    evaluation,
                    precision=precision,
                    lowering=lowering,
                    max_tokens=max_tokens,
                )
                note(", ".join(f"{name} {value:.4f}" for name, value in summarize([drift]).items()))
            yield drift


def _manifest(
    checkpoint: Checkpoint,
    folder: Path,
    recipe: Recipe | None,
    limits: Gate | None,
    drifts: tuple[Drift, ...],
    golden: Golden,
) -> Manifest:
    files = {name: file_facts(folder / name) for name in (GRAPH, WEIGHTS, TOKENIZER)}
    return Manifest(
        format=FORMAT,
        weights="f32" if recipe is None else "int8",
        spec=checkpoint.spec,
        source=checkpoint.source,
        recipe=recipe,
        grids=grids(checkpoint.spec.max_tokens),
        tools={"ov-minilm": __version__}
        | {tool: version(tool) for tool in TOOLS if sys.modules.get(tool.replace("-", "_"))},
        files=files,
        gate=limits,
        drift=drifts,
        golden=golden,
        fingerprint=fingerprint(checkpoint.spec, files),
    )


class _Steps:
    """Prints a line for each finished step: name, seconds, and remarks."""

    def __init__(self, say: Say) -> None:
        self._say = say

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[Callable[[str], None]]:
        notes: list[str] = []
        started = time.monotonic()
        yield notes.append
        self._say(f"  {name:<40} {time.monotonic() - started:6.1f} s  {' '.join(notes)}".rstrip())


def _cosine(value: float) -> str:
    return f"min cosine {value:.7f}"


@contextlib.contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Yield a hidden folder inside `out`, on its file system; it is removed at the end, also after an error.

    The next build in `out` removes the folder of a process that was killed. If the build fails, a folder
    `out` that did not exist before is removed too.
    """
    for name in ("fp32", "int8"):
        if (out / name).exists() and not (out / name / NAME).is_file():
            raise FileExistsError(f"{out / name} exists and is not an artefact; choose another folder")
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob(".building-*-*"):
        pid = stale.name.split("-")[1]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(stale)
    staging = Path(tempfile.mkdtemp(prefix=f".building-{os.getpid()}-", dir=out))
    try:
        yield staging
    finally:
        shutil.rmtree(staging)
        if new and not any(out.iterdir()):
            out.rmdir()


def _alive(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # on Windows os.kill(pid, 0) would send Ctrl-C, so stale folders are not removed there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync(folder: Path) -> None:
    """Flush the files of a folder to disk, before the folder is renamed."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def publish(new: Path, target: Path) -> None:
    """Move the folder `new` to `target`; an existing `target` is moved to `new`.

    On Linux both are exchanged in one step. On other systems, `target` is missing for a moment between two
    renames.
    """
    if not target.exists():
        new.rename(target)
    elif sys.platform == "linux" and _exchange(new, target):
        pass
    else:
        aside = new.with_name(f"{new.name}.previous")
        target.rename(aside)
        try:
            new.rename(target)
        except OSError:
            aside.rename(target)
            raise


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths atomically with renameat2(2); False if the file system or libc lacks it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    at_cwd, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(libc.renameat2(at_cwd, os.fsencode(a), at_cwd, os.fsencode(b), exchange) == 0)
