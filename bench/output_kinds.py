"""What fewer components and fewer bits cost: against float32 of 384 components, on STS-B and passages.

OV_MINILM_STSB=... python bench/output_kinds.py        into bench/results/output_kinds.json
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ov_minilm import Embedder, TruncationWarning
from ov_minilm.bench import machine
from ov_minilm.drift.evaluation import find
from ov_minilm.drift.scores import neighbour_overlap, spearman
from ov_minilm.runtime.output import Dtype, fixed_ranges, formed
from ov_minilm.spec import FloatArray

RESULT = Path(__file__).parent / "results/output_kinds.json"
DTYPES: tuple[Dtype, ...] = ("float32", "float16", "int8", "binary")  # the unsigned ones hold the same
DIMENSIONS = (384, 256, 128, 64)


def main() -> None:
    """Measure every form and write the result."""
    warnings.simplefilter("ignore", TruncationWarning)
    evaluation = find([], [])
    if "stsb_test" not in evaluation.pairs or "passages" not in evaluation.collections:
        raise SystemExit("set OV_MINILM_STSB to a folder with stsb_dev.tsv, stsb_test.tsv and passages.txt")
    pairs = evaluation.pairs["stsb_test"]
    passages = list(dict.fromkeys(evaluation.collections["passages"]))
    with Embedder.open() as embedder:
        left, right, collection = (embedder.encode(t) for t in (pairs.left, pairs.right, passages))
        artefact = embedder.info.fingerprint
    scores = np.array(pairs.scores)
    rows = []
    for dimensions in DIMENSIONS:
        for dtype in DTYPES:
            whole = formed(collection, dimensions, "float32")
            mine = directions(collection, dimensions, dtype)
            cosines = directions(left, dimensions, dtype) * directions(right, dimensions, dtype)
            rows.append(
                {
                    "dimensions": dimensions,
                    "dtype": dtype,
                    "bytes": formed(collection[:1], dimensions, dtype).nbytes,
                    "spearman": round(100 * spearman(cosines.sum(1), scores), 2),
                    "overlap": round(neighbour_overlap(collection, mine), 4),
                    "overlap_same_dimensions": round(neighbour_overlap(whole, mine), 4),
                    "cosine_min": round(float((whole * mine).sum(1).min()), 5),
                }
            )
    result = {
        "machine": machine.facts(),
        "artefact": artefact,
        "pairs": len(scores),
        "passages": len(passages),
        "clipped": clipped(collection),
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(RESULT, file=sys.stderr)


def directions(texts: FloatArray, dimensions: int, dtype: Dtype) -> FloatArray:
    """Return unit vectors of what is stored, as a search over it compares them; bits stand for 1 and -1."""
    stored = formed(texts, dimensions, dtype)
    if dtype == "binary":
        stored = np.unpackbits(stored.view(np.uint8) ^ np.uint8(128), axis=-1)[:, :dimensions] * 2.0 - 1
    floats = stored.astype(np.float32)
    unit: FloatArray = floats / np.linalg.norm(floats, axis=1, keepdims=True)
    return unit


def clipped(vectors: FloatArray) -> dict[str, Any]:
    """Count what lies beyond the fixed ranges of int8: components, and vectors with any such component."""
    low, high = fixed_ranges(vectors.shape[1])
    beyond = (vectors < low) | (vectors > high)
    return {
        "components_per_million": round(1e6 * float(beyond.mean()), 1),
        "vectors_percent": round(100 * float(beyond.any(1).mean()), 2),
    }


if __name__ == "__main__":
    main()
