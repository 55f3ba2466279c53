"""The main path measured on every CPU path of this machine: accuracy, speed, start-up, reproducible bits.

INT8 and FP32 run in turn in one process, so a machine that slows down slows both; ratios are of pairs.
Each CPU path is a process of its own, because ONEDNN_MAX_CPU_ISA is read once.

    python bench/main_path.py            all paths, into bench/results/main_path-*.json
    python bench/main_path.py --path amx one path, to stdout
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ov_minilm import Embedder, PrecisionUnavailable, TruncationWarning
from ov_minilm.artefact.drift_record import Gate, gate
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.bench import machine
from ov_minilm.drift.evaluation import Evaluation
from ov_minilm.drift.evaluation import find as find_evaluation
from ov_minilm.drift.scores import measure
from ov_minilm.runtime.backend import ops, ov
from ov_minilm.runtime.lowering import linear_layers
from ov_minilm.runtime.plan import Kernels
from ov_minilm.spec import FloatArray

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench/results"
GOLDEN = ROOT / "tests/golden"
SINGLE = "A man in a red hat is playing a guitar on stage"  # 14 tokens
ROUNDS = 7


def main() -> None:
    """Measure one path, or all of them in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--fp32", type=Path, default=ROOT / "out/fp32", help="the FP32 artefact to compare with"
    )
    parser.add_argument("--path", choices=machine.PATHS, help="measure this path in this process")
    parser.add_argument("--vectors", type=Path, help="where to leave the INT8 vectors of one path")
    arguments = parser.parse_args()
    if arguments.path:
        json.dump(measure_path(arguments.fp32, arguments.vectors), sys.stdout)
        return

    flags = machine.facts()["isa"]
    paths: dict[str, Any] = {}
    vectors: dict[str, FloatArray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, limit in machine.PATHS.items():
            if limit.flag not in flags:
                print(f"{name}: this machine has no {limit.flag}", file=sys.stderr)
                continue
            print(f"{name}: measuring", file=sys.stderr)
            path = Path(folder) / f"{name}.npy"
            done = subprocess.run(
                [sys.executable, __file__, "--path", name, "--fp32", arguments.fp32, "--vectors", path],
                env={**os.environ, **limit.environment},
                stdout=subprocess.PIPE,
                check=True,
            )
            paths[name] = json.loads(done.stdout)
            vectors[name] = np.load(path)
    for name, mine in vectors.items():
        cosines = (mine * vectors["avx2"]).sum(1, dtype=np.float64)
        paths[name]["cosine_to_avx2"] = {"mean": round(cosines.mean(), 6), "min": round(cosines.min(), 5)}
    result = {"machine": machine.facts(), "artefact": Manifest.read(SHIPPED).fingerprint, "paths": paths}
    output = RESULTS / f"main_path-{machine.own_path(flags)}.json"
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(output.relative_to(ROOT), file=sys.stderr)


def measure_path(fp32_folder: Path, vectors: Path | None) -> dict[str, Any]:
    """Measure everything on the CPU path of this process."""
    warnings.simplefilter("ignore", TruncationWarning)
    evaluation = find_evaluation([], [])
    if "stsb_test" not in evaluation.pairs or "passages" not in evaluation.collections:
        raise SystemExit("set OV_MINILM_STSB to a folder with stsb_dev.tsv, stsb_test.tsv and passages.txt")
    sentences = evaluation.pairs["stsb_test"].left + evaluation.pairs["stsb_test"].right
    with Embedder.open(fp32_folder, precision="f32") as fp32, Embedder.open() as int8:
        passages = [
            text
            for text, tokens in zip(
                evaluation.collections["passages"],
                fp32.count_tokens(evaluation.collections["passages"]),
                strict=True,
            )
            if tokens > 128
        ]
        if vectors:
            with Embedder.open(precision="f32") as plain:  # BF16 differs by its own rounding
                np.save(vectors, plain.encode(sentences + evaluation.collections["passages"]))
        return {
            "info": int8.info.as_dict(),
            "kernels": {"int8": Kernels.probe(ov.Core()).int8, "fp32": sorted(fp32_kernels(fp32))},
            "fp32_max_abs_error": fp32_error(fp32),
            "drift": drift(fp32, int8, evaluation),
            "short": throughput(fp32, int8, sentences),
            "long": throughput(fp32, int8, passages[:200]),
            "single": latency(fp32, int8),
            "fp32_within_isa": within_isa(fp32_folder, int8, sentences),
            "packing": packing(int8, sentences),
            "startup": startup(),
            "different_bits": different_bits(sentences[:300] + passages[:40]),
        }


def fp32_error(fp32: Embedder) -> float:
    """Largest difference of any component to sentence-transformers, texts of 2 to 600 tokens."""
    texts = json.loads((GOLDEN / "texts.json").read_text(encoding="utf-8"))
    return float(np.abs(fp32.encode(texts) - np.load(GOLDEN / "vectors.npy")).max())


def drift(fp32: Embedder, int8: Embedder, evaluation: Evaluation) -> dict[str, Any]:
    """Drift of the shipped artefact as it runs here, and whether it is within the gate."""
    found = measure(
        partial(fp32.encode, progress=False),
        partial(int8.encode, progress=False),
        fp32.count_tokens,
        evaluation,
        precision=int8.info.precision,
        lowering=int8.info.lowering,
    )
    return {
        "cosine": {name: [cosine.texts, cosine.mean, cosine.min] for name, cosine in found.cosine.items()},
        "overlap": found.overlap,
        "spearman": {name: [sts.spearman_reference, sts.spearman] for name, sts in found.sts.items()},
        "broken": gate([found], Gate()),
    }


def throughput(fp32: Embedder, int8: Embedder, texts: list[str]) -> dict[str, Any]:
    """Texts a second, end to end, in turn; ratios are pair by pair."""
    pairs = interleave(
        [lambda: fp32.encode(texts, progress=False), lambda: int8.encode(texts, progress=False)], ROUNDS
    )
    return {
        "texts": len(texts),
        "tokens": int(np.mean(np.minimum(int8.count_tokens(texts), 256))),
        "fp32_texts_per_s": spread([len(texts) / old for old, _ in pairs]),
        "int8_texts_per_s": spread([len(texts) / new for _, new in pairs]),
        "ratio": spread([old / new for old, new in pairs]),
    }


def latency(fp32: Embedder, int8: Embedder) -> dict[str, Any]:
    """Milliseconds for one text of 14 tokens, in turn, a few calls at a time as a caller would make them."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(40):
        for embedder, mine in zip((fp32, int8), times, strict=True):
            embedder.encode(SINGLE)
            for _ in range(20):
                started = time.perf_counter()
                embedder.encode(SINGLE)
                mine.append(1000 * (time.perf_counter() - started))
    p50 = [float(np.percentile(mine, 50)) for mine in times]
    p95 = [float(np.percentile(mine, 95)) for mine in times]
    return {
        "fp32_ms": {"p50": round(p50[0], 3), "p95": round(p95[0], 3)},
        "int8_ms": {"p50": round(p50[1], 3), "p95": round(p95[1], 3)},
        "ratio": round(p50[0] / p50[1], 3),
    }


def packing(int8: Embedder, texts: list[str]) -> dict[str, Any]:
    """Fill of the grids, and end to end against the engine alone on the same batches, in turn."""
    ids, _ = int8._tokens.encode(texts)
    batches = int8._plan.pack(ids)
    cells = sum(batch.grid.cells for batch in batches)

    def engine() -> None:
        for _ in int8._engine.stream(batches):
            pass

    pairs = interleave([engine, lambda: int8.encode(texts, progress=False)], ROUNDS)
    return {
        "fill": round(sum(batch.used for batch in batches) / cells, 4),
        "end_to_end_share": spread([alone / whole for alone, whole in pairs]),
    }


def within_isa(folder: Path, int8: Embedder, texts: list[str]) -> dict[str, Any] | None:
    """Repeat speed and latency with an FP32 that stays within the path's instruction set.

    OpenVINO runs most FP32 linear layers on MLAS, which ignores ONEDNN_MAX_CPU_ISA: under a limit, the
    baseline still uses AVX-512 where the machine has it. A Clamp that changes no number keeps a layer off
    MLAS. Only measured under a limit.
    """
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL") == "ALL":
        return None
    with Embedder.open(folder, precision="f32") as fp32:
        for node, _ in list(linear_layers(fp32._engine._model)):
            readers = list(node.output(0).get_target_inputs())
            add = readers[0].get_node()
            last = add if len(readers) == 1 and add.get_type_name() == "Add" else node
            readers = list(last.output(0).get_target_inputs())
            clamped = ops.clamp(last, -1e30, 1e30)
            for reader in readers:
                reader.replace_source_output(clamped.output(0))
        fp32._engine.close()  # what is compiled has no clamps
        return {
            "short": throughput(fp32, int8, texts),
            "single": latency(fp32, int8),
            "kernels": sorted(fp32_kernels(fp32)),
        }


def fp32_kernels(fp32: Embedder) -> set[str]:
    """Name the kernels that the FP32 linear layers of the widest batch run on."""
    grid = fp32._manifest.grids[0]
    engine = fp32._engine
    model = engine._compile(grid).get_runtime_model()
    return {
        str(node.get_rt_info()["primitiveType"].value)
        for node in model.get_ordered_ops()
        if str(node.get_rt_info()["layerType"].value).startswith("FullyConnected")
    }


def startup() -> dict[str, Any]:
    """Seconds in new processes: the import, the names, and the first vector."""
    code = {
        "import_package": "import ov_minilm",
        "import_encode": "from ov_minilm import encode",
        "first_vector": "from ov_minilm import encode; encode('one text')",
    }
    runs: dict[str, list[float]] = {name: [] for name in code}
    bare: list[float] = []
    for _ in range(7):
        bare.append(seconds("pass"))
        for name, line in code.items():
            runs[name].append(seconds(line))
    return {"interpreter_s": round(statistics.median(bare), 3)} | {
        f"{name}_s": round(statistics.median(values), 3) for name, values in runs.items()
    }


def different_bits(texts: list[str]) -> dict[str, int]:
    """Count texts whose bits differ alone, shuffled, or with one thread: for each way to run INT8 here."""
    order = np.random.default_rng(0).permutation(len(texts))
    found = {}
    for precision in ("f32", "bf16"):
        for lowering in ("native", "conv"):
            options: dict[str, Any] = {"precision": precision, "lowering": lowering}
            try:
                together = _encode(texts, **options)
            except PrecisionUnavailable:
                continue
            shuffled = _encode([texts[i] for i in order], **options)[np.argsort(order)]
            with Embedder.open(**options) as embedder:
                alone = np.stack([embedder.encode(text) for text in texts])
            one_thread = _encode(texts, threads=1, **options)
            found[f"{lowering} {precision}"] = sum(
                bool((together[i].view(np.int32) != other[i].view(np.int32)).any())
                for other in (shuffled, alone, one_thread)
                for i in range(len(texts))
            )
    return found


def _encode(texts: list[str], **options: Any) -> FloatArray:
    with Embedder.open(**options) as embedder:
        return embedder.encode(texts, progress=False)


def interleave(calls: list[Callable[[], object]], rounds: int) -> list[tuple[float, ...]]:
    """Time the calls in turn; the first round, which compiles and warms, is not counted."""
    found = []
    for _ in range(rounds + 1):
        times: list[float] = []
        for call in calls:
            with stopwatch(times):
                call()
        found.append(tuple(times))
    return found[1:]


@contextmanager
def stopwatch(times: list[float]) -> Iterator[None]:
    """Append the seconds that the block took."""
    started = time.perf_counter()
    yield
    times.append(time.perf_counter() - started)


def seconds(code: str) -> float:
    """Time a new interpreter from start to exit."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def spread(values: list[float]) -> dict[str, float]:
    """Median and the extremes."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


if __name__ == "__main__":
    main()
